"""What the preparation of a run has to tell of its cases and their reference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from edgequant.cases.case import Case
from edgequant.findings import Finding
from edgequant.reference.runtime import RUNTIMES, available
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


def unchecked(source_format: str, why: str) -> Finding:
    """Of a .mnn nothing was converted here, so nothing could go wrong in that; of all others it keeps the verdict
    from being PASS."""
    runtime = {"onnx": "onnxruntime", "tflite": "litert"}.get(source_format)
    own = "Give outputs of the source model with --reference"
    # One that is installed, and could not run this model, is no cure for it.
    extra = None if runtime is None or available(runtime) else RUNTIMES[runtime].extra
    return Finding(
        code="CONVERSION_UNCHECKED",
        severity="warn" if source_format == "mnn" else "error",
        message=f"MNN is held against itself: {why}",
        remedy="A wrong conversion would not show.  "
        + (f"{own}." if extra is None else f"Install the extra '{extra}': pip install 'edgequant[{extra}]'.  {own}."),
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


NOTHING = "none of the outputs has an element"
"""Why a random case is left out that the source can run."""


def dropped(case: Case, reason: str, reference: str) -> Finding:
    return Finding(
        code="CASE_DROPPED",
        severity="info",
        where=case.name,
        message=f"the random case '{case.name}' was left out: "
        + (f"{reason} with its sizes" if reason == NOTHING else f"{reference} cannot run the model with its sizes"),
        evidence={"shapes": {name: list(shape) for name, shape in case.shapes.items()}, "reason": reason},
        remedy="Say which sizes matter with --shape NAME=..., or give real inputs with --inputs.",
    )


def not_reached(refused: Iterable[tuple[Case, str]], infinite: Sequence[str], reference: str) -> list[Finding]:
    """Of other sizes and strained values: which of them say nothing."""
    found = list(refused)
    if not found and not infinite:
        return []
    shapes = {case.name: {name: list(shape) for name, shape in case.shapes.items()} for case, _ in found}
    hollow = [case.name for case, reason in found if reason == NOTHING]
    cannot = [name for name in shapes if name not in hollow]
    said = [f"{reference} cannot run {', '.join(cannot)}"] if cannot else []
    said += [f"{NOTHING} with {', '.join(hollow)}"] if hollow else []
    said += [f"the reference is not finite with {', '.join(infinite)}"] if infinite else []
    return [
        Finding(
            code="CASES_NOT_REACHED",
            severity="info",
            message=f"not looked at, beside the usual cases: {'; '.join(said)}",
            evidence={
                "shapes": shapes,
                "reasons": {case.name: reason for case, reason in found},
                "not_finite": list(infinite),
            },
            remedy="If the model has to take such sizes or values, export it so that it does, or give cases with "
            "--inputs.",
        )
    ]
