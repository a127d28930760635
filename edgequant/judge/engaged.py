"""Whether a device computes the same twice, and whether memory low made a difference to memory normal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from edgequant.archive.types import Artifact, Capture, CaseCapture, FileFacts
from edgequant.compare.table import Kind
from edgequant.findings import Finding
from edgequant.judge.stages import Comparer, by_case, summaries
from edgequant.judge.types import NOTHING, Engaged, Observed
from edgequant.judge.verdict import Verdict

FAINT_DB = 20.0
"""Of what int8 activations change on this host, a device may change so much less; found: 0.1 dB."""
UNMOVED_DB = 90.0
"""An output that memory low changes by less on this host says nothing: that may be a last bit here as well."""

Faint = tuple[str, float, float]
"""Output, and how far memory low is from memory normal there (dB SQNR): on this host, and on the device."""


def differing(first: CaseCapture, second: CaseCapture) -> list[str]:
    """Names of the outputs that are not the same in every bit (a NaN is the same as itself), or that only one has."""
    one, other = first.outputs or {}, second.outputs or {}
    return [name for name in {**one, **other} if one.get(name) != other.get(name)]


Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]
"""Case -> its inputs' sizes."""
STALE_DB = 60.0
"""What differs by less is a last bit, whatever size was run before."""


def determinism(
    capture: Capture, shapes: Shapes | None = None, comparer: Comparer | None = None
) -> tuple[bool | None, Observed]:
    """Whether cases that were run twice came out the same; None where none was.

    comparer: says by how much they differ.  shapes: say, with it, whether it takes another size before them.
    """
    first = by_case(capture)
    pairs = [(first[each.case], each) for each in capture.repeated if each.case in first]
    if not pairs:
        return None, NOTHING
    changed = next(((once, again, names) for once, again in pairs if (names := differing(once, again))), None)
    if changed is None:
        return True, NOTHING
    once, again, names = changed
    case, apart = again.case, None if comparer is None else _apart(once, again, names, comparer)
    if apart is not None and apart < STALE_DB and shapes is not None and _follows_sizes(capture, shapes):
        return False, _stale_shape(case, names, apart)
    if (later := _later(capture, first)) is not None:
        return False, later
    size = "" if apart is None else f", {apart:.0f} dB from the first time"
    finding = Finding(
        code="NOT_DETERMINISTIC",
        severity="error",
        where=names[0],
        message=f"the same inputs (case '{case}') gave other outputs the second time{size}: {', '.join(names[:20])}",
        evidence={"outputs": names[:1000]} | ({} if apart is None else {"sqnr_db": apart}),
        remedy="A single run says nothing about such a model.  Look for random operators in it, try --threads 1, and "
        "suspect the device's memory if other models do the same.",
    )
    return False, Observed((finding,), Verdict.INCONCLUSIVE)


def _apart(once: CaseCapture, again: CaseCapture, names: list[str], comparer: Comparer) -> float | None:
    """SQNR in dB of the output that differs most; None where none has one."""
    one, other = once.outputs or {}, again.outputs or {}
    found = [comparer.of(one[name], other[name]).sqnr_db for name in names if name in one and name in other]
    return min((each for each in found if each is not None), default=None)


def _follows_sizes(capture: Capture, shapes: Shapes) -> bool:
    """Whether what changed came after a case of another size than before, and nothing else did: of those that followed
    one of their own size some came twice, and all of them the same."""
    cases = [each for each in capture.cases if each.outputs is not None]
    first = {each.case: each for each in cases}
    before = {one.case: other.case for other, one in pairwise(cases)}
    last = capture.timings[0].case if capture.timings else cases[-1].case if cases else ""
    same, other = 0, 0
    for again in capture.repeated:
        if again.case not in first or again.case not in shapes or last not in shapes:
            return False
        own = shapes[again.case]
        changed = bool(differing(first[again.case], again))
        if own == shapes[last] and own == shapes.get(before.get(again.case, ""), own):
            if changed:
                return False
            same += 1
        else:
            other += changed
        last = again.case
    return same > 0 and other > 0


def _stale_shape(case: str, names: list[str], apart: float) -> Observed:
    finding = Finding(
        code="STALE_SHAPE",
        severity="fail",
        where=names[0],
        message=f"case '{case}' came out otherwise after a case of another size, {apart:.0f} dB from the first time, "
        f"while what followed its own size came out the same: {', '.join(names[:20])}",
        evidence={"outputs": names[:1000], "sqnr_db": apart},
        remedy="MNN keeps something of the size before: load the model anew for each size, or pin sizes with --shape.",
    )
    return Observed((finding,), Verdict.FAIL)


def faint(
    here: Capture | None, capture: Capture, names: Mapping[str, Kind], held: frozenset[str], comparer: Comparer
) -> Faint | None:
    """The output that changes most with memory low on this host, where a device changes all of them far less: then what
    differs there is a last bit, and nothing was quantized.  None where it does not, or nothing is known of it."""
    if here is None:
        return None

    def apart(of: Capture) -> dict[str, float]:
        normal: Sequence[CaseCapture] = [each for each in of.normal if each.case in held]
        found = summaries(comparer.each(normal, of.cases, names))
        numbers = {name: each.values.get("sqnr_db") for name, each in found.items()}
        return {name: value for name, value in numbers.items() if value is not None}

    mine, there = apart(here), apart(capture)
    moved = {name: value for name, value in mine.items() if value < UNMOVED_DB and name in there}
    if not moved or any(there[name] < value + FAINT_DB for name, value in moved.items()):
        return None
    worst = min(moved, key=lambda name: moved[name])
    return worst, moved[worst], there[worst]


