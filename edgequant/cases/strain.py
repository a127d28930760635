"""Cases with values a model may never see: what is wrong at an end of a range does not show in the middle of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgequant.cases.case import Case
from edgequant.cases.meaning import meant
from edgequant.tensors import TensorSpec

_FLOATS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "silence": ("all inputs 0", np.zeros_like),
    "loud-3": ("3 times as large", lambda array: array * 3),
    "loud-10": ("10 times as large", lambda array: array * 10),
    "negative": ("all inputs negative", lambda array: -np.abs(array)),
    "whole": ("whole numbers, many of them equal", lambda array: np.rint(array * 2)),
}
_ENDS = {"lowest": "whole numbers at their lowest", "highest": "whole numbers at their highest"}


def strained(case: Case, inputs: Sequence[TensorSpec], rows: Mapping[str, int]) -> list[Case]:
    """Variations of `case`: silence, loud, negative, whole numbers for its floats; both ends for its 8-bit integers and
    for those that are row numbers of a table.

    Other integers stay as they are: they may be sizes or modes, of which nobody knows how far they go.

    Args:
        rows: inputs that are row numbers -> of how many.
    """
    found = []
    kinds = {name: array.dtype.kind for name, array in case.inputs.items()}
    if "f" in kinds.values():
        for name, (source, change) in _FLOATS.items():
            arrays = {
                key: change(array).astype(array.dtype) if kinds[key] == "f" else array
                for key, array in case.inputs.items()
            }
            found.append(_like(case, name, source, arrays))
    plain = {spec.name for spec in inputs if meant(spec, inputs, case.shapes) is None}
    ends: dict[str, tuple[int, int]] = {key: (0, count - 1) for key, count in rows.items() if key in case.inputs}
    for key, array in case.inputs.items():
        if key in plain and key not in ends and kinds[key] in "iu" and array.dtype.itemsize == 1:
            ends[key] = int(np.iinfo(array.dtype).min), int(np.iinfo(array.dtype).max)
    for place, (name, source) in enumerate(_ENDS.items()):
        if ends:
            arrays = {
                key: np.full_like(array, ends[key][place]) if key in ends else array
                for key, array in case.inputs.items()
            }
            found.append(_like(case, name, source, arrays))
    return found


def _like(case: Case, name: str, source: str, arrays: dict[str, np.ndarray]) -> Case:
    return replace(case, name=name, inputs=arrays, source=f"{case.source}; {source}", kind="strain")
