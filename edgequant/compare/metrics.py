"""How far an array is from its reference.  Pure functions over NumPy arrays; knows no devices, models or limits.

No one metric is enough: cosine passes a small signal that is wrong around a large mean, SQNR and cosine average an
outlier away, a maximum says nothing about the rest.  So all of them are computed, and nothing here calls any value
good.  NaN and Inf are counted and set apart, never turned into a number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgequant.compare.decibel import amplitude_db, capped_db, power_db
from edgequant.compare.largest import Largest
from edgequant.compare.pieces import (
    BIGGEST,
    chunks,
    dots,
    ends_of,
    error_of,
    in_pairs,
    in_rows,
    narrow_both,
    only_finite,
    sums,
    together,
)  # fmt: skip
from edgequant.compare.table import Kind

ReferenceKind = Literal["normal", "zero", "constant", "nonfinite", "empty"]
Problem = Literal["missing", "dtype", "shape", "nonfinite", "reference_nonfinite"]

_NUMBERS = "biuf"
"""NumPy's kinds of dtypes that are bool, integers or floats."""
SMALLEST = 2.0**-126
"""float32's smallest normal number, 1.2e-38: CPUs take less for 0, or keep a few of its bits."""


@dataclass(frozen=True)
class TensorComparison:
    """One output of one case against its reference.  Metrics are float64; None means undefined, never "fine".

    Attributes:
        elements: number of elements of the reference.
        reference_shape, reference_dtype, got_shape, got_dtype: of both arrays; None for a missing one.
        kind: "float", or "int" for integers and bool.
        reference_kind: "zero" (every element 0), "constant" (one value; so is a single element), "nonfinite", "empty"
            or "normal".
        problem: why the arrays cannot be compared, or not as a whole: "missing"; "dtype" (float against int, or not
            numbers); "shape" (not identical; () and (1,) differ too); "nonfinite" (`got` has a NaN or Inf where the
            reference has none, or another one); "reference_nonfinite" (the reference has NaN or Inf).  With the last
            two, metrics are those of the elements that are finite in both.  Logits that are masked with -Inf are
            equal where both have it: if that is all, and not all there is, there is no problem.
        exact: every element equal (NaN equals nothing).
        cosine: dot(r, g) / (|r| |g|), -1..1.  None for an all-zero reference; 0.0 for an all-zero `got`.
        centered_cosine: the same of r - mean(r) and g - mean(g) (Pearson's correlation), which a large mean cannot
            hide.  None where either is constant.
        centered_sqnr_db: 10 log10(sum (r - mean(r))^2 / sum (r - g)^2), capped: the error against the variation of the
            output rather than its size.  None where the reference is constant.
        sqnr_db: 10 log10(sum r^2 / sum (r - g)^2), capped at +-SQNR_CAP_DB.  None for an all-zero reference.
        max_abs, mean_abs: largest and mean |r - g|, in the output's unit.  mean_abs is None for kind "int".
        rel_max: max_abs / max |r|, but max |r| counts as SMALLEST at least: what lies below that is nothing in
            float32, in which MNN computes.  None for an all-zero reference and for kind "int".
        p99_abs: 99th percentile of |r - g|, by linear interpolation (Hyndman & Fan 1996, type 7).
        mismatch: share of the elements that differ, 0..1; None for kind "float".
        nan, inf: how many NaN and +-Inf `got` holds.
        ref_nan, ref_inf: how many the reference holds.
        swallowed: elements where the reference is not finite but `got` is.
        reference_max_abs: max |r| over its finite elements; None where there are none.
        reference_rms, error_rms: root of the mean of r^2, and of (r - g)^2, in the output's unit; None for kind "int".
        reference_range, got_range: smallest and largest element of both; None for kind "int".
        faint: a score that is nothing in both (see `summary.FAINT`); only who knows that it is one can say so.
    """

    elements: int
    reference_shape: tuple[int, ...]
    reference_dtype: str
    got_shape: tuple[int, ...] | None
    got_dtype: str | None
    kind: Kind
    reference_kind: ReferenceKind = "normal"
    problem: Problem | None = None
    exact: bool = False
    cosine: float | None = None
    centered_cosine: float | None = None
    centered_sqnr_db: float | None = None
    sqnr_db: float | None = None
    max_abs: float | None = None
    rel_max: float | None = None
    mean_abs: float | None = None
    p99_abs: float | None = None
    mismatch: float | None = None
    nan: int = 0
    inf: int = 0
    ref_nan: int = 0
    ref_inf: int = 0
    swallowed: int = 0
    reference_max_abs: float | None = None
    reference_rms: float | None = None
    error_rms: float | None = None
    reference_range: tuple[float, float] | None = None
    got_range: tuple[float, float] | None = None
    faint: bool = False


