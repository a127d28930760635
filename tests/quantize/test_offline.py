"""MNN's own offline methods on real models, in every way that was seen to go wrong."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgequant.errors import EdgequantError, InputError, ToolError
from edgequant.judge.sane import sanity
from edgequant.models import read_model
from edgequant.models.mnn.patch import Output, outputs_of, restore_outputs
from edgequant.quantize.calibration import CalibrationSet, SampleFacts
from edgequant.quantize.offline import Offline, quantize_offline, read_debug
from edgequant.quantize.offline_options import OfflineOptions
from edgequant.quantize.sequence import plan_samples, write_sequence
from edgequant.tensors import TensorSpec
from tests import generated
from tests.nightly import all_but
from tests.quantize.support import Arrays, calibration_of, enc_calibration, run_mnn, smooth

AsMnn = Callable[..., Path]
Real = Callable[[str], Path]
RNN = "--useOriginRNNImpl"


@pytest.fixture(scope="session")
def enc(real_model: Real) -> Path:
    return real_model("enc")


@pytest.fixture(scope="session")
def one_op(enc: Path, as_mnn: AsMnn) -> Path:
    """The encoder with its GRU as one operator, which MNN's methods can take."""
    return as_mnn(enc, RNN)


def quantized(model: Path, calibration: CalibrationSet, out: Path, method: str, **options: object) -> Offline:
    settings = OfflineOptions(method=method, **options)  # type: ignore[arg-type]
    return quantize_offline(model, calibration, settings, out, log_dir=out.parent / "logs")


def fails(code: str, kind: type[EdgequantError], *args: object, **options: object) -> EdgequantError:
    with pytest.raises(kind) as caught:
        quantized(*args, **options)  # type: ignore[arg-type]
    assert caught.value.code == code, caught.value.as_dict()
    return caught.value


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"logs"}


def assert_sane(model: Path, reference: Path, samples: list[Arrays], folder: Path) -> list[Arrays]:
    wanted, got = run_mnn(reference, samples, folder), run_mnn(model, samples, folder)
    assert wanted is not None
    pairs = ((str(n), wanted[n], None if got is None else got[n]) for n in range(len(samples)))
    found = sanity(pairs)
    assert found.ok, found
    assert got is not None
    return got


@pytest.mark.parametrize("method", all_but("kl", "ema", of=["kl", "ema", "admm"]))
def test_a_real_model_by_every_method(method: str, enc: Path, one_op: Path, tmp_path: Path) -> None:
    before = sha(one_op), one_op.stat().st_mtime_ns, set(one_op.parent.iterdir())
    calibration = enc_calibration(enc, tmp_path / "c", *([20] * 4))
    out = tmp_path / "o" / "out.mnn"
    out.parent.mkdir()
    made = quantized(one_op, calibration, out, method)
    assert (made.file.quantized_layers, made.file.float_layers) == (13, 0)
    assert made.file.size < 0.98 * one_op.stat().st_size  # most of it is the GRU, which stays float
    assert made.file.sha256 == sha(out)
    # EMA names no outputs, and gives the name of one of them to a tensor of another shape.
    got = assert_sane(out, one_op, [smooth(100, 20), smooth(101, 33)], tmp_path / "run")
    assert list(got[0]) == ["e0", "e1", "e2", "e3", "emb", "c0", "lsnr"]
    assert got[0]["emb"].shape == (1, 20, 512)
    if method == "ema":
        assert made.layers == ()
    else:
        assert len(made.layers) > 20
        known = [layer for layer in made.layers if layer.cosine is not None]
        assert [layer.cosine for layer in known] == sorted(layer.cosine for layer in known if layer.cosine is not None)
        assert all(layer.overflow is not None and 0 <= layer.overflow <= 1 for layer in known)
    assert [finding.code for finding in made.file.findings] == (["ADMM_ONE_SAMPLE"] if method == "admm" else [])
    assert left_in(out.parent) == {"out.mnn"}
    assert before == (sha(one_op), one_op.stat().st_mtime_ns, set(one_op.parent.iterdir()))


