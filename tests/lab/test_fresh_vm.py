"""A fresh runner on a virtual phone: the pack's Python, started by the pack's own loader, over adb.

In the gate test_fresh.py has it of this host and over SSH, and test_phone.py runs a model on the phone in one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgequant.lab.session import DeviceOptions, open_session
from edgequant.spec import RunOptions
from tests.beds.models import ModelByName
from tests.beds.vm import Phone
from tests.lab.freshness import knows_nothing_of_what_ran_before

pytestmark = [pytest.mark.nightly, pytest.mark.adb, pytest.mark.arm64, pytest.mark.slow, pytest.mark.timeout(900)]


def test_memory_of_a_model_on_a_phone(
    phone: Phone, generated_model: ModelByName, as_mnn: Callable[..., Path], tmp_path: Path
) -> None:
    small, large = (as_mnn(generated_model(name)) for name in ("conv_cnn", "big_mlp"))
    with open_session(phone.uri, DeviceOptions(), RunOptions(threads=1), log=tmp_path / "runner.log") as session:
        session.own()
        pid = session.runner().hello.pid
        knows_nothing_of_what_ran_before(session, small, large)
        assert session.runner().hello.pid == pid
