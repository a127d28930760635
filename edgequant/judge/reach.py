"""What the cases of a run do not reach: what they cannot show is not shown, whatever the numbers say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from edgequant.archive.types import Capture, Source
from edgequant.compare.winners import of_probabilities
from edgequant.findings import Finding
from edgequant.judge.stages import Comparer
from edgequant.judge.types import Observed
from edgequant.judge.verdict import Verdict

_TOLD = 20
_SHOWS_LESS = {"CALIBRATION_RANGE", "CALIBRATION_IDENTICAL", "CALIBRATED_ON_CASES", "OUTPUTS_NOT_JUDGED"}
"""Findings of what was calibrated and referred to that leave a part of the question open."""


def shows_less(findings: Iterable[Finding]) -> Verdict:
    """MARGINAL where numbers that are good do not say that all is: it was calibrated on the very cases, on one sample
    or on other ranges, or not all outputs have a reference."""
    codes = {each.code for each in findings if each.evidence.get("all", each.code != "CALIBRATED_ON_CASES")}
    return Verdict.MARGINAL if codes & _SHOWS_LESS else Verdict.PASS


def reach(source: Source, reference: Capture, comparer: Comparer) -> Observed:
    """MARGINAL at best where all cases are one, where one value is all that goes into an input, where an output of
    whole numbers has one value in all of them, or where none takes one of two ways; a warning where a part of them is
    one, or where a mask masks nothing."""
    looks = (
        _identical(source),
        _constant(source, comparer),
        _one_class(source, reference, comparer),
        _one_way(source, reference, comparer),
    )
    found = [finding for finding, _ in looks if finding is not None]
    blind = any(whole for _, whole in looks)
    return Observed(tuple(found), Verdict.MARGINAL if blind else Verdict.PASS)


def _identical(source: Source) -> tuple[Finding | None, bool]:
    same: dict[tuple[tuple[str, str], ...], list[str]] = defaultdict(list)
    for case in source.cases:
        if case.name in source.held and case.inputs:
            same[tuple(sorted((name, ref.sha256) for name, ref in case.inputs.items()))].append(case.name)
    groups = [names for names in same.values() if len(names) > 1]
    if not groups:
        return None, False
    told = "; ".join(", ".join(names[:_TOLD]) for names in groups[:3])
    finding = Finding(
        code="CASES_IDENTICAL",
        severity="warn",
        message=f"these cases have the same inputs, value by value: {told}",
        evidence={"cases": groups[:100]},
        remedy="Give cases that differ: a case that is there twice shows nothing the second time.",
    )
    return finding, len(same) == 1


def _constant(source: Source, comparer: Comparer) -> tuple[Finding | None, bool]:
    """Only of cases that the user gave: what edgequant draws varies, or is meant not to (masks, sampling rates)."""
    if any(case.generated for case in source.cases):
        return None, False
    fed = {} if source.rollout is None else source.rollout.feedback  # which the rollout gives other values
    stuck: dict[str, float] = {}
    varying = telling = False
    for name in {name for case in source.cases for name in case.inputs}:
        low, high, size, whole = np.inf, -np.inf, 0, False
        for case in source.cases:
            array = comparer.array(case.inputs[name])
            if array.size:
                low, high, size = min(low, array.min()), max(high, array.max()), max(size, array.size)
                whole = array.dtype.kind != "f"
        if low < high:
            varying = True
        elif size > 1:
            stuck[name] = float(low)
            # Ones of whole numbers are a mask that masks nothing, as most are; anything else is there to vary.
            telling |= name not in fed and not (whole and low == 1)
    if not stuck:
        return None, False
    finding = Finding(
        code="INPUT_CONSTANT",
        severity="warn",
        where=min(stuck),
        message="one value everywhere, in every case: "
        + ", ".join(f"{name} ({stuck[name]:g})" for name in sorted(stuck)[:_TOLD]),
        evidence={"inputs": dict(sorted(stuck.items())[:1000])},
        remedy="Use inputs as they are in use; a recurrent state also as it is after some steps.",
    )
    return finding, telling or not varying


def _one_class(source: Source, reference: Capture, comparer: Comparer) -> tuple[Finding | None, bool]:
    """Classes, labels, lengths: with one value in all cases, giving always that one would be right."""
    alike = [name for name, kind in source.kinds.items() if kind == "int"]
    refs = [case.outputs for case in reference.cases if case.outputs is not None]
    if len(refs) < 2:
        return None, False
    one: list[str] = []
    for name in alike:
        arrays = [comparer.array(outputs[name]) for outputs in refs if name in outputs]
        values = {value for array in arrays if array.size for value in (int(array.min()), int(array.max()))}
        if len(values) == 1:
            one.append(name)
    if not any(case.generated for case in source.cases):  # of noise one class often wins
        for name, decision in source.decisions.items():
            pairs = ((array, array) for outputs in refs if name in outputs for array in [comparer.array(outputs[name])])
            won = of_probabilities(pairs) if decision == "probabilities" else None
            if won is not None and won.judged > 1 and len(won.clear) == 1:
                one.append(name)
    if not one:
        return None, False
    finding = Finding(
        code="ONE_CLASS_ONLY",
        severity="warn",
        where=one[0],
        message=f"the reference has one value, or one winner, in every case: {', '.join(one[:_TOLD])}",
        evidence={"outputs": one[:1000]},
        remedy="Give cases of every class: where one is all there is, a model that knows no other is right.",
    )
    return finding, True


def _one_way(source: Source, reference: Capture, comparer: Comparer) -> tuple[Finding | None, bool]:
    """Conditions of branches, which are the taps of the reference: the way that no case takes is not looked at."""
    ways: dict[str, set[bool]] = defaultdict(set)
    for case in reference.cases:
        for name, ref in case.taps.items() if case.case in source.held else ():
            ways[name].update(map(bool, comparer.array(ref).reshape(-1)))
    one = {name: found == {True} for name, found in ways.items() if len(found) == 1}
    if not one:
        return None, False
    finding = Finding(
        code="BRANCH_NOT_TAKEN",
        severity="warn",
        where=min(one),
        message="every case goes the same way where the model can go two: "
        + ", ".join(f"{name} is always {'true' if one[name] else 'false'}" for name in sorted(one)[:_TOLD]),
        evidence={"conditions": dict(sorted(one.items())[:1000])},
        remedy="Give cases that go the other way as well; where none can, export the model without that branch.",
    )
    return finding, True