@pytest.mark.parametrize("method", ["kl", "ema"])
def test_a_crash_is_named_and_leaves_everything_as_it_was(
    method: str, enc: Path, as_mnn: AsMnn, tmp_path: Path
) -> None:
    calibration = enc_calibration(enc, tmp_path / "c", 8, 8)
    out = tmp_path / "o" / "out.mnn"
    out.parent.mkdir()
    out.write_text("old")
    error = fails("QUANTIZER_CRASHED", ToolError, as_mnn(enc), calibration, out, method)
    assert error.evidence["signal"] == "SIGSEGV"
    assert left_in(out.parent) == {"out.mnn"}
    assert out.read_text() == "old"


@pytest.mark.parametrize("method", ["kl", "ema"])
def test_samples_of_several_shapes(method: str, enc: Path, one_op: Path, tmp_path: Path) -> None:
    # In this order MNN's kl crashes: it makes room for the first sample, and writes the second into it.
    calibration = enc_calibration(enc, tmp_path / "c", 6, 40, 20)
    made = quantized(one_op, calibration, tmp_path / "out.mnn", method)
    assert made.samples == (("s001", "s000", "s002") if method == "kl" else ("s000", "s001", "s002"))
    assert_sane(made.file.path, one_op, [smooth(100, 20)], tmp_path / "run")


def test_skip_leaves_layers_float(enc: Path, one_op: Path, tmp_path: Path) -> None:
    calibration = enc_calibration(enc, tmp_path / "c", 8, 8)
    # By its own name, and by its output's.
    skip = ("/erb_conv1/0/Conv_output_0", "e0__before_tr")
    made = quantized(one_op, calibration, tmp_path / "out.mnn", "kl", skip=skip)
    assert (made.file.quantized_layers, made.file.float_layers) == (11, 2)


@pytest.mark.parametrize(
    ("skip", "code", "said"),
    [
        ("/erb_conv1/0/Conv_output", "SKIP_UNKNOWN", "Did you mean '/erb_conv1/0/Conv_output_0'?"),
        ("nothing like it", "SKIP_UNKNOWN", "Its layers are"),
        ("lsnr", "SKIP_NOT_A_LAYER", "Its layers are"),
    ],
)
def test_skip_of_what_is_no_layer_is_refused(
    skip: str, code: str, said: str, enc: Path, one_op: Path, tmp_path: Path
) -> None:
    calibration = enc_calibration(enc, tmp_path / "c", 8, 8)
    error = fails(code, InputError, one_op, calibration, tmp_path / "out.mnn", "kl", skip=(skip,))
    assert skip in str(error)
    assert said in (error.hint or "")


@pytest.mark.parametrize("options", [{"clamp": 63}, {"skip": ("x",)}, {"weights": "admm"}])
def test_ema_refuses_what_mnn_would_ignore(options: dict[str, object], enc: Path, one_op: Path, tmp_path: Path) -> None:
    calibration = enc_calibration(enc, tmp_path / "c", 8)
    error = fails("OPTION_UNUSED", InputError, one_op, calibration, tmp_path / "out.mnn", "ema", **options)
    assert next(iter(options)) in str(error)


def test_options_reach_mnn(enc: Path, one_op: Path, tmp_path: Path) -> None:
    calibration = enc_calibration(enc, tmp_path / "c", 8, 8, 8)
    plain = quantized(one_op, calibration, tmp_path / "plain.mnn", "kl")
    for name, options in {"clamp": {"clamp": 31}, "weights": {"weights": "admm"}, "samples": {"samples": 1}}.items():
        made = quantized(one_op, calibration, tmp_path / f"{name}.mnn", "kl", **options)
        assert made.file.path.read_bytes() != plain.file.path.read_bytes(), name
        assert len(made.samples) == (1 if name == "samples" else 3)


