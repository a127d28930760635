"""Host keys, keys, passwords, jumps and unreachable hosts, against a real sshd."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.ssh import SshDevice
from edgequant.errors import DeviceError, EdgequantError, InputError
from tests.beds.sshd import ALIAS, PASSWORD, SshServer, make_key

pytestmark = pytest.mark.ssh


def device(tmp_path: Path, text: str, host: str = "here", *, accept: bool = False) -> SshDevice:
    config = tmp_path / "config"
    config.write_text(text)
    return SshDevice(f"ssh://{host}", config_path=config, accept_new_host_key=accept)


def here(sshd: SshServer, **changes: object) -> str:
    """A config for the alias `here`."""
    options: dict[str, object] = {
        "HostName": sshd.host,
        "Port": sshd.port,
        "User": sshd.user,
        "IdentityFile": sshd.key,
        "IdentityAgent": "none",
        "UserKnownHostsFile": sshd.known_hosts,
        "GlobalKnownHostsFile": "none",
    }
    options.update(changes)
    return "Host here\n" + "".join(f"  {key} {value}\n" for key, value in options.items() if value is not None)


def opens(it: SshDevice) -> bool:
    with it:
        it.open(Deadline(20))
        return it.run(["echo", "works"], Deadline(20)).stdout == b"works\n"


def refused(it: SshDevice, seconds: float = 20) -> EdgequantError:
    with pytest.raises(EdgequantError) as caught:
        it.open(Deadline(seconds))
    error = caught.value
    assert error.hint or error.code == "TIMEOUT"
    it.close()
    return error


def test_alias(sshd: SshServer) -> None:
    assert opens(SshDevice(f"ssh://{ALIAS}", config_path=sshd.config))


def test_plain_uri(sshd: SshServer) -> None:
    it = SshDevice(sshd.uri, config_path=sshd.config, python="/opt/python3")
    assert opens(it)
    assert list(it.python) == ["/opt/python3"]
    assert not it.is_host


# --- host keys ---


def test_unknown_host_key_is_refused_with_its_fingerprint(sshd: SshServer, tmp_path: Path) -> None:
    known = tmp_path / "known"
    error = refused(device(tmp_path, here(sshd, UserKnownHostsFile=known, StrictHostKeyChecking="no")))
    assert error.code == "HOST_KEY_UNKNOWN"
    shown = re.search(r"SHA256:[A-Za-z0-9+/]{43}(?!=)", error.message)
    assert shown
    listed = [
        subprocess.run(["ssh-keygen", "-lf", f"{sshd.base}/host_{kind}.pub"], capture_output=True, text=True).stdout
        for kind in ("ed25519", "ecdsa", "rsa")
    ]
    assert any(shown[0] in line for line in listed)
    assert "--accept-new-host-key" in str(error.hint)
    assert not known.exists()


@pytest.mark.parametrize("hashed", ["yes", "no"])
def test_accepting_writes_it_down(sshd: SshServer, tmp_path: Path, hashed: str) -> None:
    known = tmp_path / "new" / "known_hosts"
    text = here(sshd, UserKnownHostsFile=f"{known} {tmp_path}/second", HashKnownHosts=hashed)
    assert opens(device(tmp_path, text, accept=True))
    assert known.stat().st_mode & 0o777 == 0o600
    assert known.parent.stat().st_mode & 0o777 == 0o700
    assert (f"[{sshd.host}]:{sshd.port}" in known.read_text()) == (hashed == "no")
    assert opens(device(tmp_path, text))
    # OpenSSH reads it as we do.
    command = [
        "ssh",
        "-F",
        f"{tmp_path}/config",
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=yes",
        "here",
        "true",
    ]
    subprocess.run(command, check=True, timeout=30)


def test_accepting_keeps_what_is_there(sshd: SshServer, tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text("other ssh-ed25519 AAAA")  # no newline at the end
    assert opens(device(tmp_path, here(sshd, UserKnownHostsFile=known), accept=True))
    lines = known.read_text().splitlines()
    assert lines[0] == "other ssh-ed25519 AAAA"
    assert len(lines) == 2


@pytest.mark.parametrize("accept", [False, True])
def test_changed_host_key_is_never_accepted(sshd: SshServer, tmp_path: Path, accept: bool) -> None:
    wrong = " ".join((make_key(tmp_path / "wrong").with_suffix(".pub")).read_text().split()[:2])
    known = tmp_path / "known"
    known.write_text(f"# first line\n[{sshd.host}]:{sshd.port} {wrong}\n")
    error = refused(device(tmp_path, here(sshd, UserKnownHostsFile=known), accept=accept))
    assert error.code == "HOST_KEY_MISMATCH"
    assert len(set(re.findall(r"SHA256:[A-Za-z0-9+/]{43}", error.message))) == 2
    assert f"{known}:2" in error.message
    assert known.read_text().count("\n") == 2


def test_key_of_another_type_is_a_change_too(sshd: SshServer, tmp_path: Path) -> None:
    wrong = " ".join((make_key(tmp_path / "wrong", "rsa").with_suffix(".pub")).read_text().split()[:2])
    known = tmp_path / "known"
    known.write_text(f"[{sshd.host}]:{sshd.port} {wrong}\n")
    assert refused(device(tmp_path, here(sshd, UserKnownHostsFile=known), accept=True)).code == "HOST_KEY_MISMATCH"


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_any_one_known_key_of_the_server_will_do(sshd: SshServer, tmp_path: Path, kind: str) -> None:
    known = tmp_path / "known"
    known.write_text(f"[{sshd.host}]:{sshd.port} {sshd.host_key(kind)}\n")
    assert opens(device(tmp_path, here(sshd, UserKnownHostsFile=f"{tmp_path}/none {known}")))


def test_host_key_alias_and_global_file(sshd: SshServer, tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text(f"the-board {sshd.host_key()}\n")
    text = here(sshd, UserKnownHostsFile="none", GlobalKnownHostsFile=known, HostKeyAlias="the-board")
    assert opens(device(tmp_path, text))


def test_markers_are_not_taken_for_keys(sshd: SshServer, tmp_path: Path) -> None:
    known = tmp_path / "known"
    name = f"[{sshd.host}]:{sshd.port}"
    known.write_text(f"@cert-authority {name} {sshd.host_key()}\n")
    error = refused(device(tmp_path, here(sshd, UserKnownHostsFile=known)))
    assert error.code == "HOST_KEY_UNKNOWN"
    assert "cert-authority" in str(error.hint)
    known.write_text(f"{name} {sshd.host_key()}\n@revoked * {sshd.host_key()}\n")
    assert refused(device(tmp_path, here(sshd, UserKnownHostsFile=known), accept=True)).code == "HOST_KEY_REVOKED"


# --- logging in ---


def test_wrong_key(sshd: SshServer, tmp_path: Path) -> None:
    key = make_key(tmp_path / "stranger")
    error = refused(device(tmp_path, here(sshd, IdentityFile=key)))
    assert error.code == "AUTH_FAILED"
    assert str(key) in error.message
    assert "publickey" in error.message
    assert not re.search("PRIVATE|b3BlbnNza", f"{error.as_dict()}")


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_key_types(sshd: SshServer, tmp_path: Path, kind: str) -> None:
    key = make_key(tmp_path / "key", kind)
    authorized = sshd.base / "authorized_keys"
    before = authorized.read_text()
    try:
        authorized.write_text(before + key.with_suffix(".pub").read_text())
        assert opens(device(tmp_path, here(sshd, IdentityFile=f"{tmp_path}/missing\n  IdentityFile {key}")))
    finally:
        authorized.write_text(before)


@pytest.fixture
def locked_key(sshd: SshServer, tmp_path: Path) -> Path:
    """The right key, under a passphrase."""
    key = tmp_path / "locked"
    key.write_bytes(sshd.key.read_bytes())
    key.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "open sesame", "-f", str(key)], check=True)
    return key


def test_locked_key_without_a_terminal(sshd: SshServer, tmp_path: Path, locked_key: Path) -> None:
    error = refused(device(tmp_path, here(sshd, IdentityFile=locked_key)))
    assert error.code == "AUTH_FAILED"
    assert "passphrase" in error.message
    assert f"ssh-add {locked_key}" in str(error.hint)


@contextmanager
def agent(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it has its socket by then
        yield path
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("only", ["yes", "no"])
def test_agent(sshd: SshServer, tmp_path: Path, locked_key: Path, only: str) -> None:
    stranger = make_key(tmp_path / "stranger")
    with agent(tmp_path) as path:
        environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
        for key in (stranger, sshd.key):
            subprocess.run(["ssh-add", "-q", str(key)], check=True, env=environment)
        # IdentityFile only says which of the agent's keys is meant: the locked one is never read.
        text = here(sshd, IdentityFile=locked_key, IdentityAgent=path, IdentitiesOnly=only)
        assert opens(device(tmp_path, text))
        if only == "yes":
            error = refused(
                device(tmp_path, here(sshd, IdentityFile=stranger, IdentityAgent=path, IdentitiesOnly=only))
            )
            assert error.code == "AUTH_FAILED"
            assert error.message.count("agent key SHA256:") == 1


def test_agent_of_the_environment(sshd: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with agent(tmp_path) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        subprocess.run(["ssh-add", "-q", str(sshd.key)], check=True)
        assert opens(device(tmp_path, here(sshd, IdentityFile="none", IdentityAgent=None)))


def on_a_terminal(tmp_path: Path, text: str, answers: list[str]) -> tuple[str, int]:
    """Open the device in a child with a terminal; what it printed there, with every log line, and its exit code.

    `answers` are typed as the child asks; a prompt is what ends in ": ".
    """
    (tmp_path / "config").write_text(text)
    program = (
        "import logging, sys\nlogging.basicConfig(level=logging.DEBUG)\n"
        "from pathlib import Path\nfrom edgequant.deadline import Deadline\n"
        "from edgequant.devices.ssh import SshDevice\nfrom edgequant.errors import EdgequantError\n"
        f"device = SshDevice('ssh://here', config_path=Path({str(tmp_path / 'config')!r}))\n"
        "try:\n    device.open(Deadline(30))\n    print(device.run(['echo', 'works'], Deadline(20)).stdout)\n"
        "except EdgequantError as error:\n    print(error.code, error, error.hint)\n    sys.exit(3)\n"
        "finally:\n    device.close()\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", program])
    seen, answered = b"", 0
    end = time.monotonic() + 60
    try:
        while time.monotonic() < end:
            if not select.select([terminal], [], [], 1)[0]:
                continue
            try:
                data = os.read(terminal, 4096)
            except OSError:  # how Linux says that the other side is gone
                break
            seen += data
            if seen.endswith(b": ") and answered < len(answers):
                os.write(terminal, answers[answered].encode() + b"\n")
                answered += 1
        else:
            os.kill(pid, signal.SIGKILL)
        return seen.decode(errors="replace"), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(terminal)


def test_passphrase_on_a_terminal(sshd: SshServer, tmp_path: Path, locked_key: Path) -> None:
    seen, code = on_a_terminal(tmp_path, here(sshd, IdentityFile=locked_key), ["open sesame"])
    assert code == 0, seen
    assert "works" in seen
    assert "sesame" not in seen


def test_batch_mode_asks_nothing(sshd: SshServer, tmp_path: Path, locked_key: Path) -> None:
    seen, code = on_a_terminal(tmp_path, here(sshd, IdentityFile=locked_key, BatchMode="yes"), [])
    assert code == 3, seen
    assert "AUTH_FAILED" in seen


def test_password_on_a_terminal(sshd: SshServer, tmp_path: Path) -> None:
    if not sshd.accounts:
        pytest.skip("needs an account with a known password: run as root")
    seen, code = on_a_terminal(tmp_path, here(sshd, User="eqtest", IdentityFile="none"), ["wrong guess", PASSWORD])
    assert code == 0, seen
    assert "works" in seen
    assert PASSWORD not in seen
    assert "guess" not in seen


def test_password_without_a_terminal(sshd: SshServer, tmp_path: Path) -> None:
    error = refused(device(tmp_path, here(sshd, IdentityFile="none")))
    assert error.code == "AUTH_FAILED"
    assert "no terminal" in error.message


# --- getting there ---


def test_proxy_jump(sshd: SshServer, tmp_path: Path) -> None:
    text = here(sshd, ProxyJump="first,second", HostName="localhost", HostKeyAlias="final")
    known = tmp_path / "known"
    known.write_text(sshd.known_hosts.read_text() + f"final {sshd.host_key()}\n")
    text += "Host first second\n" + here(sshd).split("\n", 1)[1]
    text = text.replace(str(sshd.known_hosts), str(known))
    before = sshd.log.count("Accepted publickey")
    assert opens(device(tmp_path, text))
    assert sshd.log.count("Accepted publickey") == before + 3


def test_proxy_jump_checks_the_key_of_each_hop(sshd: SshServer, tmp_path: Path) -> None:
    text = here(sshd, ProxyJump="hop") + "Host hop\n" + here(sshd, UserKnownHostsFile="none").split("\n", 1)[1]
    assert refused(device(tmp_path, text)).code == "HOST_KEY_UNKNOWN"


def test_proxy_jump_to_nowhere(sshd: SshServer, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        text = here(sshd, ProxyJump="hop", Port=taken.getsockname()[1]) + "Host hop\n" + here(sshd).split("\n", 1)[1]
        error = refused(device(tmp_path, text))
    assert error.code == "HOST_UNREACHABLE"
    assert "jump" in error.message


def test_proxy_jump_in_a_circle(sshd: SshServer, tmp_path: Path) -> None:
    error = refused(device(tmp_path, here(sshd, ProxyJump="b") + "Host b\n  ProxyJump here\n"))
    assert isinstance(error, InputError)
    assert "circle" in error.message


def test_proxy_command(sshd: SshServer, tmp_path: Path) -> None:
    relay = f"ssh -F {sshd.config} -W %h:%p {ALIAS}"
    it = device(tmp_path, here(sshd, ProxyCommand=relay))
    assert opens(it)


def test_proxy_command_that_fails(sshd: SshServer, tmp_path: Path) -> None:
    text = here(sshd, ProxyCommand="TOKEN=hunter2 sh -c 'echo the reason >&2; exit 1'")
    error = refused(device(tmp_path, text.replace("TOKEN=hunter2 ", "env TOKEN=hunter2 ")))
    assert error.code == "HOST_UNREACHABLE"
    assert "the reason" in error.message
    assert "hunter2" not in str(error.as_dict())


def test_refused_port(sshd: SshServer, tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound and not listening: refused, and nobody else can take it
        taken.bind(("127.0.0.1", 0))
        error = refused(device(tmp_path, here(sshd, Port=taken.getsockname()[1])))
    assert error.code == "HOST_UNREACHABLE"
    assert "refused" in error.message


def test_unknown_name(sshd: SshServer, tmp_path: Path) -> None:
    error = refused(device(tmp_path, here(sshd, HostName="no-such-host.invalid")))
    assert error.code == "HOST_UNREACHABLE"
    assert "resolved" in error.message


def test_no_answer_to_the_connection(sshd: SshServer, tmp_path: Path) -> None:
    # A full accept queue swallows connections, as a firewall or a switched-off board does.
    with socket.socket() as listener, socket.socket() as filler:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        filler.connect(listener.getsockname())
        error = refused(device(tmp_path, here(sshd, Port=listener.getsockname()[1], ConnectTimeout=1)))
    assert error.code == "HOST_UNREACHABLE"
    assert "timeout" in error.message


def test_no_ssh_behind_the_port(sshd: SshServer, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        error = refused(device(tmp_path, here(sshd, Port=listener.getsockname()[1])), seconds=1)
    assert error.code == "TIMEOUT"


def test_not_open(sshd: SshServer) -> None:
    it = SshDevice(sshd.uri)
    with pytest.raises(DeviceError) as caught:
        it.run(["true"], Deadline(1))
    assert caught.value.code == "NOT_CONNECTED"
    it.close()
    it.close()
