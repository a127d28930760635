"""Calibration samples as MNN's quantizer reads them, and which of them it can take.

Its "sequence" layout is a folder per sample: input.json with names and shapes, NAME.txt with the values as text.  What
the methods do with samples (3.6.1; measured, and read in tools/quantization/calibration.cpp):

- EMA runs all of them, each in its own shape; but it runs one per batch, so the batch must be 1, which is not the
  default.
- KL sizes its buffers by the first sample.  A larger one behind it is written past their end: a crash, or worse.
- ADMM reads all and then uses the last one only; samples of other shapes make it worse (13 dB instead of 28).
- Files are chosen in the order of the directory, not of their names, so there must be no more than are wanted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgequant.cases.case import Case
from edgequant.errors import InputError
from edgequant.findings import Finding
from edgequant.quantize.calibration import CalibrationSet, SampleFacts
from edgequant.quantize.offline_options import OfflineMethod


@dataclass(frozen=True)
class Plan:
    """Which samples a method gets, by number and in order, and what the user should know about the choice."""

    order: tuple[int, ...]
    findings: tuple[Finding, ...] = ()


def plan_samples(method: OfflineMethod, facts: Sequence[SampleFacts]) -> Plan:
    """Choose and order the samples so that `method` does not crash and sees as much as it can.  `facts`: not empty."""
    everything = tuple(range(len(facts)))
    if method == "ema":
        return Plan(everything)
    if method == "kl":
        return _largest_first(facts)
    # The one that reaches furthest, relative to what the inputs reach at all, of the shape most samples have.
    counts: dict[object, list[int]] = {}
    for index, fact in enumerate(facts):
        counts.setdefault(fact.shapes, []).append(index)
    group = max(counts.values(), key=len)
    peaks = [max(values) or 1.0 for values in zip(*(fact.largest for fact in facts), strict=True)]
    chosen = max(group, key=lambda index: sum(a / b for a, b in zip(facts[index].largest, peaks, strict=True)))
    order = (*(index for index in group if index != chosen), chosen)
    if len(facts) == 1:
        return Plan(order)
    message = f"MNN's admm takes the ranges of activations from one sample only, here '{facts[chosen].name}'"
    return Plan(
        order,
        (
            Finding(
                code="ADMM_ONE_SAMPLE",
                severity="warn",
                message=message,
                evidence={"sample": facts[chosen].name, "samples": len(facts)},
                remedy="Use ema or kl, or give one long sample that covers what real data does.",
            ),
        ),
    )


def _largest_first(facts: Sequence[SampleFacts]) -> Plan:
    """KL's order: a sample that no other exceeds in any dimension, then those that it covers."""
    covered = {first: [index for index, fact in enumerate(facts) if _covers(facts[first], fact)]
               for first in _one_of_each_shape(facts)}  # fmt: skip
    first = max(covered, key=lambda index: (len(covered[index]), -index))
    order = (first, *(index for index in covered[first] if index != first))
    left_out = [fact.name for index, fact in enumerate(facts) if index not in set(order)]
    if not left_out:
        return Plan(order)
    names = ", ".join(left_out[:3]) + (", ..." if len(left_out) > 3 else "")
    return Plan(
        order,
        (
            Finding(
                code="CALIBRATION_SHAPES_LEFT_OUT",
                severity="warn",
                message=f"{len(left_out)} of {len(facts)} samples are left out ({names}): kl cannot take a sample that "
                f"is larger than its first, '{facts[first].name}', in any dimension",
                evidence={"left_out": left_out[:100], "first": facts[first].name},
                remedy="Give samples of one shape, or use ema, which takes any.",
            ),
        ),
    )


def _one_of_each_shape(facts: Sequence[SampleFacts]) -> list[int]:
    seen: dict[object, int] = {}
    for index, fact in enumerate(facts):
        seen.setdefault(fact.shapes, index)
    return list(seen.values())


def _covers(one: SampleFacts, other: SampleFacts) -> bool:
    return all(
        len(mine) == len(its) and all(a >= b for a, b in zip(mine, its, strict=True))
        for (_, mine), (_, its) in zip(one.shapes, other.shapes, strict=True)
    )


def write_sequence(folder: Path, calibration: CalibrationSet, plan: Plan, *, transpose: Sequence[str] = ()) -> None:
    """Write the planned samples into `folder`, which must exist and be empty.  One sample is in memory at a time.

    Args:
        transpose: NHWC inputs to write as NCHW.

    Raises InputError: CALIBRATION_NAMES for an input whose name cannot be a file's; OSError.
    """
    for number, index in enumerate(plan.order):
        sample = folder / f"{number:06d}"
        sample.mkdir()
        _write_sample(sample, calibration.read(index), transpose)


def _write_sample(folder: Path, case: Case, transpose: Sequence[str]) -> None:
    listed = []
    for name, given in case.inputs.items():
        array = np.ascontiguousarray(given.transpose(0, 3, 1, 2)) if name in transpose else given
        # MNN puts names into the path as they are.  A name is the model's, and a model is not trusted.
        file = Path(f"{folder}/{name}.txt")
        if not file.resolve().is_relative_to(folder.resolve()) or "\0" in name:
            raise _bad_name(name)
        listed.append({"name": name, "shape": list(array.shape)})
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="ascii") as stream:
                values = array.astype(np.float32) if array.dtype.kind == "f" else array.astype(np.int64)
                # 9 digits give every float32 back as it was.
                values.ravel().tofile(stream, sep="\n", format="%.9g" if array.dtype.kind == "f" else "%d")
        except (FileExistsError, NotADirectoryError):
            raise _bad_name(name) from None
    (folder / "input.json").write_text(json.dumps({"inputs": listed}), encoding="utf-8")


def _bad_name(name: str) -> InputError:
    return InputError(
        "CALIBRATION_NAMES",
        f"MNN's quantizer reads the values of an input from a file of its name, which '{name[:100]}' cannot be",
        hint="Rename that input of the model.",
    )
