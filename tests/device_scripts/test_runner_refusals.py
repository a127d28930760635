"""What the runner refuses, after each of which it lives on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.device_scripts.support import OPTIONS, Runner
from tests.waiting import eventually


@pytest.mark.parametrize("job", ["run", "time"])
@pytest.mark.parametrize(
    "shape", [(1, 5, 32, 32), (7,), (), (1, 3, 0, 32), (0, 3, 32, 32)], ids=lambda shape: f"{list(shape)}"
)
def test_bad_shapes(runner: Runner, cnn: Path, image: np.ndarray, job: str, shape: tuple[int, ...]) -> None:
    handle = runner.load(cnn)["handle"]
    header = {"handle": handle, "warmup": 0, "repeat": 2, "min_seconds": 0, "max_seconds": 5}
    assert runner.refused(job, {"x": np.zeros(shape, np.float32)}, **header) == "INFERENCE_FAILED"
    assert runner.run(handle, x=image)["y"].shape == (1, 10)


def test_what_mnn_prints_goes_to_stderr(start: Callable[..., Runner], cnn: Path) -> None:
    runner = start()
    handle = runner.load(cnn)["handle"]
    before = runner.stderr.stat().st_size
    assert runner.refused("run", {"x": np.zeros(7, np.float32)}, handle=handle) == "INFERENCE_FAILED"
    assert eventually(lambda: runner.stderr.stat().st_size > before)
    assert runner.ask("hello")[0]["ok"]


def test_input_names(runner: Runner, cnn: Path, image: np.ndarray) -> None:
    handle = runner.load(cnn)["handle"]
    assert runner.refused("run", {}, handle=handle) == "INPUT_NAMES"
    assert runner.refused("run", {"x": image, "z": image}, handle=handle) == "INPUT_NAMES"


@pytest.mark.parametrize("kind", ["garbage", "cut", "empty", "directory", "missing"])
def test_no_model(runner: Runner, cnn: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.mnn"
    content = {"garbage": np.random.default_rng(1).bytes(5000), "cut": cnn.read_bytes()[:4000], "empty": b""}
    if kind in content:
        path.write_bytes(content[kind])
    elif kind == "directory":
        path.mkdir()
    assert runner.refused("load", path=str(path), options=OPTIONS) == "MODEL_LOAD_FAILED"


@pytest.mark.parametrize(
    ("op", "header", "code"),
    [
        ("nonsense", {}, "OP_UNKNOWN"),
        ("__class__", {}, "OP_UNKNOWN"),
        ("", {}, "OP_UNKNOWN"),
        ("run", {}, "REQUEST_INVALID"),
        ("run", {"handle": 10**6}, "HANDLE_UNKNOWN"),
        ("run", {"handle": [1]}, "REQUEST_INVALID"),
        ("load", {}, "REQUEST_INVALID"),
        ("load", {"path": "x", "options": {**OPTIONS, "memory": "lo"}}, "REQUEST_INVALID"),
        ("load", {"path": "x", "options": {**OPTIONS, "cores": [4000]}}, "CORES_UNAVAILABLE"),
        ("load", {"path": "x", "options": {**OPTIONS, "cores": [-1]}}, "CORES_UNAVAILABLE"),
        ("unload", {}, "REQUEST_INVALID"),
    ],
)
def test_bad_requests(runner: Runner, op: str, header: dict, code: str) -> None:
    assert runner.refused(op, **header) == code


def test_an_op_that_is_no_string(runner: Runner) -> None:
    assert runner.refused(5) == "OP_UNKNOWN"  # type: ignore[arg-type]
