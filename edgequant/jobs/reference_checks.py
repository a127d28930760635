"""Whether the outputs that a user gave as the reference can be held against the model at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from edgequant.archive.arrays import ArraySink
from edgequant.archive.types import ArrayRef, Capture
from edgequant.compare.decibel import capped_db, power_db
from edgequant.findings import Finding
from edgequant.judge.doubts import OTHER_CASE, models_own
from edgequant.models.mnn.weights import read_weights

_LONG = 32
"""Terms of a sum that two programs do not add up in the same way, so that some of its last bits differ."""
_ENOUGH = 256
"""Different numbers, all of which are met."""
_MOST_CASES = 20
_FITS_DB, _BETTER_DB = 40.0, 20.0
"""What a case computes is within rounding of its reference, which no other case is by that much more."""

_Outputs = Mapping[str, Mapping[str, ArrayRef]]


def reference_findings(reference: Capture, host: Capture, arrays: ArraySink, model: Path) -> list[Finding]:
    """What is to be said of a user's reference.  host: float MNN on this host, of the file `model`."""
    expected, got = (
        {each.case: each.outputs for each in capture.cases if each.outputs is not None} for capture in (reference, host)
    )
    found = []
    if _same(expected, got, arrays) and any(each.per_channel * each.area >= _LONG for each in read_weights(model)):
        found.append(models_own("float MNN"))
    pairs = list(_exchanged(expected, got, arrays))
    if pairs:
        case, output, other = pairs[0]
        found.append(
            Finding(
                code=OTHER_CASE,
                severity="error",
                where=output,
                message=f"the reference of case '{case}' is what float MNN computes for case '{other}', not for its own"
                + (f" (and so in {len(pairs) - 1} more)" if len(pairs) > 1 else ""),
                evidence={"pairs": [list(each) for each in pairs[:100]]},
                remedy="Check which reference belongs to which inputs: files are matched by the name of the case.",
            )
        )
    return found


def _same(expected: _Outputs, got: _Outputs, arrays: ArraySink) -> bool:
    """Whether all floats are the same in every bit, where that cannot be because they are few or round."""
    count = 0
    for case, outputs in expected.items():
        for name, ref in outputs.items():
            if not ref.dtype.startswith("float"):
                continue
            other = got.get(case, {}).get(name)
            if other is None or other.sha256 != ref.sha256:
                return False
            count += _rough(arrays.get(ref))
    return count >= _ENOUGH


def _rough(array: np.ndarray) -> int:
    """Numbers that use all of their bits, each counted once: whole ones and halves come out the same everywhere, and
    what is one number all over has met one chance to differ."""
    values = np.unique(array[np.isfinite(array)].astype(np.float32))
    return int(np.count_nonzero(values.view(np.uint32) & 0xFFF))


def _exchanged(expected: _Outputs, got: _Outputs, arrays: ArraySink) -> Iterator[tuple[str, str, str]]:
    """Case, output, and the other case it fits."""
    cases = list(expected)[:_MOST_CASES]
    for case in cases:
        for name, ref in expected[case].items():
            own = got.get(case, {}).get(name)
            if own is None or not ref.dtype.startswith("float"):
                continue
            least = max(_FITS_DB, _db(arrays, ref, own) + _BETTER_DB)
            for other in cases:
                their = got.get(other, {}).get(name)
                if other != case and their is not None and _db(arrays, ref, their) >= least:
                    yield case, name, other
                    break


def _db(arrays: ArraySink, ref: ArrayRef, other: ArrayRef) -> float:
    """SQNR in dB; -inf where they cannot be compared."""
    if ref.shape != other.shape:
        return -np.inf
    one, two = (arrays.get(each).astype(np.float64) for each in (ref, other))
    if not (np.isfinite(one).all() and np.isfinite(two).all() and one.size):
        return -np.inf
    return capped_db(power_db(float(np.mean(one**2)), float(np.mean((one - two) ** 2))))
