"""Fixtures: an ARM64 board over SSH and an Android-like phone over adb, each a virtual machine of its own under QEMU.

What is real: the ARM kernel, MNN's ARM kernels, the board's sshd, the phone's adbd, and that the phone has neither
Python nor a C library.  What is not: bionic, SELinux, toybox, thermal and cpufreq.  See `vm_images`.

The guests reach nothing, and are reached on loopback only: the phone on that of the adb bed's namespace, through the
adb server there; the board on a free port of the host's.  They end with the tests, also where those are killed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from edgequant.devices.adb_wire import Refused
from edgequant.errors import EdgequantError
from tests.beds.adb import AdbBed
from tests.beds.adb_parts import Daemon
from tests.beds.vm_images import Images, images, install
from tests.beds.vm_monitor import Monitor

CPU = "cortex-a76"
BOOT_SECONDS = 240.0
ALIAS = "board"
_STARTS = 5

Machine = TypeVar("Machine", bound="VirtualMachine")


class VirtualMachine:
    """One machine; `boot` may be called again after `kill`.

    Args:
        disk: its image; with `keep_disk` the guest writes to it, else what it writes is gone with the process.
        base: a directory for its console log.
        prefix: words that have a command run in the network namespace it is to be in.
    """

    host = "127.0.0.1"

    def __init__(
        self, made: Images, disk: Path, base: Path, *, guest_port: int, keep_disk: bool = False, prefix: list[str]
    ) -> None:
        self.disk = disk
        self.port = 0
        self._made = made
        self._base = base
        self._guest_port = guest_port
        self._keep_disk = keep_disk
        self._prefix = prefix
        self._process: Daemon | None = None
        self._monitor: Monitor | None = None
        self._boots = 0

    def __str__(self) -> str:
        return f"{self.disk.stem} VM"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.alive

    @property
    def console(self) -> str:
        """What the guest and QEMU have printed since the last boot."""
        return "" if self._process is None else self._process.log

    def boot(self) -> None:
        """Start it, and wait until it answers."""
        end = time.monotonic() + BOOT_SECONDS
        for _ in range(_STARTS):
            self.port = self._free_port()
            self._boots += 1
            self._stop()
            self._monitor = Monitor()
            log = self._base / f"{self.disk.stem}-{self._boots}.log"
            self._process = Daemon([*self._prefix, *self._command()], log, dict(os.environ))
            while self.alive and time.monotonic() < end:
                if self.answers():
                    self._monitor.connect()
                    return
                time.sleep(0.1)  # nothing announces that a guest has got so far
            if self.alive or "hostfwd" not in self.console:  # else somebody else took the port
                break
        log_end = self.console[-4000:]
        self.kill()
        pytest.fail(f"the {self} does not answer; its console:\n{log_end}")

    def answers(self) -> bool:
        """Whether the service in the guest answers.  That QEMU's port accepts means nothing."""
        raise NotImplementedError

    def kill(self) -> None:
        """kill -9: a power cut.  What the guest had not yet written to its disk is lost."""
        self._stop()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.stop()
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None

    def link(self, up: bool) -> None:
        """Pull the network cable, or plug it in again.  No connection hears of it."""
        self._order("set_link", name="n0", up=up)

    def _order(self, command: str, **arguments: Any) -> None:
        assert self._monitor is not None, f"the {self} is not running"
        self._monitor.order(command, **arguments)

    def _free_port(self) -> int:
        """Away from 5555 to 5585, where adb servers look for emulators."""
        while True:
            port = 20000 + secrets.randbelow(12000)  # below the ports that the kernel gives away
            if self._prefix:
                return port  # in a namespace nobody else is in
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((self.host, port))
                return port

    def _command(self) -> list[str]:
        words = f"qemu-system-aarch64 -M virt,gic-version=3 -cpu {CPU} -smp 2 -m 1024 -nographic -nodefaults"
        words += " -serial stdio -monitor none -accel tcg,thread=multi,tb-size=256 -device virtio-rng-pci"
        snapshot = "off" if self._keep_disk else "on"
        return [
            *words.split(),
            *("-kernel", str(self._made.kernel), "-initrd", str(self._made.initrd)),
            *("-append", "console=ttyAMA0 quiet rdinit=/init mitigations=off"),
            *("-drive", f"if=none,id=d0,file={self.disk},format=raw,cache=unsafe,snapshot={snapshot}"),
            *("-device", "virtio-blk-pci,drive=d0"),
            *("-netdev", f"user,id=n0,restrict=on,hostfwd=tcp:{self.host}:{self.port}-:{self._guest_port}"),
            *("-device", "virtio-net-pci,netdev=n0,romfile="),
            *(self._monitor.arguments if self._monitor else []),
        ]