def compare(reference: npt.ArrayLike, got: npt.ArrayLike | None) -> TensorComparison:
    """Compare an array with its reference.

    Works in chunks in float64, so the extra memory is a few MB plus about 0.3 bytes per element, whatever the size.
    Scales before squaring, so neither 1e300 nor 1e-300 overflows or vanishes.

    Args:
        reference: any shape; bool, integer or float of any width.
        got: the same shape and the same kind (bool and integers are one kind, all floats the other: MNN returns int32
            for int64 and bool, float32 for float64 and float16), or None where the output never came.

    Formulas: SQNR as in Oppenheim & Schafer, Discrete-Time Signal Processing, sec. 4.8 (signal power over the power of
    the quantization noise); cosine and Pearson's correlation as in Rodgers & Nicewander 1988 (interpretations 1, 7).
    """
    ref = np.asarray(reference)
    out = None if got is None else np.asarray(got)
    facts: dict[str, Any] = {
        "elements": int(ref.size),
        "reference_shape": tuple(ref.shape),
        "reference_dtype": str(ref.dtype),
        "got_shape": None if out is None else tuple(out.shape),
        "got_dtype": None if out is None else str(out.dtype),
        "kind": "int" if ref.dtype.kind in "biu" else "float",
    }
    problem: Problem | None = None
    if out is None:
        problem = "missing"
    elif (
        ref.dtype.kind not in _NUMBERS
        or out.dtype.kind not in _NUMBERS
        or (ref.dtype.kind == "f") != (out.dtype.kind == "f")
    ):
        problem = "dtype"
    elif ref.shape != out.shape:
        problem = "shape"
    if out is None or problem is not None:
        return TensorComparison(**facts, **_alone(ref, out), problem=problem)
    if ref.size == 0:
        return TensorComparison(**facts, reference_kind="empty", exact=True)
    return TensorComparison(**facts, **(_integers(ref, out) if facts["kind"] == "int" else _floats(ref, out)))


def strayed(reference: npt.NDArray[Any], got: npt.NDArray[Any]) -> tuple[float | None, float | None, float | None]:
    """sqnr_db, max_abs and mismatch as `compare` has them, in a tenth of its time where all is plain float32."""
    plain = reference.dtype == got.dtype == np.float32 and reference.shape == got.shape
    signal = noise = largest = 0.0
    if plain:
        for r, g in in_pairs(reference, got):
            with np.errstate(invalid="ignore"):
                error = r - g
            signal += float(np.dot(r, r))
            noise += float(np.dot(error, error))
            largest = max(largest, float(error.max()), -float(error.min()))
    # Squares of what float32 can hold neither overflow nor vanish in float64; where there is NaN or Inf, `noise` is it.
    if plain and signal > 0 and math.isfinite(noise):
        return capped_db(power_db(signal, noise)), largest, None
    found = compare(reference, got)
    return found.sqnr_db, found.max_abs, found.mismatch


def _alone(ref: npt.NDArray[Any], out: npt.NDArray[Any] | None) -> dict[str, Any]:
    """What can be said of two arrays that cannot be compared: their NaN and Inf, and what the reference is like."""
    low, high, nan, inf = _range(ref)
    _, _, got_nan, got_inf = _range(out) if out is not None else (0.0, 0.0, 0, 0)
    kind: ReferenceKind = _reference_kind(low, high)
    if ref.size == 0:
        kind = "empty"
    elif nan or inf:
        kind = "nonfinite"
    return {
        "reference_kind": kind,
        "nan": got_nan,
        "inf": got_inf,
        "ref_nan": nan,
        "ref_inf": inf,
        "reference_max_abs": max(abs(low), abs(high)) if low <= high else None,
    }


def _range(array: npt.NDArray[Any]) -> tuple[float, float, int, int]:
    low, high, nan, inf = math.inf, -math.inf, 0, 0
    if array.dtype.kind not in _NUMBERS:
        return low, high, nan, inf
    for raw in chunks(array):
        chunk = raw.astype(np.float64)
        nans = int(np.count_nonzero(np.isnan(chunk)))
        finite = chunk[np.isfinite(chunk)]
        nan += nans
        inf += chunk.size - finite.size - nans
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return low, high, nan, inf


