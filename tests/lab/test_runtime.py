"""Whose Python runs: decisions that need no device; the rest is shown on virtual machines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.adb import AdbDevice
from edgequant.devices.local import LocalDevice
from edgequant.devices.ssh import SshDevice
from edgequant.devices.store import Store
from edgequant.errors import DeviceError, InputError
from edgequant.lab.runtime import choose, deploy, wants_pack
from edgequant.pack import Pack, WantedPack, find_pack
from edgequant.progress import Progress
from tests.beds.sshd import SshServer


def test_phones_get_the_pack_and_this_host_what_it_has() -> None:
    phone, host = AdbDevice("adb://ABC"), LocalDevice()
    assert wants_pack(phone, "auto", None)
    assert not wants_pack(phone, "auto", "/data/python")
    assert not wants_pack(phone, "system", None)
    assert not wants_pack(host, "auto", None)
    assert wants_pack(host, "pack", None)


@pytest.mark.ssh
def test_a_board_gets_the_pack_where_it_runs(sshd: SshServer) -> None:
    with SshDevice(sshd.uri, config_path=sshd.config) as device:
        device.open(Deadline(30))
        assert wants_pack(device, "auto", None) == (os.uname().machine in ("aarch64", "arm64"))
        assert not wants_pack(device, "auto", "/opt/python")
        assert not wants_pack(device, "system", None)
        assert wants_pack(device, "pack", None)


@pytest.mark.ssh
@pytest.mark.skipif(os.uname().machine in ("aarch64", "arm64"), reason="here the pack would run")
def test_a_version_that_only_a_pack_could_have(sshd: SshServer, tmp_path: Path) -> None:
    with SshDevice(sshd.uri, config_path=sshd.config) as device:
        device.open(Deadline(30))
        store = Store(device, str(tmp_path / "work"))
        with pytest.raises(DeviceError) as caught:
            choose(device, store, Progress(), runtime="auto", python=None, wanted=WantedPack(mnn="3.5.0"))
    assert caught.value.code == "PACK_NOT_WANTED"
    assert "3.5.0" in caught.value.message


def test_one_pack_at_a_time_and_none_that_is_too_old() -> None:
    for options in ({"mnn": "3.5.0", "pack": "abcdef"}, {"mnn": "3.0.0"}):
        with pytest.raises(InputError) as caught:
            WantedPack(**options)
        assert caught.value.code == "OPTION_INVALID"


@pytest.mark.parametrize("text", ["", "000", "no-such-pack", "../../etc/passwd"])
def test_a_pack_nobody_built(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        find_pack(text, tmp_path)
    assert caught.value.code == "PACK_UNKNOWN"
    assert "edgequant pack build" in (caught.value.hint or "")


@pytest.mark.arm64
def test_a_pack_by_the_beginning_of_its_name(pack: Pack) -> None:
    for text in (pack.sha256[:12], pack.sha256, str(pack.archive)):
        assert find_pack(text).sha256 == pack.sha256


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
