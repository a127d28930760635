"""Static int8 on ARM64: rounding is far inside the band; MNN's faulty kernels are avoided, or caught and named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgequant.cases.load import save_npz
from edgequant.deadline import Deadline
from edgequant.devices.emulated import EmulatedDevice
from edgequant.jobs.audit import audit
from edgequant.jobs.kernel_plants import KIND
from edgequant.judge.limits import device_bands
from edgequant.report.model import Report, Run
from tests import generated
from tests.beds.models import ModelByName
from tests.jobs.support import Arrays, arrays, capture, codes, do
from tests.models.mnn.test_static_int8 import up

pytestmark = [pytest.mark.arm64, pytest.mark.slow, pytest.mark.timeout(900)]

BAND = device_bands({"y": "float"}, "static", "normal", ())["y"].value
ANYTHING = ("sqnr_db>=0.01", "cosine>=0.001", "rel_max<=0.999")  # wider ones would be void
FILLED = "GLIBC_TUNABLES=glibc.malloc.perturb=85:glibc.malloc.tcache_count=0"
"""Has glibc fill whatever it gives out."""
WITHOUT, SDOT, I8MM = "emulated:cortex-a53", "emulated:cortex-a76", "emulated:max"


def samples(folder: Path, *shape: int) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(4):
        save_npz(folder / f"{number}.npz", {"x": random.standard_normal(shape).astype(np.float32)})
    return folder


def static(source: Path, cases: Path, run_dir: Path, variant: str, *devices: str, **more: object) -> Report:
    return do(source, run_dir, variant, devices=devices, inputs=cases, calibration=str(cases), fallback=False, **more)  # type: ignore[arg-type]


def decibels(run: Run) -> dict[str, float]:
    """Output -> device against this host, in dB; the same bits are 200."""
    found = {}
    for name, error in run.errors.device.items():
        assert error.exact or error.sqnr_db is not None
        found[name] = 200.0 if error.exact else error.sqnr_db or 0.0
    return found


@pytest.mark.nightly
def test_rounding_is_far_inside_the_band(real_model: ModelByName, tmp_path: Path) -> None:
    """Seven outputs, a GRU behind int8 convolutions: the worst case of those that were measured, by random inputs."""
    report = do(
        real_model("enc"), tmp_path / "run", "static:8", devices=(WITHOUT, SDOT), limits=ANYTHING, fallback=False,
        shapes={"feat_erb": (1, 1, 20, 32), "feat_spec": (1, 2, 20, 96)},
    )  # fmt: skip
    for run in report.runs:
        assert run.error is None
        assert min(decibels(run).values()) > BAND + 5, (run.device.uri, decibels(run))
        assert "DEVICE_BEYOND_ROUNDING" not in codes(run)
        # One of its layers ends on an odd number of channel groups, and is not int8.
        assert "STATIC_I8MM_UNSEEN" not in codes(run)
        assert "/lsnr_fc/0/Add_output_0__matmul_converted" in left_out(run)


def left_out(run: Run) -> dict[str, str]:
    """Layers that are not static, with the reason."""
    found: dict[str, str] = {}
    for finding in run.findings:
        if finding.code == "STATIC_PARTLY":
            found.update(finding.evidence["layers"])
    return found


def taken_at_its_word(folder: Path) -> str:
    """A recipe: static wherever that is possible, whatever MNN's kernels make of it."""
    file = folder / "all_static.json"
    file.write_text('{"schema": "edgequant.recipe/1", "rules": [{"name": "*", "bits": 8, "mode": "static"}]}')
    return f"recipe:{file}"


@pytest.fixture
def half_tile(tmp_path: Path) -> Path:
    """x float32 [1,8,1,5] -> a [1,12,1,5] -> y [1,16,1,5]: 12 channels are three groups of four."""
    node, weight, value = generated._node, generated._weight, generated._value
    return generated.save(
        tmp_path / "half.onnx",
        [node("Conv", ["x", "w", "b"], ["a"], name="three"), node("Conv", ["a", "v"], ["y"], name="four")],
        [value("x", [1, 8, 1, 5])],
        [value("a", [1, 12, 1, 5]), value("y", [1, 16, 1, 5])],
        [weight("w", 12, 8, 1, 1), weight("b", 12), weight("v", 16, 12, 1, 1)],
    )


