"""A real adb server and a real adbd of AOSP, in a network and mount namespace of their own.

The server listens on a Unix socket in a temporary directory, which is how it is reached from outside the namespace; in
it, adbd and `fakeadbd` have loopback for themselves.  So no port of the host is taken, no USB device and no emulator of
the user's is touched, no key of theirs is used, and everything is gone with the processes, which end with the tests
even where those are killed.

adbd comes in a package that is only unpacked.  All this needs Linux, with root or user namespaces.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import adbutils
import psutil
import pytest

from edgequant.deadline import Deadline
from edgequant.devices.adb_server import AdbServer
from edgequant.devices.adb_wire import Address, Refused
from tests.beds.adb_packages import unpacked
from tests.beds.adb_parts import Daemon, Fake
from tests.waiting import LONG, eventually

SHELL_ID = 2000
"""User and group of `shell`, as on Android, where the tests run as root."""
_STARTS = 5
PROPERTIES = {
    "ro.product.model": "Test Phone",
    "ro.product.manufacturer": "Edgequant",
    "ro.soc.manufacturer": "Testsoc",
    "ro.soc.model": "TS 9000",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a",
    "ro.build.description": "two\nlines",
}


def find_adb() -> str:
    """The adb command, installed where there is none and that can be done."""
    with contextlib.suppress(adbutils.AdbError):
        return adbutils.adb_path()
    if os.geteuid() == 0 and shutil.which("apt-get"):
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", "adb"]):
            subprocess.run(["apt-get", *arguments], check=True, capture_output=True, timeout=600)
        found = shutil.which("adb")
        if found:
            return found
    pytest.fail("there is no adb command, and only root on a system with apt-get can change that: install adb")


class AdbBed:
    """The namespace with its server and devices.

    Args:
        base: a directory of its own.
        own_user: the device's user is the one that runs this, not `shell`, who may not get at this Python.

    Attributes:
        spec: of the server, for ADB_SERVER_SOCKET.
        adb: the adb command.
        files: a directory the device may write to.
        small: a file system of 1 MB; read_only: one nobody can write to; closed: a directory that belongs to others.
            `small` and `read_only` are empty seen from outside.
    """

    def __init__(self, base: Path, *, own_user: bool = False) -> None:
        self.base = base
        self.spec = f"localfilesystem:{base}/adb.sock"
        self.files = base / "files"
        self.small = base / "small"
        self.read_only = base / "read_only"
        self.closed = base / "closed"
        self.adb = find_adb()
        self._host = AdbServer(Address(self.spec), "adb:")
        self._root = os.geteuid() == 0
        self._drops = self._root and not own_user
        self._space: Daemon | None = None
        self._server: Daemon | None = None
        self._device: Daemon | None = None
        self._extra: list[Daemon | Fake] = []
        self.serial = ""

    # --- starting ---

    def start(self) -> None:
        adbd = unpacked("adbd")
        self.base.chmod(0o755)  # the device's user has to get through
        for directory in (self.files, self.small, self.read_only, self.closed, self.base / "bin", self.base / "home"):
            directory.mkdir()
        self.closed.chmod(0o555)
        if self._drops:
            os.chown(self.files, SHELL_ID, SHELL_ID)
        # The place of the cache may be closed to that user.
        shutil.copytree(adbd, self.base / "adbd", symlinks=True, ignore=shutil.ignore_patterns("share", "bin"))
        lines = "".join(f"[{key}]: [{value}]\n" for key, value in PROPERTIES.items())
        getprop = self.base / "bin" / "getprop"
        getprop.write_text(f"#!/bin/sh\ncat <<'end'\n{lines}end\n")
        getprop.chmod(0o755)
        self._make_space()
        self.start_server()
        self.start_device()

    def _make_space(self) -> None:
        options = ["--net", "--mount"] if self._root else ["--user", "--map-root-user", "--net", "--mount"]
        mounts = (
            "ip link set lo up && "
            f"mount -t tmpfs -o size=1m,mode=1777 small {self.small} && "
            f"mount -t tmpfs -o ro,mode=1777 read-only {self.read_only} && "
            "if [ -d /dev/bus/usb ]; then mount -t tmpfs none /dev/bus/usb; fi && echo made && exec sleep 1000000"
        )
        log = self.base / "space.log"
        command = ["unshare", *options, "--propagation", "private", "sh", "-c", mounts]
        self._space = Daemon(command, log, dict(os.environ))
        if not eventually(lambda: "made" in log.read_text() or not self._running(self._space)):
            pytest.fail("making a namespace took too long")
        if "made" not in self._space.log:
            pytest.fail(
                "these tests need a network and mount namespace (root, or user namespaces allowed; iproute2, "
                f"util-linux):\n{self._space.log}"
            )

    @staticmethod
    def _running(daemon: Daemon | None) -> bool:
        return daemon is not None and daemon.alive

    def inside(self) -> list[str]:
        """The words that have a command run in the namespace."""
        assert self._space is not None
        user = [] if self._root else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(self._space.pid), *user, "--net", "--mount", "--"]

    def environment(self) -> dict[str, str]:
        """For the adb command and server: none of the user's keys or settings."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ADB", "ANDROID"))}
        return {**kept, "HOME": str(self.base / "home"), "ADB_MDNS": "0", "ADB_SERVER_SOCKET": self.spec}

    def start_server(self) -> None:
        (self.base / "adb.sock").unlink(missing_ok=True)
        command = [*self.inside(), self.adb, "-L", self.spec, "nodaemon", "server"]
        self._server = server = Daemon(command, self.base / "server.log", self.environment())

        def listens() -> bool:
            with socket.socket(socket.AF_UNIX) as probe:
                return probe.connect_ex(str(self.base / "adb.sock")) == 0

        if not eventually(lambda: listens() or not server.alive) or not server.alive:
            pytest.fail(f"the adb server does not start:\n{server.log}")

    def command(self) -> Path:
        """An adb command for those under test, which start a server where there is none: it is in the namespace too."""
        path = self.base / "bin" / "adb-inside"
        path.write_text(f'#!/bin/sh\nexec {shlex.join(self.inside())} {shlex.quote(self.adb)} "$@"\n')
        path.chmod(0o755)
        return path

    def end_started(self) -> None:
        """End a server that one under test has started."""
        subprocess.run([self.adb, "-L", self.spec, "kill-server"], env=self.environment(), check=True, timeout=60)

    def kill_server(self) -> None:
        assert self._server is not None
        self._server.stop()
        (self.base / "adb.sock").unlink(missing_ok=True)

    def start_adbd(self, shell: Path | None = None) -> tuple[Daemon, str]:
        """A real device of its own, with another /bin/sh if one is given; the serial it is connected under."""
        machine = platform.machine()
        libraries = [f"{self.base}/adbd/{part}/{machine}-linux-gnu" for part in ("lib", "usr/lib", "usr/lib")]
        libraries[2] += "/android"
        drop = ["--reuid", str(SHELL_ID), "--regid", str(SHELL_ID), "--clear-groups"] if self._drops else []
        loader = next((self.base / "adbd" / "lib" / f"{machine}-linux-gnu").glob("ld-linux-*"))
        command = self.inside()
        if shell is not None:
            other = 'mount --bind "$1" "$(readlink -f /bin/sh)" && shift && exec "$@"'
            command += ["unshare", "--mount", "--propagation", "private", "sh", "-c", other, "sh", str(shell)]
        command += ["setpriv", *drop, "--bounding-set=-all", "--inh-caps=-all", str(loader)]
        command += ["--library-path", ":".join(libraries), f"{self.base}/adbd/usr/lib/android-sdk/platform-tools/adbd"]
        for _ in range(_STARTS):
            # It listens on a VM socket of the same number too, and those no namespace keeps apart.
            port = 20000 + secrets.randbelow(30000)
            environment = {"PATH": f"{self.base}/bin:/usr/bin:/bin", "HOME": str(self.files), "ADBD_PORT": str(port)}
            daemon = Daemon(command, self.base / f"adbd-{port}.log", environment)
            if eventually(lambda d=daemon: "adbd started" in d.log or not d.alive) and daemon.alive:  # type: ignore[misc]
                serial = f"127.0.0.1:{port}"
                self.connect(serial)
                return daemon, serial
            daemon.stop()
        pytest.fail(f"adbd does not start:\n{daemon.log}")

    def start_device(self) -> None:
        self._device, self.serial = self.start_adbd()

    # --- using and breaking it ---

    @property
    def uri(self) -> str:
        return f"adb://{self.serial}"

    @property
    def device_pid(self) -> int:
        assert self._device is not None
        return self._device.pid

    def ask(self, service: str) -> str:
        return self._host.query(service, Deadline(LONG))

    def connect(self, serial: str) -> None:
        if "connected to" not in self.ask(f"host:connect:{serial}"):
            pytest.fail(f"adb does not connect to {serial}:\n{self._server.log if self._server else ''}")
        self.ask_until(serial, "device")

    def ask_until(self, serial: str, state: str) -> None:
        """Until the server lists the device with this state; "" for: no more."""

        def there() -> bool:
            found = dict(line.split("\t") for line in self.ask("host:devices").splitlines() if "\t" in line)
            return found.get(serial, "") == state

        if not eventually(there):
            pytest.fail(f"{serial} does not become '{state}': {self.ask('host:devices')}")

    def disconnect(self, serial: str) -> None:
        with contextlib.suppress(Refused):
            self.ask(f"host:disconnect:{serial}")

    def fake(self, *options: str, connect: bool = True) -> Fake:
        """A new fakeadbd; unless `connect` is false the server is told to connect it, whatever comes of that."""
        program = str(Path(__file__).with_name("fakeadbd.py"))
        it = Fake([*self.inside(), sys.executable, program, *options])
        self._extra.append(it)
        if connect:
            self.ask(f"host:connect:{it.serial}")
        return it

    def second(self, shell: str | None = None) -> str:
        """One more real device, connected, with the named shell (a package of its own) for /bin/sh; its serial."""
        program = None
        if shell is not None:
            found = next(unpacked(shell).glob(f"*bin/{shell.partition('-')[0]}"), None)
            if found is None:
                pytest.fail(f"the package {shell} has no such program")
            program = self.base / shell
            shutil.copy(found, program)
        daemon, serial = self.start_adbd(program)
        self._extra.append(daemon)
        return serial

    def kill_second(self) -> None:
        for extra in self._extra:
            extra.stop()

    def signal_device(self, number: signal.Signals) -> None:
        assert self._device is not None
        self._device.signal(number)

    def signal_server(self, number: signal.Signals) -> None:
        assert self._server is not None
        self._server.signal(number)

    def kill_device(self) -> None:
        """As pulling its plug, as far as the server can see."""
        assert self._device is not None
        self._device.stop()

    def run_adb(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """The adb command with the real device."""
        command = [self.adb, "-L", self.spec, "-s", self.serial, *arguments]
        environment = self.environment()
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=True)

    def tidy(self) -> None:
        """After a test: one server, one device, and nothing else attached."""
        for daemon in (self._server, self._device):
            if daemon is not None:
                daemon.signal(signal.SIGCONT)
        for extra in self._extra:
            extra.stop()
        self._extra.clear()
        if not self._running(self._server):
            self.start_server()
        if not self._running(self._device):
            self.start_device()
        for line in self.ask("host:devices").splitlines():
            if not line.startswith(self.serial + "\t"):
                self.disconnect(line.split("\t")[0])
        if f"{self.serial}\tdevice" not in self.ask("host:devices"):
            self.disconnect(self.serial)
            self.connect(self.serial)

    def stop(self) -> None:
        for extra in (*self._extra, self._device, self._server):
            if extra is not None:
                extra.stop()
        if self._space is not None:
            # What a device was still running, and servers that were started in there.
            here = Path(f"/proc/{self._space.pid}/ns/net")
            for process in psutil.process_iter():
                with contextlib.suppress(OSError, psutil.Error):
                    if here.samefile(f"/proc/{process.pid}/ns/net") and process.pid != self._space.pid:
                        process.kill()
            self._space.stop()


