"""The backend tests of the installed onnx as files: model.onnx, inputs.npz and expected.npz for each.

They are made once for each version of onnx, in the user's cache: making all of them takes a quarter of a minute.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import platformdirs
from onnx import numpy_helper

_NUMBERS = "fiub"


@dataclass(frozen=True)
class Example:
    """A test.  Without inputs where these are no tensors of numbers: text, sequences, bfloat16."""

    name: str
    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model.onnx"

    @property
    def inputs(self) -> Path | None:
        return _there(self.folder / "inputs.npz")

    @property
    def expected(self) -> Path | None:
        """The test's own outputs; None where they are no tensors of numbers."""
        return _there(self.folder / "expected.npz")


def _there(path: Path) -> Path | None:
    return path if path.exists() else None


def examples() -> dict[str, Example]:
    """All of them, by name."""
    home = platformdirs.user_cache_path("edgequant-tests") / f"onnx-backend-{onnx.__version__}"
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent) as work, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tests' own arithmetic
            made = Path(work) / "made"
            for name, model, inputs, outputs in _collected():
                _save(made / name, model, inputs, outputs)
            with contextlib.suppress(OSError):  # another process was first
                made.rename(home)
    return {folder.name: Example(folder.name, folder) for folder in sorted(home.iterdir())}


def _save(folder: Path, model: onnx.ModelProto, inputs: list[Any], outputs: list[Any]) -> None:
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    constants = {each.name for each in model.graph.initializer}
    free = [each.name for each in model.graph.input if each.name not in constants]
    names = free if len(free) == len(inputs) else [each.name for each in model.graph.input]
    for file, keys, values in (("inputs", names, inputs), ("expected", [o.name for o in model.graph.output], outputs)):
        arrays = _arrays(dict(zip(keys, values, strict=False)))
        if arrays is not None:
            with (folder / f"{file}.npz").open("wb") as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type]


def _arrays(given: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    found = {}
    for name, value in given.items():
        array = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
        if not isinstance(array, (np.ndarray, np.generic)) or array.dtype.kind not in _NUMBERS or array.dtype.names:
            return None
        found[name] = np.asarray(array)
    return found


def _collected() -> Iterator[tuple[str, onnx.ModelProto, list[Any], list[Any]]]:
    from onnx.backend.test.case import model, node
    from onnx.backend.test.loader import DATA_DIR, load_model_tests

    seen = set()
    for each in [*node.collect_testcases(None), *model.collect_testcases()]:
        if each.model is not None and each.data_sets:
            seen.add(each.name)
            yield each.name, each.model, *map(list, each.data_sets[0])
    for kind in ("simple", "pytorch-converted", "pytorch-operator"):
        for each in load_model_tests(kind=kind):
            folder = Path(each.model_dir or "")
            if each.name not in seen and (folder / "test_data_set_0").is_dir():
                seen.add(each.name)
                yield each.name, onnx.load(folder / "model.onnx"), _stored(folder, "input"), _stored(folder, "output")
    for path in sorted(Path(DATA_DIR, "light").glob("*.onnx")):
        yield path.stem, *_light(path)


def _stored(folder: Path, what: str) -> list[Any]:
    found = []
    for number in range(len(list((folder / "test_data_set_0").glob(f"{what}_*.pb")))):
        tensor = onnx.TensorProto()
        tensor.ParseFromString((folder / "test_data_set_0" / f"{what}_{number}.pb").read_bytes())
        found.append(tensor)
    return found


def _light(path: Path) -> tuple[onnx.ModelProto, list[Any], list[Any]]:
    """With the inputs that onnx's own runner gives them."""
    model = onnx.load(path)
    constants = {each.name for each in model.graph.initializer}
    inputs = []
    for each in model.graph.input:
        if each.name not in constants:
            shape = [dim.dim_value or 1 for dim in each.type.tensor_type.shape.dim]
            inputs.append((np.arange(np.prod(shape)).reshape(shape) / np.prod(shape)).astype(np.float32))
    output = onnx.TensorProto()
    output.ParseFromString(path.with_name(f"{path.stem}_output_0.pb").read_bytes())
    return model, inputs, [output]
