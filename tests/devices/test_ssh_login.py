"""Logging in to a real sshd: keys of every kind, agents, passphrases and passwords on a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.beds.sshd import PASSWORD, SshServer, make_key
from tests.devices.ssh_hosts import device, here, opens, refused

pytestmark = pytest.mark.ssh


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


_PROMPT = re.compile(rb"^(?!DEBUG|INFO|WARNING)[^\r\n]*pass(?:word|phrase)[^\r\n]*: ", re.IGNORECASE | re.MULTILINE)


def on_a_terminal(tmp_path: Path, text: str, answers: list[str]) -> tuple[str, int]:
    """Open the device in a child with a terminal; what it printed there, with every log line, and its exit code.

    `answers` are typed as the child asks, which is known by the words: lines of the log come in between.
    """
    (tmp_path / "config").write_text(text)
    program = (
        "import logging, sys\nlogging.basicConfig(level=logging.DEBUG)\n"
        "from pathlib import Path\nfrom edgequant.deadline import Deadline\n"
        "from edgequant.devices.ssh import SshDevice\nfrom edgequant.errors import EdgequantError\n"
        f"device = SshDevice('ssh://here', config_path=Path({str(tmp_path / 'config')!r}))\n"
        "try:\n    device.open(Deadline(100))\n    print(device.run(['echo', 'works'], Deadline(60)).stdout)\n"
        "except EdgequantError as error:\n    print(error.code, error, error.hint)\n    sys.exit(3)\n"
        "finally:\n    device.close()\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", program])
    seen, answered = b"", 0
    end = time.monotonic() + 200
    try:
        while time.monotonic() < end:
            if not select.select([terminal], [], [], 1)[0]:
                continue
            try:
                data = os.read(terminal, 4096)
            except OSError:  # how Linux says that the other side is gone
                break
            seen += data
            if len(_PROMPT.findall(seen)) > answered < len(answers):
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
