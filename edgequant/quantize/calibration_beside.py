"""Calibration samples beside the cases a model is judged on: the same kind of data, but not the same data.

Pictures that are normalized in another way for calibration than for use are the commonest mistake there is, and nothing
else shows it: ranges are made for numbers that never come.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgequant.cases.case import Case
from edgequant.findings import Finding
from edgequant.quantize.calibration import CalibrationSet, sample_facts

RANGES = "CALIBRATION_RANGE"
OUTSIDE = 0.05
"""Share of an input's values in the cases that may lie outside the range of the samples."""
SLACK = 0.1
"""Of that range, which is added at both ends: a finite number of samples never has the largest value there is."""
WIDER = 4.0
"""The samples may span so many times what the cases span: two of eight bits are lost then."""


def beside(calibration: CalibrationSet, cases: Sequence[Case]) -> list[Finding]:
    """What the samples have to do with the user's cases: ranges that differ, and samples that are cases."""
    return [*_ranges(calibration, cases), *_copies(calibration, cases)]


def _ranges(calibration: CalibrationSet, cases: Sequence[Case]) -> list[Finding]:
    found = []
    for index, spec in enumerate(calibration.inputs):
        arrays = [case.inputs[spec.name] for case in cases if case.inputs[spec.name].size]
        ranges = [facts.ranges[index] for facts in calibration.facts if facts.ranges]
        if np.dtype(spec.dtype).kind != "f" or not arrays or not ranges:
            continue
        low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
        finite = [array[np.isfinite(array)] for array in arrays]
        least = min((float(array.min()) for array in finite if array.size), default=0.0)
        most = max((float(array.max()) for array in finite if array.size), default=0.0)
        if least == most:
            continue  # it tells of no range
        spare = SLACK * (high - low)
        beyond = sum(int(np.count_nonzero((array < low - spare) | (array > high + spare))) for array in finite)
        share = beyond / max(sum(array.size for array in finite), 1)
        if share <= OUTSIDE and high - low <= WIDER * (most - least):
            continue
        found.append(
            Finding(
                code=RANGES,
                severity="warn",
                where=spec.name,
                message=f"input '{spec.name}' is {low:.4g} to {high:.4g} in the calibration data and {least:.4g} to "
                f"{most:.4g} in the cases: the model is made for other numbers than it is judged on",
                evidence={"calibration": [low, high], "cases": [least, most], "outside": share},
                remedy="Prepare both in the same way: scale, mean and order of channels are the usual difference.",
            )
        )
    return found


def _copies(calibration: CalibrationSet, cases: Sequence[Case]) -> list[Finding]:
    """Samples that are cases under whatever name."""
    known = {sample_facts(case, calibration.inputs).sha256: case.name for case in cases}
    same = [facts.name for facts in calibration.facts if facts.sha256 in known]
    if not same:
        return []
    whole = {facts.sha256 for facts in calibration.facts} >= set(known)
    what = "very cases" if whole else f"very data of {len(same)} of {len(cases)} cases"
    return [
        Finding(
            code="CALIBRATED_ON_CASES",
            severity="warn",
            message=f"the model is calibrated on the {what} it is judged on, so it looks better than it is",
            evidence={"samples": same[:1000], "all": whole},
            remedy="Give calibration data of its own with --calibration.",
        )
    ]
