"""Whether a model computes what its reference computes at all.  Far below any limit, and before any verdict.

This is the one rule for it: the ladder goes on where a file breaks it, `quantize` writes only a file that keeps it.

Every output comes back in every case, of the right kind and shape, without a NaN or Inf that the reference does not
have.  A float output's error has at most half of the power of the reference over all cases together (SQNR 3 dB), and
leaves 1 dB in each, for one case of garbage would drown in many good ones: zeros leave 0 dB, other numbers of the same
size -3, a flipped sign -6.  But what is quiet beside other cases, such as the little that a filter lets through of
silence, may be smaller than one step of a scale made for the loud ones.  So a case is measured by its own loudness, or
by 0.4 of that of the loudest case where this is more.  With this, noise that is the same everywhere and leaves the
loudest case 9 dB is nowhere too much, and garbage is seen in each case that is 0.4 times as loud as the loudest, or
more.  Cases of a few numbers each, such as the probabilities of a classifier, are one case together: where its decision
flips once in a while, all of that case is wrong.

SQNR alone does: within 3 dB no cosine is below 0.7, so a flipped sign, another output's numbers, zeros and ten times
the right numbers are all seen.  What it does not see is an output stuck at one value around a large mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgequant.compare.decibel import SQNR_CAP_DB, amplitude_db, capped_db
from edgequant.compare.metrics import TensorComparison, compare

SANE_SQNR_DB = 3.0
"""Over all cases, the error has half of the power of the reference: far more than any limit allows."""
SANE_CASE_DB = 1.0
"""The same of each case: less than zeros or noise."""
SANE_QUIET = 0.4
"""A case is taken for at least this part as loud (rms) as the loudest one."""
SANE_ZERO = 1.0
"""Largest error of an output whose reference is 0 in every case, in the output's unit: a thousand times what the
verdict allows (ZERO_TOLERANCE), for there is no size to measure it by."""
SANE_MISMATCH = 0.5
"""Of whole numbers more than half differ."""
ENOUGH = 16
"""Elements.  Fewer may all be equal, or more than half of them other labels, without meaning anything."""
SANE_STEPS = 1 / 64
"""Two steps of 8 bits: a reference that moves by less than this part of its largest magnitude may come out constant."""
_UNRELATED = 0.5
"""Cosine, for the words only."""

Case = tuple[str, TensorComparison]


@dataclass(frozen=True)
class Sanity:
    """Attributes:
    ok: the rule is kept, and there was something to hold against it.
    why: what is wrong, in one line; what was seen where nothing is.
    output, case: where the worst is; no case where it is over all of them.
    sqnr_db: the lowest, as the rule measures it, capped at +-SQNR_CAP_DB; None where no output has one.
    doubt: why what was looked at may be the fault of whoever ran the model; None where nothing is known of that.
    """

    ok: bool
    why: str
    output: str | None = None
    case: str | None = None
    sqnr_db: float | None = None
    doubt: str | None = None


def sanity(
    runs: Iterable[tuple[str, Mapping[str, np.ndarray], Mapping[str, np.ndarray] | None]],
) -> Sanity:
    """Look at (case, reference outputs, outputs) of every case; outputs None: the model could not run it.

    An output that nothing can be said of (its reference is NaN throughout, or has no elements) counts neither way.
    Where that is all there is, the model is not sane: nothing shows that it computes what its reference computes.
    """
    found: dict[str, list[Case]] = {}
    for case, references, outputs in runs:
        if outputs is None:
            return Sanity(False, f"it cannot run case '{case}'", case=case)
        for name, reference in references.items():
            each = compare(reference, outputs.get(name))
            if (broken := _broken(each)) is not None:
                return Sanity(False, f"output '{name}' {broken} in case '{case}'", name, case)
            found.setdefault(name, []).append((case, each))
    looked = {name: _whole(name, cases) if _is_whole(cases) else _float(name, cases) for name, cases in found.items()}
    judged = [each for each in looked.values() if each is not None]
    if not judged:
        return Sanity(False, "there is nothing to compare it with: its reference holds no numbers, or one label only")
    return min(judged, key=lambda each: (each.ok, SQNR_CAP_DB if each.sqnr_db is None else each.sqnr_db))


def _is_whole(cases: Sequence[Case]) -> bool:
    return all(each.kind == "int" for _, each in cases)


def _broken(found: TensorComparison) -> str | None:
    if found.problem == "missing":
        return "is missing"
    if found.problem == "dtype":
        return f"is {found.got_dtype} instead of {found.reference_dtype}"
    if found.problem == "shape":
        return f"has shape {list(found.got_shape or ())} instead of {list(found.reference_shape)}"
    if found.problem == "nonfinite":
        return f"holds {found.nan} NaN and {found.inf} Inf"
    return None


def _whole(name: str, cases: Sequence[Case]) -> Sanity | None:
    """Whole numbers have no size that an error could be measured by (labels, most of them): how many differ counts."""
    shares = [(case, each.elements, each.mismatch) for case, each in cases if each.mismatch is not None]
    total, differing = sum(n for _, n, _ in shares), sum(round(n * share) for _, n, share in shares)
    large = [(share, case) for case, n, share in shares if n >= ENOUGH]
    worst, where = max(large, default=(0.0, None))
    if worst > SANE_MISMATCH:
        return Sanity(False, f"output '{name}' differs in {worst:.0%} of its numbers in case '{where}'", name, where)
    if total == 0 or (total == 1 and differing):
        return None  # a single label that flips may have been a close call
    share = differing / total
    if share > SANE_MISMATCH:
        return Sanity(False, f"output '{name}' differs in {share:.0%} of its numbers", name)
    return Sanity(True, f"{share:.0%} of the whole numbers of output '{name}' differ", name)


def _float(name: str, cases: Sequence[Case]) -> Sanity | None:
    measured = [(case, each) for case, each in cases if each.reference_rms is not None]
    if not measured:
        return None
    if (stuck := _stuck(name, [each for _, each in measured])) is not None:
        return stuck
    levels = _levels(measured)
    loudest = max(each.signal for each in levels)
    if loudest == 0.0:
        case, error = max(((case, each.max_abs or 0.0) for case, each in measured), key=lambda pair: pair[1])
        said = f"output '{name}' is up to {error:.3g} where its reference is 0 in every case"
        return Sanity(error <= SANE_ZERO, said, name, case)
    sqnr, level = min(((each.decibels(SANE_QUIET * loudest), each) for each in levels), key=lambda pair: pair[0])
    said = f"SQNR {sqnr:.1f} dB of output '{name}'"
    if level.case is not None:
        said += f" in case '{level.case}'"
    else:
        said += f", its {'small ' if len(levels) > 1 else ''}cases together"
    if level.signal < SANE_QUIET * loudest:
        quiet = "a quiet one" if level.case is not None else "quiet ones"
        said += f", {quiet}, held against {SANE_QUIET:g} of the loudest"
    elif level.cosine is not None:
        said += f", cosine {level.cosine:.4f}"
    if sqnr >= SANE_CASE_DB:
        whole = _Level(None, *(_together(part) for part in _parts(measured))).decibels(0.0)
        if whole >= SANE_SQNR_DB:
            return Sanity(True, said, name, level.case, sqnr)
        why = f"SQNR {whole:.1f} dB of output '{name}', all cases together: nearly as much error as signal, or more"
        return Sanity(False, why, name, None, whole)
    unrelated = level.cosine is not None and level.cosine < _UNRELATED
    what = "it has nothing to do with its reference" if unrelated else "nearly as much error as signal, or more"
    return Sanity(False, f"{said}: {what}", name, level.case, sqnr)


@dataclass(frozen=True)
class _Level:
    """Root mean squares of a case's reference and error, in the output's unit; case None: of several small ones."""

    case: str | None
    signal: float
    noise: float
    cosine: float | None = None

    def decibels(self, least: float) -> float:
        """SQNR, of a reference that is at least so loud."""
        return capped_db(amplitude_db(max(self.signal, least), self.noise))


def _levels(cases: Sequence[Case]) -> list[_Level]:
    small = [each for _, each in cases if each.elements < ENOUGH]
    alone = len(small) < 2
    found = [
        _Level(case, each.reference_rms or 0.0, each.error_rms or 0.0, each.cosine)
        for case, each in cases
        if alone or each.elements >= ENOUGH
    ]
    if not alone:
        found.append(_Level(None, *(_together(part) for part in _parts([("", each) for each in small]))))
    return found


def _parts(cases: Sequence[Case]) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """(elements, root mean square) of each case's reference, and of its error."""
    found = [each for _, each in cases]
    return (
        [(each.elements, each.reference_rms or 0.0) for each in found],
        [(each.elements, each.error_rms or 0.0) for each in found],
    )


def _together(parts: Sequence[tuple[int, float]]) -> float:
    """The root mean square of (elements, root mean square) of several."""
    largest = max(rms for _, rms in parts)
    if largest == 0.0:
        return 0.0
    mean = sum(count * (rms / largest) ** 2 for count, rms in parts) / sum(count for count, _ in parts)
    return largest * math.sqrt(mean)


def _stuck(name: str, cases: Sequence[TensorComparison]) -> Sanity | None:
    """Where it is one value in all cases, and its reference is not."""
    ours = [each.got_range for each in cases if each.got_range is not None]
    theirs = [each.reference_range for each in cases if each.reference_range is not None]
    low, high = min(low for low, _ in ours), max(high for _, high in ours)
    bottom, top = min(low for low, _ in theirs), max(high for _, high in theirs)
    # Halves: the difference of the largest numbers there are does not fit one.
    moves = top / 2 - bottom / 2 > SANE_STEPS * max(abs(bottom), abs(top)) / 2
    if low != high or not moves or sum(each.elements for each in cases) < ENOUGH:
        return None
    return Sanity(
        False, f"output '{name}' is {low:g} everywhere, where its reference goes from {bottom:g} to {top:g}", name
    )
