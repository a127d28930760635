"""Operators that MNN takes for something else are named before anything runs; so are row numbers beyond a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from edgequant.cases.case import Case
from edgequant.cases.whole_numbers import checked
from edgequant.errors import InputError
from edgequant.findings import Finding
from edgequant.models import find_risks, read_model
from edgequant.models.tables import row_limits

CODES = ("OPERATOR_MISREAD", "CONSTANT_BEYOND_INT32", "GRU_RESET_FIRST")
value = helper.make_tensor_value_info


def onnx_of(path: Path, *nodes: onnx.NodeProto, dtype: int = T.FLOAT, **constants: np.ndarray) -> Path:
    given = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(list(nodes), "g", [value("x", dtype, None)], [value("y", T.FLOAT, None)], given)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


def named(path: Path) -> list[Finding]:
    return [each for each in find_risks(read_model(path)) if each.code in CODES]


@pytest.mark.parametrize(
    ("kind", "attribute", "wrong", "right"),
    [
        ("GridSample", "mode", "cubic", "linear"),
        ("GridSample", "padding_mode", "reflection", "border"),
        ("Resize", "nearest_mode", "ceil", "floor"),
        ("Resize", "coordinate_transformation_mode", "tf_crop_and_resize", "asymmetric"),
        ("MaxPool", "dilations", [1, 2], [1, 1]),
        ("AveragePool", "dilations", [2, 1], [1, 1]),
        ("Resize", "axes", [2, 3], None),
        ("Mod", "fmod", 1, 0),
        ("Pad", "mode", "wrap", "edge"),
        ("Unique", "sorted", 0, 1),
        ("Unique", "axis", 0, None),
        ("SoftmaxCrossEntropyLoss", "ignore_index", 1, None),
        ("ArgMax", "select_last_index", 1, 0),
        ("ScatterND", "reduction", "add", "none"),
        ("Conv", "auto_pad", "SAME_LOWER", "SAME_UPPER"),
        ("GRU", "activations", ["Sigmoid", "Relu"], ["sigmoid", "tanh"]),
    ],
)
def test_an_attribute_that_is_passed_over(
    tmp_path: Path, kind: str, attribute: str, wrong: object, right: object
) -> None:
    more = {"linear_before_reset": 1} if kind == "GRU" else {}
    for given in (wrong, right, None):
        node = helper.make_node(kind, ["x"], ["y"], name="it", **more, **({} if given is None else {attribute: given}))
        found = named(onnx_of(tmp_path / "m.onnx", node))
        assert [each.code for each in found] == (["OPERATOR_MISREAD"] if given is wrong else [])
        if given is wrong:
            assert found[0].where == "it"
            text = ",".join(map(str, given)) if isinstance(given, list) else str(given)
            assert f"{kind} with {attribute}={text}" in found[0].message
            assert found[0].remedy


def _kernel(path: Path, kind: str, *more: onnx.NodeProto, batch: int = 2, rank: int = 3, **given: object) -> list[str]:
    """What is said of an operator with a kernel of these dimensions."""
    inputs, constants = ["x"], {}
    if kind == "Conv":
        inputs, constants = ["x", "w"], {"w": np.zeros((4, 4) + (2,) * rank, np.float32)}
    last = "c" if more else "y"
    node = helper.make_node(kind, inputs, [last], kernel_shape=[2] * rank, **given)
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    x = value("x", T.FLOAT, [batch, 4, *(8,) * rank])
    graph = helper.make_graph([node, *more], "g", [x], [value("y", T.FLOAT, None)], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return [each.message for each in named(path)]


def test_kernels_of_one_and_of_three_dimensions(tmp_path: Path) -> None:
    """Seen: of a batch that is pooled over three dimensions the first is right; a convolution over a length keeps
    MNN's fourth dimension where nothing comes behind."""
    path = tmp_path / "m.onnx"
    assert "three dimensions" in _kernel(path, "MaxPool")[0]
    assert _kernel(path, "MaxPool", batch=1) == _kernel(path, "MaxPool", rank=2) == []
    assert "dilations=2,1,1" in _kernel(path, "Conv", dilations=[2, 1, 1])[0]
    assert _kernel(path, "Conv", dilations=[2, 1, 1], strides=[2, 1, 1]) == _kernel(path, "Conv") == []
    assert "fourth dimension" in _kernel(path, "Conv", rank=1)[0]
    assert "fourth dimension" in _kernel(path, "Conv", helper.make_node("Relu", ["c"], ["y"]), rank=1)[0]
    assert _kernel(path, "Conv", helper.make_node("Tanh", ["c"], ["y"]), rank=1) == []


def test_axes_of_a_reduction_that_are_computed(tmp_path: Path) -> None:
    computed = [helper.make_node("Shape", ["x"], ["axes"]), helper.make_node("ReduceL2", ["x", "axes"], ["y"])]
    (found,) = named(onnx_of(tmp_path / "m.onnx", *computed))
    assert "ReduceL2 with axes that are computed" in found.message
    constant = onnx_of(tmp_path / "c.onnx", helper.make_node("ReduceL2", ["x", "axes"], ["y"]), axes=np.array([1]))
    assert named(constant) == []


def test_a_gru_that_stays_wrong_is_not_advised_to_reset_after(tmp_path: Path) -> None:
    other = helper.make_node("GRU", ["x"], ["y"], activations=["Sigmoid", "Relu"])
    plain = helper.make_node("GRU", ["x"], ["z"])
    assert [each.code for each in named(onnx_of(tmp_path / "a.onnx", other))] == ["OPERATOR_MISREAD"]
    assert [each.code for each in named(onnx_of(tmp_path / "b.onnx", plain))] == ["GRU_RESET_FIRST"]


