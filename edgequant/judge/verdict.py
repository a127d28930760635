"""From measured numbers and limits to a verdict with its reasons.  Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from edgequant.compare.summary import FAINT, NEAR_NOTHING, OutputSummary
from edgequant.errors import EXIT_ERROR, EXIT_FAIL, EXIT_INCONCLUSIVE, EXIT_PASS
from edgequant.findings import Finding
from edgequant.judge.limits import METRICS_OF, judged_value, meets, within_margin
from edgequant.spec import METRICS, Limit
from edgequant.text import apart

ZERO_TOLERANCE = 1e-3
"""Largest absolute error allowed around an output that is zero in every case, in the output's unit: there is nothing
else to measure it by.  A max_abs limit takes its place."""

_ZERO_REL_MAX = 0.25
_ENOUGH_FOR_VARIATION = 16
"""Elements a case: the variation of fewer is no property of the output."""


class Verdict(str, Enum):
    """What is said of an output, a run or a whole report."""

    PASS = "PASS"  # noqa: S105 - no password
    MARGINAL = "MARGINAL"
    """Inside every limit, but within the margin of one."""
    FAIL = "FAIL"
    ERROR = "ERROR"
    """It could not be run."""
    INCONCLUSIVE = "INCONCLUSIVE"
    """It ran, but the measurement is not valid."""

    @property
    def exit_code(self) -> int:
        return _EXIT[self]

    def __str__(self) -> str:
        return self.value


GOOD = (Verdict.PASS, Verdict.MARGINAL)
"""Every limit is kept, and nothing else speaks against it."""

_EXIT = {
    Verdict.PASS: EXIT_PASS,
    Verdict.MARGINAL: EXIT_PASS,
    Verdict.FAIL: EXIT_FAIL,
    Verdict.ERROR: EXIT_ERROR,
    Verdict.INCONCLUSIVE: EXIT_INCONCLUSIVE,
}
_ORDER = (Verdict.PASS, Verdict.MARGINAL, Verdict.INCONCLUSIVE, Verdict.ERROR, Verdict.FAIL)


def severity(verdict: Verdict) -> int:
    """Place in the order of worst(): 0 for PASS, 4 for FAIL."""
    return _ORDER.index(verdict)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Combine: FAIL over ERROR over INCONCLUSIVE over MARGINAL over PASS; nothing at all is ERROR.

    FAIL comes before ERROR because it is proven: no rerun, and no result that is still missing, can turn it into a
    pass.  CI retries on 3 (something could not be run) and must not retry what is known to be bad.  The report still
    shows the crashed run.  ERROR comes before INCONCLUSIVE because nothing at all is known of that part.
    """
    return max(verdicts, key=severity, default=Verdict.ERROR)


@dataclass(frozen=True)
class LimitResult:
    """One limit held against the measured value.

    value: the worst over the cases, None where the metric is undefined.  case: where it was measured.  verdict: PASS,
    MARGINAL, FAIL, or INCONCLUSIVE for an undefined value.
    """

    limit: Limit
    value: float | None
    verdict: Verdict
    case: str | None = None


