"""Hints that know what was measured beside a variant, in the same command on the same device."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from edgequant import plain
from edgequant.archive.types import Failure
from edgequant.judge.advice import Beside, failure_hint, limit_remedy
from edgequant.judge.verdict import Verdict
from edgequant.quantize.offline_options import OR_DYNAMIC
from tests.beds.models import ModelByName
from tests.jobs.support import do


def ran(variant: str, verdict: str, uri: str = "local:", mb: float = 1.0, made_as: str | None = None) -> Beside:
    return Beside(
        uri, variant, Verdict(verdict), made_as, breaks=verdict == "FAIL", ran=verdict != "ERROR", size=mb * 1e6
    )


def remedy(trial: Beside, *others: Beside) -> str:
    return limit_remedy(trial, [other for other in others if other.uri == trial.uri])


def test_what_passed_beside_it_comes_first_and_alone() -> None:
    found = remedy(ran("static:8", "FAIL"), ran("fp16", "PASS"), ran("dynamic:8,block=32", "FAIL"))
    assert found.startswith("fp16, measured beside it, keeps all limits.")
    assert "dynamic:8" not in found
    assert "real calibration data" in found
    found = remedy(
        ran("dynamic:8,hqq", "FAIL"),
        ran("fp16", "PASS", mb=2),
        ran("dynamic:8", "MARGINAL", mb=1),
        ran("weight:8", "PASS"),
    )
    assert found == "weight:8, fp16 and dynamic:8 (only just), measured beside it, keep all limits."


@pytest.mark.parametrize("verdict", ["FAIL", "ERROR", "INCONCLUSIVE"])
@pytest.mark.parametrize("variant", ["dynamic:8", "dynamic:8,block=32", "fp16", "auto"])
def test_what_was_measured_and_is_no_better_is_not_suggested(variant: str, verdict: str) -> None:
    found = remedy(ran("static:8", "FAIL"), ran(variant, verdict))
    tried, _, after = found.partition(".")
    assert tried.startswith("Try other variants: ")
    suggested = tried.removeprefix("Try other variants: ").replace(" or ", ", ").split(", ")
    assert set(suggested) == {"dynamic:8", "dynamic:8,block=32", "dynamic:8,hqq", "fp16", "auto"} - {variant}
    assert (f"{variant}, measured beside it, does not keep its limits either" in after) == (verdict == "FAIL")


def test_the_failing_variant_itself_is_not_suggested() -> None:
    assert "dynamic:8," in remedy(ran("dynamic:8", "FAIL"))
    assert "dynamic:8 " not in remedy(ran("dynamic:8", "FAIL"))
    assert remedy(ran("fp16", "FAIL")) == "Try float."
    assert "No variant" in remedy(ran("float", "FAIL"))
    # What it became counts as well.
    assert "dynamic:8 " not in remedy(ran("kl", "FAIL", made_as="dynamic:8")).replace("dynamic:8,", "")


def test_what_the_ladder_made_is_called_what_it_is() -> None:
    """It was dynamic:8 that kept its limits: nobody knows what kl would have done."""
    found = remedy(ran("fp16", "FAIL"), ran("kl", "PASS", made_as="dynamic:8"))
    assert found.startswith("dynamic:8 (made where kl was asked for), measured beside it, keeps all limits.")
    found = remedy(ran("fp16", "FAIL"), ran("kl", "FAIL", made_as="dynamic:8"))
    assert "dynamic:8 (made where kl was asked for), measured beside it, does not keep its limits either." in found


def test_what_fails_for_another_reason_is_not_said_to_break_limits() -> None:
    failed = replace(ran("dynamic:8", "FAIL"), breaks=False)
    found = remedy(ran("static:8", "FAIL"), failed)
    assert "limits either" not in found
    assert "dynamic:8 " not in found
    assert "dynamic:8," in found  # of block=32 nothing is known


def test_another_device_says_nothing() -> None:
    runs = [ran("dynamic:8", "FAIL", "adb://X"), ran("fp16", "PASS", "local:")]
    found = remedy(*runs)
    assert "measured beside it" not in found
    assert "fp16" in found


def close(variant: str, *decibels: float | None, verdict: str = "PASS", mb: float = 1.0) -> Beside:
    """With an output for each number of dB; None: of whole numbers, which have none."""
    worst = min((each for each in decibels if each is not None), default=-math.inf)
    return replace(ran(variant, verdict, mb=mb), worst_db=worst)


def test_the_closest_to_the_source_comes_first_with_its_worst_output() -> None:
    found = remedy(
        ran("weight:4", "FAIL"),
        close("static:8", 33.29, 80),
        close("static:8,calib=kl", 30.1, mb=0.5),
        close("dynamic:8", 60, 49.57),
        close("dynamic:8,hqq", 53.2),
    )
    start = "dynamic:8,hqq (53.2 dB), dynamic:8 (49.5 dB) and static:8 (33.2 dB), measured beside it, keep all limits."
    assert found == start
    # The clear ones come before a close call, and float itself behind what quantizes.
    found = remedy(
        ran("weight:4", "FAIL"), close("float", 120), close("fp16", 70), close("dynamic:8", 90, verdict="MARGINAL")
    )
    assert found.startswith("fp16 (70.0 dB), float (120.0 dB) and dynamic:8 (90.0 dB, only just), measured")
    found = remedy(ran("weight:4", "FAIL"), close("fp16", None), close("dynamic:8", None, 40))
    assert found.startswith("dynamic:8 (40.0 dB) and fp16, measured")
    same = replace(ran("fp16", "PASS"), worst_db=math.inf)
    assert remedy(ran("weight:4", "FAIL"), close("dynamic:8", 90), same).startswith("fp16 (exact) and dynamic:8 (90.0")


def calibrated(variant: str, *, real: bool = True) -> Beside:
    return replace(ran(variant, "FAIL"), real_data=real)


KEEP = "With keep=N the N layers that hurt most compute in float."
LARGER = "With a larger keep= more of the layers that hurt most compute in float."


@pytest.mark.parametrize(
    ("variant", "advice"),
    [
        ("static:8", KEEP),
        ("static:8,skip=a", KEEP),
        ("static:8,calib=kl,keep=4,asym", LARGER),
        ("static:8,keep=4,skip=a", LARGER),
        ("kl", "With skip=NAME a layer stays float."),
        ("admm,skip=a", "With more skip= more layers stay float."),
        ("ema", ""),
        ("dynamic:8,block=32", ""),
    ],
)
def test_static_int8_is_not_told_to_do_what_it_does(variant: str, advice: str) -> None:
    alone = remedy(calibrated(variant), close("fp16", 70))
    beside = "fp16 (70.0 dB), measured beside it, keeps all limits."
    assert alone == beside + (f"  {advice}" if advice else "")
    said = remedy(calibrated(variant, real=False), close("fp16", 70))
    assert ("needs real calibration data" in said) == (not variant.startswith("dynamic"))
    assert said.endswith(advice)


def test_what_the_ladder_made_instead_is_not_told_how_static_int8_gets_better() -> None:
    found = remedy(ran("static:8", "FAIL", made_as="dynamic:8"), close("fp16", 70))
    assert found == "fp16 (70.0 dB), measured beside it, keeps all limits."


def test_a_crash_does_not_advise_what_failed_as_well() -> None:
    crashed = Failure(code="QUANTIZER_CRASHED", message="crashed", hint=OR_DYNAMIC)

    def hint(*others: Beside) -> str:
        return failure_hint(crashed, others) or ""

    assert hint() == OR_DYNAMIC
    assert hint(ran("dynamic:8", "PASS")).startswith("dynamic:8, measured beside it, keeps all limits.  Let edgequant")
    assert "dynamic:8" not in hint(ran("dynamic:8", "FAIL"))
    assert "--no-fallback" in hint(ran("dynamic:8", "FAIL"))
    insane = crashed.model_copy(update={"code": "QUANTIZED_MODEL_INSANE"})
    assert failure_hint(insane, [ran("fp16", "PASS")]) == failure_hint(crashed, [ran("fp16", "PASS")]) != OR_DYNAMIC
    doubted = crashed.model_copy(update={"evidence": {"doubt": "reference"}})
    assert failure_hint(doubted, [ran("fp16", "PASS")]) == OR_DYNAMIC
    other = Failure(code="MODEL_INVALID", message="broken", hint="Mend it.")
    assert failure_hint(other, [ran("dynamic:8", "PASS")]) == "Mend it."


@pytest.mark.slow
def test_in_the_report(generated_model: ModelByName, tmp_path: Path) -> None:
    bad, half = do(generated_model("conv_cnn"), tmp_path / "run", "weight:2", "fp16").runs
    assert half.verdict == "PASS"
    assert bad.verdict == "FAIL"
    found = {finding.remedy for finding in bad.findings if finding.code == "LIMIT_EXCEEDED"}
    (worst,) = half.outputs.values()
    assert found == {f"fp16 ({plain.decibel(worst.sqnr_db)} dB), measured beside it, keeps all limits."}