def test_the_i8mm_kernel_is_caught(half_tile: Path, tmp_path: Path) -> None:
    """One layer of a device computes something else, and only its last channels at the last position: it is seen."""
    cases, run_dir = samples(tmp_path / "cases", 1, 8, 1, 5), tmp_path / "run"
    report = static(half_tile, cases, run_dir, taken_at_its_word(tmp_path), WITHOUT, SDOT, I8MM, limits=ANYTHING)
    without, sdot, i8mm = report.runs
    for run in (without, sdot):
        assert run.verdict == "MARGINAL", "it is calibrated on the very cases"
        assert min(decibels(run).values()) > 60
        assert "STATIC_I8MM_UNSEEN" in codes(run)
    assert i8mm.verdict == "FAIL"
    assert "STATIC_I8MM_UNSEEN" not in codes(i8mm)
    (finding,) = [finding for finding in i8mm.findings if finding.code == "DEVICE_BEYOND_ROUNDING"]
    assert finding.evidence["i8mm_layers"] == ["a"]
    assert "i8mm" in finding.message
    # Which of them is right: the integers, rounded to the steps of `a`, are nowhere two steps from the float sums.
    expected, right, wrong = arrays(run_dir, "reference"), capture(run_dir, sdot), capture(run_dir, i8mm)
    step = max(np.abs(case["a"]).max() for case in expected.values()) / 127
    for case, outputs in expected.items():
        assert np.abs(right[case]["a"] - outputs["a"]).max() < 2 * step
        off = np.abs(wrong[case]["a"] - outputs["a"])[0, :, 0] > 2 * step
        assert not off[:, :4].any()
        assert not off[:8].any()
    assert max(float(np.abs(wrong[case]["a"] - expected[case]["a"]).max()) for case in expected) > 10 * step


@pytest.mark.nightly
def test_the_i8mm_kernel_is_avoided(half_tile: Path, tmp_path: Path) -> None:
    """Unasked, and by what the finding advises."""
    cases = samples(tmp_path / "cases", 1, 8, 1, 5)
    for variant in ("static:8", "dynamic:8"):
        (run,) = static(half_tile, cases, tmp_path / variant[:7], variant, I8MM, limits=ANYTHING).runs
        assert run.verdict == ("MARGINAL" if variant == "static:8" else "PASS"), run.findings
        assert min(decibels(run).values()) > 60
        assert not codes(run) & {"STATIC_I8MM_UNSEEN", "DEVICE_BEYOND_ROUNDING"}
        if variant == "static:8":
            assert "12 output channels" in left_out(run)["a"]
            assert list(left_out(run)) == ["a"]


@pytest.fixture
def tailed(tmp_path: Path) -> Path:
    """x float32 [1,7,8] -> one number for each of the seven, through Sigmoid, Mul and Add -> y [1,7,1]."""
    node, value = generated._node, generated._value
    return generated.save(
        tmp_path / "tailed.onnx",
        [
            node("MatMul", ["x", "w"], ["m"]),
            node("Sigmoid", ["m"], ["s"]),
            node("Mul", ["s", "k"], ["p"], name="mul"),
            node("Add", ["p", "o"], ["y"], name="add"),
        ],
        [value("x", [1, 7, 8])],
        [value("y", [1, 7, 1])],
        [generated._weight("w", 8, 1), generated._const("k", [50.0]), generated._const("o", [-15.0])],
    )


@pytest.fixture
def filled_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """On emulated devices what was never written holds a pattern, and not by chance what had to be written."""
    opened = EmulatedDevice.open

    def open_filled(self: EmulatedDevice, deadline: Deadline) -> None:
        opened(self, deadline)
        assert self._python[:2] == ("env", "-i")
        if FILLED not in self._python:
            self._python = (*self._python[:2], FILLED, *self._python[2:])

    monkeypatch.setattr(EmulatedDevice, "open", open_filled)


