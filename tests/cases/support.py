"""Files that the tests of cases are written into, and the models' inputs they are for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgequant.cases.case import Case
from edgequant.cases.load import load_cases
from edgequant.errors import InputError
from edgequant.tensors import TensorSpec

X = (TensorSpec("x", "float32", (1, 4)),)
TWO = (
    TensorSpec("a", "float32", (1, None), (None, "S")),
    TensorSpec("b", "int64", (None,), ("S",)),
)


def problem(work: Callable[[], object]) -> InputError:
    with pytest.raises(InputError) as caught:
        work()
    return caught.value


def one(path: Path, inputs: tuple[TensorSpec, ...] = X) -> Case:
    (case,) = load_cases(path, inputs)
    return case


def good(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with open(path, "wb") as stream:  # NumPy would add .npz
        np.savez(stream, x=np.zeros((1, 4), np.float32))


def mnn_folder(folder: Path, **tensors: np.ndarray) -> Path:
    """A folder as MNN's testMNNFromOnnx.py writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    described = []
    for name, array in tensors.items():
        described.append({"name": name, "shape": list(array.shape)})
        file = Path(f"{folder}/{name}.txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savetxt(file, array.flatten())
    (folder / "input.json").write_text(json.dumps({"inputs": described, "outputs": ["y"]}))
    np.savetxt(folder / "y.txt", np.zeros(4))
    return folder
