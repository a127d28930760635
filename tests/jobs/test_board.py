"""The main job on a board with Python but without MNN and NumPy, over its own sshd."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs
import pytest

from edgequant.lab.session import DeviceOptions
from tests.beds.models import ModelByName
from tests.beds.vm import ALIAS, Board
from tests.jobs.support import check_numbers, do, witnessed

pytestmark = [pytest.mark.ssh, pytest.mark.arm64, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def uri(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """For a user whose ~/.ssh/config names the board, and whose caches stay where they are."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path(platformdirs.user_cache_dir())))
    (tmp_path / "home" / ".ssh").mkdir(parents=True)
    (tmp_path / "home" / ".ssh" / "config").write_text(board.config.read_text())
    monkeypatch.setitem(os.environ, "HOME", str(tmp_path / "home"))
    return f"ssh://{ALIAS}"


def test_with_the_pack(uri: str, generated_model: ModelByName, tmp_path: Path) -> None:
    with_the_pack(uri, generated_model("gru"), tmp_path)


@pytest.mark.nightly
def test_a_real_model_with_the_pack(uri: str, real_model: ModelByName, tmp_path: Path) -> None:
    with_the_pack(uri, real_model("enc"), tmp_path)


def with_the_pack(uri: str, model: Path, tmp_path: Path) -> None:
    report = do(model, tmp_path / "run", "dynamic:8", devices=(uri,), access=DeviceOptions(runtime="pack"))
    (run,) = report.runs
    assert report.verdict == run.verdict == "PASS"
    assert run.low_memory_engaged is True, run.low_memory_why
    assert run.device.arch == "aarch64"
    check_numbers(tmp_path / "run", run)
    witnessed(tmp_path / "run", run, sent=True)
    assert run.errors.device.keys() == run.outputs.keys()
    for name, error in run.errors.device.items():
        assert (error.sqnr_db or 0) > 40, name


def test_with_what_is_installed_there(uri: str, generated_model: ModelByName, tmp_path: Path) -> None:
    report = do(
        generated_model("gru"), tmp_path / "run", "dynamic:8", devices=(uri,), access=DeviceOptions(runtime="system")
    )
    (run,) = report.runs
    assert report.verdict == run.verdict == "ERROR"
    assert run.error is not None
    assert run.error.code == "MNN_MISSING"
