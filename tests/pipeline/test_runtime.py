"""Whose Python runs: decisions that need no device; the rest is shown on virtual machines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.adb import AdbDevice
from edgequant.devices.local import LocalDevice
from edgequant.devices.store import Store
from edgequant.errors import DeviceError
from edgequant.pipeline.runtime import deploy, wants_pack
from edgequant.progress import Progress


def test_phones_get_the_pack_and_boards_what_they_have() -> None:
    phone, host = AdbDevice("adb://ABC"), LocalDevice()
    assert wants_pack(phone, "auto", None)
    assert not wants_pack(phone, "auto", "/data/python")
    assert not wants_pack(phone, "system", None)
    assert not wants_pack(host, "auto", None)
    assert wants_pack(host, "pack", None)


@pytest.mark.skipif(os.uname().machine in ("aarch64", "arm64"), reason="here the pack would run")
def test_another_architecture_is_named(tmp_path: Path) -> None:
    with LocalDevice() as device:
        store = Store(device, str(tmp_path / "work"))
        store.prepare(Deadline(30))
        with pytest.raises(DeviceError) as caught:
            deploy(device, store, Progress())
    assert caught.value.code == "PACK_ARCH"
    assert os.uname().machine in str(caught.value)
    assert "--runtime system" in (caught.value.hint or "")
