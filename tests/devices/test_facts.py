"""Facts read from what is really there: this host in every shell, over SSH and adb, and emulated."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgequant.deadline import Deadline
from edgequant.devices.adb import AdbDevice
from edgequant.devices.emulated import EmulatedDevice
from edgequant.devices.facts import facts_or_why, read, read_facts
from edgequant.devices.facts_model import FACTS, DeviceFacts
from edgequant.devices.local import LocalDevice
from edgequant.devices.protocol import CommandResult
from edgequant.devices.ssh import SshDevice
from edgequant.errors import DeviceError
from edgequant.pack import Pack
from tests.beds.adb import PROPERTIES, AdbBed
from tests.beds.adb_packages import unpacked
from tests.beds.sshd import SshServer

SHELLS = ["dash", "bash", "mksh", "busybox"]


def soon() -> Deadline:
    return Deadline(60)


def cores_here() -> list[int]:
    """Those that are there, also where some are switched off, which Python does not count."""
    present = Path("/sys/devices/system/cpu/present")
    if not present.exists():
        return list(range(os.cpu_count() or 0))
    parts = [part.partition("-") for part in present.read_text().strip().split(",")]
    return [core for first, _, last in parts for core in range(int(first), int(last or first) + 1)]


def is_this_host(facts: DeviceFacts) -> None:
    """Against what Python says of the same machine."""
    for name in FACTS:
        assert (getattr(facts, name) is None) == bool(facts.why_null.get(name)), name
    uname = os.uname()
    assert (facts.arch, facts.kernel, facts.hostname) == (uname.machine, f"Linux {uname.release}", uname.nodename)
    assert facts.cores == len(cores_here())
    assert facts.ram_mb == psutil.virtual_memory().total >> 20
    assert facts.page_size == resource.getpagesize()
    assert facts.userland_bits == sys.maxsize.bit_length() + 1
    assert facts.abis == [uname.machine]
    assert facts.uptime_s == pytest.approx(time.time() - psutil.boot_time(), abs=60)
    assert facts.clusters is not None
    assert sorted(core for each in facts.clusters for core in each.cores) == cores_here()
    flags = Path("/proc/cpuinfo").read_text()
    for name in facts.features or []:
        assert f" {name}" in flags
    if facts.free_mb is not None:
        assert facts.free_mb <= (facts.storage_mb or 0)


@pytest.mark.parametrize("shell", SHELLS)
def test_this_host_in_every_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    package = {"busybox": "busybox-static"}.get(shell, shell)
    path = shutil.which(shell) or str(unpacked(package) / "bin" / shell)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").symlink_to(path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    before = shutil.disk_usage(tmp_path).free / 1e6
    with LocalDevice() as device:
        facts = read_facts(device, soon(), work_dir=str(tmp_path / "work"))
    after = shutil.disk_usage(tmp_path).free / 1e6  # others may be filling the disk, or clearing it
    is_this_host(facts)
    assert facts.work_dir == str(tmp_path / "work")
    assert not (tmp_path / "work").exists()
    assert min(before, after) * 0.95 <= (facts.free_mb or 0) <= max(before, after) * 1.05
    assert facts.os == platform.freedesktop_os_release()["PRETTY_NAME"]


def test_with_nothing_but_busybox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Applets of a small system, and no other program."""
    busybox = unpacked("busybox-static") / "bin" / "busybox"
    for name in ("sh", "cat", "uname", "dd", "df", "tail", "id", "ls"):
        (tmp_path / name).symlink_to(busybox)
    monkeypatch.setenv("PATH", str(tmp_path))
    with LocalDevice() as device:
        facts = read_facts(device, soon(), work_dir=str(tmp_path / "work"))
    is_this_host(facts)  # the size of a page comes from elsewhere without getconf


def test_nothing_at_all_but_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sh").symlink_to(shutil.which("dash") or unpacked("dash") / "bin" / "dash")
    monkeypatch.setenv("PATH", str(tmp_path))
    with LocalDevice() as device:
        facts = read_facts(device, soon(), work_dir=str(tmp_path / "work"))
    assert facts.uptime_s is not None
    assert facts.arch is None
    assert "not found" in facts.why_null["arch"]
    assert facts.free_mb is None
    assert str(tmp_path) in facts.why_null["free_mb"]


