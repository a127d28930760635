"""Rounding looks like noise; a fault does not: what is systematic in the residual of a stage, and what that comes to.

The signs are measured by `compare.residual`; here are the bounds from which on they are called systematic, with their
names.  Calibrated on pairs of captures that differ by rounding alone: see docs/verdicts.md for how, and for the rates.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt

from edgequant.archive.types import ArrayRef, Capture, Source
from edgequant.compare.residual import Pair, Sign, look, samples_of, swapped
from edgequant.compare.table import Kind
from edgequant.findings import Finding, Severity
from edgequant.judge.advice import rounding_remedy
from edgequant.judge.decisions import LISTS
from edgequant.judge.independent import twins
from edgequant.judge.stages import Comparer, by_case, only
from edgequant.judge.types import Observed
from edgequant.judge.verdict import Verdict
from edgequant.spec.variant import Variant

_FEW = 16
"""Elements.  Fewer fit another case's by chance, unless they do so very well, and their own not at all."""
_EXACT = 100.0
_PLAIN = 0.25
_MANY = 1000
_EIGHT_BITS = 256
_FULL = 20
"""Bits of the 24 of a float that numbers need which are on no grid: half precision has 11, bfloat16 8."""
Stage = Literal["conversion", "quantization", "device"]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Rule:
    """When a kind of sign is systematic.

    size, strength: at least; see `Sign`.  quantized: what it is between a float model and a quantized one, where
    rounding the weights is an error of its own that is the same in every case: "fail" for what no rounding does,
    "warn" from `quantized_size` on, None where it says nothing there.
    """

    code: str
    size: float
    strength: float
    quantized: Severity | None = None
    quantized_size: float = 0.0


RULES: dict[str, Rule] = {
    "other output": Rule("OUTPUT_SWAPPED", 0.01, 2.0, "fail", 0.1),
    "other case": Rule("CASE_SWAPPED", 0.01, 2.0, "fail", 0.1),
    "permuted": Rule("RESIDUAL_PERMUTED", 0.1, 2.0, "fail", 0.1),
    "lag": Rule("RESIDUAL_LAG", 0.01, 2.0, "fail", 0.05),
    "stuck": Rule("OUTPUT_STUCK", 0.05, 5.0, "fail", 0.1),
    "levels": Rule("FEW_LEVELS", 0.002, 2.0),
    "format": Rule("FEW_LEVELS", 5e-5, 10.0),
    "saturated": Rule("OUTPUT_SATURATED", 0.01, 8.0, "warn", 0.02),
    "small": Rule("SMALL_CHANNEL_LOST", 0.32, 2.0, "fail", 0.32),
    "gain": Rule("RESIDUAL_GAIN", 0.01, 0.3, "warn", 0.05),
    "offset": Rule("RESIDUAL_OFFSET", 0.01, 0.3, "warn", 0.05),
    "pattern": Rule("RESIDUAL_OFFSET", 0.01, 0.5, "warn", 0.1),
    "exchanged": Rule("RESIDUAL_PERMUTED", 0.01, 2.0, "fail", 0.3),
    "tail": Rule("RESIDUAL_TAIL", 0.015, 5.0, "warn", 0.1),
    "crosstalk": Rule("RESIDUAL_CROSSTALK", 0.01, 0.8),
    "input": Rule("RESIDUAL_CROSSTALK", 0.01, 0.8),
    "slice": Rule("RESIDUAL_CHANNEL", 0.015, 5.0, "warn", 0.3),
    "tilt": Rule("RESIDUAL_CHANNEL", 0.015, 4.0, "warn", 0.3),
    "undone": Rule("RESIDUAL_REQUANTIZED", 0.7, 0.7),
    "element": Rule("RESIDUAL_ELEMENT", 0.05, 6.0, "warn", 0.5),
    "case": Rule("RESIDUAL_CASE", 0.1, 12.0),
    "lone gain": Rule("RESIDUAL_GAIN", 0.01, 0.95),
    "curve": Rule("RESIDUAL_CURVE", 0.01, 0.6),
}
"""By kind of sign, the one that explains most first: where it holds, those after it say the same in other words."""

CODES = (*dict.fromkeys(rule.code for rule in RULES.values()), "RESIDUAL_STEP", "OUTPUT_STALE")

