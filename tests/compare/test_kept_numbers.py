"""All that `compare` says of the two corpora is what it said before, number by number, and NumPy warns of nothing.

Where a difference is meant, `python tests/compare/test_kept_numbers.py` writes the file anew; its diff is to be read.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import metric_corpus
import numpy as np
import pytest
import residual_corpus

from edgequant.compare import blocks, winners
from edgequant.compare.metrics import TensorComparison, compare, strayed
from edgequant.compare.residual import look, samples_of, swapped
from edgequant.compare.residual.sample import Sample, Sign
from edgequant.compare.rows import match_rows
from edgequant.compare.spread import spread
from edgequant.compare.summary import summarize

FILE = Path(__file__).parents[1] / "data" / "compared.json"
NEAR = 1e-5
"""Of a number: what other CPUs add up in another order."""
LIMITS = {
    "sample.MOST_ELEMENTS": (100, 288), "moved.MOST_ELEMENTS": (100,), "levels._MOST": (300,),
    "heard._MOST": (71, 72, 288), "scales._MOST_CHANNELS": (5,), "moved._MOST_CHANNELS": (11,),
}  # fmt: skip
"""Of what is looked at, in place of those that are a thousand times as large."""
ENOUGH = 8
"""Differences that are shown."""


def plain(value: Any) -> Any:
    """As JSON has it, with six digits; what is as a class has it as default is left out."""
    if isinstance(value, TensorComparison):
        return {
            field.name: plain(found)
            for field in dataclasses.fields(value)
            if (found := getattr(value, field.name)) != field.default or field.default is dataclasses.MISSING
        }
    if dataclasses.is_dataclass(value):
        return [plain(getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value


def digest(array: np.ndarray | None) -> Any:
    """Says whether another number is at another place."""
    if array is None:
        return None
    flat = np.asarray(array, np.float64).reshape(-1)
    return [list(np.shape(array)), float((np.nan_to_num(flat) * np.cos(np.arange(flat.size))).sum())]


def of_residuals() -> Iterator[tuple[str, Any]]:
    """[kind, size, strength, where's values]; where's names are said once, by kind."""
    names: dict[str, list[str]] = {}
    for name, pairs in residual_corpus.corpus():
        signs = look(samples_of(pairs))
        for sign in signs:
            known = names.setdefault(sign.kind, [])
            known += [key for key in sign.where if key not in known]
        yield name, [[s.kind, s.size, s.strength, [s.where.get(key) for key in names[s.kind]]] for s in signs]
    yield "where", names


def _facts(sample: Sample) -> list[Any]:
    whole = (sample.expected, sample.got, sample.error, sample.own)
    inputs = {name: digest(array) for name, array in sample.inputs.items()}
    more = [sample.steps, sample.twin, inputs, sample.digits, sample.signal, sample.noise]
    return [sample.case, *(None if each is None else digest(each)[1] for each in whole), *more]


def of_samples() -> Iterator[tuple[str, Any]]:
    for name, pairs in islice(residual_corpus.corpus(), 0, None, 3):
        yield name, [_facts(sample) for sample in samples_of(pairs)]


def of_outputs() -> Iterator[tuple[str, Any]]:
    """Outputs that have what belongs to another."""
    bases = residual_corpus.BASES
    one, two = bases["rows"], residual_corpus.cases([(4, 60)] * 3, 31)
    outputs = {"a": one, "b": two, "c": bases["boxes"], "d": bases["flat"]}
    expected = {name: [pair.expected for pair in pairs] for name, pairs in outputs.items()}
    spoiled = residual_corpus.with_fault(one, residual_corpus.FAULTS["not finite"])
    other = [dataclasses.replace(p, got=q.got) for p, q in zip(one, two, strict=True)]
    near = [dataclasses.replace(p, got=(p.got + q.got) / 2) for p, q in zip(one, two, strict=True)]
    zero = [dataclasses.replace(p, expected=0 * p.expected, got=q.got) for p, q in zip(one, two, strict=True)]
    exact = [dataclasses.replace(p, got=p.expected) for p in one]
    nought = [dataclasses.replace(p, expected=0 * p.expected, got=0 * p.got) for p in one]
    small = [dataclasses.replace(p, expected=p.expected * 1e-6, got=p.got * 1e-6) for p in near]
    places = np.arange(240).reshape(4, 60)
    broken = [
        dataclasses.replace(
            p, got=np.select([places == 3, places == 50, places == 90], [np.inf, -np.inf, np.nan], p.got)
        )
        for p in near
    ]
    outputs |= {"exact": exact, "nought": nought, "small": small, "broken": broken}
    outputs |= {"as it is": one, "spoiled": spoiled, "other": other, "near": near, "zero": zero}
    for name, mine in list(outputs.items())[4:]:
        yield name, swapped({"a": mine, "b": other, "c": outputs["c"]}, expected | {"e": expected["a"][::-1]})
    yield "none", swapped({"a": []}, {"a": [], "b": []})


def of_thinned() -> Iterator[tuple[str, Any]]:
    """What is done with arrays that are too large to be looked at as a whole, of arrays that are small."""
    bases, faults = residual_corpus.BASES, residual_corpus.FAULTS
    some = {name: residual_corpus.with_fault(bases[name], faults["gain"]) for name in ("image", "wide", "boxes")}
    some["heard"] = residual_corpus.with_fault(bases["wide"], faults["hears an input"])
    some["late"] = residual_corpus.with_fault(bases["steps"], faults["late"])
    for at, limit in ((at, limit) for at, limits in LIMITS.items() for limit in limits):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"edgequant.compare.residual.{at}", limit)
            for name, pairs in some.items():
                samples = samples_of(pairs)
                if at == "sample.MOST_ELEMENTS":
                    yield f"{name}, {limit}: samples", [_facts(sample) for sample in samples]
                yield f"{name}, {at} {limit}", _brief(look(samples))
            yield f"other, {at} {limit}", _brief([sign for _, sign in swapped({"a": some["wide"]}, {
                "b": [pair.got for pair in some["wide"]], "c": [pair.expected for pair in some["wide"][::-1]]
            })])  # fmt: skip


def _brief(signs: list[Sign]) -> list[Any]:
    return [[sign.kind, sign.size, sign.strength] for sign in signs]


def of_pairs() -> Iterator[tuple[str, Any]]:
    for name, (reference, got) in metric_corpus.pairs():
        yield name, compare(reference, got)


def of_strayed() -> Iterator[tuple[str, Any]]:
    for name, (reference, got) in metric_corpus.pairs():
        if got is not None:
            yield name, strayed(reference, got)


def of_summaries() -> Iterator[tuple[str, Any]]:
    for name, group in metric_corpus.groups():
        found = summarize({case: compare(*arrays) for case, arrays in group.items()})
        assert list(found.by_case) == sorted(group)
        yield name, dataclasses.replace(found, by_case={})


def of_lists() -> Iterator[tuple[str, Any]]:
    for name, (expected, got, last) in metric_corpus.lists():
        found = match_rows(expected, got, last=last)
        yield name, found and [digest(found.expected), digest(found.got), found.rows, found.moved, found.share]


def _won(found: winners.Winners | None) -> Any:
    if found is None:
        return None
    instead = {f"{of} {other}": count for (of, other), count in sorted(found.instead.items())}
    became = [found.became(of) for of in sorted({of for of, _ in found.instead})]
    lost = [found.lost(at_least) for at_least in (1, 2, 3)]
    return [found.rows, found.clear, found.right, instead, found.changed, found.judged, lost, became]


def of_classes() -> Iterator[tuple[str, Any]]:
    for name, pairs in metric_corpus.classes():
        if name.endswith("labels"):
            yield name, _won(winners.of_classes(pairs))
            continue
        for how in (winners.of_probabilities, winners.of_scores):
            yield f"{name}: {how.__name__}", [_won(how(pairs, logits=logits)) for logits in (False, True)]


def of_timings() -> Iterator[tuple[str, Any]]:
    for name, (one, two, level) in metric_corpus.timings():
        medians = [[sorted(block)[len(block) // 2] for block in each] for each in (one, two)]
        each = {key: [*dataclasses.astuple(found), found.half] for key, found in blocks.estimates(two, level).items()}
        sessions = [
            blocks.of_two_sessions(*some, level)
            for some in (medians, (medians[0][:1], medians[1]), (medians[1], medians[0][:1]))
        ]
        yield name, [each, blocks.estimates(one), blocks.spreads(one), blocks.ratio(one, two, level), sessions]
    yield "student", [[blocks.student(level, n) for n in (1, 2, 3, 4, 7, 30)] for level in (0.5, 0.9, 0.99, 0.9999)]
    yield "nought all", blocks.spreads([[0.0, 0.0], [0.0]])
    yield "half of nothing", blocks.Estimate(0.0, -1.0, 1.0).half


def of_spreads() -> Iterator[tuple[str, Any]]:
    for name, (expected, arrays) in metric_corpus.spreads():
        yield name, spread(expected, arrays)


TABLES: dict[str, Callable[[], Iterator[tuple[str, Any]]]] = {
    "residuals": of_residuals,
    "samples": of_samples,
    "outputs": of_outputs,
    "thinned": of_thinned,
    "pairs": of_pairs,
    "strayed": of_strayed,
    "summaries": of_summaries,
    "lists": of_lists,
    "classes": of_classes,
    "timings": of_timings,
    "spreads": of_spreads,
}


def differences(kept: Any, found: Any, at: str, nothing: float = 0.0) -> Iterator[str]:
    """Names, their order and whole numbers are to be the same, others near."""
    if isinstance(kept, dict) and isinstance(found, dict) and list(kept) == list(found):
        for key in kept:
            yield from differences(kept[key], found[key], f"{at} / {key}", nothing)
    elif isinstance(kept, list) and isinstance(found, list) and len(kept) == len(found):
        for place, pair in enumerate(zip(kept, found, strict=True)):
            yield from differences(*pair, f"{at} [{place}]", nothing)
    elif not (kept == found and type(kept) is type(found)) and not (
        isinstance(kept, float)
        and isinstance(found, float)
        and math.isclose(kept, found, rel_tol=NEAR, abs_tol=nothing)
    ):
        yield f"{at}: {kept!r} became {found!r}"


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("table", TABLES)
def test_numbers_are_what_they_were(table: str) -> None:
    kept, seen, told = json.loads(FILE.read_text())[table], [], []
    nothing = 0.0 if table in ("pairs", "strayed", "summaries") else 1e-9
    for name, found in TABLES[table]():
        seen.append(name)
        told += islice(differences(kept.get(name), plain(found), name, nothing), ENOUGH)
        assert len(told) < ENOUGH, "\n".join(told)
    assert not told, "\n".join(told)
    assert seen == list(kept)


def write() -> None:
    lines = []
    for table, make in TABLES.items():
        found = list(make())
        assert len(dict(found)) == len(found), f"two of one name in {table}"
        rows = [f"{json.dumps(name)}: {json.dumps(plain(each), separators=(',', ':'))}" for name, each in found]
        lines.append(f"{json.dumps(table)}: {{\n" + ",\n".join(rows) + "\n}")
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    write()