@pytest.mark.ssh
def test_over_ssh(sshd: SshServer, tmp_path: Path) -> None:
    with SshDevice(sshd.uri, config_path=sshd.config) as device:
        device.open(soon())
        is_this_host(read_facts(device, soon(), work_dir=str(tmp_path / "work")))


@pytest.mark.adb
@pytest.mark.parametrize("shell", [None, "busybox-static", "mksh"])
def test_over_adb(adb_bed: AdbBed, shell: str | None) -> None:
    with AdbDevice(adb_bed.uri if shell is None else f"adb://{adb_bed.second(shell)}") as device:
        device.open(soon())
        facts = read_facts(device, soon())
    assert facts.model == PROPERTIES["ro.product.model"]
    assert facts.manufacturer == PROPERTIES["ro.product.manufacturer"]
    assert facts.soc == "Testsoc TS 9000"
    assert (facts.os, facts.android, facts.sdk) == ("Android 14 (SDK 34)", "14", 34)
    assert facts.abis == ["arm64-v8a", "armeabi-v7a"]
    assert facts.arch == os.uname().machine
    assert facts.build is None
    assert "ro.build.fingerprint" in facts.why_null["build"]


@pytest.mark.adb
def test_adb_to_something_else(adb_bed: AdbBed) -> None:
    fake = adb_bed.fake()  # runs in the shell of this host
    with AdbDevice(f"adb://{fake.serial}") as device:
        device.open(soon())
        facts = read_facts(device, soon())
    assert facts.android is None
    assert "not Android" in facts.why_null["android"]
    is_this_host(facts)


@pytest.mark.arm64
def test_emulated_facts_are_not_those_of_this_host(pack: Pack) -> None:
    with EmulatedDevice("emulated:a76") as device:
        device.open(soon())
        facts = read_facts(device, soon())
    assert (facts.arch, facts.cpu, facts.abis) == ("aarch64", "cortex-a76", ["aarch64"])
    assert facts.features is not None
    assert {"asimddp", "fphp"} <= set(facts.features)
    assert "i8mm" not in facts.features
    for name in ("thermal", "battery", "governor", "max_mhz", "clusters", "uptime_s", "soc"):
        assert getattr(facts, name) is None
        assert "QEMU" in facts.why_null[name]
        assert "this host's" in facts.why_null[name]


class Answers(LocalDevice):
    """This host, where every command ends in one way."""

    def __init__(self, answer: CommandResult | Exception) -> None:
        super().__init__()
        self._answer = answer

    def run(self, argv: Sequence[str], *given: Any, **named: Any) -> CommandResult:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def test_what_cannot_be_read_is_null_with_the_reason() -> None:
    lost = DeviceError("LINK_LOST", "the link was lost", transient=True, where="local:")
    facts = facts_or_why(Answers(lost), soon())
    assert all(getattr(facts, name) is None for name in FACTS)
    assert all("LINK_LOST" in facts.why_null[name] for name in FACTS)
    with pytest.raises(DeviceError):
        read_facts(Answers(lost), soon())


def test_a_device_that_floods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "uname").write_text("#!/bin/sh\nwhile :; do echo flood flood flood flood flood flood; done\n")
    (tmp_path / "uname").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with LocalDevice() as device:
        facts = facts_or_why(device, soon())
    assert "OUTPUT_TOO_LARGE" in facts.why_null["arch"]


def test_a_device_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "uname").write_text("#!/bin/sh\nexec sleep 1000\n")
    (tmp_path / "uname").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with LocalDevice() as device:
        facts = facts_or_why(device, Deadline(1))
    assert "TIMEOUT" in facts.why_null["model"]


@pytest.mark.parametrize("said", [b"", b"\xff" * 1000, b"sh: not found\n"])
def test_an_answer_that_is_none(said: bytes) -> None:
    facts = facts_or_why(Answers(CommandResult(127, said, said)), soon())
    for name in FACTS:
        assert getattr(facts, name) is None
        assert facts.why_null[name]


def test_a_property_cannot_pretend_to_be_a_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "getprop").write_text(
        "#!/bin/sh\nprintf '[a]: [b]\\n\\nedgequant-0 cpuinfo\\nevil\\n\\nedgequant-0 = 0\\n'\n"
    )
    (tmp_path / "getprop").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with LocalDevice() as device:
        sections = read(device, soon(), ["/tmp"]).sections
    assert b"evil" in sections["getprop"].text
    assert b"evil" not in sections["cpuinfo"].text
