"""From a URI to a device, what devices there are, and what is wrong with them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgequant.devices.doctor import examine
from edgequant.devices.factory import make_device
from edgequant.devices.listing import known_devices
from edgequant.devices.local import LocalDevice
from edgequant.devices.reasons import reason
from edgequant.errors import InputError
from edgequant.pipeline.target import TargetOptions


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


@pytest.mark.parametrize("uri", ["", "board", "telnet://board", "LOCAL:", "local", "ssh:board", "x" * 10_000])
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
    listed = known_devices(config)
    assert [uri for uri, _ in listed] == ["local:", "ssh://board", "ssh://board2"]
    assert "cores" in listed[0][1]
    assert listed[1][1] == f"root@192.0.2.7, from {config}"
    assert listed[2][1] == f"pi@board2, from {config}"
    for uri, _ in listed:
        make_device(uri)


def test_listing_follows_includes(tmp_path: Path) -> None:
    (tmp_path / "more").write_text("Host included\n  HostName 192.0.2.8\n")
    config = tmp_path / "config"
    config.write_text(f"Include {tmp_path}/more\nHost board\n")
    assert [uri for uri, _ in known_devices(config)] == ["local:", "ssh://board", "ssh://included"]


def test_listing_without_a_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [uri for uri, _ in known_devices(tmp_path / "none")] == ["local:"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [uri for uri, _ in known_devices()] == ["local:"]


def test_listing_a_broken_config(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host board\nwhat is this = = \x00\n'\nHost 'unclosed\n")
    with pytest.raises(InputError) as caught:
        known_devices(config)
    assert caught.value.code == "SSH_CONFIG_INVALID"


@pytest.mark.parametrize("condition", ["host board", "nonsense x", 'exec "touch {}/ran"', "all"])
def test_listing_a_config_with_match(tmp_path: Path, condition: str) -> None:
    config = tmp_path / "config"
    condition = condition.format(tmp_path)
    config.write_text(f"Host board\n  HostName 192.0.2.7\nMatch {condition}\n  User y\nHost other\n  User z\n")
    assert [uri for uri, _ in known_devices(config)] == ["local:", "ssh://board", "ssh://other"]
    assert not (tmp_path / "ran").exists()


# ---- doctor


def statuses(checks: list) -> dict[str, str]:
    return {check.name: check.status for check in checks}


def test_doctor_of_this_host(tmp_path: Path) -> None:
    checks = examine("local:", TargetOptions(work_dir=str(tmp_path / "work")))
    found = statuses(checks)
    assert list(found)[:4] == ["connection", "work directory", "runner", "kernels"]
    assert found["connection"] == found["runner"] == found["kernels"] == "ok"
    assert found["work directory"] in ("ok", "warn")
    said = {check.name: check.message for check in checks}
    assert str(tmp_path / "work") in said["work directory"]
    assert "MNN 3." in said["runner"]
    assert "i8sdot" in said["kernels"]
    assert all(check.fix for check in checks if check.status in ("warn", "fail"))


def test_doctor_of_a_device_without_python(tmp_path: Path) -> None:
    checks = examine("local:", TargetOptions(work_dir=str(tmp_path / "work"), python="no-such-python"))
    assert statuses(checks)["runner"] == "fail"
    assert checks[-1].message.startswith("PYTHON_MISSING: ")
    assert "--python" in str(checks[-1].fix)


def test_doctor_of_a_device_with_a_broken_python(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    broken.chmod(0o755)
    checks = examine("local:", TargetOptions(work_dir=str(tmp_path / "work"), python=str(broken)))
    assert checks[-1].message.startswith("MNN_MISSING: ")
    broken.write_text("#!/bin/sh\nkill -ILL $$\n")
    checks = examine("local:", TargetOptions(work_dir=str(tmp_path / "work"), python=str(broken)))
    assert checks[-1].message.startswith("RUNNER_NOT_STARTED: ")
    assert "SIGILL" in checks[-1].message


def test_doctor_of_an_unusable_work_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    checks = examine("local:", TargetOptions(work_dir=str(tmp_path / "file")))
    assert statuses(checks) == {"connection": "ok", "work directory": "fail", "runner": "skipped"}
    assert checks[1].fix


def test_doctor_of_a_device_that_does_not_answer() -> None:
    checks = examine("ssh://127.0.0.1:1", TargetOptions())
    assert statuses(checks) == {"connection": "fail", "work directory": "skipped", "runner": "skipped"}
    assert checks[0].fix


def test_doctor_of_a_bad_uri() -> None:
    with pytest.raises(InputError):
        examine("nonsense", TargetOptions())
