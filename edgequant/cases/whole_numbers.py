"""Whole numbers that MNN cannot take: beyond int32, or beyond the table they are row numbers of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgequant.cases.case import Case
from edgequant.errors import InputError

_INT32 = np.iinfo(np.int32)


def checked(cases: Sequence[Case], rows: Mapping[str, int]) -> list[Case]:
    """The cases; random ones with row numbers that are there.

    Args:
        rows: input -> rows of the table it is looked up in; see `models.tables.row_limits`.

    Raises InputError INPUT_RANGE, which names the case, the input and the value.
    """
    found = []
    for case in cases:
        if case.generated:
            inside = {name: array % rows[name] for name, array in case.inputs.items() if _beyond(array, rows.get(name))}
            found.append(replace(case, inputs={**case.inputs, **inside}) if inside else case)
            continue
        for name, array in case.inputs.items():
            _refuse_wide(case, name, array)
            _refuse_beyond(case, name, array, rows.get(name))
        found.append(case)
    return found


def _whole(array: np.ndarray) -> bool:
    return array.dtype.kind in "iu" and array.size > 0


def _beyond(array: np.ndarray, rows: int | None) -> bool:
    """Negative ones count from the end, as ONNX has it."""
    return rows is not None and _whole(array) and (int(array.max()) >= rows or int(array.min()) < -rows)


def _refuse_wide(case: Case, name: str, array: np.ndarray) -> None:
    if not _whole(array) or array.dtype.itemsize < 4:
        return
    low, high = int(array.min()), int(array.max())
    if low < _INT32.min or high > _INT32.max:
        raise InputError(
            "INPUT_RANGE",
            f"{case.source}: input '{name}' holds {low} to {high}, and MNN has no integers beyond int32",
            hint="MNN cannot take these inputs: compute that part outside of the model, or feed smaller numbers.",
        )


def _refuse_beyond(case: Case, name: str, array: np.ndarray, rows: int | None) -> None:
    if _beyond(array, rows):
        low, high = int(array.min()), int(array.max())
        raise InputError(
            "INPUT_RANGE",
            f"{case.source}: input '{name}' holds {low} to {high}, but the table it is looked up in has {rows} rows",
            hint="MNN would read what lies behind the table and say nothing: check ids and vocabulary.",
        )
