"""Outputs that decide something are judged by what they decide, beside how near their numbers come."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgequant.archive.types import Capture, CaseCapture, Source
from edgequant.compare.metrics import TensorComparison, compare
from edgequant.compare.rows import Matched, match_rows
from edgequant.compare.summary import OutputSummary, summarize
from edgequant.compare.table import Kind
from edgequant.compare.winners import Winners, of_classes, of_probabilities, of_scores
from edgequant.errors import InputError
from edgequant.findings import Finding
from edgequant.judge.stages import Comparer, by_case
from edgequant.judge.types import Compared, Observed
from edgequant.judge.verdict import Verdict
from edgequant.spec import Decision

LISTS = ("ordered", "set")
"""Decisions whose rows may stand in another order, or be one more or less."""
CLASS_ROWS = 3
"""A class is lost where so many of its rows came out wrong, all of them."""
MATCHED = 0.9
"""Of the rows in either list this share has to be in both, or all but one."""
FEW = 5
"""Of fewer rows than these, all have to match."""
MOVED = 0.5
"""So many of them may stand in another order: close scores change places, a list that is shuffled is no close call."""
_TOLD = 5
_NUMBERS: dict[str, str] = {"int": "whole numbers", "float": "floating-point numbers"}


@dataclass(frozen=True)
class Rematched:
    """An output whose rows were put in order before it was compared.

    summary: of the rows that match; None where too few do.
    """

    summary: OutputSummary | None
    finding: Finding


def as_named(source: Source, decides: Mapping[str, Decision]) -> Source:
    """The source with what its user says that outputs decide, over what its graph tells."""
    return source.model_copy(update={"decisions": {**source.decisions, **decides}}) if decides else source


def check_named(kinds: Mapping[str, Kind], decides: Mapping[str, Decision]) -> None:
    """Raise InputError (DECIDES_UNKNOWN_OUTPUT, DECIDES_WRONG_KIND) where there is no such output, or none that can
    decide that."""
    for name, decision in decides.items():
        if name not in kinds:
            raise InputError(
                "DECIDES_UNKNOWN_OUTPUT",
                f"--decides {name}={decision}: there is no output '{name}'",
                hint=f"Outputs: {', '.join(kinds) or 'none'}.",
                evidence={"outputs": list(kinds)},
            )
        wanted = {"classes": "int", "probabilities": "float", "scores": "float"}.get(decision, kinds[name])
        if kinds[name] != wanted:
            raise InputError(
                "DECIDES_WRONG_KIND",
                f"--decides {name}={decision}: '{name}' holds {_NUMBERS[kinds[name]]}, {decision} are "
                f"{_NUMBERS[wanted]}",
                hint="classes are whole numbers; probabilities and scores, or the logits in front of them, are floats.",
                evidence={"output": name, "kind": kinds[name]},
            )


def winners(
    source: Source,
    reference: Capture,
    capture: Capture,
    comparer: Comparer,
    changed: float,
    named: Container[str] = (),
) -> Observed:
    """Outputs whose winners change more often than `changed` (a share of the clear rows), or that know a class no more.

    FAIL where one does: whatever its numbers say, it decides something else.  A single one may be chance: MARGINAL.

    named: outputs that their user calls so; these may be logits.
    """
    findings: list[Finding] = []
    for name, decision in source.decisions.items():
        pairs = _pairs(name, reference, capture, comparer)
        found: Winners | None = None
        if decision == "probabilities":
            found = of_probabilities(pairs, logits=name in named)
        elif decision == "scores":
            found = of_scores(pairs, logits=name in named)
        elif decision == "classes":
            found = of_classes(pairs)
        if found is not None and found.judged:
            findings += _said(name, found, changed, numbers=decision != "classes")
    failed = any(each.severity == "fail" for each in findings)
    return Observed(tuple(findings), Verdict.FAIL if failed else Verdict.MARGINAL if findings else Verdict.PASS)


def _said(name: str, found: Winners, changed: float, *, numbers: bool) -> list[Finding]:
    said = []
    lost = found.lost(CLASS_ROWS)
    if lost:
        told = ", ".join(
            f"{each} ({found.clear[each]} rows, mostly as {found.became(each)})" for each in lost[:_TOLD]
        ) + (f" and {len(lost) - _TOLD} more" if len(lost) > _TOLD else "")
        said.append(
            Finding(
                code="CLASS_LOST",
                severity="fail",
                where=name,
                message=f"not one row of these classes comes out as what it is: {told}",
                evidence={"classes": {str(each): found.clear[each] for each in lost[:1000]}, "rows": found.judged},
                remedy="However few rows a class has, one that is never found is missing.  Use a variant with more "
                "bits, or keep the last layers float (keep=NUMBER, skip=NAME).",
            )
        )
    # Of classes the mismatch says it already, with its own limit.
    if numbers and found.changed > changed * found.judged:
        said.append(
            Finding(
                code="DECISIONS_CHANGED",
                severity="fail" if found.changed > 1 else "warn",
                where=name,
                message=f"{found.changed} of {found.judged} clear decisions come out as another "
                f"({found.changed / found.judged:.2%}; allowed are {changed:.2%})",
                evidence={"changed": found.changed, "clear": found.judged, "rows": found.rows},
                remedy="These are rows that the reference decides by a fifth and more, so it is no close call.",
            )
        )
    return said


def _pairs(
    name: str, reference: Capture, capture: Capture, comparer: Comparer
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    others = by_case(capture)
    for case in reference.cases:
        other = others.get(case.case)
        if case.outputs is None or other is None or other.outputs is None:
            continue
        if name in case.outputs and name in other.outputs:
            yield comparer.array(case.outputs[name]), comparer.array(other.outputs[name])


def rematched(name: str, reference: Capture, capture: Capture, comparer: Comparer, *, last: bool) -> Rematched | None:
    """An output that is a list or a set, row matched with row; None where that changes nothing.  last: as in
    `match_rows`."""
    cases: dict[str, Matched] = {}
    others = by_case(capture)
    for case in reference.cases:
        other = others.get(case.case)
        if case.outputs is None or other is None or other.outputs is None:
            continue
        if name not in case.outputs or name not in other.outputs:
            return None
        arrays = comparer.array(case.outputs[name]), comparer.array(other.outputs[name])
        found = match_rows(*arrays, last=last)
        if found is None:
            return None
        cases[case.case] = found
    if not cases or all(not each.moved and each.rows == (len(each.expected),) * 2 for each in cases.values()):
        return None
    worst = min(cases, key=lambda case: cases[case].share)
    enough = all(_enough(each) for each in cases.values())
    return Rematched(
        summarize({case: compare(each.expected, each.got) for case, each in cases.items()}) if enough else None,
        _matched(name, worst, cases, enough=enough),
    )


def by_rows(
    compared: Compared, source: Source, expected: Sequence[CaseCapture], got: Sequence[CaseCapture], comparer: Comparer
) -> Compared:
    """The same, of lists and sets row by row where enough of them are on both sides.

    Between this host and a device rounding changes the order of close scores as well, and no band is made for that.
    """
    lists = [name for name, decision in source.decisions.items() if decision in LISTS and name in compared]
    if not lists:
        return compared
    one, two = ({each.case: each.outputs or {} for each in side} for side in (expected, got))
    found = {name: dict(cases) for name, cases in compared.items()}
    for name in lists:
        for case, each in compared[name].items():
            if each.exact or each.problem not in (None, "shape"):
                continue
            arrays = comparer.array(one[case][name]), comparer.array(two[case][name])
            matched = match_rows(*arrays, last=source.decisions[name] == "set")
            if matched is not None and _enough(matched):
                found[name][case] = compare(matched.expected, matched.got)
    return found


def in_any_order(expected: np.ndarray, got: np.ndarray, *, last: bool) -> TensorComparison | None:
    """The rows that are in both, wherever they stand; None where too few are to say anything."""
    matched = match_rows(expected, got, last=last)
    return compare(matched.expected, matched.got) if matched is not None and _most_are_in_both(matched) else None


def _enough(found: Matched) -> bool:
    return _most_are_in_both(found) and found.moved <= MOVED * len(found.expected)


def _most_are_in_both(found: Matched) -> bool:
    one_other = min(found.rows) >= FEW and sum(found.rows) - 2 * len(found.expected) <= 2
    return found.share >= MATCHED or one_other


def _matched(name: str, worst: str, cases: Mapping[str, Matched], *, enough: bool) -> Finding:
    each = cases[worst]
    both, moved = len(each.expected), sum(found.moved for found in cases.values())
    what = f"{both} of {each.rows[0]} rows are in both in {worst} ({each.rows[1]} came back)"
    return Finding(
        code="ROWS_MATCHED" if enough else "ROWS_DIFFER",
        severity="warn" if enough else "fail",
        where=name,
        message="its order or length depends on the data (a sorted list, a selection): "
        f"{what}, {moved} out of order; "
        + ("the numbers are those of the rows in both" if enough else "too few, or too many, to judge it by those"),
        evidence={
            "matched": {case: len(found.expected) for case, found in list(cases.items())[:1000]},
            "rows": {case: list(found.rows) for case, found in list(cases.items())[:1000]},
            "moved": moved,
        },
        remedy="Scores that are nearly equal change places by rounding.  What is in front of the sorting says more: "
        "export the model so that it ends there, and sort it yourself."
        if enough
        else "Judge what is in front of the sorting or selection: export the model so that it ends there.",
    )