def _reference_kind(low: float, high: float) -> ReferenceKind:
    if low == high:
        return "zero" if low == 0 else "constant"
    return "normal"


def _integers(ref: npt.NDArray[Any], out: npt.NDArray[Any]) -> dict[str, Any]:
    """Exact for every pair of integer types: nothing goes through a float before it has been compared."""
    differing, largest = 0, 0
    low: int | None = None
    high: int | None = None
    for r_raw, g_raw in together(ref, out):
        r, g = _widest(r_raw), _widest(g_raw)
        low = int(r.min()) if low is None else min(low, int(r.min()))
        high = int(r.max()) if high is None else max(high, int(r.max()))
        unequal = r != g
        if not unequal.any():
            continue
        differing += int(np.count_nonzero(unequal))
        r, g = r[unequal], g[unequal]
        if r.dtype == np.int64 and g.dtype == np.int64:
            # The difference of two int64 always fits uint64; the subtraction wraps around to it.
            span = np.maximum(r, g).astype(np.uint64) - np.minimum(r, g).astype(np.uint64)
            largest = max(largest, int(span.max()))
        else:
            largest = max(largest, int(np.abs(r - g).max()))
    assert low is not None
    assert high is not None
    return {
        "reference_kind": _reference_kind(low, high),
        "exact": differing == 0,
        "mismatch": differing / ref.size,
        "max_abs": float(largest),
        "reference_max_abs": float(max(abs(low), abs(high))),
    }