def test_ema_sees_every_sample(enc: Path, one_op: Path, tmp_path: Path) -> None:
    # With the batch size MNN takes by itself, it runs one sample of 32.
    calibration = enc_calibration(enc, tmp_path / "c", *([4] * 33))
    made = quantized(one_op, calibration, tmp_path / "out.mnn", "ema")
    assert made.file.log is not None
    assert (tmp_path / "logs" / made.file.log).read_text(errors="replace").count("quantize with EMA: ") == 33


def test_channels_last_inputs_by_ema(real_model: Real, as_mnn: AsMnn, tmp_path: Path) -> None:
    # EMA takes every input for NCHW and turns it round: data given as it is makes it crash.
    model = as_mnn(real_model("hand_recrop"))
    spec = (read_model(model).inputs or ())[0]
    assert spec.layout == "NHWC"

    def picture(seed: int) -> Arrays:
        coarse = np.random.default_rng(seed).uniform(0, 1, (1, 8, 8, 3)).astype(np.float32)
        return {spec.name: coarse.repeat(32, 1).repeat(32, 2)}

    calibration = calibration_of(tmp_path / "c", (spec,), *(picture(seed) for seed in range(4)))
    made = quantized(model, calibration, tmp_path / "out.mnn", "ema")
    assert made.file.quantized_layers > 30
    assert_sane(made.file.path, model, [picture(100)], tmp_path / "run")


def test_a_layer_that_is_always_zero_is_told(as_mnn: AsMnn, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    names = ("w0", "w1", "w2")
    weights = [numpy_helper.from_array(random.normal(0, 0.2, (4, 4, 3, 3)).astype(np.float32), name) for name in names]
    weights.append(numpy_helper.from_array(np.full(4, -1000, np.float32), "b"))
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"], pads=[1] * 4),
        helper.make_node("Conv", ["c0", "w1", "b"], ["c1"], pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["dead"]),
        helper.make_node("Conv", ["c0", "w2"], ["c2"], pads=[1] * 4),
        helper.make_node("Add", ["dead", "c2"], ["y"]),
    ]
    shape = (1, 4, 8, 8)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    source = generated.save(tmp_path / "dead.onnx", nodes, values[:1], values[1:], weights)
    given = [{"x": random.standard_normal(shape).astype(np.float32)} for _ in range(3)]
    calibration = calibration_of(tmp_path / "c", read_model(source).inputs or (), *given)
    made = quantized(as_mnn(source), calibration, tmp_path / "out.mnn", "ema")
    assert [finding.code for finding in made.file.findings] == ["SCALE_NOT_FINITE"]
    assert quantized(as_mnn(source), calibration, tmp_path / "kl.mnn", "kl").file.findings == ()


def test_a_model_without_layers_is_not_called_quantized(generated_model: Real, as_mnn: AsMnn, tmp_path: Path) -> None:
    source = generated_model("gru")
    inputs = read_model(source).inputs or ()
    random = np.random.default_rng(0)
    arrays = {"x": random.standard_normal((1, 5, 32)), "state": random.standard_normal((1, 1, 64))}
    calibration = calibration_of(tmp_path / "c", inputs, arrays, arrays)
    fails("QUANTIZER_NOTHING_DONE", ToolError, as_mnn(source, RNN), calibration, tmp_path / "out.mnn", "ema")
    assert not (tmp_path / "out.mnn").exists()


def test_what_cannot_be_a_source(enc: Path, one_op: Path, as_mnn: AsMnn, tmp_path: Path) -> None:
    calibration = enc_calibration(enc, tmp_path / "c", 8)
    out = tmp_path / "out.mnn"
    fails("OFFLINE_SOURCE", InputError, enc, calibration, out, "kl")
    fails("ALREADY_QUANTIZED", InputError, as_mnn(enc, "--weightQuantBits", "8"), calibration, out, "kl")
    fails("OUTPUT_IS_SOURCE", InputError, one_op, calibration, one_op, "kl")
    fails("OUTPUT_NOT_WRITABLE", InputError, one_op, calibration, tmp_path, "kl")
    other = calibration_of(tmp_path / "d", (TensorSpec("x", "float32", (1, 2)),), {"x": np.ones((1, 2))})
    fails("CALIBRATION_NAMES", InputError, one_op, other, out, "kl")