@pytest.mark.parametrize(
    ("first", "sizes", "conv", "told"),
    [(True, (1, 1, 1), True, True), (False, (1, 1, 1), True, False), (True, (), True, False),
     (True, (1, 1, 1), False, False)],
)  # fmt: skip
def test_a_constant_in_front_of_a_convolution(
    tmp_path: Path, first: bool, sizes: tuple[int, ...], conv: bool, told: bool
) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"])] if conv else [helper.make_node("Relu", ["x"], ["c"])]
    nodes += [helper.make_node("Tanh", ["c"], ["t"])]
    nodes += [helper.make_node("Add", ["k", "t"] if first else ["t", "k"], ["y"], name="add")]
    found = named(onnx_of(tmp_path / "m.onnx", *nodes, w=np.zeros((4, 3, 3), "f4"), k=np.zeros(sizes, "f4")))
    assert [each.where for each in found] == (["add"] if told else [])


@pytest.mark.parametrize(
    ("number", "told"), [(2**31 - 1, False), (2654435761, True), (-(2**31) - 1, True), (2**63 - 1, False)]
)
def test_a_constant_beyond_int32(tmp_path: Path, number: int, told: bool) -> None:
    raw = np.array([3, number])
    nodes = [helper.make_node("Mul", ["x", "k"], ["a"], name="hash"), helper.make_node("Mod", ["a", "n"], ["b"])]
    listed = helper.make_node("Constant", [], ["n"], value=helper.make_tensor("n", T.INT64, [1], [number]))
    for path in (onnx_of(tmp_path / "a.onnx", *nodes, k=raw, dtype=T.INT64),
                 onnx_of(tmp_path / "b.onnx", listed, *nodes, dtype=T.INT64)):  # fmt: skip
        found = named(path)
        assert [each.code for each in found] == (["CONSTANT_BEYOND_INT32"] if told else [])
    assert all("(in hash)" in each.message for each in named(tmp_path / "a.onnx"))


def test_tflite(tmp_path: Path) -> None:
    from tests import generated_tflite as made

    path = tmp_path / "m.tflite"
    for build, expected in (
        (lambda: made.transpose_conv(path), "TRANSPOSE_CONV with 3 channels in and 5 out"),
        (lambda: made.transpose_conv(path, 3), None),
        (lambda: made.resize_nearest(path, halfPixelCenters=True), "RESIZE_NEAREST_NEIGHBOR with half_pixel_centers=1"),
        (lambda: made.resize_nearest(path, alignCorners=True), "RESIZE_NEAREST_NEIGHBOR with align_corners=1"),
        (lambda: made.resize_nearest(path), None),
        (lambda: made.mirror_pad(path), "MIRROR_PAD with a mirrored border"),
        (lambda: made.depthwise(path), "DEPTHWISE_CONV_2D with depth_multiplier=2"),
        (lambda: made.depthwise(path, 1), None),
    ):
        build()
        found = named(path)
        assert [each.where for each in found] == ([] if expected is None else ["y"])
        assert all(each.message.startswith(str(expected)) for each in found)


# ---- row numbers


def test_the_rows_of_a_table(tmp_path: Path) -> None:
    from tests import generated_tflite as made

    table = np.zeros((50, 8), "f4")
    plain = helper.make_node("Gather", ["table", "x"], ["y"])
    passed = [helper.make_node("Cast", ["x"], ["i"], to=T.INT32), helper.make_node("Gather", ["table", "i"], ["y"])]
    columns = helper.make_node("Gather", ["table", "x"], ["y"], axis=1)
    computed = [helper.make_node("Mod", ["x", "n"], ["i"]), helper.make_node("Gather", ["table", "i"], ["y"])]
    for nodes, expected in (([plain], 50), (passed, 50), ([columns], 8), ([plain, columns], 8), (computed, None)):
        graph = read_model(onnx_of(tmp_path / "m.onnx", *nodes, dtype=T.INT64, table=table, n=np.array(9)))
        assert row_limits(graph) == ({} if expected is None else {"x": expected})
    assert row_limits(read_model(made.embedding(tmp_path / "m.tflite"))) == {"x": 6}


def ids(*numbers: int, generated: bool = False, dtype: str = "int64") -> list[Case]:
    return [Case("c", {"x": np.array(numbers, dtype)}, "c.npz", generated)]


@pytest.mark.parametrize(
    ("numbers", "rows", "said"),
    [
        ((0, 49), 50, None),
        ((-50,), 50, None),
        ((0, 50), 50, "holds 0 to 50, but the table it is looked up in has 50 rows"),
        ((-51,), 50, "has 50 rows"),
        ((0, 2**31), None, "no integers beyond int32"),
        ((-(2**31), 2**31 - 1), None, None),
    ],
)
def test_numbers_that_cannot_be_fed(numbers: tuple[int, ...], rows: int | None, said: str | None) -> None:
    limits = {} if rows is None else {"x": rows}
    if said is None:
        assert checked(ids(*numbers), limits)[0].inputs["x"].tolist() == list(numbers)
        return
    with pytest.raises(InputError, match=said) as caught:
        checked(ids(*numbers), limits)
    assert caught.value.code == "INPUT_RANGE"
    assert "c.npz: input 'x'" in caught.value.message


def test_random_numbers_are_rows_that_are_there() -> None:
    (case,) = checked(ids(0, 1, 2, 3, generated=True), {"x": 2})
    assert case.inputs["x"].tolist() == [0, 1, 0, 1]
    assert case.inputs["x"].dtype == np.int64
