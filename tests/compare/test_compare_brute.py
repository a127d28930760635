"""What is fast against what is obvious, on seeded arrays; and what has to be refused."""

from __future__ import annotations

import math

import metric_corpus
import numpy as np
import pytest

from edgequant.compare import blocks, largest, pieces
from edgequant.compare.metrics import compare, strayed
from edgequant.compare.rows import match_rows
from tools import check_metrics

PLAIN = {
    name: (reference, got)
    for name, (reference, got) in metric_corpus.pairs()
    if all(a is None or a.dtype.kind in "biuf" for a in (reference, got))
    and not any(size in name for size in ("e-", "e+"))
    and name not in ("apart", "tiny under huge")
}
NAMES = {"elements": "n", "reference_max_abs": "scale"}
SAME = (*check_metrics.METRICS, "nan", "inf", "ref_nan", "ref_inf", "kind", "exact", "problem", *NAMES)
KINDS = {"broken": "nonfinite", "flat": "constant"}


def test_as_the_independent_checker_has_it() -> None:
    assert len(PLAIN) > 100
    for name, (reference, got) in PLAIN.items():
        found, slow = compare(reference, got), check_metrics.compare(reference, got)
        for metric in SAME:
            value, wanted = getattr(found, metric), slow[NAMES.get(metric, metric)]
            near = value == wanted or math.isclose(value, wanted, rel_tol=1e-5, abs_tol=1e-7)
            assert near, f"{name}: {metric} is {value}, {wanted} by the checker"
        assert found.reference_kind == KINDS.get(slow["ref"], slow["ref"]), name


def test_the_short_way_says_the_same() -> None:
    for name, (reference, got) in metric_corpus.pairs():
        if got is not None:
            found = compare(reference, got)
            whole = (found.sqnr_db, found.max_abs, found.mismatch)
            for one, other in zip(strayed(reference, got), whole, strict=True):
                assert one == other or one == pytest.approx(other, rel=1e-7, abs=1e-6 * found.max_abs), name


@pytest.mark.parametrize("count", [1, 2, 70, 3000])
@pytest.mark.parametrize("kind", ["falling", "rising", "equal", "few", "chance"])
def test_the_largest_of_a_stream(count: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(largest, "_ENOUGH", 1000)
    rng = np.random.default_rng(count)
    total = 5000
    values = {
        "falling": -np.arange(total, dtype=np.float64),
        "rising": np.arange(total, dtype=np.float64),
        "equal": np.ones(total),
        "few": np.floor(3 * rng.random(total)),
        "chance": rng.standard_normal(total),
    }[kind]
    kept = largest.Largest(count)
    for some in np.array_split(values, 23):
        kept.add(some)
    ordered = np.sort(values)
    for place in {total - count, total - count / 2 - 0.25, total - 1.0}:
        below = math.floor(place)
        above = min(below + 1, total - 1)
        assert kept.at(place, total) == ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@pytest.mark.parametrize("every", [True, False])
@pytest.mark.parametrize("size", [1, 8191, 8192, 8193, 32768, 40961])
def test_every_element_once_and_in_its_order(size: int, every: bool) -> None:
    one, two = np.arange(size, dtype=np.float32), -np.arange(size, dtype=np.float64)
    two[[0, size // 2]] = 0 if every else np.nan
    kept = np.isfinite(two)
    for first, second in ((one, two), (np.stack([one, one], 1)[:, 0], two)):
        rows = list(pieces.in_rows(first, second, every=every))
        assert all(r.shape == g.shape and r.dtype == g.dtype == np.float64 and r.size for r, g in rows if every)
        assert np.array_equal(np.concatenate([r.ravel() for r, _ in rows]), one[kept])
        assert np.array_equal(np.concatenate([g.ravel() for _, g in rows]), two[kept])
        assert [value for r, g in rows for value in pieces.dots(r, g)] == pytest.approx([
            float(r @ g) for rs, gs in rows for r, g in zip(rs, gs, strict=True)
        ])  # fmt: skip
    assert max(r.shape[0] for r, _ in pieces.in_rows(one, -one, every=True)) == min(max(size // 8192, 1), 4)


def test_errors_end_at_the_largest_number() -> None:
    far = np.array([1.7e308, -3.0, 0.0])
    with np.errstate(all="raise"):
        assert pieces.error_of(far, -far).tolist() == [pieces.BIGGEST, 6.0, 0.0]
    for one, two, narrow in (("f4", "f4", True), ("f2", "f4", True), ("f8", "f4", False), ("f4", "f8", False)):
        assert pieces.narrow_both(np.zeros(1, one), np.zeros(1, two)) is narrow


def test_rows_against_a_slow_match() -> None:
    """Of rows drawn without ties, each in its turn takes the nearest that is left."""
    rng = np.random.default_rng(9)
    for _ in range(40):
        rows, others, width = (int(n) for n in rng.integers(2, 9, 3))
        expected = rng.uniform(-3, 3, (rows, width))
        got = np.where(rng.random((others, 1)) < 0.7, expected[rng.integers(0, rows, others)], 9.0)
        got = got + rng.uniform(-0.5, 0.5, got.shape)
        left, places = list(range(others)), []
        for row in expected:
            off = {at: max(abs(got[at] - row) / (0.25 * np.abs(expected).max(0))) for at in left}
            nearest = min(off, key=lambda at: off[at], default=None)
            if nearest is not None and off[nearest] <= 1:
                left.remove(nearest)
                places.append(nearest)
        runs = [1] * len(places)
        for at, place in enumerate(places):
            runs[at] = 1 + max([runs[before] for before in range(at) if places[before] < place], default=0)
        found = match_rows(expected, got)
        assert found is not None
        assert found.got.tolist() == got[places].tolist()
        assert found.moved == len(places) - max(runs, default=0)
        assert found.share == len(places) / (rows + others - len(places))


def test_what_is_no_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        blocks.ratio([[1.0], [2.0]], [[1.0]], 0.95)
    with pytest.raises(ValueError, match="zip"):
        list(pieces.together(np.zeros(8192), np.zeros(8193)))


@pytest.mark.parametrize(("level", "freedom"), [(0.5, 1), (0.9, 2), (0.95, 3), (0.99, 5), (0.999, 12), (0.95, 41)])
def test_students_t_by_its_density(level: float, freedom: int) -> None:
    """The density of Student 1908, by the midpoint rule."""
    quantile, steps = blocks.student(level, freedom), 20_000
    t = (np.arange(steps) + 0.5) / steps * quantile
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    inside = 2 * np.exp(scale - (freedom + 1) / 2 * np.log1p(t**2 / freedom)).mean() * quantile
    assert inside == pytest.approx(level, rel=1e-6)