_AT_ONE_PLACE = ("stuck", "exchanged", "slice", "tilt", "element")
_FEW_CASES = {1: 25.0, 2: 4.0}
"""So many times stronger a sign at one place has to be with few cases: rounding is louder at one place in each case,
and that it is another one in each is what tells it from a fault."""

_FEW_TAILS = {1: 4.0, 2: 2.0}
"""The same of what is left over beyond groups, by the cases that have something left over.  Found: with one, in 402
healthy ones, 4.9 at most; with two, 2.0."""

_COARSE = ("stuck", "small")
"""Of what no rounding to 8 bits does, what coarser rounding can do: it takes away what is small.  Nothing changes
places by it."""

_MOST = 2
"""Findings about one output of one stage."""


def systematic(sign: Sign, elements: int, cases: int) -> bool:
    """Whether a sign is none that rounding leaves.  elements: of the output, over all `cases`."""
    rule, where = RULES[sign.kind], sign.where
    factor = _FEW_CASES.get(cases, 1.0) if sign.kind in _AT_ONE_PLACE else 1.0
    factor *= _FEW_TAILS.get(where["cases"], 1.0) if sign.kind == "tail" else 1.0
    if sign.kind in _AT_ONE_PLACE and sign.size >= _PLAIN:
        factor *= 2  # only where rounding itself is loud is so large an error not plain: a decision that tips
    if not (sign.size >= rule.size and sign.strength >= factor * rule.strength):
        return False
    if sign.kind in ("gain", "offset"):
        proven = where["parts"] >= 4 and (where["low"] > 0 or where["high"] < 0)
        return bool(proven and where["explained"] >= 0.2)
    if sign.kind == "undone":
        return bool(
            where["parts"] >= 8 and (sign.size >= 1.5 or (sign.strength >= 0.9 and abs(where["value"] - 1) <= 0.05))
        )
    if sign.kind == "levels":
        return bool(where["levels"] <= _EIGHT_BITS)  # more than that has half precision
    if sign.kind == "format":
        return bool(where["expected"] >= _FULL and where["bits"] <= _FULL // 2 + 1)
    if sign.kind == "small":
        return bool(where["elements"] >= _FEW)
    if sign.kind in ("other output", "permuted", "lag"):
        return elements >= _FEW or sign.strength >= _EXACT
    if sign.kind == "other case":
        return where["elements"] >= _FEW or (sign.strength >= _EXACT and sign.size >= _PLAIN)
    if sign.kind == "saturated":
        return bool(where["count"] >= 8 and where["beyond"] >= 0.9)
    if sign.kind == "pattern":
        return bool(where["of"] >= 8)
    if sign.kind in ("crosstalk", "input"):
        return bool(where["parts"] >= 8)
    return sign.kind != "curve" or elements >= _MANY


class Residuals:
    """Looks at the stages of an archive; at the same arrays once."""

    def __init__(self, comparer: Comparer, source: Source) -> None:
        self._comparer = comparer
        self._held = source.held
        self._lists = {name for name, decision in source.decisions.items() if decision in LISTS}
        self._twins = twins(comparer, source)
        self._known, self._swapped = comparer.looked, comparer.swapped
        self._inputs = {case.name: case.inputs for case in source.cases}

    def observed(
        self,
        stage: Stage,
        expected: Capture,
        got: Capture,
        names: Mapping[str, Kind],
        *,
        base: Capture | None = None,
        severity: Severity = "fail",
        accepted: Collection[str] = (),
        made: Variant | None = None,
        coarse: Collection[str] = (),
    ) -> Observed:
        """What is systematic in an output of `got`, held against `expected`.

        base: what `expected` is itself an approximation of.  severity: of what is found in any stage but quantization.
        accepted: outputs that the user lets be further off than rounding leaves them: there only what no limit can mean
        (the rules that are "fail" for a quantized model too) is of that severity, and the rest "warn".
        made: what was quantized.  coarse: outputs of it whose rounding is too coarse to look like small noise.
        """
        findings = []
        # A strained case has errors of a size of its own, in all places at once: that is no sign of a fault.
        expected = only(expected, self._held)
        # A list whose rows change places by rounding is another in many places: it is matched row by row instead.
        names = {name: kind for name, kind in names.items() if name not in self._lists}
        rank = {name: len(ref.shape) for case in expected.cases for name, ref in (case.outputs or {}).items()}
        for name, (signs, elements, cases) in self.signs(expected, got, base, names).items():
            told: set[str] = set()
            for kind in RULES:
                for sign in (sign for sign in signs if sign.kind == kind and systematic(sign, elements, cases)):
                    level = _quantized(sign) if stage == "quantization" else severity
                    if name in accepted and RULES[kind].quantized != "fail":
                        level = None if kind == "format" else "warn"  # fp16 is what was asked for
                    code = code_of(sign, rank[name])
                    if level is None or code in told or len(told) == _MOST:
                        continue
                    told.add(code)
                    known = stage == "quantization" and name in coarse and (level == "warn" or kind in _COARSE)
                    found = _finding(stage, name, code, sign, level, rounding=known)
                    if stage == "quantization":
                        found = found.model_copy(update={"remedy": rounding_remedy(made, coarse=known)})
                    findings.append(found)
        failing = any(finding.severity == "fail" for finding in findings)
        return Observed(tuple(findings), Verdict.FAIL if failing else Verdict.PASS)

    def signs(
        self, expected: Capture, got: Capture, base: Capture | None, names: Mapping[str, Kind]
    ) -> dict[str, tuple[list[Sign], int, int]]:
        """Each float output that is not the same in every bit -> its signs, and how many elements and cases it has."""
        found: dict[str, tuple[list[Sign], int, int]] = {}
        apart: dict[str, list[Pair]] = {}
        whole: dict[str, list[Array]] = {}
        hashes: list[tuple[str | None, ...]] = []
        for name, kind in names.items():
            refs = _refs(expected, got, base, name) if kind == "float" else []
            if not refs:
                continue
            pairs = [self._pair(*each) for each in refs]
            whole[name] = [pair.expected for pair in pairs]
            hashes.append((name, *(one.sha256 for _, one, _, _ in refs)))
            if all(one == two for _, one, two, _ in refs):
                continue
            key = tuple(ref and ref.sha256 for _, *each in refs for ref in each)
            apart[name] = pairs
            hashes.append((name, *key))
            if key not in self._known:
                self._known[key] = look(samples_of(apart[name]))
            own = [pair for pair in pairs if not pair.twin]
            found[name] = list(self._known[key]), sum(pair.expected.size for pair in own), len(own)
        both = tuple(hashes)
        if both not in self._swapped:
            self._swapped[both] = swapped(apart, whole)
        for name, sign in self._swapped[both]:
            found[name][0].append(sign)
        return found

    def _pair(self, case: str, expected: ArrayRef, got: ArrayRef, base: ArrayRef | None) -> Pair:
        array = self._comparer.array
        given = self._inputs.get(case, {}).items()
        inputs = {name: array(ref) for name, ref in given if len(ref.shape) == len(expected.shape)}
        return Pair(
            case, array(expected), array(got), None if base is None else array(base), case in self._twins, inputs
        )


def _refs(expected: Capture, got: Capture, base: Capture | None, name: str) -> list[Any]:
    """(case, expected, got, base) of each case that has the output in both, in one shape."""
    others, own = by_case(got), {} if base is None else by_case(base)
    found = []
    for case in expected.cases:
        one = (case.outputs or {}).get(name)
        two = (others[case.case].outputs or {}).get(name) if case.case in others else None
        three = (own[case.case].outputs or {}).get(name) if case.case in own else None
        if one is not None and two is not None and one.shape == two.shape:
            found.append((case.case, one, two, three))
    return found


def _quantized(sign: Sign) -> Severity | None:
    rule = RULES[sign.kind]
    return rule.quantized if sign.size >= rule.quantized_size else None


def code_of(sign: Sign, rank: int) -> str:
    """A channel is what models call so: axis 1 of three and more, else the last; any other axis has steps."""
    rule = RULES[sign.kind]
    if sign.kind == "other case" and sign.where["stale"]:
        return "OUTPUT_STALE"
    if rule.code == "RESIDUAL_CHANNEL" and sign.where["axis"] not in ((1,) if rank >= 4 else (rank - 1,)):
        return "RESIDUAL_STEP"
    return rule.code


_WORDS = {
    "other output": "it holds what belongs to output '{of}' ({strength:.3g} times nearer to that)",
    "other case": "case '{case}' holds what belongs to case '{of}' ({strength:.3g} times nearer to that)",
    "permuted": "it fits {strength:.3g} times better {how} (axes {axes})",
    "lag": "it fits {strength:.3g} times better moved by {shift} along axis {axis}",
    "stuck": "it is {value:.4g} everywhere{at}, where it should vary",
    "levels": "it has {levels} levels where {expected} are expected",
    "format": "each of its numbers is one of a shorter float format, with {bits} bits where {expected} are expected "
    "(half precision has 11, bfloat16 8)",
    "saturated": "{count} values are piled up at its {side}, where those expected go on (by {size:.2%} of its size)",
    "small": "of indices {first} to {last} of axis {axis}, which are small beside the others, the error is {size:.0%}",
    "gain": "its gain is off by {value:+.2%} (between {low:+.2%} and {high:+.2%}), in {parts} parts of its cases alike",
    "lone gain": "its gain in case '{case}' is off by {value:+.2%}, in {parts} parts alike ({strength:.0%} of the "
    "error there)",
    "offset": "it is off by {value:+.2%} of its size (between {low:+.2%} and {high:+.2%}), in {parts} parts alike",
    "pattern": "an offset of {size:.2%} of its size is the same along axis {axis} in every case "
    "({strength:.0%} of the error), as where a bias was dropped",
    "exchanged": "index {index} of axis {axis} holds what belongs to index {has}",
    "tail": "what is beyond whole groups of {group} along axis {axis} is {strength:.3g} times as far off as the rest, "
    "in every case that has any ({size:.2%} of the signal there)",
    "crosstalk": "the error at index {index} of axis {axis} is {value:+.2%} of what belongs to index {of} "
    "({strength:.0%} of that error), in every case",
    "input": "the error at index {index} of axis {axis} is a share of input '{input}', index {of} ({strength:.0%} of "
    "that error), in every case",
    "slice": "the error at index {index} of axis {axis} is {strength:.3g} times as large as beside it, in every case "
    "({size:.2%} of the signal there)",
    "tilt": "the gain at index {index} of axis {axis} is off by {value:+.2%}, in every part",
    "undone": "its error is {size:.3g} times as large as that of quantizing, and undoes that: this is another rounding "
    "of the same model (another file, other bits, other scales)",
    "element": "the element at {index} is off by {size:.2%} of the output's size in every case, {strength:.3g} times "
    "more than those beside it",
    "case": "the error in case '{case}' is {strength:.3g} times that of the others ({size:.2%} of the signal)",
    "curve": "{strength:.0%} of its error is a function of the expected value",
}
_NOTHING = -0.98
_SILENT = "it is next to nothing (silent), in {parts} parts of its cases alike"
"""Of a gain that is off by about -100 %."""
_SIDES = {
    "conversion": "float MNN on this host against the reference",
    "quantization": "the quantized model against the float one, on this host",
    "device": "the device against this host, with the same file",
}
_REMEDY = {
    "conversion": "Quantization is not the cause: the conversion is wrong.  Try another export, or report it to MNN.",
    "quantization": "Rounding does not do this.",
    "device": "Rounding does not do this: the device computes something else, or another file.  Compare the MNN "
    "versions and --threads, and push the file anew.",
}


def _finding(stage: Stage, output: str, code: str, sign: Sign, level: Severity, *, rounding: bool = False) -> Finding:
    """rounding: it may be all of it."""
    facts = {"at": "", **sign.where}
    words = _SILENT if sign.kind == "gain" and sign.where["value"] <= _NOTHING else _WORDS[sign.kind]
    if "axis" in sign.where and "index" in sign.where:
        facts["at"] = f" at index {sign.where['index']} of axis {sign.where['axis']}"
    said = words.format(**facts, size=sign.size, strength=sign.strength)
    if "channels" in sign.where:
        low, high = sign.where["channels"]
        said = f"in indices {low} to {high} of axis {sign.where['channel_axis']}, which are small beside others, {said}"
    return Finding(
        code=code,
        severity=level,
        where=output,
        message=f"{_SIDES[stage]}: {said}" + ("; no rounding does that" if level == "fail" and not rounding else ""),
        evidence={"stage": stage, "kind": sign.kind, "size": sign.size, "strength": sign.strength, **sign.where},
        remedy=_REMEDY[stage],
    )