def _later(capture: Capture, first: Mapping[str, CaseCapture]) -> Observed | None:
    """Where a case came out otherwise later in the session, and then the same each time: that is not by chance."""
    again = {each.case: each for each in capture.repeated}
    for timing in capture.timings:
        once, then = first.get(timing.case), again.get(timing.case)
        if once is None or then is None or timing.outputs is None or timing.outputs != then.outputs:
            continue
        if names := differing(once, then):
            count = len(capture.cases) + timing.warmup + len(timing.samples_ms)
            finding = Finding(
                code="OUTPUT_CHANGED_LATER",
                severity="error",
                where=names[0],
                message=f"case '{timing.case}' gave other outputs after {count} inferences than before, and then the "
                f"same ones again: {', '.join(names[:20])}",
                evidence={"outputs": names[:1000], "inferences": count},
                remedy="That is not by chance: what is computed depends on how much was computed before.  Neither the "
                "first outputs nor the later ones say what the next will be.  Compare the MNN versions.",
            )
            return Observed((finding,), Verdict.INCONCLUSIVE)
    return None


def engagement(
    artifact: Artifact, capture: Capture, deterministic: bool | None, faint: Faint | None = None
) -> tuple[Engaged, Observed]:
    """Whether dynamic quantization took place.

    Where it was wanted and did not, the run says nothing about it: INCONCLUSIVE.
    """
    wanted = artifact.run_as.method == "dynamic"
    found, partly = _engaged(artifact, capture, deterministic, wanted=wanted)
    if found.engaged is True and faint is not None:
        found, partly = _too_little(found, faint), NOTHING
    if not wanted or found.engaged is True:
        return found, partly
    if capture.failure is not None and found.why is None:
        return Engaged(None, "the run ended before it could be proven", found.evidence), partly
    why = found.why or "no case could be run"
    finding = Finding(
        code="LOW_MEMORY_NOT_ENGAGED",
        severity="error",
        message=f"dynamic quantization did not take place: {why}"
        if found.engaged is False
        else f"dynamic quantization could not be proven: {why}",
        evidence=dict(found.evidence),
        remedy="It needs quantized weights, memory low, and an MNN built with MNN_LOW_MEMORY (PyPI's is).  To "
        "judge the weight-quantized file run in float, use weight:N.",
    )
    return Engaged(found.engaged, why, found.evidence), Observed((*partly.findings, finding), Verdict.INCONCLUSIVE)


def _engaged(
    artifact: Artifact, capture: Capture, deterministic: bool | None, *, wanted: bool
) -> tuple[Engaged, Observed]:
    if capture.memory_mode != "low":
        if not wanted or not any(each.outputs is not None for each in capture.cases):
            return Engaged(), NOTHING
        return Engaged(False, f"memory is '{capture.memory_mode}', dynamic quantization needs 'low'"), NOTHING
    repeated = {each.case: each for each in capture.repeated}
    again = by_case(capture) | repeated
    pairs = [(again[each.case], each) for each in capture.normal if each.case in again and each.outputs is not None]
    if not pairs:
        return Engaged(), NOTHING
    # The case that shows most: a short one may be too small for kernels of its own.
    low, normal = max(pairs, key=lambda pair: len(differing(*pair)))
    reached = differing(low, normal)
    session = capture.session
    low_mb, normal_mb = (None, None) if session is None else (session.mb, session.normal_mb)
    evidence = {
        "case": normal.case,
        "outputs_differ": bool(reached),
        "outputs_reached": reached,
        "deterministic": deterministic,
        "session_mb_low": low_mb,
        "session_mb_normal": normal_mb,
    }
    fell = low_mb is not None and normal_mb is not None and low_mb < normal_mb
    # Equal bits disprove it whatever the memory of a session does: small weights may be computed with in float.
    if reached and (deterministic or fell):
        # Whole numbers are mostly the same after rounding, however they were computed.
        floats = [
            name for name, ref in (low.outputs or {}).items() if not ref.dtype.startswith(("int", "uint", "bool"))
        ]
        missed = [name for name in floats if name not in reached]
        why = "outputs differ from memory normal"
        return Engaged(True, why, evidence), _not_reached(missed) if missed and deterministic and wanted else NOTHING
    if not reached:
        return Engaged(False, _missing_condition(artifact.facts), evidence), NOTHING
    # Outputs that differ from run to run anyway prove nothing.
    why = "outputs change from run to run, so a difference to memory normal proves nothing"
    return Engaged(None, why, evidence), NOTHING


def _too_little(found: Engaged, faint: Faint) -> Engaged:
    output, here, there = faint
    why = (
        f"outputs differ from memory normal by less than int8 activations make them: {output} keeps {there:.4g} dB "
        f"SQNR there, {here:.4g} dB on this host"
    )
    return Engaged(False, why, {**found.evidence, "sqnr_db": there, "host_sqnr_db": here})


def _not_reached(missed: list[str]) -> Observed:
    finding = Finding(
        code="LOW_MEMORY_PARTIAL",
        severity="warn",
        where=missed[0],
        message=f"{len(missed)} output(s) are the same in every bit with memory normal: nothing they are computed from "
        "was quantized at run time",
        evidence={"outputs": missed[:1000]},
        remedy="MNN has low-memory kernels for plain convolutions and matrix products only; these outputs are as with "
        "weight:N.",
    )
    return Observed((finding,))


def _missing_condition(facts: FileFacts) -> str:
    if facts.weights != "quantized":
        return "the file holds no quantized weights: none of its layers is of a kind or size MNN quantizes"
    return (
        "weights are quantized and memory is low, so this MNN was built without MNN_LOW_MEMORY, or it has no "
        "low-memory kernels for these ops on this CPU"
    )
