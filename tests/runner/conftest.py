"""This host as a device, a real runner on it, and a session with it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgequant.deadline import Deadline
from edgequant.devices.local import LocalDevice
from edgequant.runner.bundle import runner_file
from edgequant.runner.client import Loaded, MnnRunner
from edgequant.runner.session import RunnerSession
from edgequant.spec import RunOptions
from tests.runner.support import ModelByName


@pytest.fixture
def device() -> Iterator[LocalDevice]:
    with LocalDevice() as opened:
        yield opened


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runner_file(tmp_path_factory.mktemp("bundle"))[0]


@pytest.fixture
def session(device: LocalDevice, script: Path, tmp_path: Path) -> Iterator[RunnerSession]:
    with RunnerSession(device, [sys.executable, "-u", str(script)], log=tmp_path / "runner.log") as started:
        started.start(Deadline(60))
        yield started


@pytest.fixture
def runner(session: RunnerSession) -> MnnRunner:
    return MnnRunner(session, RunOptions(timeout=60), uri="local:")


@pytest.fixture
def cnn(runner: MnnRunner, generated_model: ModelByName, as_mnn: Callable[..., Path]) -> Loaded:
    return runner.load(str(as_mnn(generated_model("conv_cnn"))), "normal")


@pytest.fixture
def image() -> dict[str, np.ndarray]:
    return {"x": np.zeros((1, 3, 32, 32), np.float32)}
