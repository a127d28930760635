"""Host keys of a real sshd: unknown, accepted, changed, revoked."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.beds.sshd import SshServer, make_key
from tests.devices.ssh_hosts import device, here, opens, refused

pytestmark = pytest.mark.ssh


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