class Phone(VirtualMachine):
    """The phone.  Its disk survives `kill` and `boot`; `reset` gives it a new one.

    Attributes:
        uri: for edgequant; the port is another one after each boot.
    """

    def __init__(self, made: Images, base: Path, bed: AdbBed) -> None:
        disk = base / "phone.img"
        super().__init__(made, disk, base, guest_port=5555, keep_disk=True, prefix=bed.inside())
        self._bed = bed
        self._asked = 0.0
        self._serial = ""

    @property
    def serial(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def uri(self) -> str:
        return f"adb://{self.serial}"

    def boot(self) -> None:
        if not self.disk.exists():
            _copy_sparse(self._made.disk("phone"), self.disk)
        if self._serial:
            self._bed.disconnect(self._serial)
        super().boot()
        self._serial = self.serial

    def answers(self) -> bool:
        # A connection made too early would be refused, and the server would not try again by itself.
        return "adbd started" in self.console and self.connected()

    def connected(self) -> bool:
        """Whether the adb server has it as a device; it is asked to connect where it has not."""
        state = self._state()
        if state == "device":
            return True
        if time.monotonic() - self._asked > 2:
            self._asked = time.monotonic()
            with contextlib.suppress(Refused, EdgequantError):
                if state:
                    self._bed.disconnect(self.serial)
                self._bed.ask(f"host:connect:{self.serial}")
        return self._state() == "device"

    def _state(self) -> str:
        listed = dict(line.split("\t") for line in self._bed.ask("host:devices").splitlines() if "\t" in line)
        return listed.get(self.serial, "")

    def ensure(self) -> None:
        """Running and connected, whatever the last test left."""
        if not self.alive:
            self.boot()
            return
        self.link(up=True)
        end = time.monotonic() + 20
        self._asked = 0.0
        while not self.connected():
            if time.monotonic() > end:
                self.kill()
                self.boot()
                return
            time.sleep(0.05)

    def reset(self) -> None:
        """Boot with the disk as it was at first."""
        self.kill()
        self.disk.unlink(missing_ok=True)
        self.boot()

    def shell(self, script: str, timeout: float = 60) -> str:
        """What a script prints there, run by the adb command."""
        command = [self._bed.adb, "-L", self._bed.spec, "-s", self.serial, "shell", script]
        environment = self._bed.environment()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


class Board(VirtualMachine):
    """The board.  Each boot starts from the same disk.

    Attributes:
        user: an account; root is another.  key: the private key both accept.
        known_hosts: lists it.  config: an ssh_config with a Host alias `board` for it.
    """

    user = "user"

    def __init__(self, made: Images, base: Path) -> None:
        super().__init__(made, made.disk("board"), base, guest_port=22, prefix=[])
        self.key = base / "id_ed25519"
        self.known_hosts = base / "known_hosts"
        self.config = base / "ssh_config"

    @property
    def uri(self) -> str:
        return f"ssh://{self.user}@{self.host}:{self.port}"

    def boot(self) -> None:
        super().boot()
        shutil.copy(self._made.key, self.key)
        self.key.chmod(0o600)
        self.known_hosts.write_text(f"[{self.host}]:{self.port} {self._made.host_key}\n")
        self.config.write_text(
            f"Host {ALIAS}\n  HostName {self.host}\n  Port {self.port}\n  User {self.user}\n"
            f"Host *\n  IdentityFile {self.key}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {self.known_hosts}\n  GlobalKnownHostsFile none\n"
        )

    def answers(self) -> bool:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.settimeout(5)
            return probe.connect_ex((self.host, self.port)) == 0 and probe.recv(4) == b"SSH-"
        return False


def _copy_sparse(source: Path, target: Path) -> None:
    """A copy without the holes: 2 GB would be."""
    with source.open("rb") as read, target.open("wb") as write:
        size = os.fstat(read.fileno()).st_size
        write.truncate(size)
        place = 0
        while place < size:
            try:
                place = os.lseek(read.fileno(), place, os.SEEK_DATA)
            except OSError:
                return  # only a hole is left
            end = os.lseek(read.fileno(), place, os.SEEK_HOLE)
            read.seek(place)
            write.seek(place)
            while place < end:
                data = read.read(min(1 << 20, end - place))
                write.write(data)
                place += len(data)


@contextlib.contextmanager
def running(base: Path, make: Callable[[Images, Path], Machine]) -> Iterator[Machine]:
    """A machine that is not booted yet; killed afterwards, its disk removed.

    Raises pytest's Failed where there can be none here.
    """
    install(qemu_system_aarch64="qemu-system-arm")
    machine = make(images(), base)
    try:
        yield machine
    finally:
        machine.kill()
        # The logs stay until somebody tidies up the folder.
        (base / "phone.img").unlink(missing_ok=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Show the console where a test with a machine fails."""
    outcome = yield
    report = outcome.get_result()
    for machine in getattr(item, "funcargs", {}).values():
        if report.failed and isinstance(machine, VirtualMachine):
            report.sections.append((f"console of the {machine}", machine.console[-4000:]))


@pytest.fixture(scope="session")
def phone_session(tmp_path_factory: pytest.TempPathFactory, adb_bed_session: AdbBed) -> Iterator[Phone]:
    """One per test process; take `phone` instead."""
    base = tmp_path_factory.mktemp("vm-phone")
    with running(base, lambda made, folder: Phone(made, folder, adb_bed_session)) as machine:
        yield machine


@pytest.fixture
def phone(adb_bed: AdbBed, phone_session: Phone) -> Phone:
    """The phone, running; what tests before have put there stays.  The environment names the server it is on."""
    phone_session.ensure()
    return phone_session


@pytest.fixture(scope="session")
def board_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """One per test process; take `board` instead."""
    with running(tmp_path_factory.mktemp("vm-board"), Board) as machine:
        yield machine


@pytest.fixture
def board(board_session: Board) -> Board:
    """The board, running."""
    if not board_session.alive:
        board_session.boot()
    return board_session
