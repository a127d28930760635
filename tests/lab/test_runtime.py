"""Whose Python runs: decisions that need no device; the rest is shown on virtual machines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.adb import AdbDevice
from edgequant.devices.local import LocalDevice
from edgequant.devices.protocol import CommandResult, Device
from edgequant.devices.ssh import SshDevice
from edgequant.devices.store import Store
from edgequant.errors import DeviceError, InputError
from edgequant.lab.runtime import Decision, Runtime, choose, decide, deploy
from edgequant.pack import Pack, WantedPack, find_pack
from edgequant.progress import Progress
from tests.beds.sshd import SshServer


def pack(device: Device, runtime: Runtime, python: str | None = None) -> bool:
    return decide(device, runtime, python, WantedPack()).pack


def test_phones_get_the_pack_and_this_host_what_it_has() -> None:
    phone, host = AdbDevice("adb://ABC"), LocalDevice()
    assert pack(phone, "auto")
    assert not pack(phone, "auto", "/data/python")
    assert not pack(phone, "system")
    assert not pack(host, "auto")
    assert pack(host, "pack")


@pytest.mark.ssh
def test_a_board_gets_the_pack_where_it_runs(sshd: SshServer) -> None:
    with SshDevice(sshd.uri, config_path=sshd.config) as device:
        device.open(Deadline(30))
        assert pack(device, "auto") == (os.uname().machine in ("aarch64", "arm64"))
        assert not pack(device, "auto", "/opt/python")
        assert not pack(device, "system")
        assert pack(device, "pack")


def test_when_a_device_does_without() -> None:
    optional, bound = Decision(pack=True, optional=True), Decision(pack=True)
    for code in ("NO_SPACE", "WORK_DIR_NOEXEC", "PACK_NEEDS_LIBRARIES", "PACK_NO_APT", "PACK_REGISTRY"):
        assert optional.does_without(code)
        assert not bound.does_without(code)
    for code in ("LINK_LOST", "PUSH_CORRUPTED", "PACK_NOT_UNPACKED", "PACK_NOT_STARTED", "PACK_ARCH"):
        assert not optional.does_without(code)


class Board(LocalDevice):
    """A board with 64-bit ARM, as far as it tells."""

    @property
    def is_host(self) -> bool:
        return False

    def run(self, *args: object, **kwargs: object) -> CommandResult:
        return CommandResult(0, b"Linux aarch64\n", b"")


def test_who_insists_on_the_pack_does_not_do_without() -> None:
    nothing = WantedPack()
    assert decide(Board(), "auto", None, nothing) == Decision(pack=True, optional=True)
    assert decide(Board(), "pack", None, nothing) == Decision(pack=True)
    assert decide(Board(), "auto", None, WantedPack(mnn="3.6.1")) == Decision(pack=True)
    assert decide(AdbDevice("adb://ABC"), "auto", None, nothing) == Decision(pack=True)
    assert decide(Board(), "system", None, nothing) == Decision(pack=False)


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
