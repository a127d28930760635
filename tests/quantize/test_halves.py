"""Half precision: rounded to the nearest in every place, and what it cannot hold is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgequant import zoo
from edgequant.archive.types import Artifact
from edgequant.models.flat import FlatFile, Table
from edgequant.models.mnn.net import constant, convolution, graphs
from edgequant.models.mnn.schema import Blob, Convolution2D, DataType, IDSTQuan
from edgequant.models.mnn.weights import read_weights
from edgequant.quantize.convert import convert
from edgequant.spec import Variant
from tests import generated
from tests.quantize.support import run_mnn, smooth

FLOAT, FP16 = Variant.parse("float"), Variant.parse("fp16")


def make(source: Path, out: Path, variant: Variant = FP16, *flags: str) -> Artifact:
    return convert(source, variant, out, log_dir=out.parent / "logs", extra_flags=flags)


def numbers(path: Path) -> dict[tuple[int, int], np.ndarray]:
    """Weights and float constants by (graph, operator in it), as the file has them: float32 or float16."""
    net = FlatFile(path.read_bytes()).root()
    found: dict[tuple[int, int], np.ndarray] = {}
    ops = (((i, j), op) for i, (_, places) in enumerate(graphs(net)) for j, (_, op) in enumerate(places))
    for place, op in ops:
        layer, value = convolution(op), constant(op)
        quant = layer.table(Convolution2D.quan_parameter) if layer is not None else None
        if quant is not None and quant.count(IDSTQuan.buffer):
            found[place] = np.frombuffer(quant.raw(IDSTQuan.buffer), "<f2")
        elif layer is not None and layer.count(Convolution2D.weight):
            found[place] = np.frombuffer(layer.raw(Convolution2D.weight), "<f4")
        elif value is not None and value.number(Blob.data_type) == DataType.DT_HALF:
            found[place] = np.frombuffer(_bytes(value), "<f2")
        elif value is not None and value.number(Blob.data_type) == DataType.DT_FLOAT:
            found[place] = np.frombuffer(value.raw(Blob.float32s), "<f4")
    return found


def _bytes(blob: Table) -> bytes:
    """Half constants are kept as raw bytes (uint8s or int8s of the schema's Blob)."""
    return next(blob.raw(field) for field in (Blob.uint8s, Blob.int8s) if blob.count(field))


def product(path: Path, weights: np.ndarray, constant: float = 1.0) -> Path:
    """x [1,N] -> y [1,1] = sum of the larger ones of x and a constant, times weights."""
    nodes = [
        onnx.helper.make_node("Max", ["x", "c"], ["p"]),
        onnx.helper.make_node("MatMul", ["p", "w"], ["y"], name="fc"),
    ]
    stored = [
        onnx.numpy_helper.from_array(weights.astype(np.float32).reshape(-1, 1), "w"),
        onnx.numpy_helper.from_array(np.full((1, 1), constant, np.float32), "c"),
    ]
    value = onnx.helper.make_tensor_value_info
    inputs, outputs = [value("x", 1, [1, weights.size])], [value("y", 1, [1, 1])]
    return generated.save(path, nodes, inputs, outputs, stored)


def branches(path: Path) -> Path:
    """x [1,16], deep bool [] -> y [1,1]: an If with weights in one branch and a constant in the other."""
    value, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    weights = onnx.numpy_helper.from_array(np.linspace(-1, 1, 16, dtype=np.float32).reshape(16, 1), "w")
    limit = onnx.numpy_helper.from_array(np.full((1, 1), 1 / 3, np.float32), "c")
    out = [value("b", 1, [1, 1])]
    then = onnx.helper.make_graph([node("MatMul", ["x", "w"], ["b"], name="fc")], "t", [], out, [weights])
    other = onnx.helper.make_graph(
        [node("ReduceMax", ["x"], ["m"], axes=[1]), node("Max", ["m", "c"], ["b"])], "e", [], out, [limit]
    )
    nodes = [node("If", ["deep"], ["y"], name="outer", then_branch=then, else_branch=other)]
    return generated.save(path, nodes, [value("x", 1, [1, 16]), value("deep", 9, [])], [value("y", 1, [1, 1])], [])


@pytest.mark.parametrize("name", ["conv_cnn", "gru", "lstm", "many_dtypes", "branches"])
def test_every_number_is_the_nearest_half_in_loops_and_branches_too(name: str, tmp_path: Path) -> None:
    source = (branches if name == "branches" else getattr(generated, name))(tmp_path / "m.onnx")
    full, half = numbers(make(source, tmp_path / "f.mnn", FLOAT).path), numbers(make(source, tmp_path / "h.mnn").path)
    assert full.keys() == half.keys()
    assert full
    for place, values in full.items():
        assert half[place].dtype == np.float16
        assert np.array_equal(half[place], values.astype(np.float16)), place


def test_it_is_the_model_the_converter_makes_but_for_the_rounding(tmp_path: Path) -> None:
    source = generated.gru(tmp_path / "m.onnx")
    rounded, cut = make(source, tmp_path / "r.mnn"), make(source, tmp_path / "c.mnn", FLOAT, "--fp16")
    assert rounded.size == cut.size
    assert rounded.float_layers == cut.float_layers
    assert [each.key for each in read_weights(rounded.path)] == [each.key for each in read_weights(cut.path)]
    from_float = make(make(source, tmp_path / "f.mnn", FLOAT).path, tmp_path / "i.mnn")
    assert from_float.sha256 == rounded.sha256
    # What is in half precision already stays as it is.
    assert make(rounded.path, tmp_path / "again.mnn").sha256 == rounded.sha256
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "r.mnn", "c.mnn", "f.mnn", "i.mnn", "again.mnn",
                                                          "logs"}  # fmt: skip


