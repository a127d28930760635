"""Which variants are worth trying on a model, in which order and why.  Pure: nothing is read and nothing is run.

The order was checked against measurements with MNN 3.6.1 on x86.  A single seed misleads: on the same model one and the
same variant passes with one set of random inputs and fails with another.  So each is told as verdicts that are not
FAIL, and the least SQNR of any output in dB, over six seeds:

| variant | enc (GRU) | df_dec (GRU) | erb_dec (GRU) | ppocr_cls (CNN) | ppocr_rec (attention) |
|---|---|---|---|---|---|
| fp16 | 6, 54 | 6, 69 | 6, 61 | 6, 45 | 6, 35 |
| dynamic:8 | 5, 18 | 6, 36 | 4, 26 | 3, 15 | 0, 12 |
| dynamic:8,block=32 | 6, 21 | 6, 39 | 6, 25 | 3, 15 | 0, 15 |
| dynamic:8,hqq | 5, 18 | 6, 37 | 5, 23 | 6, 25 | 1, 9 |
| dynamic:8,block=32,hqq | 6, 24 | 6, 39 | 5, 25 | 6, 25 | 2, 17 |

The order was chosen on these seeds, and then checked on six others:

| variant | enc | df_dec (five seeds) | erb_dec | ppocr_cls | ppocr_rec |
|---|---|---|---|---|---|
| fp16 | | | | 6, 38 | 6, 38 |
| dynamic:8 | 3, 11 | 5, 37 | 5, 18 | 5, 18 | |
| dynamic:8,block=32 | 5, 18 | 5, 38 | 6, 21 | | |
| dynamic:8,hqq | | | | 6, 25 | |
| dynamic:8,block=32,hqq | 5, 17 | 5, 38 | 4, 19 | | 3, 13 |

Random inputs put block=32 before plain dynamic:8 on recurrent models.  Realistic ones (docs/quantization.md), which are
closer to what a user has, do not: least SQNR of any output over four cases

| variant | enc | erb_dec | df_dec |
|---|---|---|---|
| dynamic:8 | 16.4 | 32.3 | 12.2 |
| dynamic:8,block=32 | 11.9 | 33.0 | 15.4 |

so the smaller file is tried first there, and the other held against it.

There is one CNN and one attention model behind this.  Static int8 was not measured with it.

4 bits (block=32,hqq) failed on all five with the one seed that was tried, so they are not advised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgequant.errors import InputError
from edgequant.findings import Finding
from edgequant.models.model import ModelGraph
from edgequant.models.risks import has_attention
from edgequant.models.weight_risks import block_helps
from edgequant.models.weights import Survey
from edgequant.spec import Variant

_SUSPECT = {
    "OUTPUT_NOT_COMPUTED", "GRU_RESET_FIRST", "LEADING_DIMENSION_FIXED", "OPERATOR_MISREAD",
    "CONSTANT_BEYOND_INT32",
}  # fmt: skip
"""Findings that say the float model itself may be wrong."""
TINY = 32_768
"""Weights that 8 bits make a byte smaller than fp16 each: below this it is 32 kB in all."""


@dataclass(frozen=True)
class Advice:
    """One variant worth trying.

    Attributes:
        variant: as `--variant` takes it.
        reason: one line.
        order: 1 is to be tried first.
    """

    variant: str
    reason: str
    order: int


@dataclass(frozen=True)
class Facts:
    """What is known besides the graph.

    Attributes:
        survey: of its weights; None where they were not read.
        varying: the range of its activations varies wildly between samples; None where that was not measured.
    """

    survey: Survey | None = None
    varying: bool | None = None


def _known(variant: str) -> bool:
    """Whether this edgequant can make it."""
    try:
        Variant.parse(variant)
    except InputError:
        return False
    return True


def advise(
    graph: ModelGraph,
    risks: Sequence[Finding],
    facts: Facts = Facts(),
    *,
    known: Callable[[str], bool] = _known,
) -> list[Advice]:
    """Variants worth trying, best first.

    Args:
        risks: what `find_risks` and `find_weight_risks` say.
        known: whether a variant can be made; others are left out.

    Returns:
        Nothing where the model is quantized already, or is an .mnn with fp16 weights, which MNN does not quantize.
    """
    if graph.weights == "quantized" or any(risk.code == "SOURCE_ALREADY_QUANTIZED" for risk in risks):
        return []
    if graph.format == "mnn" and graph.weights == "fp16":
        return []
    wanted = _wanted(graph, facts)
    suspects = [risk.code for risk in risks if risk.code in _SUSPECT]
    if suspects:
        wanted.insert(0, ("float", f"first see whether MNN computes the model at all: {', '.join(suspects)}"))
    reasons: dict[str, str] = {}
    for variant, reason in wanted:
        if known(variant):
            reasons.setdefault(variant, reason)
    return [Advice(variant, reason, order) for order, (variant, reason) in enumerate(reasons.items(), 1)]


def _wanted(graph: ModelGraph, facts: Facts) -> list[tuple[str, str]]:
    survey = facts.survey
    fp16 = ("fp16", "two bytes per weight, hardly any error: what to ship if the others miss the limits")
    found: list[tuple[str, str]] = []
    if graph.weights == "fp16" or (survey is not None and survey.half > 0.5):
        found.append(("fp16", "the source's weights are fp16 already: this keeps every one of them as it is"))
    if survey is not None and not survey.left_out:
        rest = survey.total - survey.quantizable + survey.unknown
        if not survey.quantizable and not survey.unknown:
            if survey.total:
                return [("fp16", "nothing in it can be quantized, but its tables can be halved")]
            return [("float", "it has no weights that are worth making smaller")]
        if survey.quantizable < 2 * rest:
            # 8 bits: a byte for these and four for the rest; fp16: two for all.
            share = rest / (survey.quantizable + rest)
            found.append(("fp16", f"smaller than 8 bits here, as {share:.0%} of the weights would stay fp32 there"))
        elif survey.quantizable < TINY:
            saved = survey.quantizable / 1000
            found.append(("fp16", f"8 bits would save {saved:.3g} kB more, which is seldom worth their error"))
    found += _by_kind(graph, facts)
    calibrated = _calibrated(graph, facts)
    several = len(graph.inputs or ()) > 1
    # What needs samples of all inputs at once, or crashes on loops, comes behind what needs nothing.
    late = facts.varying or several or graph.recurrent or graph.has_subgraphs
    return [*found, fp16, *calibrated] if late else [*found, *calibrated, fp16]


def _by_kind(graph: ModelGraph, facts: Facts) -> list[tuple[str, str]]:
    outliers = facts.survey is not None and block_helps(facts.survey)
    same = "computed in float with the weights of the dynamic one: tells whether the activations cost the accuracy"
    if graph.recurrent:
        return [
            (
                "dynamic:8",
                "runs with loops, and is smaller than with blocks; judge long sequences, and not with --precision low",
            ),
            (
                "dynamic:8,block=32",
                "compare it: a scale per 32 input channels may help or harm; on realistic inputs of three recurrent "
                "models it was 4.5 dB worse on one, 0.7 and 3 dB better on the others",
            ),
            ("weight:8", same),
        ]
    if has_attention(graph):
        return [
            ("fp16", "8 bits missed the limits more often than not on the attention model that was measured"),
            ("dynamic:8,block=32,hqq", "the most accurate way to 8 bits there; check it with many real inputs"),
            ("weight:8,block=32,hqq", same),
        ]
    hqq = "one byte per weight, no calibration; on the CNN that was measured hqq kept limits that dynamic:8 broke"
    if outliers:
        return [
            (
                "dynamic:8,block=32,hqq",
                "some channels have outlier weights: a scale per 32 input channels isolates them",
            ),
            ("weight:8,block=32,hqq", same),
            ("dynamic:8,hqq", hqq),
        ]
    return [("dynamic:8,hqq", hqq), ("weight:8,hqq", same), ("dynamic:8", "without hqq, should hqq be worse here")]


def _calibrated(graph: ModelGraph, facts: Facts) -> list[tuple[str, str]]:
    """Static int8: needs samples."""
    count = len(graph.inputs or ())
    together = "" if count < 2 else " of both inputs together" if count == 2 else f" of all {count} inputs together"
    samples = f"needs real samples{together} (--calibration)"
    if graph.recurrent or graph.has_subgraphs:
        return [
            ("static:8", f"{samples}; loops compute in float with 8-bit weights, and MNN's own methods crash on them")
        ]
    if facts.varying:
        return [("static:8", f"{samples} of every kind, as the activations' range varies wildly")]
    if has_attention(graph):
        return [("static:8", f"{samples}; MNN's own methods crash on models like this or ruin them")]
    return [
        (
            "static:8",
            f"{samples}; activations in int8 with fixed scales, by the calibrator that comes closest to float",
        ),
        ("ema", f"{samples}; the same by MNN's own tool"),
    ]
