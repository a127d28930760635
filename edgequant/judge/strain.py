"""Cases with values a model may never see: whether the same comes out of them as of the source.

How well a quantized model does there is nobody's promise, so no limit is held against it.  But MNN has to compute what
the source computes, and nothing may come out as NaN or Inf that is a number there.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgequant.archive.types import ArrayRef, Capture, Source
from edgequant.compare.metrics import TensorComparison
from edgequant.findings import Finding, Severity
from edgequant.judge.decisions import LISTS, in_any_order
from edgequant.judge.limits import default_limits
from edgequant.judge.stages import Comparer, by_case
from edgequant.judge.types import NOTHING, Observed, Summaries
from edgequant.judge.verdict import Verdict

_FLOAT = {limit.metric: limit.value for limit in default_limits("float", "float")}
_QUANTIZED_DB = 20.0
_TOLD = 5


def strained(
    source: Source,
    reference: Capture,
    float_host: Capture | None,
    capture: Capture,
    comparer: Comparer,
    usual: Summaries,
    *,
    host_wrong: bool = False,
) -> Observed:
    """What is found of the strained cases of one trial.

    Args:
        usual: the outputs over the other cases, for their size: an error is measured against the larger of it and of
            the output in the case itself, for silence often gives next to nothing.
        host_wrong: this host is known to compute something of this file wrong, so what float MNN says here proves
            nothing.
    """
    cases = [case.name for case in source.cases if case.kind == "strain"]
    if not cases:
        return NOTHING
    expected, floats, got = by_case(reference), by_case(float_host) if float_host else {}, by_case(capture)
    wrong: list[tuple[str, str]] = []
    broken: list[str] = []
    far: dict[str, float] = {}
    for case in cases:
        refs = expected[case].outputs if case in expected else None
        if refs is None or case not in got:
            continue
        for name, ref in refs.items():
            size = usual[name].reference_max_abs or 0.0 if name in usual else 0.0
            if case in floats:
                other = (floats[case].outputs or {}).get(name)
                of_float = comparer.named(name, ref, other)
                listed = of_float.problem in (None, "shape") and source.decisions.get(name) in LISTS
                if other is None or not listed:
                    off = _converted_wrong(of_float, size)
                else:
                    rows = _whatever_order(comparer, ref, other, of_float, source.decisions[name] == "set")
                    off = rows is not None and _converted_wrong(rows, size)
                if off:
                    wrong.append((name, case))
                    continue
            outputs = got[case].outputs
            if outputs is None:
                continue  # a refusal is told elsewhere
            found = comparer.named(name, ref, outputs.get(name))
            # Of a list or a set the length depends on the data; of anything else it does not.
            shape = found.problem == "shape" and source.decisions.get(name) not in LISTS
            if shape or found.problem in ("nonfinite", "missing", "dtype"):
                broken.append(f"{name} in {case}")
            elif (value := _error_db(found, size)) is not None and value < _QUANTIZED_DB:
                far[f"{name} in {case}"] = value
    return _said(wrong, broken, far, "warn" if host_wrong else "fail")


def _whatever_order(
    comparer: Comparer, ref: ArrayRef, other: ArrayRef, found: TensorComparison, last: bool
) -> TensorComparison | None:
    """Of a list whose scores are all at their limit chance decides which come first, and which of them at all.

    Its rows are compared, where most are in both; None where nothing is known by them.
    """
    return found if found.exact else in_any_order(comparer.array(ref), comparer.array(other), last=last)


def _converted_wrong(c: TensorComparison, size: float) -> bool:
    """Whether float MNN computes something else there than the source."""
    if c.problem is not None:
        return c.problem != "reference_nonfinite"
    if c.faint or c.kind == "int" or not c.max_abs or c.sqnr_db is None or c.sqnr_db >= _FLOAT["sqnr_db"]:
        return False  # whole numbers: equal inputs make ties, which may fall either way
    return c.max_abs > _FLOAT["rel_max"] * max(size, c.reference_max_abs or 0.0)


def _error_db(c: TensorComparison, size: float) -> float | None:
    """SQNR, for an output that is not next to nothing there."""
    if c.faint or c.sqnr_db is None or c.max_abs is None:
        return None
    return None if c.max_abs <= _FLOAT["rel_max"] * size else c.sqnr_db


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_TOLD]) + (f" and {len(names) - _TOLD} more" if len(names) > _TOLD else "")


def _said(wrong: Sequence[tuple[str, str]], broken: Sequence[str], far: dict[str, float], level: Severity) -> Observed:
    findings = []
    if wrong:
        places = [f"{name} in {case}" for name, case in wrong]
        findings.append(
            Finding(
                code="STRAIN_CONVERSION",
                severity=level,
                where=wrong[0][0],
                message="float MNN does not compute what the source computes of values at the ends of what inputs "
                f"can be: {_some(places)}",
                evidence={
                    "outputs": places[:1000],
                    "cases": list(dict.fromkeys(case for _, case in wrong)),
                    "stage": "conversion",
                },
                remedy="Quantization is not the cause.  If inputs are never like that, give real ones with --inputs.",
            )
        )
    if broken:
        findings.append(
            Finding(
                code="STRAIN_BROKEN",
                severity="fail",
                where=broken[0].split(" in ")[0],
                message=f"NaN, Inf, another shape or nothing comes out where the source gives numbers: {_some(broken)}",
                evidence={"outputs": list(broken[:1000])},
                remedy="If inputs are never like that, give real ones with --inputs; else use another variant.",
            )
        )
    if far:
        worst = min(far, key=lambda name: far[name])
        findings.append(
            Finding(
                code="STRAIN_ERROR",
                severity="info",
                where=worst.split(" in ")[0],
                message=f"far from the source with values at the ends of what inputs can be: {far[worst]:.3g} dB in "
                f"{worst}" + (f", and {len(far) - 1} more below {_QUANTIZED_DB:g} dB" if len(far) > 1 else ""),
                evidence={"sqnr_db": dict(list(far.items())[:1000])},
                remedy="No limit is held against these.  If inputs can be like that, give such ones with --inputs.",
            )
        )
    failed = broken or (wrong and level == "fail")
    return Observed(tuple(findings), Verdict.FAIL if failed else Verdict.PASS)