def test_time_that_is_up(enc: Path, one_op: Path, tmp_path: Path) -> None:
    calibration = enc_calibration(enc, tmp_path / "c", 200)
    settings = OfflineOptions(method="admm")
    (tmp_path / "o").mkdir()
    with pytest.raises(ToolError) as caught:
        quantize_offline(one_op, calibration, settings, tmp_path / "o" / "x.mnn", log_dir=tmp_path, timeout=0.001)
    assert caught.value.code == "QUANTIZER_TIMEOUT"
    assert left_in(tmp_path / "o") == set()


WAITING = """
import sys
from pathlib import Path
from edgequant.quantize import offline
from edgequant.quantize.offline_options import OfflineOptions
from tests.quantize.support import enc_calibration
enc, model, out, fifo, data = map(Path, sys.argv[1:])
# Stands in for a quantizer that hangs: it says that it runs, then waits for a byte that never comes.
hang = "import sys; open(sys.argv[1], 'w').write('up'); open(sys.argv[2]).read()"
offline.tools_argv = lambda *calls: [sys.executable, "-c", hang, str(fifo), str(fifo) + ".never"]
calibration = enc_calibration(enc, data, 8, 8)
offline.quantize_offline(model, calibration, OfflineOptions(method="kl"), out, log_dir=data)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_quantization_leaves_nothing(
    number: signal.Signals, enc: Path, one_op: Path, tmp_path: Path
) -> None:
    out, fifo = tmp_path / "o" / "out.mnn", tmp_path / "fifo"
    out.parent.mkdir()
    out.write_text("old")
    os.mkfifo(fifo)
    os.mkfifo(f"{fifo}.never")
    argv = [sys.executable, "-c", WAITING, enc, one_op, out, fifo, tmp_path / "data"]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE)
    assert fifo.read_text() == "up"
    assert len(left_in(out.parent)) == 2
    process.send_signal(number)
    process.communicate(timeout=60)
    if number == signal.SIGKILL:
        # Nobody could clean up: the next one does.
        quantized(one_op, enc_calibration(enc, tmp_path / "c", 8, 8), out.parent / "other.mnn", "ema")
        (out.parent / "other.mnn").unlink()
    assert left_in(out.parent) == {"out.mnn"}
    assert out.read_text() == "old"


# ---- the parts


def facts(name: str, *sizes: int, largest: float = 1.0) -> SampleFacts:
    return SampleFacts(name, (("x", tuple(sizes)),), (largest,))


def test_kl_gets_the_largest_first_and_not_what_exceeds_it() -> None:
    given = [facts("a", 1, 4), facts("b", 3, 4), facts("c", 2, 9), facts("d", 3, 2)]
    plan = plan_samples("kl", given)
    assert plan.order == (1, 0, 3)
    assert [finding.code for finding in plan.findings] == ["CALIBRATION_SHAPES_LEFT_OUT"]
    assert plan.findings[0].evidence["left_out"] == ["c"]
    assert plan_samples("ema", given).order == (0, 1, 2, 3)
    same = [facts("a", 2), facts("b", 2)]
    assert plan_samples("kl", same) == plan_samples("ema", same)


def test_admm_gets_the_sample_that_reaches_furthest_last() -> None:
    given = [facts("a", 2, largest=9), facts("b", 3, largest=1), facts("c", 3, largest=7), facts("d", 3, largest=2)]
    plan = plan_samples("admm", given)
    assert plan.order == (1, 3, 2)  # of the commonest shape
    assert plan.findings[0].evidence["sample"] == "c"
    assert plan_samples("admm", given[:1]).findings == ()


@pytest.mark.parametrize("name", ["../../up", "/../up", "a/../../up", "x" * 300])
def test_an_input_name_never_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    spec = TensorSpec(name, "float32", (2,))
    calibration = calibration_of(tmp_path / "c", (spec,), {name: np.ones(2, np.float32)})
    folder = tmp_path / "deep" / "out"
    folder.mkdir(parents=True)
    with pytest.raises((InputError, OSError)):
        write_sequence(folder, calibration, plan_samples("ema", calibration.facts))
    assert {path.name for path in folder.parent.iterdir()} == {"out"}


def test_values_are_written_as_they_are(tmp_path: Path) -> None:
    specs = (TensorSpec("a/b:0", "float32", (3,)), TensorSpec("n", "int64", ()), TensorSpec("on", "bool", (2,)))
    values = np.array([1 / 3, -1e-30, 3.4e38], np.float32)
    given = {"a/b:0": values, "n": np.array(-7), "on": np.array([True, False])}
    calibration = calibration_of(tmp_path / "c", specs, given)
    out = tmp_path / "out"
    out.mkdir()
    write_sequence(out, calibration, plan_samples("ema", calibration.facts))
    read = (out / "000000" / "a" / "b:0.txt").read_text().split()
    assert np.array_equal(np.array(read, np.float32), values)
    assert (out / "000000" / "n.txt").read_text().split() == ["-7"]
    assert (out / "000000" / "on.txt").read_text().split() == ["1", "0"]


def test_debug_lines_are_read() -> None:
    said = (
        "\rcomputeDistance: 50.00 %\rcomputeDistance: 100.00 %\n\nDebug info:\n\n"
        "conv 1 input_tensor_0:  cos distance: 0.999500, overflow ratio: 0.010000\n"
        "conv 1 output_tensor_1:  cos distance: 0.910000, overflow ratio: 0.000000\n"
        "dead output_tensor_0:  cos distance: -nan, overflow ratio: 1.000000\n"
    )
    found = read_debug(said)
    assert [(layer.name, layer.tensor, layer.cosine, layer.overflow) for layer in found] == [
        ("dead", "output 0", None, 1.0),
        ("conv 1", "output 1", 0.91, 0.0),
        ("conv 1", "input 0", 0.9995, 0.01),
    ]


def test_an_output_that_is_gone_is_told(one_op: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.mnn"
    copy.write_bytes(one_op.read_bytes())
    restore_outputs(copy, outputs_of(read_model(one_op)))
    assert sha(copy) == sha(one_op)  # nothing was wrong
    with pytest.raises(ToolError) as caught:
        restore_outputs(copy, (Output("nowhere", "no such op"),))
    assert caught.value.code == "QUANTIZER_OUTPUT_LOST"
    copy.write_bytes(b"no model at all, but long enough for a root")
    with pytest.raises(ToolError) as caught:
        restore_outputs(copy, (Output("y", None),))
    assert caught.value.code == "QUANTIZER_BAD_OUTPUT"


def test_outputs_can_be_named_and_ordered_anew(one_op: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.mnn"
    copy.write_bytes(one_op.read_bytes())
    by_name = {output.name: output for output in outputs_of(read_model(one_op))}
    wanted = [by_name["lsnr"], Output("a name that is longer than any", by_name["e0"].operator), by_name["emb"]]
    restore_outputs(copy, wanted)
    assert [spec.name for spec in read_model(copy).outputs or ()] == [output.name for output in wanted]
    sample = smooth(1, 9)
    before, after = run_mnn(one_op, [sample], tmp_path / "a"), run_mnn(copy, [sample], tmp_path / "b")
    assert before is not None
    assert after is not None
    assert list(after[0]) == [output.name for output in wanted]
    assert np.array_equal(after[0]["a name that is longer than any"], before[0]["e0"])
    assert np.array_equal(after[0]["emb"], before[0]["emb"])