@contextlib.contextmanager
def running(parent: Path | None = None, *, own_user: bool = False) -> Iterator[AdbBed]:
    """A started bed, all of it gone afterwards.  Raises pytest's Failed where there can be none here.

    parent: where its directory is made, open to other users and with a short path.  own_user: see AdbBed.
    """
    # Not pytest's tmp_path: its parents are closed to other users, and too long for a socket.
    base = Path(tempfile.mkdtemp(prefix="edgequant-adb-", dir=parent))
    bed = AdbBed(base, own_user=own_user)
    try:
        bed.start()
        yield bed
    finally:
        bed.stop()
        for directory in base.rglob("closed"):
            directory.chmod(0o755)
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="session")
def adb_bed_session() -> Iterator[AdbBed]:
    """One per test process; take `adb_bed` instead."""
    with running() as bed:
        yield bed


@pytest.fixture
def adb_bed(adb_bed_session: AdbBed, monkeypatch: pytest.MonkeyPatch) -> Iterator[AdbBed]:
    """The bed, in order after the test; the environment names its server, and no device."""
    for name in ("ANDROID_SERIAL", "ANDROID_ADB_SERVER_PORT", "ANDROID_ADB_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ADB_SERVER_SOCKET", adb_bed_session.spec)
    yield adb_bed_session
    adb_bed_session.tidy()
