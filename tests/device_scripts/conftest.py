"""A runner of the test's own, one that many tests share, and something for it to run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgequant.runner.bundle import runner_file
from tests.device_scripts.support import Converter, ModelByName, Runner


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runner_file(tmp_path_factory.mktemp("bundle"))[0]


@pytest.fixture
def start(script: Path, tmp_path: Path) -> Iterator[Callable[..., Runner]]:
    """start() starts a runner of the test's own, start(argv) in another way."""
    started: list[Runner] = []

    def one(argv: list[str] | None = None, **options: object) -> Runner:
        started.append(Runner(argv or [sys.executable, "-u", str(script)], tmp_path / f"{len(started)}.err", **options))
        return started[-1]

    yield one
    for runner in started:
        runner.end()


@pytest.fixture(scope="module")
def runner(script: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """One runner that many tests ask, which shows at the same time that it lives on."""
    shared = Runner([sys.executable, "-u", str(script)], tmp_path_factory.mktemp("runner") / "stderr")
    yield shared
    assert shared.child.poll() is None
    shared.end()


@pytest.fixture(scope="module")
def cnn(generated_model: ModelByName, as_mnn: Converter) -> Path:
    return as_mnn(generated_model("conv_cnn"))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
