"""What is said of an output, word by word, and what to do about it."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgequant.compare.metrics import compare
from edgequant.compare.summary import summarize
from edgequant.judge.verdict import judge_output
from tests.judge.archives import WAVE, off, parsed

NAN = np.where(np.arange(64) == 3, np.nan, WAVE).astype(np.float32)


def said(*limits: str, **cases: Any) -> list[tuple[str, str, str | None, str, str | None]]:
    found = judge_output(
        summarize({name: compare(*pair) for name, pair in cases.items()}), parsed(limits), output="y", remedy="Do."
    )
    return [(each.code, each.severity, each.where, each.message, each.remedy) for each in found.findings]


def test_nothing_to_judge() -> None:
    assert said() == [("NOTHING_COMPARED", "error", "y", "no case was compared", "Give at least one case.")]
    assert said(a=(WAVE, WAVE)) == [
        ("NOTHING_JUDGED", "error", "y", "no limit could be applied", "Give a limit this output has.")
    ]
    empty = np.zeros((0, 3), np.float32)
    assert said("cosine>=0.5", a=(empty, empty))[-1] == (
        "NOTHING_JUDGED", "error", "y", "no element to compare", "Use cases that give this output a value.",
    )  # fmt: skip


def test_limits() -> None:
    far = (WAVE, off(WAVE, 20))
    (finding,) = said("sqnr_db>=30", a=far)
    assert (finding[:3], finding[4]) == (("LIMIT_EXCEEDED", "fail", "y"), "Do.")
    assert finding[3] == "sqnr_db 20 is below the limit 30 in a"
    assert said("sqnr_db>=30", a=far, b=(WAVE, WAVE))[0][3] == "sqnr_db 20 is below the limit 30 in the worst case, a"
    assert said("max_abs<=0.01", a=(WAVE, WAVE + 1))[0][3].endswith("is above the limit 0.01 in a")
    assert said("sqnr_db>=19.5", a=far) == [
        ("LIMIT_MARGINAL", "warn", "y", "sqnr_db 20 only just keeps the limit 19.5 in a",
         "Try more cases: another input may break the limit."),
    ]  # fmt: skip
    assert said("mismatch<=0.5", a=far)[0] == (
        "LIMIT_UNDEFINED", "error", "y", "mismatch is not defined for this float output",
        "Limits it can have: cosine, sqnr_db, max_abs, rel_max, mean_abs, p99_abs, device_sqnr_db.",
    )  # fmt: skip


def test_arrays_that_cannot_be_compared() -> None:
    def of(got: Any) -> tuple[str, str, str | None, str, str | None]:
        return said("cosine>=0.5", a=(WAVE, got), b=(WAVE, got))[0]

    assert of(None) == ("OUTPUT_MISSING", "fail", "y", "no such output came back in a (and in 1 more)",
                        "Check the output's name; the conversion may have dropped or renamed it.")  # fmt: skip
    assert of(WAVE.astype(np.int64)) == (
        "OUTPUT_DTYPE", "fail", "y", "int64 instead of float32 in a (and in 1 more)",
        "Check that both models have the same outputs in the same order.",
    )  # fmt: skip
    assert of(WAVE[:3]) == (
        "OUTPUT_SHAPE", "fail", "y", "shape [3] instead of [64] in a (and in 1 more)",
        "Check the input shapes and how dynamic dimensions were resized on the device.",
    )  # fmt: skip
    remedy = (
        "Look for the first inner tensor that has it: MNN's activations turn NaN into plausible numbers further in."
    )
    assert of(NAN) == (
        "OUTPUT_NAN", "fail", "y", "1 NaN and 0 Inf among 64 elements in a (and in 1 more)", remedy,
    )  # fmt: skip
    assert said("cosine>=0.5", a=(NAN, NAN))[0] == (
        "REFERENCE_NOT_FINITE", "error", "y",
        "the reference itself is not finite: the reference has 1 NaN and 0 Inf among 64 elements in a",
        "Repair the source model or use inputs it can take; this case proves nothing either way.",
    )  # fmt: skip


def test_references_that_say_little() -> None:
    one = np.ones(64, np.float32)
    assert said("sqnr_db>=20", a=(one, one))[:2] == [
        ("REFERENCE_CONSTANT", "info", "y",
         "the reference has a single value in 1 of 1 cases: its cosine says nothing there",
         "Use inputs that make this output vary."),
        ("OUTPUT_NEVER_VARIES", "warn", "y",
         "the reference has a single value in every case: that this output computes anything is not shown",
         "Use inputs that make this output vary."),
    ]  # fmt: skip
    assert ("REFERENCE_ZERO", "info", "y",
            "the reference is all zero in 1 of 2 cases: only the absolute error counts there",
            "Use inputs that give this output a value, or give it a max_abs limit.") in said(
        "sqnr_db>=20", a=(0 * one, 0 * one), b=(WAVE, WAVE))  # fmt: skip
    high = WAVE + 1000
    (finding,) = said("sqnr_db>=40", a=(high, high + off(WAVE, 10) - WAVE))
    assert finding[:3] == ("MEAN_HIDES_ERROR", "warn", "y")
    assert "(worst case) comes from a large mean; against the variation around it only 10" in finding[3]
    assert finding[4] == ("Where the variation is what counts (scores, offsets), limit max_abs to what it can bear.")
