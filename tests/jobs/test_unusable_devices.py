"""Devices that cannot be used from the start: named, and in nobody's way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgequant.lab.session import DeviceOptions
from tests.beds.models import ModelByName
from tests.beds.sshd import ALIAS, SshServer, make_key
from tests.jobs.support import do, ssh_home

URI = f"ssh://{ALIAS}"


def bad_device(kind: str, sshd: SshServer, closed: int, tmp_path: Path) -> tuple[str, DeviceOptions]:
    """Makes ~/.ssh/config and the options so that `bed` fails; returns the code it should fail with."""
    config, access = sshd.config.read_text(), DeviceOptions(work_dir=str(tmp_path / "work"), python=sys.executable)
    work, python = str(tmp_path / "work"), sys.executable
    code = kind.upper()
    if kind == "host_key_unknown":
        config = config.replace(str(sshd.known_hosts), str(tmp_path / "empty_known_hosts"))
    elif kind == "auth_failed":
        config = config.replace(str(sshd.key), str(make_key(tmp_path / "stranger")))
    elif kind == "host_unreachable":
        config = config.replace(f"Port {sshd.port}", f"Port {closed}")
    elif kind == "python_missing":
        python = "/no/such/python3"
    elif kind == "mnn_missing":
        python = bare_python(tmp_path)
    elif kind in ("read_only", "no_space"):
        if not sshd.accounts:
            pytest.skip("needs file systems of its own: run as root")
        work = f"{sshd.read_only if kind == 'read_only' else sshd.small}/work"
    access = DeviceOptions(work_dir=work, python=python)
    (tmp_path / "config").write_text(config)
    return code, access


def bare_python(tmp_path: Path) -> str:
    """A Python on the board that has NumPy but no MNN."""
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "numpy").symlink_to(Path(np.__file__).parent)
    libraries = Path(np.__file__).parent.with_name("numpy.libs")
    if libraries.exists():
        (packages / "numpy.libs").symlink_to(libraries)
    script = tmp_path / "bare-python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {sys.executable} -S "$@"\n')
    script.chmod(0o755)
    return str(script)


@pytest.mark.ssh
@pytest.mark.parametrize(
    "kind",
    ["host_key_unknown", "auth_failed", "host_unreachable", "python_missing", "mnn_missing", "read_only", "no_space"],
)
def test_one_of_two_devices_cannot_be_used(
    kind: str, generated_model: ModelByName, sshd: SshServer, closed_port: int, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    model = generated_model("conv_cnn")
    code, access = bad_device(kind, sshd, closed_port, tmp_path)
    for key, value in ssh_home(sshd, tmp_path, config=(tmp_path / "config").read_text()).items():
        monkeypatch.setenv(key, value)
    # --work-dir and --python hold for every device: the good one is judged first where they would break it too.
    good = "local:" if kind not in ("python_missing", "mnn_missing") else None
    report = do(model, tmp_path / "run", "weight:8", devices=(URI, good) if good else (URI,), access=access)
    bad, *rest = report.runs
    assert bad.verdict == report.verdict == "ERROR"
    assert report.verdict.exit_code == 3
    assert bad.error is not None
    assert bad.error.code == code
    assert bad.error.where == URI
    assert bad.error.hint
    assert not bad.outputs
    assert not bad.latency_ms
    assert [run.verdict.value for run in rest] == ["PASS"] * len(rest)


@pytest.mark.ssh
def test_the_boards_own_python_has_no_mnn(
    generated_model: ModelByName, sshd: SshServer, over_ssh: DeviceOptions, tmp_path: Path
) -> None:
    its_own = subprocess.run(["python3", "-c", "import MNN"], capture_output=True, env={"PATH": "/usr/bin:/bin"})
    if its_own.returncode == 0:
        pytest.skip("the system's own Python has MNN")
    (run,) = do(
        generated_model("conv_cnn"), tmp_path / "run", devices=(URI,), access=DeviceOptions(work_dir=over_ssh.work_dir)
    ).runs
    assert run.verdict == "ERROR"
    assert run.error is not None
    assert run.error.code in ("MNN_MISSING", "NUMPY_MISSING", "PYTHON_MISSING")
    assert "pip install MNN" in str(run.error.hint)