@dataclass(frozen=True)
class OutputVerdict:
    """The verdict on one output.

    Attributes:
        reasons: one line for each thing that kept it from PASS, the gravest first.
        results: every limit that was applied.
        failed: those of them that were broken.
        findings: the same for machines, plus what a reader should know of the reference.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    results: tuple[LimitResult, ...]
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[LimitResult, ...]:
        return tuple(result for result in self.results if result.verdict is Verdict.FAIL)


class _Notes:
    """Collects what is found about one output."""

    def __init__(self, where: str | None) -> None:
        self.where = where
        self.findings: list[Finding] = []
        self.reasons: list[tuple[Verdict, str]] = []

    def add(
        self,
        verdict: Verdict | None,
        code: str,
        message: str,
        remedy: str | None,
        *,
        level: str | None = None,
        **evidence: object,
    ) -> None:
        """verdict None: worth knowing, but no reason for anything.  level: severity, where it does not follow."""
        levels = {Verdict.FAIL: "fail", Verdict.INCONCLUSIVE: "error", Verdict.ERROR: "error", None: "info"}
        self.findings.append(
            Finding.model_validate(
                {
                    "code": code,
                    "severity": level or levels.get(verdict, "warn"),
                    "where": self.where,
                    "message": message,
                    "evidence": evidence,
                    "remedy": remedy,
                }
            )
        )
        if verdict is not None:
            self.reasons.append((verdict, message))


def judge_output(
    summary: OutputSummary,
    limits: Sequence[Limit],
    *,
    output: str | None = None,
    remedy: str | None = None,
    refused: Mapping[str, str] | None = None,
) -> OutputVerdict:
    """Judge one output over all its cases.

    A missing output, another shape or kind of dtype, and a NaN or Inf the reference does not have are FAIL, whatever
    the limits say.  A reference that is itself not finite makes its case INCONCLUSIVE.  Where the reference is all
    zero, the relative metrics do not exist and an absolute rule stands in for them: the error must stay within the
    max_abs limit if there is one, else within rel_max times the output's size in the other cases, else within
    ZERO_TOLERANCE.  Where every reference is constant, its cosine is not judged.  If no limit could be applied at
    all, the verdict is INCONCLUSIVE; with no case at all it is ERROR.

    Args:
        limits: one per metric (see resolve_limits); their `output` is not looked at.
        output: the output's name, for the findings.
        remedy: what to do about a broken limit; what was measured beside it decides that.
    """
    notes = _Notes(output)
    if not summary.cases:
        notes.add(Verdict.ERROR, "NOTHING_COMPARED", "no case was compared", "Give at least one case.")
    _note_problems(summary, notes, refused or {})
    _note_reference(summary, notes)
    _note_mean(summary, limits, notes)
    results = [_apply(summary, limit) for limit in limits] if summary.judgeable else []
    results = [result for result in results if not _excused(summary, result)]
    if summary.judgeable and summary.zero_cases:
        results += _check_zero(summary, limits, notes)
    for result in results:
        _note_result(result, summary, notes, remedy)
    _note_near_nothing(summary, results, notes)
    checked = any(result.value is not None for result in results)
    if not checked and summary.cases and all(verdict is Verdict.MARGINAL for verdict, _ in notes.reasons):
        notes.add(
            Verdict.INCONCLUSIVE,
            "NOTHING_JUDGED",
            "no element to compare" if summary.empty_cases else "no limit could be applied",
            "Use cases that give this output a value." if summary.empty_cases else "Give a limit this output has.",
        )
    reasons = sorted(notes.reasons, key=lambda reason: -severity(reason[0]))
    return OutputVerdict(
        verdict=worst([Verdict.PASS, *(verdict for verdict, _ in reasons)]),
        reasons=tuple(text for _, text in reasons),
        results=tuple(results),
        findings=tuple(notes.findings),
    )


def _apply(summary: OutputSummary, limit: Limit) -> LimitResult:
    value = summary.values.get(limit.metric)
    if value is None or limit.metric not in METRICS_OF[summary.kind]:
        return LimitResult(limit, None, Verdict.INCONCLUSIVE)
    judged, case = judged_value(summary, limit)
    if judged is None:  # its error is that of arithmetic, in every case
        return LimitResult(limit, value, Verdict.PASS, summary.worst_cases.get(limit.metric))
    return _held(limit, judged, case)


def _held(limit: Limit, value: float, case: str | None) -> LimitResult:
    if not meets(limit, value):
        return LimitResult(limit, value, Verdict.FAIL, case)
    return LimitResult(limit, value, Verdict.MARGINAL if within_margin(limit, value) else Verdict.PASS, case)


def _excused(summary: OutputSummary, result: LimitResult) -> bool:
    """Whether a limit was left out for a reason that is told in another way."""
    metric = result.limit.metric
    if metric not in METRICS_OF[summary.kind]:
        return False
    if metric == "cosine" and summary.cosine_says_nothing:
        return True
    # Undefined, but not unjudged: the absolute rule for zeros, or a FAIL for an array that cannot be compared.
    return result.value is None and bool(summary.zero_cases or summary.problems)


def _note_result(result: LimitResult, summary: OutputSummary, notes: _Notes, advice: str | None) -> None:
    limit, value = result.limit, result.value
    evidence: dict[str, Any] = {
        "metric": limit.metric,
        "value": value,
        "bound": limit.value,
        "op": METRICS[limit.metric],
        "case": result.case,
    }
    of = (
        ""
        if result.case is None
        else f" in the worst case, {result.case}"
        if summary.cases > 1
        else f" in {result.case}"
    )
    if value is None:
        why = f"{limit.metric} is not defined for this {summary.kind} output"
        remedy = f"Limits it can have: {', '.join(METRICS_OF[summary.kind])}."
        notes.add(Verdict.INCONCLUSIVE, "LIMIT_UNDEFINED", why, remedy, **evidence)
    elif result.verdict is Verdict.FAIL:
        side = "below" if limit.op == ">=" else "above"
        told, bound = apart([value, limit.value])
        message = f"{limit.metric} {told} is {side} the limit {bound}{of}"
        notes.add(Verdict.FAIL, "LIMIT_EXCEEDED", message, advice, **evidence)
    elif result.verdict is Verdict.MARGINAL:
        told, bound = apart([value, limit.value])
        message = f"{limit.metric} {told} only just keeps the limit {bound}{of}"
        remedy = "Try more cases: another input may break the limit."
        notes.add(Verdict.MARGINAL, "LIMIT_MARGINAL", message, remedy, **evidence)


def _cases(summary: OutputSummary, problem: str, but: Sequence[str] = ()) -> tuple[list[str], str]:
    """The cases with a problem, and the first of them in words."""
    cases = [case for case, found in summary.problems.items() if found == problem and case not in but]
    if not cases:
        return [], ""
    more = f" (and in {len(cases) - 1} more)" if len(cases) > 1 else ""
    return cases, f"{summary.details[cases[0]]} in {cases[0]}{more}"


def _note_problems(summary: OutputSummary, notes: _Notes, refused: Mapping[str, str]) -> None:
    missing = [case for case, found in summary.problems.items() if found == "missing"]
    told = [case for case in missing if case in refused]
    if told:
        # Nothing was dropped or renamed: MNN says itself why there is no output.
        more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
        remedy = "Export the model without what MNN cannot run, or in another way (opset, fixed shapes)."
        notes.add(Verdict.FAIL, "RUN_FAILED", f"{told[0]}{more} was not run: {refused[told[0]]}", remedy, cases=told)
    for problem, code, remedy in (
        ("missing", "OUTPUT_MISSING", "Check the output's name; the conversion may have dropped or renamed it."),
        ("dtype", "OUTPUT_DTYPE", "Check that both models have the same outputs in the same order."),
        ("shape", "OUTPUT_SHAPE", "Check the input shapes and how dynamic dimensions were resized on the device."),
    ):
        cases, words = _cases(summary, problem, but=told)
        if cases:
            notes.add(Verdict.FAIL, code, words, remedy, cases=cases)
    cases, words = _cases(summary, "nonfinite")
    remedy = (
        "Look for the first inner tensor that has it: MNN's activations turn NaN into plausible numbers further in."
    )
    if cases and summary.nan:
        notes.add(Verdict.FAIL, "OUTPUT_NAN", words, remedy, nan=summary.nan, ref_nan=summary.ref_nan, cases=cases)
    if cases and (summary.inf or not summary.nan):
        notes.add(Verdict.FAIL, "OUTPUT_INF", words, remedy, inf=summary.inf, ref_inf=summary.ref_inf, cases=cases)


def _note_reference(summary: OutputSummary, notes: _Notes) -> None:
    cases, words = _cases(summary, "reference_nonfinite")
    if cases:
        notes.add(
            Verdict.INCONCLUSIVE,
            "REFERENCE_NOT_FINITE",
            f"the reference itself is not finite: {words}",
            "Repair the source model or use inputs it can take; this case proves nothing either way.",
            ref_nan=summary.ref_nan,
            ref_inf=summary.ref_inf,
            swallowed=summary.swallowed,
            cases=cases,
        )
    if summary.constant_cases and summary.largest_constant > 1:
        notes.add(
            None,
            "REFERENCE_CONSTANT",
            f"the reference has a single value in {len(summary.constant_cases)} of {summary.cases} cases: "
            "its cosine says nothing there",
            "Use inputs that make this output vary.",
            cases=list(summary.constant_cases),
        )
    never = len(summary.constant_cases) + len(summary.zero_cases) == summary.cases
    # Of one number a case, as the score of a whole input is, it says something that it changes from case to case.
    values = {c.reference_range for c in summary.by_case.values()}
    same = summary.elements > summary.cases or (summary.cases > 1 and len(values) == 1 and None not in values)
    if summary.cases and never and summary.kind == "float" and same:
        notes.add(
            Verdict.MARGINAL,
            "OUTPUT_NEVER_VARIES",
            "the reference has a single value in every case: that this output computes anything is not shown",
            "Use inputs that make this output vary.",
        )


def _note_near_nothing(summary: OutputSummary, results: Sequence[LimitResult], notes: _Notes) -> None:
    """Where a limit was not held against the worst case: its error is that of arithmetic or of a score of nothing."""
    left = [
        result.limit.metric
        for result in results
        if (value := summary.values.get(result.limit.metric)) is not None
        and not meets(result.limit, value)
        and judged_value(summary, result.limit)[0] != value
    ]
    if left and summary.faint_cases and len(summary.faint_cases) == summary.judgeable:
        notes.add(
            Verdict.INCONCLUSIVE,
            "OUTPUT_NOT_EXCITED",
            f"this score is never above {FAINT:g}: what it is where there is something to be seen is not shown "
            f"({', '.join(left)} would hold nothing against nothing)",
            "Give real inputs with --inputs, some of which this output answers to, or give it a max_abs limit.",
            metrics=left,
            reference_max_abs=summary.reference_max_abs,
        )
    elif left:
        case = summary.worst_cases.get(left[0])
        least = f"this score is never above {FAINT:g}" if case in summary.faint_cases else (
            f"no element is off by more than {NEAR_NOTHING:g}")  # fmt: skip
        notes.add(
            None,
            "OUTPUT_NEAR_NOTHING",
            f"{least} in {case}: {', '.join(left)} would hold rounding against rounding there",
            "Use inputs that give this output values, or give it a max_abs limit.",
            metrics=left,
            case=case,
        )


def _note_mean(summary: OutputSummary, limits: Sequence[Limit], notes: _Notes) -> None:
    """Cosine, SQNR and rel_max all measure against the size of an output; a large mean makes them forgiving."""
    bound = next((limit.value for limit in limits if limit.metric == "sqnr_db"), None)
    sqnr, centered = summary.values.get("sqnr_db"), summary.values.get("centered_sqnr_db")
    if bound is None or sqnr is None or centered is None or not centered < bound <= sqnr:
        return
    if summary.elements < _ENOUGH_FOR_VARIATION * max(summary.cases, 1):
        return
    notes.add(
        None,
        "MEAN_HIDES_ERROR",
        f"sqnr_db {sqnr:.4g} (worst case) comes from a large mean; against the variation around it only {centered:.4g} "
        "dB are left",
        "Where the variation is what counts (scores, offsets), limit max_abs to what it can bear.",
        level="warn",
        centered_sqnr_db=centered,
        centered_cosine=summary.values.get("centered_cosine"),
        case=summary.worst_cases.get("centered_sqnr_db"),
    )


def _check_zero(summary: OutputSummary, limits: Sequence[Limit], notes: _Notes) -> list[LimitResult]:
    """The absolute rule for cases whose reference is all zero."""
    case, error = max(summary.zero_cases.items(), key=lambda item: item[1])
    bounds = {limit.metric: limit.value for limit in limits}
    notes.add(
        None,
        "REFERENCE_ZERO",
        f"the reference is all zero in {len(summary.zero_cases)} of {summary.cases} cases: "
        "only the absolute error counts there",
        "Use inputs that give this output a value, or give it a max_abs limit.",
        cases=list(summary.zero_cases),
        max_abs=error,
    )
    if "max_abs" in bounds:
        return []
    scale = summary.reference_max_abs or 0.0
    allowed = bounds.get("rel_max", _ZERO_REL_MAX) * scale if scale else ZERO_TOLERANCE
    limit = Limit(metric="max_abs", op="<=", value=allowed)
    return [_held(limit, error, case)]
