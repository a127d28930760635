"""What the preparation of a run has to tell: about cases, references and the conversion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgequant.cases.case import Case
from edgequant.compare.summary import OutputSummary
from edgequant.errors import InputError, RunnerError
from edgequant.findings import Finding
from edgequant.judge.limits import default_limits, meets
from edgequant.spec import Variant


def random_cases(seed: int, calibrated: Sequence[Variant]) -> Finding:
    """calibrated: variants whose ranges come from samples of the user."""
    if calibrated:
        names = ", ".join(map(str, calibrated))
        return Finding(
            code="RANDOM_INPUTS",
            severity="warn",
            message=f"the cases are random (seed {seed}), and {names} was calibrated on other data: random numbers lie "
            "outside of the ranges it was made for, so these numbers say little about it",
            remedy="Judge it on real inputs: --inputs FOLDER of .npz files, others than it was calibrated on.",
        )
    return Finding(
        code="RANDOM_INPUTS",
        severity="info",
        message=f"the cases are random (seed {seed}): they show whether MNN computes what the source "
        "model computes, not how good it is on real data",
        remedy="For a release, give real inputs with --inputs FOLDER of .npz files.",
    )


def unchecked(why: str) -> Finding:
    return Finding(
        code="CONVERSION_UNCHECKED",
        severity="warn",
        message=f"MNN is held against itself: {why}",
        remedy="A wrong conversion would not show.  Give ONNX and install ONNX Runtime (the extra 'onnx'), or give "
        "outputs of the source model with --reference.",
    )


def infinite_inputs(cases: list[Case]) -> list[Finding]:
    """Infinities are legal inputs (masks have them), but a reader has to know."""
    found = {
        f"{case.name}: {name}": int(np.isinf(array).sum())
        for case in cases
        for name, array in case.inputs.items()
        if array.dtype.kind == "f" and np.isinf(array).any()
    }
    if not found:
        return []
    return [
        Finding(
            code="INPUT_INFINITE",
            severity="warn",
            where=next(iter(found)),
            message=f"{len(found)} input(s) hold infinities, {sum(found.values())} in all",
            evidence={"count": dict(list(found.items())[:100])},
            remedy="If they are not meant (as those of a mask are), the outputs say nothing about the model.",
        )
    ]


def dropped(case: Case, reason: str, reference: str) -> Finding:
    if not case.generated:
        raise InputError(
            "CASE_REFUSED",
            f"{case.source}: {reference} cannot run the model with it: {reason}",
            hint="Check shapes and values of this case.",
        )
    return Finding(
        code="CASE_DROPPED",
        severity="info",
        where=case.name,
        message=f"the random case '{case.name}' was left out: {reference} cannot run the model with its sizes",
        evidence={"shapes": {name: list(shape) for name, shape in case.shapes.items()}, "reason": reason},
        remedy="Say which sizes matter with --shape NAME=..., or give real inputs with --inputs.",
    )


def conversion_wrong(output: str, summary: OutputSummary, *, own: bool) -> list[Finding]:
    """A finding where float MNN is not what the source is.

    It is "fail" where not even a quantized model would be allowed as much, so that no variant can pass by default;
    else "warn": a variant may still keep its own, wider limits with the conversion's error in it.  Where the reference
    is the user's `own`, nobody knows what it was computed with, so it is "warn" as well.
    """

    def broken(method: str) -> list[str]:
        return [
            str(limit)
            for limit in default_limits(method, summary.kind)
            if (value := summary.values.get(limit.metric)) is not None and not meets(limit, value)
        ]

    lost = [summary.details[case] for case, problem in summary.problems.items() if problem != "reference_nonfinite"]
    if not lost and not broken("float"):
        return []
    why = "; ".join(lost) if lost else f"it breaks {', '.join(broken('float'))}, the limits of a float model"
    return [
        Finding(
            code="CONVERSION_ERROR",
            severity="fail" if (lost or broken("weight")) and not own else "warn",
            where=output,
            message=f"float MNN does not compute what {'your reference says' if own else 'the source model computes'}, "
            f"before any quantization: {why}",
            evidence={
                "sqnr_db": summary.values.get("sqnr_db"),
                "cosine": summary.values.get("cosine"),
                "worst_case": summary.worst_case,
            },
            remedy="Quantization is not the cause.  Try another export (opset, fixed shapes with --shape), or report "
            "it to MNN with this model.",
        )
    ]


def conversion_failed(case: Case, error: RunnerError) -> Finding:
    sizes = ", ".join(f"{name}={','.join(map(str, shape))}" for name, shape in case.shapes.items())
    return Finding(
        code="CONVERSION_RUN_FAILED",
        severity="fail",
        where=case.name,
        message=f"float MNN on this host cannot run case '{case.name}' ({sizes}), the reference can: {error.message}",
        evidence=error.evidence,
        remedy="If these sizes do not matter to you, pin those that do with --shape; else export the model with fixed "
        "shapes.",
    )