@pytest.mark.usefixtures("filled_memory")
def test_elements_that_are_never_written_are_caught(tailed: Path, tmp_path: Path) -> None:
    cases, run_dir = samples(tmp_path / "cases", 1, 7, 8), tmp_path / "run"
    report = static(tailed, cases, run_dir, "kl", WITHOUT, SDOT, limits=ANYTHING)
    on_host = arrays(run_dir, "host/kl")
    for run in report.runs:
        assert run.verdict == "FAIL"
        (finding,) = [finding for finding in run.findings if finding.code == "DEVICE_BEYOND_ROUNDING"]
        assert "unwritten" in finding.message
        assert "p" in finding.evidence["tail_layers"]
        for case, outputs in capture(run_dir, run).items():
            off = np.abs(outputs["y"] - on_host[case]["y"])[0, :, 0] > 1
            assert not off[:4].any()
            assert off[4:].any()


@pytest.fixture
def pooled(tmp_path: Path) -> Path:
    """x float32 [1,3,16,16] -> r [1,16,16,16] -> p [1,16,8,8] -> y: with a zero point, r has values of both signs."""
    node, weight, value = generated._node, generated._weight, generated._value
    return generated.save(
        tmp_path / "pooled.onnx",
        [
            node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
            node("Relu", ["c"], ["r"]),
            node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Conv", ["p", "v", "d"], ["y"], pads=[1, 1, 1, 1]),
        ],
        [value("x", [1, 3, 16, 16])],
        [value("r", [1, 16, 16, 16]), value("p", [1, 16, 8, 8]), value("y", [1, 16, 8, 8])],
        [weight("w", 16, 3, 3, 3), weight("b", 16), weight("v", 16, 16, 3, 3), weight("d", 16)],
    )


def largest(r: np.ndarray) -> np.ndarray:
    return np.asarray(r.reshape(1, 16, 8, 2, 8, 2).max((3, 5)))


def mistakes(outputs: dict[str, Arrays]) -> float:
    """The share of p that is not the largest of its four values of r."""
    return float(np.mean([np.mean(largest(case["r"]) != case["p"]) for case in outputs.values()]))


def test_a_host_that_pools_wrong_does_not_condemn_the_device(pooled: Path, tmp_path: Path) -> None:
    """On an x86 host, as all of these tests: p is looked at on both sides, so it is known which one is right.

    What is behind the pool is float, so that MNN gives p the scale of r.
    """
    cases, run_dir = samples(tmp_path / "cases", 1, 3, 16, 16), tmp_path / "run"
    report = static(pooled, cases, run_dir, "static:8,calib=mse,asym,skip=y", "local:", WITHOUT, SDOT, I8MM)
    host, *devices = report.runs
    assert host.verdict == "FAIL"
    assert "STATIC_POOL_ON_X86" in codes(host)
    # 0.067 of them have values of both signs to choose from.  MNN's max pool is the same code on every x86 CPU, and r
    # that of ARM in every bit.
    assert mistakes(capture(run_dir, host)) > 0.02
    for run in devices:
        assert mistakes(capture(run_dir, run)) == 0
        assert {output.verdict.value for output in run.outputs.values()} == {"PASS"}
        assert min(decibels(run).values()) < BAND
        assert "DEVICE_BEYOND_ROUNDING" not in codes(run)
        (finding,) = [finding for finding in run.findings if finding.code == "HOST_MISCOMPUTES"]
        assert finding.severity == "error"
        assert finding.evidence["max_pools"] == ["p"]
        # This host cannot say whether the device adds anything of its own.
        assert run.verdict == "INCONCLUSIVE"