def _widest(chunk: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """As int64, or as Python integers where a uint64 does not fit (NumPy would compare those as floats)."""
    if chunk.dtype == np.uint64 and int(chunk.max()) > np.iinfo(np.int64).max:
        return chunk.astype(object)
    return chunk.astype(np.int64)


@dataclass
class _Pass1:
    """What has to be known before anything may be squared: counts and ranges of the elements finite in both."""

    finite: int = 0
    nan: int = 0
    inf: int = 0
    ref_nan: int = 0
    ref_inf: int = 0
    fresh: bool = False
    swallowed: int = 0
    masked: int = 0
    ref_low: float = math.inf
    ref_high: float = -math.inf
    got_low: float = math.inf
    got_high: float = -math.inf
    error: float = 0.0


def _scan(ref: npt.NDArray[Any], out: npt.NDArray[Any]) -> _Pass1:
    seen = _Pass1()
    narrow = narrow_both(ref, out)
    for r, g in in_rows(ref, out, every=True):
        ends = ends_of(r, g)
        if not all(map(math.isfinite, ends)):
            r_nan, g_nan, r_inf, g_inf = np.isnan(r), np.isnan(g), np.isinf(r), np.isinf(g)
            seen.nan += int(np.count_nonzero(g_nan))
            seen.inf += int(np.count_nonzero(g_inf))
            seen.ref_nan += int(np.count_nonzero(r_nan))
            seen.ref_inf += int(np.count_nonzero(r_inf))
            same = (r_nan & g_nan) | (r_inf & (r == g))
            seen.fresh |= bool(((g_nan | g_inf) & ~same).any())
            seen.masked += int(np.count_nonzero((r == -np.inf) & (g == -np.inf)))
            seen.swallowed += int(np.count_nonzero((r_nan | r_inf) & ~(g_nan | g_inf)))
            r, g = only_finite(r, g)
            if not r.size:
                continue
            ends = ends_of(r, g)
        seen.finite += r.size
        seen.ref_low, seen.ref_high = min(seen.ref_low, ends[0]), max(seen.ref_high, ends[1])
        seen.got_low, seen.got_high = min(seen.got_low, ends[2]), max(seen.got_high, ends[3])
        seen.error = max(seen.error, float(error_of(r, g, narrow=narrow).max()))
    return seen


def _floats(ref: npt.NDArray[Any], out: npt.NDArray[Any]) -> dict[str, Any]:
    seen = _scan(ref, out)
    masked = seen.masked if seen.finite and seen.masked == seen.ref_inf and not seen.ref_nan else 0
    broken = bool(seen.ref_nan or seen.ref_inf) and not masked
    values: dict[str, Any] = {
        "reference_kind": "nonfinite" if broken else _reference_kind(seen.ref_low, seen.ref_high),
        "problem": "nonfinite" if seen.fresh else "reference_nonfinite" if broken else None,
        "nan": seen.nan,
        "inf": seen.inf,
        "ref_nan": seen.ref_nan,
        "ref_inf": seen.ref_inf,
        "swallowed": seen.swallowed,
    }
    if seen.finite:
        values["reference_range"], values["got_range"] = (seen.ref_low, seen.ref_high), (seen.got_low, seen.got_high)
        values.update(_finite_metrics(ref, out, seen))
        values["exact"] = values["max_abs"] == 0.0 and seen.finite + masked == ref.size
    return values


def _finite_metrics(ref: npt.NDArray[Any], out: npt.NDArray[Any], seen: _Pass1) -> dict[str, float | None]:
    """The metrics over the elements finite in both.

    Everything is divided by its largest magnitude before it is squared.  Moments are taken around the middle of the
    range, which keeps the variance of a small signal on a large mean from cancelling away.
    """
    ref_scale = max(abs(seen.ref_low), abs(seen.ref_high)) or 1.0
    got_scale = max(abs(seen.got_low), abs(seen.got_high)) or 1.0
    err_scale = seen.error or 1.0
    ref_middle = seen.ref_low / ref_scale / 2 + seen.ref_high / ref_scale / 2
    got_middle = seen.got_low / got_scale / 2 + seen.got_high / got_scale / 2
    position = (seen.finite - 1) * 0.99
    largest = Largest(seen.finite - math.floor(position))
    rr = gg = rg = ee = error_sum = 0.0
    r1 = g1 = r2 = g2 = r1g1 = 0.0
    narrow = narrow_both(ref, out)
    for r, g in in_rows(ref, out, every=seen.finite == ref.size):
        error = error_of(r, g, narrow=narrow)
        if seen.error:
            largest.add(error.ravel())
        error /= err_scale
        r /= ref_scale
        g /= got_scale
        of_error, of_r, of_g, of_both = dots(error, error), dots(r, r), dots(g, g), dots(r, g)
        r -= ref_middle
        g -= got_middle
        centered = zip(sums(error), sums(r), sums(g), dots(r, r), dots(g, g), dots(r, g), strict=True)
        # Row by row, so that the last bits are the same however many are looked at in one go.
        for row, (e1, s1, t1, s2, t2, st) in enumerate(centered):
            ee += of_error[row]
            rr += of_r[row]
            gg += of_g[row]
            rg += of_both[row]
            error_sum += e1
            r1 += s1
            g1 += t1
            r2 += s2
            g2 += t2
            r1g1 += st
    zero = seen.ref_low == seen.ref_high == 0.0
    n = seen.finite
    exact = seen.error == 0.0
    return {
        "cosine": None if zero else 1.0 if exact else _ratio(rg, rr, gg) or 0.0,
        "centered_cosine": None
        if seen.ref_low == seen.ref_high or seen.got_low == seen.got_high
        else 1.0
        if exact
        else _ratio(r1g1 - r1 * g1 / n, r2 - r1 * r1 / n, g2 - g1 * g1 / n),
        "centered_sqnr_db": None
        if seen.ref_low == seen.ref_high
        else _sqnr(r2 - r1 * r1 / n, ref_scale, ee, err_scale),
        "sqnr_db": None if zero else _sqnr(rr, ref_scale, ee, err_scale),
        "max_abs": seen.error,
        "rel_max": None if zero else quotient(seen.error, max(ref_scale, SMALLEST)),
        # What was divided by its largest is at most 1, and so is every mean of it, whatever rounding does.
        "mean_abs": error_sum / n * seen.error,
        "p99_abs": largest.at(position, n) if seen.error else 0.0,
        "reference_max_abs": 0.0 if zero else ref_scale,
        "reference_rms": ref_scale * math.sqrt(rr / n),
        "error_rms": seen.error * math.sqrt(ee / n),
    }


def _ratio(product: float, first: float, second: float) -> float | None:
    """A cosine out of its three sums, kept within -1..1 where rounding would leave it; None where it is undefined."""
    if not (first > 0 and second > 0):
        return None
    return max(-1.0, min(1.0, product / (math.sqrt(first) * math.sqrt(second))))


def _sqnr(signal: float, signal_scale: float, noise: float, noise_scale: float) -> float:
    """Of sums of squares of what was divided by its scale before."""
    return capped_db(power_db(signal, noise) + amplitude_db(signal_scale, noise_scale))


def quotient(above: float, below: float) -> float:
    """above / below, and the largest number where that overflows."""
    return BIGGEST if above > below * BIGGEST else above / below
