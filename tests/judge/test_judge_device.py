"""Where a device does something else than this host: when that is said, of whom, and how gravely."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgequant.archive.types import DeviceCapture, FileFacts
from edgequant.compare.metrics import TensorComparison, compare
from edgequant.compare.summary import OutputSummary, summarize
from edgequant.findings import Finding
from edgequant.judge import device as on_device
from edgequant.judge.band import Bands
from edgequant.judge.kernel_faults import AVOID, Faults, explained, pool_finding
from edgequant.judge.limits import default_limits
from edgequant.judge.types import NOTHING, Compared, JudgedOutput, Observed, Stages
from edgequant.judge.verdict import Verdict, judge_output
from edgequant.spec import RunOptions, Variant
from tests.judge.archives import BOARD, WAVE, off, parsed, summary, told_by

LIMITS = default_limits("weight", "float")
NO_FAULTS = Faults(FileFacts(), False, False, False)
STATIC = FileFacts(static_tensors=1, half_tiles=("fc",), max_pools=("pool",), tails=("sum",), resizes=("up",))
DOUBTED = Faults(STATIC, False, False, False)
REMEDY = (
    "Compare --precision normal with low, the MNN versions and --threads; then suspect MNN's kernels for this CPU.  If "
    "you know the reason and accept it: --limit 'device_sqnr_db>=X'."
)


def judged(**db: float | None) -> dict[str, JudgedOutput]:
    found = {name: summary(value) for name, value in db.items()}
    return {name: JudgedOutput(each, judge_output(each, LIMITS)) for name, each in found.items()}


def here(**db: float) -> dict[str, OutputSummary]:
    return {name: summary(value) for name, value in db.items()}


def apart(**db: float | None) -> dict[str, dict[str, TensorComparison]]:
    """Device against this host, one case; None: it never came."""
    return {name: {"a": compare(WAVE, None if value is None else off(WAVE, value))} for name, value in db.items()}


def outside(
    device: Compared,
    *,
    faults: Faults = NO_FAULTS,
    variant: str = "float",
    limits: tuple[str, ...] = (),
    why: str | None = None,
    **more: Any,
) -> Observed:
    stages = Stages(apart=device, why={} if why is None else {"device": why})
    kinds = more.pop("kinds", dict.fromkeys(device, "float"))
    there, host, moved, options = more.pop("there", {}), more.pop("host", {}), more.pop("moved", ()), RunOptions(**more)
    method = "static" if faults.static else Variant.parse(variant).method
    bands = Bands(kinds, method, options.precision, parsed(limits), moved)
    return on_device.outside_band(stages, there, host, faults, bands, options, parsed(limits), told_by(BOARD))


def test_a_device_is_blamed_for_what_this_host_keeps_with_the_same_file() -> None:
    limits = dict.fromkeys("vwxyz", LIMITS)
    there = judged(v=10.0, w=10.0, x=10.0, y=30.0, z=None)
    # v: worse here too; w: only just kept; x: nobody knows; y: kept by both; z: never came from the device.
    assert on_device.innocent(there, here(v=5, w=20.5, y=30, z=60), limits) == ("w", "z")
    assert judge_output(summary(20.5), LIMITS).verdict is Verdict.MARGINAL
    broken = summarize({"a": compare(np.full(3, np.nan, np.float32), np.ones(3, np.float32))})
    assert on_device.innocent(judged(v=10.0), {"v": broken}, limits) == ()


@pytest.mark.parametrize("static", [False, True])
def test_blame_names_the_outputs(static: bool) -> None:
    assert on_device.blame((), NO_FAULTS, RunOptions(), told_by(BOARD)) == NOTHING
    names = [f"y{i}" for i in range(1002)]
    doubt = "With static int8 one step that rounds the other way can decide a close call.  Otherwise quantization"
    assert on_device.blame(names, DOUBTED if static else NO_FAULTS, RunOptions(), told_by(BOARD)) == Observed(
        (
            Finding(
                code="DEVICE_DIFFERS",
                severity="fail",
                where="y0",
                message=f"the device breaks limits that this host keeps with the same file: {', '.join(names[:20])}",
                evidence={"outputs": names[:1000]},
                remedy=f"{doubt if static else 'Quantization'} is not the cause.  Compare --precision normal with low, "
                "the MNN versions and --threads; then suspect MNN's kernels for this CPU.",
            ),
        ),
        Verdict.FAIL,
    )


@pytest.mark.parametrize(
    ("variant", "precision", "bound"),
    [("float", "normal", 60), ("weight:8", "normal", 60), ("fp16", "low", 30), ("dynamic:8", "normal", 20)],
)
def test_the_band_is_that_of_the_arithmetic(variant: str, precision: str, bound: int) -> None:
    assert outside(apart(y=bound + 0.1), variant=variant, precision=precision) == NOTHING
    found = outside(apart(y=bound - 0.1), variant=variant, precision=precision)
    assert (found.verdict, found.findings[0].evidence["bound"]) == (Verdict.FAIL, {"y": bound})


def test_outside_the_band_is_a_failure_with_the_numbers() -> None:
    device = apart(x=50, y=40, z=70)
    (finding,) = outside(device).findings
    assert outside(device).verdict is Verdict.FAIL
    assert finding.evidence["device_sqnr_db"] == pytest.approx({"x": 50, "y": 40}, abs=1e-3)
    assert finding == Finding(
        code="DEVICE_BEYOND_ROUNDING",
        severity="fail",
        where="y",
        message="device and host compute different things with the same file: only 40 dB SQNR between them in y, case "
        "'a'; rounding leaves at least 60 dB, and 1 more",
        evidence={
            "device_sqnr_db": finding.evidence["device_sqnr_db"],
            "bound": {"y": 60.0, "x": 60.0},
            "found": finding.evidence["found"],
        },
        remedy=REMEDY,
    )
    said = outside(apart(y=12.3456)).findings[0].message
    assert said.endswith("12.35 dB SQNR between them in y, case 'a'; rounding leaves at least 60 dB")


def test_what_cannot_be_outside() -> None:
    assert outside({}) == NOTHING
    assert outside(apart(y=None)) == NOTHING, "of what never came there is no number"
    assert outside(apart(y=0), kinds={"y": "int"}) == NOTHING
    assert outside({**apart(y=0), **apart(z=70)}, kinds={"z": "float", "y": "int"}) == NOTHING
    # One without a number does not hide the next.
    assert outside(apart(x=None, y=0)).verdict is Verdict.FAIL
    assert outside(apart(i=0, y=0), kinds={"i": "int", "y": "float"}).findings[0].where == "y"


def test_static_int8_alone_is_in_doubt() -> None:
    found = outside(apart(y=19), faults=DOUBTED, variant="recipe:r.json")
    assert found.verdict is Verdict.INCONCLUSIVE
    (finding,) = found.findings
    assert (finding.severity, finding.remedy) == ("error", REMEDY.replace("this CPU", "this CPU, or this host's"))
    assert finding.message == (
        "device and host part with the same file: only 19 dB SQNR between them in y, case 'a'; rounding leaves "
        "at least 20 dB, usually; a static int8 model that decides close calls (a letter, a class) can amplify one "
        "step that far, so this proves nothing"
    )
    assert list(finding.evidence) == ["device_sqnr_db", "bound", "found"]
    # What is static int8 is held to its band, whatever the variant says the file is.
    assert outside(apart(y=21), faults=DOUBTED, variant="weight:8") == NOTHING


def test_a_user_who_asks_gets_an_answer() -> None:
    def asked(*limits: str) -> Observed:
        return outside(apart(y=19, z=90), faults=DOUBTED, limits=limits)

    assert asked("device_sqnr_db>=25").verdict is Verdict.FAIL
    assert asked("y:device_sqnr_db>=25").findings[0].evidence["bound"] == {"y": 25.0}
    assert asked("y:device_sqnr_db>=25").verdict is Verdict.FAIL
    assert asked("device_sqnr_db>=18") == NOTHING
    # Asked of another output, or for something else, it is as if nothing had been asked.
    assert asked("z:device_sqnr_db>=25").verdict is Verdict.INCONCLUSIVE
    assert asked("sqnr_db>=25").verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("i8mm", "tails", "resizes", "evidence"),
    [
        (True, False, False, {"i8mm_layers": ["fc"]}),
        (False, True, False, {"tail_layers": ["sum"]}),
        (False, False, True, {"resize_layers": ["up"]}),
        (True, True, True, {"i8mm_layers": ["fc"], "tail_layers": ["sum"], "resize_layers": ["up"]}),
    ],
)
def test_a_known_fault_is_held_responsible(
    i8mm: bool, tails: bool, resizes: bool, evidence: dict[str, list[str]]
) -> None:
    faults = Faults(STATIC, i8mm, tails, False, resizes=resizes)
    found = outside(apart(y=10), faults=faults)
    (finding,) = found.findings
    assert found.verdict is Verdict.FAIL
    assert (finding.severity, finding.remedy) == ("fail", AVOID)
    assert finding.message.endswith(f"rounding leaves at least 20 dB{explained(faults)}")
    assert {key: finding.evidence[key] for key in finding.evidence if key.endswith("layers")} == evidence


def test_known_layers_are_named_up_to_a_thousand() -> None:
    many = tuple(f"l{i}" for i in range(1002))
    faults = Faults(FileFacts(static_tensors=1, half_tiles=many, tails=many), True, True, False)
    (finding,) = outside(apart(y=10), faults=faults).findings
    assert [len(finding.evidence[key]) for key in ("i8mm_layers", "tail_layers")] == [1000, 1000]


def test_where_this_host_is_the_one_that_is_wrong_nothing_is_known() -> None:
    faults = Faults(STATIC, False, False, True)
    device = apart(y=10)
    found = outside(device, faults=faults, there=judged(y=30.0), host=here(y=9))
    expected = pool_finding(faults, {"y": device["y"]["a"].sqnr_db or 0.0})
    assert found == Observed((expected,), Verdict.INCONCLUSIVE)
    assert (expected.code, expected.severity, expected.where) == ("HOST_MISCOMPUTES", "error", "y")
    found = outside(device, faults=faults, there=judged(y=8.0), host=here(y=9))
    assert found.findings[0].code == "DEVICE_BEYOND_ROUNDING"
    # Without such a fault, a device that comes nearer by luck still computes something else.
    assert outside(device, there=judged(y=30.0), host=here(y=9)).verdict is Verdict.FAIL


def test_a_limit_on_the_device_needs_a_host() -> None:
    assert outside(apart(y=0), why="it was not run here") == NOTHING
    assert outside(apart(y=0), why="it was not run here", limits=("sqnr_db>=1",)) == NOTHING
    for limit in ("device_sqnr_db>=1", "y:device_sqnr_db>=1"):
        assert outside({}, why="it was not run here", limits=(limit,)) == Observed(
            (
                Finding(
                    code="DEVICE_ERROR_UNKNOWN",
                    severity="error",
                    message="device_sqnr_db was limited and could not be measured: it was not run here",
                ),
            ),
            Verdict.INCONCLUSIVE,
        )


def test_a_limit_on_the_device_needs_a_device() -> None:
    limits = parsed(["device_sqnr_db>=30", "sqnr_db>=1", "y:device_sqnr_db>=40"])
    assert on_device.device_limit_unused(limits, only_host=False) == NOTHING
    assert on_device.device_limit_unused(limits[1:2], only_host=True) == NOTHING
    assert on_device.device_limit_unused(limits, only_host=True) == Observed(
        (
            Finding(
                code="DEVICE_LIMIT_UNUSED",
                severity="warn",
                message="the limit device_sqnr_db>=30, y:device_sqnr_db>=40 has nothing to apply to: it holds a device "
                "against this host, and there is no other device",
                remedy="Name the device with --device, or take sqnr_db, which holds outputs against the reference.",
            ),
        )
    )


def test_another_mnn_is_told() -> None:
    assert on_device.versions_differ(told_by(BOARD), "3.6.1") == NOTHING
    assert on_device.versions_differ(told_by(BOARD, mnn=None), "3.6.1") == NOTHING
    assert on_device.versions_differ(told_by(BOARD, mnn="3.4.0"), "3.6.1") == Observed(
        (
            Finding(
                code="MNN_VERSION_DIFFERS",
                severity="warn",
                where=BOARD,
                message="the device runs MNN 3.4.0, the model was made with 3.6.1 on this host",
                evidence={"device": "3.4.0", "host": "3.6.1"},
                remedy="Differences may come from the versions: install the same one in both places.",
            ),
        )
    )


def test_fp16_needs_a_cpu_that_has_it() -> None:
    def told(arch: str | None, precision: str = "low", **kernels: bool) -> Observed:
        device = told_by(BOARD, arch=arch, cpu="Cortex-A53", facts={"mnn_kernels": kernels} if kernels else {})
        return on_device.precision_ineffective(device, RunOptions(precision=precision))

    assert told("aarch64", fp16=False) == told("arm64", fp16=False) == Observed(
        (
            Finding(
                code="PRECISION_LOW_INEFFECTIVE",
                severity="warn",
                where=BOARD,
                message="precision low was asked for, but this CPU has no fp16 arithmetic (ARMv8.2), so MNN computed "
                "in fp32 (with a coarser sigmoid): this run says nothing about fp16",
                evidence={"mnn_kernels": {"fp16": False}, "cpu": "Cortex-A53"},
                remedy="Judge fp16 on a CPU that has it: Cortex-A55, A75 and newer, or emulated:cortex-a76.",
            ),
        )
    )  # fmt: skip
    assert told("aarch64", fp16=True) == told("aarch64") == told("aarch64", i8mm=True) == NOTHING
    assert told("aarch64", "normal", fp16=False) == told("x86_64", "normal") == told(None, fp16=False) == NOTHING
    on_x86 = told("x86_64", fp16=False)
    assert on_x86.verdict is Verdict.MARGINAL
    (finding,) = on_x86.findings
    assert (finding.code, finding.severity) == ("PRECISION_LOW_INEFFECTIVE", "warn")
    assert "65504" in finding.message


@pytest.mark.parametrize(
    ("precision", "fp16", "advised"),
    [("low", True, "Run with --precision normal"), ("low", False, "Compare --precision"), ("normal", True, "Compare")],
)
def test_who_asked_for_fp16_is_told_what_it_does(precision: str, fp16: bool, advised: str) -> None:
    device = DeviceCapture(uri="ssh://board", arch="aarch64", facts={"mnn_kernels": {"fp16": fp16}})
    options = RunOptions.model_validate({"precision": precision})
    (finding,) = on_device.blame(["y"], NO_FAULTS, options, device).findings
    assert finding.code == "DEVICE_DIFFERS"
    assert advised in (finding.remedy or "")
    assert ("Compare" in (finding.remedy or "")) == ("Compare" in advised)
