"""How far captures are from each other, output by output and case by case."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgequant.archive.arrays import ArraySink
from edgequant.archive.types import ArrayRef, Capture, CaseCapture
from edgequant.compare.metrics import TensorComparison, compare
from edgequant.compare.residual import Sign
from edgequant.compare.summary import faint, summarize
from edgequant.judge.types import Compared, Summaries

Refused = Callable[[str], bool]


class Comparer:
    """Compares captures of one archive.  Of the same two arrays only once: the same ones are asked about again and
    again, and content tells them apart."""

    def __init__(self, arrays: ArraySink) -> None:
        self._arrays = arrays
        self._known: dict[tuple[str, str | None], TensorComparison] = {}
        self.looked: dict[tuple[str | None, ...], list[Sign]] = {}
        """What `judge.residual` has found in arrays, by the hashes of all of them."""
        self.swapped: dict[tuple[object, ...], list[tuple[str, Sign]]] = {}
        """The same of outputs that may be each other."""
        self.twins: dict[tuple[object, ...], frozenset[str]] = {}
        """What `judge.independent` has found of cases, by the hashes of their inputs."""
        self.scores: frozenset[str] = frozenset()
        """Outputs that are scores by the graph, between 0 and 1."""

    def over(self, arrays: ArraySink) -> Comparer:
        """Another one that knows the same so far, and finds arrays elsewhere."""
        other = Comparer(arrays)
        other.scores = self.scores
        other._known, other.looked, other.swapped = dict(self._known), dict(self.looked), dict(self.swapped)
        return other

    def of(self, expected: ArrayRef, got: ArrayRef | None) -> TensorComparison:
        """One array against its reference; None: it never came."""
        key = (expected.sha256, None if got is None else got.sha256)
        if key not in self._known:
            other = None if got is None else self.array(got)
            self._known[key] = compare(self.array(expected), other)
        return self._known[key]

    def array(self, ref: ArrayRef) -> np.ndarray:
        return self._arrays.get(ref)

    def between(
        self, expected: Capture, got: Capture, names: Container[str], *, refused: Refused = lambda _case: False
    ) -> Summaries:
        """Each output of `expected` that is in `names`, over the cases that both have.

        A case that `got` refused counts, as outputs that never came, where `refused` says so of it.
        """
        return summaries(self.each(expected.cases, got.cases, names, refused=refused))

    def each(
        self,
        expected: Sequence[CaseCapture],
        got: Sequence[CaseCapture],
        names: Container[str],
        *,
        refused: Refused = lambda _case: False,
    ) -> Compared:
        """The same, case by case."""
        found: dict[str, dict[str, TensorComparison]] = {}
        others = {each.case: each for each in got}
        for case in expected:
            other = others.get(case.case)
            if case.outputs is None or other is None or (other.outputs is None and not refused(case.case)):
                continue
            outputs: Mapping[str, ArrayRef] = other.outputs or {}
            for name, reference in case.outputs.items():
                if name not in names:
                    continue
                found.setdefault(name, {})[case.case] = self.named(name, reference, outputs.get(name))
        return found

    def named(self, output: str, expected: ArrayRef, got: ArrayRef | None) -> TensorComparison:
        """As `of`, with what is known of the output."""
        compared = self.of(expected, got)
        return replace(compared, faint=True) if output in self.scores and faint(compared) else compared


def summaries(compared: Compared) -> Summaries:
    return {name: summarize(cases) for name, cases in compared.items()}


def only(capture: Capture, cases: Container[str]) -> Capture:
    """What it says of some cases."""
    return capture.model_copy(update={"cases": tuple(each for each in capture.cases if each.case in cases)})


def by_case(capture: Capture) -> dict[str, CaseCapture]:
    return {each.case: each for each in capture.cases}


def untold(capture: Capture, cases: Sequence[str]) -> list[str]:
    """Cases of which a capture says nothing: neither outputs nor why there are none."""
    found = by_case(capture)
    return [
        case for case in cases if case not in found or (found[case].outputs is None and found[case].refused is None)
    ]


def refused_cases(capture: Capture | None) -> dict[str, str]:
    """Cases that MNN refused -> what it said."""
    return {} if capture is None else {each.case: each.refused for each in capture.cases if each.refused is not None}
