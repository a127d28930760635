"""Whether int8 activations cost an output what rounding them has to cost.

What it has to cost is known from the source in its own runtime, with what its layers read rounded to 8 bits
(`jobs.predicted`): no file that was made and no kernel of MNN has a part in that.  What they do cost is what the
same file computes with memory low against memory normal, or a static int8 file against float MNN, all on this host.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgequant.archive.types import Artifact, Capture, Source
from edgequant.compare.metrics import TensorComparison
from edgequant.findings import Finding
from edgequant.judge.decisions import LISTS
from edgequant.judge.stages import Comparer
from edgequant.judge.types import NOTHING, Observed
from edgequant.judge.verdict import Verdict

MARGIN_DB, STATIC_MARGIN_DB = 10.0, 16.0
"""So much more than predicted is still rounding; the second of a static int8 file, where the weights are in it as well.
Found, at most: 5.7 and 8.7, but 18.8 where a calibrator clips on purpose and an average behind it takes the rest away:
so beyond the second is a warning."""
LEAST = 64
"""Numbers of an output, over all cases: of fewer one decides."""
_LINEAR_DB = 90.0
"""Above this, nothing in a case is rounded that matters."""
_TIPS = ("probabilities", "classes", *LISTS)
"""What outputs decide that change as a whole where a close call tips: no error grows with the rounding there."""


@dataclass(frozen=True)
class Costs:
    """What int8 activations cost on this host, by output: found_db, predicted_db, and beyond_db, by how much it is
    more than that, all of which are dB.  margin: so much more is rounding.  static: of a static int8 file."""

    margin: float = MARGIN_DB
    static: bool = False
    outputs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def predicted(self) -> dict[str, float]:
        return {name: numbers["predicted_db"] for name, numbers in self.outputs.items()}


def activation_costs(
    artifact: Artifact, source: Source, reference: Capture, floats: Capture, here: Capture | None, comparer: Comparer
) -> Costs:
    """Nothing where that is not predicted, or not to be held against it.

    floats: float MNN on this host, or what stands in for it.  here: this host with the file.
    """
    if here is None or here.failure is not None:
        return Costs()
    static = artifact.run_as.method == "static"
    if here.memory_mode == "low" and not artifact.facts.static:
        way, static = "rows", False
        found = comparer.each(here.normal, here.cases, source.kinds)
    elif static and not _excused(artifact):
        way = "tensors"
        found = comparer.each(floats.cases, here.cases, source.kinds)
    else:
        return Costs()
    predicted = {(name, each.case): strayed.sqnr_db for each in reference.moved if each.by == way
                 for name, strayed in each.outputs.items()}  # fmt: skip
    costs: dict[str, Mapping[str, float]] = {}
    for name, cases in found.items():
        if source.kinds[name] == "float" and source.decisions.get(name) not in _TIPS:
            numbers = _beyond(cases, {case: predicted.get((name, case)) for case in cases})
            if numbers is not None:
                costs[name] = numbers
    return Costs(STATIC_MARGIN_DB if static else MARGIN_DB, static, costs)


def beyond_activations(costs: Costs) -> Observed:
    """FAIL where int8 activations that are quantized at run time cost an output of this host more than rounding; a
    warning where those of a static int8 file do, whose calibrator may have chosen to clip."""
    beyond = {name: numbers for name, numbers in costs.outputs.items() if numbers["beyond_db"] > costs.margin}
    return _said(beyond, costs.margin, static=costs.static) if beyond else NOTHING


def _excused(artifact: Artifact) -> bool:
    """Whether its scales are known not to be of these cases' ranges, or this host to compute its pools wrong."""
    told = {each.code for each in artifact.findings}
    return bool(artifact.facts.max_pools or told & {"CALIBRATION_RANGE", "CALIBRATION_IDENTICAL"})


def _beyond(cases: Mapping[str, TensorComparison], predicted: Mapping[str, float | None]) -> dict[str, float] | None:
    """What was found and predicted of an output, in dB, over its cases; None where there is too little of it."""
    pairs, elements = [], 0
    for case, each in cases.items():
        expected = predicted[case]
        if each.problem is None and each.sqnr_db is not None and expected is not None and expected < _LINEAR_DB:
            pairs.append((each.sqnr_db, expected))
            elements += each.elements
    if not pairs or elements < LEAST:
        return None
    found, expected = (_mean([pair[side] for pair in pairs]) for side in (0, 1))
    apart = sorted(expected - got for got, expected in pairs)
    median = (apart[(len(apart) - 1) // 2] + apart[len(apart) // 2]) / 2
    return {"found_db": found, "predicted_db": expected, "beyond_db": min(median, expected - found)}


def _mean(decibels: Sequence[float]) -> float:
    """Of the errors' powers, each in its case's signal."""
    return -10 * math.log10(sum(10 ** (-each / 10) for each in decibels) / len(decibels))


def _said(beyond: Mapping[str, Mapping[str, float]], margin: float, *, static: bool) -> Observed:
    worst = max(beyond, key=lambda name: beyond[name]["beyond_db"])
    numbers, more = beyond[worst], f", and {len(beyond) - 1} more" if len(beyond) > 1 else ""
    what = "static int8 leaves" if static else "int8 activations leave"
    finding = Finding(
        code="QUANTIZATION_BEYOND_ROUNDING",
        severity="warn" if static else "fail",
        where=worst,
        message=f"{what} {worst} {numbers['found_db']:.4g} dB SQNR on this host, where rounding activations to 8 bits "
        f"in the source's own runtime leaves {numbers['predicted_db']:.4g} dB; rounding goes {margin:g} dB beyond that "
        f"at most{more}",
        evidence={"stage": "activations", "margin_db": margin, "outputs": dict(list(beyond.items())[:1000])},
        remedy="Its scales clip what these cases hold, or are too wide for it: calibrate with more inputs like them, "
        "or in another way (calib=minmax clips nothing); or keep the layer in front of it in float (skip=)."
        if static
        else "No rounding does this: MNN's int8 kernels compute something else on this host.  Try another variant, "
        "weight:8 for one, and report it to MNN with this model.",
    )
    return Observed((finding,), Verdict.PASS if static else Verdict.FAIL)
