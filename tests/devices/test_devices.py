"""From a URI to a device, and what devices there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgequant.devices.local import LocalDevice
from edgequant.devices.reasons import reason
from edgequant.devices.registry import make_device
from edgequant.devices.ssh_hosts import ssh_hosts
from edgequant.errors import InputError


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("No space left on device", "NO_SPACE"),
        ("write error: No space left on device\n", "NO_SPACE"),
        ("Disk quota exceeded", "NO_SPACE"),
        ("mkdir: cannot create directory '/x': Read-only file system", "READ_ONLY"),
        ("Permission denied", "PERMISSION_DENIED"),
        ("Operation not permitted", "PERMISSION_DENIED"),
        ("Input/output error", "DEVICE_IO"),
        ("", "DEVICE_IO"),
    ],
)
def test_reasons(text: str, code: str) -> None:
    error = reason(text, "x cannot be written", "ssh://board")
    assert error.code == code
    assert str(error).startswith("ssh://board: x cannot be written: ")
    assert text.strip() in str(error)
    assert (error.hint is None) == (code == "DEVICE_IO")


def test_make_local() -> None:
    device = make_device("local:", python="python3.9")
    assert isinstance(device, LocalDevice)
    assert device.python == ("python3.9",)


def test_make_ssh() -> None:
    assert make_device("ssh://board").uri == "ssh://board"


@pytest.mark.parametrize(
    "uri", ["", "board", "telnet://board", "LOCAL:", "local", "ssh:board", "adb:ABC", "x" * 10_000]
)
def test_no_such_scheme(uri: str) -> None:
    with pytest.raises(InputError) as caught:
        make_device(uri)
    assert caught.value.code == "DEVICE_SCHEME_UNKNOWN"
    assert "local:" in str(caught.value.hint)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("uri", ["local:x", "local://", "ssh://", "ssh://host/path", "ssh://host:0"])
def test_bad_uris(uri: str) -> None:
    with pytest.raises(InputError) as caught:
        make_device(uri)
    assert caught.value.code.startswith("DEVICE_URI")


# ---- listing


CONFIG = """
Host board
  HostName 192.0.2.7
  User root
Host board2 *.example !not.example pattern? a:b
  User pi
Host *
  User nobody
"""


def test_listing(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(CONFIG)
    listed = ssh_hosts(config)
    assert listed == [
        ("ssh://board", f"root@192.0.2.7, from {config}"),
        ("ssh://board2", f"pi@board2, from {config}"),
    ]
    for uri, _ in listed:
        make_device(uri)


def test_listing_follows_includes(tmp_path: Path) -> None:
    (tmp_path / "more").write_text("Host included\n  HostName 192.0.2.8\n")
    config = tmp_path / "config"
    config.write_text(f"Include {tmp_path}/more\nHost board\n")
    assert [uri for uri, _ in ssh_hosts(config)] == ["ssh://board", "ssh://included"]


def test_listing_without_a_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [uri for uri, _ in ssh_hosts(tmp_path / "none")] == []
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [uri for uri, _ in ssh_hosts()] == []


def test_listing_a_broken_config(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host board\nwhat is this = = \x00\n'\nHost 'unclosed\n")
    with pytest.raises(InputError) as caught:
        ssh_hosts(config)
    assert caught.value.code == "SSH_CONFIG_INVALID"


@pytest.mark.parametrize("condition", ["host board", "nonsense x", 'exec "touch {}/ran"', "all"])
def test_listing_a_config_with_match(tmp_path: Path, condition: str) -> None:
    config = tmp_path / "config"
    condition = condition.format(tmp_path)
    config.write_text(f"Host board\n  HostName 192.0.2.7\nMatch {condition}\n  User y\nHost other\n  User z\n")
    assert [uri for uri, _ in ssh_hosts(config)] == ["ssh://board", "ssh://other"]
    assert not (tmp_path / "ran").exists()