@pytest.mark.nightly
def test_a_max_pool_between_int8_layers_is_right_everywhere(pooled: Path, tmp_path: Path) -> None:
    """Both sides with a scale of their own: they are kept apart, and MNN pools in float."""
    cases, run_dir = samples(tmp_path / "cases", 1, 3, 16, 16), tmp_path / "run"
    for calib in ("mse", "minmax"):
        variant = f"static:8,calib={calib},asym"
        report = static(pooled, cases, run_dir / calib, variant, "local:", WITHOUT, I8MM)
        for run in report.runs:
            assert run.verdict == "MARGINAL", (variant, run.device.uri, codes(run))
            assert not codes(run) & {"HOST_MISCOMPUTES", "STATIC_POOL_ON_X86"}
            steps = capture(run_dir / calib, run)
            # r and p are one float's last bit apart in their scale.
            assert max(float(np.abs(largest(case["r"]) - case["p"]).max()) for case in steps.values()) < 1e-5


@pytest.fixture
def summed(tmp_path: Path) -> Path:
    """x float32 [1,7,8] -> the sum s [1,7,6] of two products -> y [1,7,4]: 42 values are no multiple of four."""
    node, weight, value = generated._node, generated._weight, generated._value
    return generated.save(
        tmp_path / "summed.onnx",
        [
            node("MatMul", ["x", "v"], ["m"]),
            node("MatMul", ["x", "w"], ["n"]),
            node("Add", ["m", "n"], ["s"], name="sum"),
            node("MatMul", ["s", "u"], ["y"]),
        ],
        [value("x", [1, 7, 8])],
        [value("s", [1, 7, 6]), value("y", [1, 7, 4])],
        [weight("v", 8, 6), weight("w", 8, 6), weight("u", 6, 8)],
    )


@pytest.mark.nightly
@pytest.mark.usefixtures("filled_memory")
def test_a_sum_whose_end_is_never_written_is_avoided(summed: Path, tmp_path: Path) -> None:
    cases = samples(tmp_path / "cases", 1, 7, 8)
    word = taken_at_its_word(tmp_path)
    (run,) = static(summed, cases, tmp_path / "word", word, WITHOUT, limits=ANYTHING).runs
    assert run.verdict == "FAIL"
    (finding,) = [finding for finding in run.findings if finding.code == "DEVICE_BEYOND_ROUNDING"]
    assert finding.evidence["tail_layers"] == ["s"]
    (run,) = static(summed, cases, tmp_path / "run", "static:8", WITHOUT, limits=ANYTHING).runs
    assert run.verdict == "MARGINAL", run.findings
    assert min(decibels(run).values()) > 60
    assert any("'s'" in why for why in left_out(run).values())


@pytest.mark.nightly
def test_what_an_audit_says_of_the_i8mm_kernel(half_tile: Path, tmp_path: Path) -> None:
    """Planted by the CPU that has it, whatever is known of it; on a CPU that has it there is nothing to plant."""
    cases, run_dir = samples(tmp_path / "cases", 1, 8, 1, 5), tmp_path / "run"
    static(half_tile, cases, run_dir, taken_at_its_word(tmp_path), SDOT, limits=ANYTHING)
    found = audit(run_dir, count=1, nulls=0)
    (planted,) = [each for each in found.tried if each.fault.kind == KIND]
    assert (planted.fault.layer, planted.where, planted.caught) == ("a", "device", True)
    assert "DEVICE_BEYOND_ROUNDING" in planted.codes


@pytest.mark.nightly
def test_the_bilinear_resize_is_caught_and_named(tmp_path: Path) -> None:
    """15 columns become 30: the last two are what is left over beyond groups of four."""
    cases, run_dir = samples(tmp_path / "cases", 1, 3, 6, 15), tmp_path / "run"
    source = up(tmp_path / "m.onnx", "linear")
    (run,) = static(source, cases, run_dir, "static:8,calib=minmax", WITHOUT, limits=ANYTHING).runs
    assert run.verdict == "FAIL"
    (finding,) = [finding for finding in run.findings if finding.code == "DEVICE_BEYOND_ROUNDING"]
    assert finding.evidence["resize_layers"] == ["up"]
    expected, found = arrays(run_dir, "reference"), capture(run_dir, run)
    for case, outputs in expected.items():
        off = np.abs(found[case]["y"] - outputs["y"]).mean(axis=(0, 1, 2))
        assert off[27:].min() > 2 * off[:27].max(), off
