"""A real OpenSSH server on loopback: own port, own keys, own accounts, everything in a temporary directory.

As root the server runs in a mount namespace of its own, where /etc/passwd and /etc/shadow have throw-away accounts
and where a full and a read-only file system are mounted.  All of that is gone when the server is: nothing on the
host changes, and nothing is left behind even where the test run is killed.  Without root there is only the account
that runs the tests, and `sshd.accounts` is false.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.waiting import LONG

PASSWORD = "edgequant throw-away"
# sha512-crypt of PASSWORD; the accounts that have it exist in the namespace of a test server on loopback only.
_PASSWORD_HASH = "$6$edgequant$tHR8Vn6nN0D1b0CP04PZqtu/8cbhHhQuEN0NYv55UulEZpCHAVhJECfHVg3rfzhofITDUZB6ZCttwvayjoxwD1"

ALIAS = "bed"
_STARTS = 5


def _install() -> str:
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found:
        return found
    if os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", "openssh-server"]):
            subprocess.run(["apt-get", *arguments], check=True, capture_output=True, env=environment, timeout=600)
        found = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
        if not found:
            pytest.fail("openssh-server was installed but there is no sshd")
        return found
    pytest.fail("sshd is not installed, and only root on a system with apt-get can change that: install openssh-server")


class SshServer:
    """The server.  Paths, accounts and ways to break it.

    Attributes:
        host, port: where it listens.
        user: the account that runs the tests.
        key: a private key every account accepts.
        known_hosts: lists this server.
        config: an ssh_config with a Host alias `bed` for it.
        home: base of everything, readable by all accounts.
        accounts: whether the accounts eqtest (plain) and eqnoisy (its .bashrc prints) exist; they have PASSWORD.
        small: a file system of 1 MB; read_only: a file system nobody can write to (both only with `accounts`).
    """

    host = "127.0.0.1"

    def __init__(self, base: Path) -> None:
        self.base = base
        self.user = getpass.getuser()
        self.accounts = os.geteuid() == 0 and shutil.which("unshare") is not None
        self.key = base / "id_ed25519"
        self.known_hosts = base / "known_hosts"
        self.config = base / "ssh_config"
        self.home = base / "home"
        self.small = base / "small"
        self.read_only = base / "read_only"
        self.port = 0
        self._log = base / "sshd.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        return f"ssh://{self.user}@{self.host}:{self.port}"

    def uri_as(self, user: str) -> str:
        return f"ssh://{user}@{self.host}:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def start(self) -> None:
        sshd = _install()
        self.base.chmod(0o755)  # the accounts have to get through
        for directory in (self.home, self.small, self.read_only):
            directory.mkdir()
        for kind in ("ed25519", "ecdsa", "rsa"):
            make_key(self.base / f"host_{kind}", kind)
        make_key(self.key)
        shutil.copy(f"{self.key}.pub", self.base / "authorized_keys")
        if self.accounts:
            self._make_accounts()
        for _ in range(_STARTS):
            if self._listen(sshd):
                break
        else:
            pytest.fail(f"sshd does not start:\n{self.log}")
        self.known_hosts.write_text(f"[{self.host}]:{self.port} {self.host_key()}\n")
        self.config.write_text(
            f"Host {ALIAS}\n  HostName {self.host}\n  Port {self.port}\n  User {self.user}\n"
            f"Host *\n  IdentityFile {self.key}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {self.known_hosts}\n  GlobalKnownHostsFile none\n"
        )

    def host_key(self, kind: str = "ed25519") -> str:
        """The public host key, as "type base64"."""
        return " ".join((self.base / f"host_{kind}.pub").read_text().split()[:2])

    def _make_accounts(self) -> None:
        passwd, shadow = Path("/etc/passwd").read_text(), "root:*:19000::::::\n"
        for number, name in enumerate(("eqtest", "eqnoisy", "eqdrip"), 64990):
            home = self.home / name
            home.mkdir()
            passwd += f"{name}:x:{number}:{number}::{home}:/bin/bash\n"
            shadow += f"{name}:{_PASSWORD_HASH}:19000::::::\n"
            os.chown(home, number, number)
        noise = 'echo "Welcome to $HOSTNAME!"; printf "\\0\\377 no newline"; echo "a warning" >&2\n'
        (self.home / "eqnoisy" / ".bashrc").write_text(noise)
        (self.home / "eqdrip" / ".bashrc").write_text("while :; do printf x; sleep 0.05; done\n")
        (self.base / "passwd").write_text(passwd)
        (self.base / "shadow").write_text(shadow)

    def _listen(self, sshd: str) -> bool:
        with socket.socket() as probe:
            probe.bind((self.host, 0))
            self.port = probe.getsockname()[1]
        keys = "".join(f"HostKey {self.base}/host_{kind}\n" for kind in ("ed25519", "ecdsa", "rsa"))
        config = self.base / "sshd_config"
        config.write_text(
            f"ListenAddress {self.host}\nPort {self.port}\n{keys}PidFile none\nUsePAM no\nStrictModes no\n"
            f"AuthorizedKeysFile {self.base}/authorized_keys\nPermitRootLogin yes\nPasswordAuthentication yes\n"
            "AllowTcpForwarding yes\nMaxStartups 100\nMaxSessions 20\nPrintMotd no\nLogLevel VERBOSE\n"
            "Subsystem sftp internal-sftp\n"
            # All servers of a test run are on one kernel, and would have their devices wait for each other.
            f"SetEnv EDGEQUANT_LOCK_SCOPE=-{self.port}\n"
        )
        command = [sshd, "-D", "-e", "-f", str(config)]
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(parents=True, exist_ok=True)  # sshd insists, and packages make it at boot only
        if self.accounts:
            mounts = (
                f"mount --bind {self.base}/passwd /etc/passwd && "
                f"mount --bind {self.base}/shadow /etc/shadow && "
                f"mount -t tmpfs -o size=1m,mode=1777 small {self.small} && "
                f'mount -t tmpfs -o ro,mode=1777 read-only {self.read_only} && exec "$@"'
            )
            command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mounts, "sh", *command]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + LONG
        while time.monotonic() < end and self._process.poll() is None:
            with socket.socket() as probe:
                probe.settimeout(1)
                # Somebody else may have got the port: only a greeting counts, and only while our process lives.
                if probe.connect_ex((self.host, self.port)) == 0 and probe.recv(4) == b"SSH-":
                    return self._process.poll() is None
            time.sleep(0.02)  # nothing announces that a foreign process has begun to listen
        self.stop()
        return False

    def sessions(self) -> list[psutil.Process]:
        """The sshd processes that serve connections, without the listener and without what they have started."""
        assert self._process is not None
        children = psutil.Process(self._process.pid).children(recursive=True)
        found = []
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name().startswith("sshd"):
                    found.append(child)
        return found

    def signal_sessions(self, number: signal.Signals) -> None:
        for session in self.sessions():
            with contextlib.suppress(psutil.NoSuchProcess):
                session.send_signal(number)

    def kill_sessions(self) -> None:
        """kill -9: to the other end this is a reset connection, and nothing on the server cleans up."""
        self.signal_sessions(signal.SIGKILL)

    def freeze_sessions(self) -> None:
        """Connections stay open and nothing answers."""
        self.signal_sessions(signal.SIGSTOP)

    def thaw_sessions(self) -> None:
        self.signal_sessions(signal.SIGCONT)

    def end_sessions(self) -> None:
        """Whatever a test has left."""
        self.thaw_sessions()
        self.kill_sessions()

    def stop(self) -> None:
        if self._process is None:
            return
        self.end_sessions()
        self._process.terminate()
        try:
            self._process.wait(LONG)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A new key pair PATH and PATH.pub."""
    size = ["-b", "2048"] if kind == "rsa" else []
    command = ["ssh-keygen", "-q", "-t", kind, *size, "-N", passphrase, "-C", "edgequant test", "-f", str(path)]
    subprocess.run(command, check=True, timeout=60)
    return path


@pytest.fixture(scope="session")
def sshd_server() -> Iterator[SshServer]:
    """One server per test process; take `sshd` instead."""
    # Not pytest's tmp_path: its parents are closed to other accounts.
    base = Path(tempfile.mkdtemp(prefix="edgequant-sshd-"))
    server = SshServer(base)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def sshd(sshd_server: SshServer) -> Iterator[SshServer]:
    """The server, and no sessions left on it after the test."""
    yield sshd_server
    sshd_server.end_sessions()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this host where nobody listens; it is held, so that nobody can begin to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])
