"""Many cases, and a device over SSH, for what fails in the middle of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgequant.lab.session import DeviceOptions
from tests.beds.sshd import SshServer
from tests.jobs.fault_cases import MANY, save_cases
from tests.jobs.support import ssh_home


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """Many cases for conv_cnn."""
    return save_cases(tmp_path / "inputs", MANY)


@pytest.fixture
def over_ssh(sshd: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DeviceOptions:
    """~/.ssh/config knows the server as `bed`; its Python is this one, its work directory is tmp_path/work."""
    for key, value in ssh_home(sshd, tmp_path).items():
        monkeypatch.setenv(key, value)
    return DeviceOptions(work_dir=str(tmp_path / "work"), python=sys.executable)
