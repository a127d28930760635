"""What is kept of a search, and what is not believed of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgequant.quantize.search.cache import Cache, Kept

NOISE = {"a": np.asarray([1.5, np.inf, 0.25]), "b": np.asarray([2.0, 3.0, 4.0])}


def same(found: dict[str, np.ndarray], *names: str) -> bool:
    return set(found) == set(names) and all(np.array_equal(found[name], NOISE[name]) for name in names)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_half_a_line_spoils_no_other(cache: Cache) -> None:
    cache.keep_noises("k", {"a": NOISE["a"]})
    path = cache.folder / "noises" / "k.jsonl"
    assert same(cache.noises("k", 3), "a")
    path.write_bytes(path.read_bytes() + b'{"choice": "c", "noise": [1.0')  # its writer was killed
    cache.keep_noises("k", {"b": NOISE["b"]})
    assert same(cache.noises("k", 3), "a", "b")
    assert cache.noises("k", 2) == {}
    cache.keep_noises("k", {})
    assert same(cache.noises("k", 3), "a", "b")


def test_numbers_somebody_changed_are_measured_again(cache: Cache) -> None:
    cache.keep_noises("k", NOISE)
    path = cache.folder / "noises" / "k.jsonl"
    path.write_text(path.read_text().replace("2.0", "2.1"))
    assert same(cache.noises("k", 3), "a")
    (cache.folder / "noises" / "other.jsonl").write_text(path.read_text())
    assert cache.noises("other", 3) == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["sqnr_db"].update(y=199.0),
        lambda value: value.update(sqnr_db=5),
        lambda value: value.update(latency_ms=[]),
        lambda value: value.pop("latency_ms"),
        lambda value: value.pop("sum"),
    ],
)
def test_an_evaluation_somebody_changed_is_none(cache: Cache, change: object) -> None:
    kept = Kept(sqnr_db={"y": 31.5}, latency_ms=None)
    cache.keep_evaluation("k", kept)
    assert cache.evaluation("k") == kept
    path = cache.folder / "evaluations" / "k.json"
    value = json.loads(path.read_text())
    change(value)  # type: ignore[operator]
    path.write_text(json.dumps(value))
    assert cache.evaluation("k") is None


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"\xff", b"{}", b"[]", b'{"sqnr_db": {"y": NaN}}'])
def test_nonsense_is_nothing(cache: Cache, content: bytes) -> None:
    for folder, suffix in (("evaluations", "json"), ("noises", "jsonl"), ("models", "json"), ("models", "mnn")):
        (cache.folder / folder / f"k.{suffix}").write_bytes(content)
    assert cache.evaluation("k") is None
    assert cache.noises("k", 3) == {}
    assert cache.model("k", cache.folder / "out.mnn") is None


def test_what_cannot_be_kept_stops_nobody(cache: Cache) -> None:
    for name in ("models", "noises", "evaluations"):
        (cache.folder / name).rmdir()
        (cache.folder / name).write_bytes(b"")  # root may write into any folder, but not into a file
    source = cache.folder / "model.mnn"
    source.write_bytes(b"1")
    cache.keep_noises("k", NOISE)
    assert cache.problem is not None
    assert str(cache.folder) in cache.problem
    cache.keep_model("k", source, {"sha256": "0"})
    cache.keep_evaluation("k", Kept(sqnr_db={}, latency_ms=1.0))
    assert cache.evaluation("k") is None
    assert cache.model("k", cache.folder / "out.mnn") is None