def test_the_real_model_with_a_gru_gains_decibels(tmp_path: Path) -> None:
    """Cut, its worst output has 32 dB on such features; rounded 43."""
    enc, samples = zoo.fetch("enc"), [smooth(7, 60)]
    made = {"float": make(enc, tmp_path / "f.mnn", FLOAT), "cut": make(enc, tmp_path / "c.mnn", FLOAT, "--fp16"),
            "rounded": make(enc, tmp_path / "r.mnn")}  # fmt: skip
    outputs = {name: run_mnn(model.path, samples, tmp_path / name) for name, model in made.items()}

    def worst(name: str) -> float:
        found, expected = outputs[name], outputs["float"]
        assert found is not None
        assert expected is not None
        return min(
            10 * np.log10((want.astype(np.float64) ** 2).sum() / ((found[0][key] - want).astype(np.float64) ** 2).sum())
            for key, want in expected[0].items()
        )

    assert worst("rounded") > worst("cut") + 3


def test_every_half_there_is_survives_and_what_lies_between_goes_to_the_nearest(tmp_path: Path) -> None:
    """Subnormal ones as well, of which the smallest is 6e-8; a tie goes to the even one."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16)
    (kept,) = (
        values for values in numbers(make(product(tmp_path / "a.onnx", halves), tmp_path / "a.mnn").path).values()
        if values.size == halves.size
    )  # fmt: skip
    assert np.array_equal(kept, halves)
    least = 2.0**-24
    between = np.asarray([0.49 * least, 0.51 * least, 1.49 * least, 1.5 * least, 1 + 2**-11, 1 + 3 * 2**-11, 65519.0])
    made = make(product(tmp_path / "b.onnx", between), tmp_path / "b.mnn")
    (kept,) = (values for values in numbers(made.path).values() if values.size == between.size)
    assert kept.tolist() == [0.0, least, least, 2 * least, 1.0, 1 + 2**-9, 65504.0]


def test_numbers_beyond_half_precision_are_clamped_and_told(tmp_path: Path) -> None:
    weights = np.asarray([1e5, -3e38, 65504.0, 65504.1, 0.5] + [1.0] * 11)
    made = make(product(tmp_path / "m.onnx", weights, 7e4), tmp_path / "m.mnn")
    (kept,) = (values for values in numbers(made.path).values() if values.size == weights.size)
    assert kept.tolist() == [65504.0, -65504.0, 65504.0, 65504.0, 0.5] + [1.0] * 11
    (finding,) = made.findings
    assert (finding.code, finding.severity) == ("HALF_OVERFLOW", "warn")
    assert "4 values in 2 tensors" in finding.message
    assert "3e+38" in finding.message
    assert [each["values"] for each in finding.evidence["tensors"].values()] == [3, 1]


def test_a_number_that_half_precision_makes_0_is_told(tmp_path: Path) -> None:
    weights = np.asarray([1e-9] + [0.5] * 15)  # one of many: nothing is lost with it
    made = make(product(tmp_path / "m.onnx", weights, 1e-12), tmp_path / "m.mnn")
    (finding,) = made.findings
    assert (finding.code, finding.severity, finding.where) == ("HALF_UNDERFLOW", "warn", "c")
    assert "1e-12" in finding.message
    assert make(product(tmp_path / "n.onnx", weights), tmp_path / "n.mnn").findings == ()
    assert make(product(tmp_path / "z.onnx", weights, 0.0), tmp_path / "z.mnn").findings == ()
