"""A link that is lost in the middle of a bench: the device's governor is given back there, where nobody is any more."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from edgequant.jobs.bench import BenchRequest, bench
from edgequant.jobs.laboratory import LaboratoryRequest
from edgequant.judge.verdict import Verdict
from edgequant.lab.session import DeviceOptions
from edgequant.plan.request import Request
from edgequant.spec import RunOptions, Variant
from tests.beds.models import ModelByName
from tests.beds.sshd import ALIAS, SshServer
from tests.device_scripts.trees import Tree
from tests.waiting import eventually


@pytest.mark.ssh
@pytest.mark.nightly
def test_the_governor_is_given_back_over_there(
    generated_model: ModelByName, sshd: SshServer, over_ssh: DeviceOptions, tmp_path: Path
) -> None:
    tree = Tree(tmp_path / "machine")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexport EDGEQUANT_SYSTEM_ROOT={tree.root}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    request = Request(
        generated_model("conv_cnn"), devices=(f"ssh://{ALIAS}",), variants=(Variant.parse("float"),),
        run_dir=tmp_path / "run", options=RunOptions(threads=1), access=replace(over_ssh, python=str(python)),
    )  # fmt: skip
    seen: list[bool] = []

    def cut() -> None:
        seen.append(eventually(lambda: tree.governors() == {"performance"}))
        sshd.kill_sessions()

    thread = threading.Thread(target=cut)
    thread.start()
    laboratory = LaboratoryRequest(governor="performance")
    found = bench(BenchRequest(request, blocks=3, seconds=600.0, redo=0.0, laboratory=laboratory))
    thread.join()
    assert seen == [True]
    assert found.verdict is Verdict.ERROR
    assert eventually(lambda: tree.governors() == {"schedutil"})
