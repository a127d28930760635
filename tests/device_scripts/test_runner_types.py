"""Element types: what arrives in MNN is what was sent, or it is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper

from tests import generated
from tests.device_scripts.support import Converter, ModelByName, Runner

CAST = {"float32": T.FLOAT, "float64": T.DOUBLE, "int8": T.INT8, "uint8": T.UINT8, "int64": T.INT64, "bool": T.BOOL}


@pytest.fixture(scope="module")
def takes(tmp_path_factory: pytest.TempPathFactory, as_mnn: Converter, runner: Runner) -> Callable[[str], int]:
    """takes("int8"): handle of a model whose input of that type comes out as float32."""
    folder = tmp_path_factory.mktemp("takes")
    handles: dict[str, int] = {}

    def get(dtype: str) -> int:
        if dtype not in handles:
            node = helper.make_node("Cast", ["x"], ["y"], to=T.FLOAT)
            value = helper.make_tensor_value_info
            source = generated.save(
                folder / f"{dtype}.onnx", [node], [value("x", CAST[dtype], [4])], [value("y", T.FLOAT, [4])]
            )
            handles[dtype] = runner.load(as_mnn(source))["handle"]
        return handles[dtype]

    return get


@pytest.mark.parametrize(
    ("model", "given"),
    [
        ("float32", np.array([0, -1.5, np.nan, np.inf], np.float32)),
        ("float32", np.array([0, -1.5, np.nan, -np.inf], np.float64)),
        ("float32", np.array([0, -1.5, 65504, 2], np.float16)),
        ("float32", np.array([1, 2, 3, 4], ">f4")),
        ("float64", np.array([0, -1.5, 1e30, 2], np.float64)),
        ("int8", np.array([-128, -1, 0, 127], np.int8)),
        ("int8", np.array([-128, -1, 0, 127], np.int64)),
        ("uint8", np.array([0, 1, 200, 255], np.uint8)),
        ("uint8", np.array([0, 1, 200, 255], np.uint16)),
        ("int64", np.array([0, -(2**31), 5, 2**24], np.int64)),
        ("int64", np.array([0, 1, 200, 2**24], np.uint32)),
        ("bool", np.array([True, False, False, True])),
        ("float32", np.arange(8, dtype=np.float32)[::2]),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.dtype}",
)
def test_values_arrive(runner: Runner, takes: Callable[[str], int], model: str, given: np.ndarray) -> None:
    assert np.array_equal(runner.run(takes(model), x=given)["y"], given.astype(np.float32), equal_nan=True)


@pytest.mark.parametrize(
    ("model", "given", "code"),
    [
        ("float32", np.array([1e39, 0, 0, 0]), "INPUT_RANGE"),
        ("int64", np.array([2**31, 0, 0, 0]), "INPUT_RANGE"),
        ("int64", np.array([-(2**31) - 1, 0, 0, 0]), "INPUT_RANGE"),
        ("int64", np.array([2**64 - 1, 0, 0, 0], np.uint64), "INPUT_RANGE"),
        ("int8", np.array([128, 0, 0, 0]), "INPUT_RANGE"),
        ("uint8", np.array([-1, 0, 0, 0]), "INPUT_RANGE"),
        ("uint8", np.zeros(4, np.float32), "INPUT_DTYPE"),
        ("float32", np.zeros(4, np.int32), "INPUT_DTYPE"),
        ("float32", np.zeros(4, bool), "INPUT_DTYPE"),
    ],
)
def test_values_that_would_change_are_refused(
    runner: Runner, takes: Callable[[str], int], model: str, given: np.ndarray, code: str
) -> None:
    assert runner.refused("run", {"x": given}, handle=takes(model)) == code


def test_all_kinds_of_inputs_at_once(runner: Runner, generated_model: ModelByName, as_mnn: Converter) -> None:
    import onnxruntime

    inputs = {
        "ids": np.array([[0, 3, 15, 7]]),
        "mask": np.array([[True, False, True, True]]),
        "scale": np.array(0.5, np.float32),
        "pixels": np.array([[0, 255, 128, 9]], np.uint8),
        "steps": np.array([[-5, 1, 0, 70000]], np.int32),
    }
    source = generated_model("many_dtypes")
    loaded = runner.load(as_mnn(source))
    assert [entry["dtype"] for entry in loaded["inputs"]] == ["int32", "int32", "float32", "uint8", "int32"]
    assert loaded["inputs"][2]["shape"] == []
    found = runner.run(loaded["handle"], **inputs)["y"]
    session = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(found, session.run(["y"], inputs)[0], rtol=1e-5, atol=1e-5)
