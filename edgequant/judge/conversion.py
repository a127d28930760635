"""Where float MNN is not what the source is."""

from __future__ import annotations

from collections.abc import Container, Sequence

from edgequant.archive.types import CaseFacts, Failure, Source
from edgequant.compare.summary import OutputSummary
from edgequant.findings import Finding
from edgequant.judge.kernel_faults import LESS_WRONG, some
from edgequant.judge.limits import default_limits, judged_value, meets
from edgequant.judge.types import Summaries

USERS_OWN = "file"
"""The kind of a reference that the user gave."""
KNOWN_CAUSES = ("OPERATOR_MISREAD", "CONSTANT_BEYOND_INT32", "GRU_RESET_FIRST")
"""Findings of a source that explain why its float MNN model is wrong."""


def conversion_findings(
    source: Source, conversion: Summaries, refused: dict[str, Failure], less: Sequence[str] = ()
) -> list[Finding]:
    """What is to be said of float MNN on this host against the reference.

    refused: cases it could not run there.  less: operators of the file that this host is known to compute wrong.
    """
    fixed = bool(source.inputs) and all(each.shape is not None and None not in each.shape for each in source.inputs)
    found = [_failed(case, refused[case.name], fixed=fixed) for case in source.cases if case.name in refused]
    own = source.reference is not None and source.reference.kind == USERS_OWN
    known = [each for each in source.findings if each.code in KNOWN_CAUSES]
    for name, summary in conversion.items():
        found += _wrong(name, summary, own=own, known=known, refused=refused, less=less)
    return found


def is_cause(summary: OutputSummary | None) -> bool:
    """Whether the conversion alone is so far off that no other variant can mend it."""
    return summary is not None and bool(summary.problems or _broken(summary, "weight"))


def _broken(summary: OutputSummary, method: str) -> list[str]:
    """The default limits of a method that a conversion breaks."""
    return [
        str(limit)
        for limit in default_limits(method, summary.kind)
        if (value := judged_value(summary, limit)[0]) is not None and not meets(limit, value)
    ]


def _wrong(
    output: str,
    summary: OutputSummary,
    *,
    own: bool,
    known: Sequence[Finding],
    refused: Container[str],
    less: Sequence[str],
) -> list[Finding]:
    """A finding where float MNN is not what the source is.

    It is "fail" where not even a quantized model would be allowed as much, so that no variant can pass by default;
    else "warn": a variant may still keep its own, wider limits with the conversion's error in it.  Where the reference
    is the user's `own`, nobody knows what it was computed with, it is "warn" as well; so it is where this host is
    known to compute some of it wrong: the same file may be right elsewhere.
    """

    lost = [
        summary.details[case]
        for case, problem in summary.problems.items()
        if problem != "reference_nonfinite" and case not in refused  # that it cannot be run is told by itself
    ]
    if not lost and not _broken(summary, "float"):
        return []
    why = "; ".join(lost) if lost else f"it breaks {', '.join(_broken(summary, 'float'))}, the limits of a float model"
    return [
        Finding(
            code="CONVERSION_ERROR",
            severity="fail" if (lost or _broken(summary, "weight")) and not own and not less else "warn",
            where=output,
            message=f"float MNN does not compute what {'your reference says' if own else 'the source model computes'}, "
            f"before any quantization: {why}"
            + (f".  It may be this host: {LESS_WRONG.format(some(less))}" if less else ""),
            evidence={
                "sqnr_db": summary.values.get("sqnr_db"),
                "cosine": summary.values.get("cosine"),
                "worst_case": summary.worst_case,
            },
            remedy=f"Quantization is not the cause.  {_what_to_do(known)}",
        )
    ]


def _what_to_do(known: Sequence[Finding]) -> str:
    if not known:
        return "Try another export (opset, fixed shapes with --shape), or report it to MNN with this model."
    causes = ", ".join(f"{each.code} at {each.where}" for each in known[:3])
    return f"The model has what is known to do this: {causes}.  {known[0].remedy or ''}"


def _failed(case: CaseFacts, error: Failure, *, fixed: bool) -> Finding:
    sizes = ", ".join(f"{name}={','.join(map(str, ref.shape))}" for name, ref in case.inputs.items())
    return Finding(
        code="CONVERSION_RUN_FAILED",
        severity="fail",
        where=case.name,
        message=f"float MNN on this host cannot run case '{case.name}' ({sizes}), the reference can: {error.message}",
        evidence=error.evidence,
        remedy="Export the model without what MNN cannot run, or try another opset."
        if fixed
        else "If these sizes do not matter to you, pin those that do with --shape; else export the model with fixed "
        "shapes.",
    )
