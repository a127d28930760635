"""Why MNN computes something else: known kinds by name, and attributes by trying what it does instead of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgequant.jobs.conversion_likeness import same
from edgequant.jobs.conversion_trial import Bench, Trial
from edgequant.models import ModelGraph, find_risks
from edgequant.models.misread import CODE as MISREAD
from edgequant.models.misread import WIDE_CODE
from edgequant.models.onnx_cut import Node, Value, words

_STATIC = (WIDE_CODE, MISREAD, "GRU_RESET_FIRST")
_SAID = {
    "GRU_RESET_FIRST": "MNN applies the reset gate to the recurrent product, without its bias, where "
    "linear_before_reset=0 applies it to the state before that product",
}
"""What MNN does instead, measured: with linear_before_reset=1 the bias would be in it."""
_INSTEAD: dict[tuple[str, str], tuple[Value, ...]] = {
    ("GRU", "linear_before_reset"): (1,),
    ("GridSample", "mode"): ("linear", "bilinear"),
    ("GridSample", "padding_mode"): ("zeros", "border"),
    ("Resize", "mode"): ("linear", "nearest"),
    ("Resize", "nearest_mode"): ("floor", "round_prefer_floor"),
    ("Resize", "coordinate_transformation_mode"): ("half_pixel", "asymmetric", "align_corners"),
    ("Resize", "cubic_coeff_a"): (-0.75,),
    ("Conv", "auto_pad"): ("SAME_UPPER",),
    ("ConvTranspose", "auto_pad"): ("SAME_UPPER",),
    ("MaxPool", "auto_pad"): ("SAME_UPPER",),
    ("AveragePool", "auto_pad"): ("SAME_UPPER",),
}
"""What MNN may do in place of an attribute, beside the standard's default."""
_KEPT = {"hidden_size", "kernel_shape", "perm", "to", "equation", "axes"}
"""Attributes without which an operator is another one."""
_MOST_CHANGED = 3
_MOST_TRIES = 40
_NORMALIZATIONS = {
    "BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "LpNormalization",
    "MeanVarianceNormalization", "RMSNormalization",
}  # fmt: skip
_ACTIVATIONS = {"Elu", "Erf", "Exp", "Gelu", "Log", "Sigmoid", "Softplus", "Softsign", "Tanh"}
_FAR = 10.0
"""Inputs beyond this are far out for an activation."""
_DEVIATION = {"Sqrt", "Div", "ReduceMean"}


@dataclass(frozen=True)
class Cause:
    """code: a stable name.  what: a sentence.  remedy: what fits it.  shown: it was seen to be the cause, not only
    known to be one.  node: whose, where it is known from the file."""

    code: str
    what: str
    remedy: str
    shown: bool = False
    node: str = ""


def cause_of(graph: ModelGraph, node: Node, stretch: Sequence[Node], trial: Trial | None, bench: Bench) -> Cause | None:
    """The cause that has evidence; None where there is none."""
    known = known_cause(graph, [node, *stretch])
    if trial is not None and trial.failure is None:
        instead = _instead(node, trial, bench) if len(trial.part.nodes) == 1 else None
        if instead is not None:
            code = "GRU_RESET_FIRST" if set(instead) == {"linear_before_reset"} else MISREAD
            said = " and ".join(_said(node, name, value) for name, value in instead.items())
            remedy = known.remedy if known and known.code == code else _remedy(node, instead)
            return Cause(code, f"MNN computes what {node.kind} {said} does", remedy, shown=True)
    if known is not None:
        return known
    if trial is None:
        return None
    if trial.failure is not None:
        remedy = f"Export the model without {node.kind}, or in another form."
        return Cause("CANNOT_RUN", trial.failure.message, remedy, shown=True)
    return _normalization([node, *stretch]) or _by_numbers(node, trial)


def known_cause(graph: ModelGraph, nodes: Iterable[Node]) -> Cause | None:
    """What is known of the first of these operators that something is known of, from the file alone."""
    findings = [each for each in find_risks(graph) if each.code in _STATIC]
    for node in nodes:
        for each in findings:
            wide = each.code == WIDE_CODE and set(node.reads) & set(graph.beyond_int32)
            if wide or (each.code != WIDE_CODE and node.name in each.evidence.get("names", ())):
                return Cause(each.code, _SAID.get(each.code, each.message), each.remedy or "", node=node.name)
    return None


def _changes(node: Node) -> Iterator[dict[str, Value | None]]:
    """Attributes that are others, one at a time, then two and three."""
    choices: dict[str, list[Value | None]] = {}
    for name, value in node.attributes.items():
        if name not in _KEPT:
            others: list[Value | None] = [each for each in _INSTEAD.get((node.kind, name), ()) if each != value]
            choices[name] = [*others, None]
    for (kind, name), values in _INSTEAD.items():
        if kind == node.kind and name not in node.attributes:
            choices[name] = list(values)
    for count in range(1, _MOST_CHANGED + 1):
        for names in itertools.combinations(choices, count):
            for chosen in itertools.product(*(choices[name] for name in names)):
                yield dict(zip(names, chosen, strict=True))


def _instead(node: Node, trial: Trial, bench: Bench) -> Mapping[str, Value | None] | None:
    """The attributes with which the source's own runtime computes what MNN does."""
    for changed in itertools.islice(_changes(node), _MOST_TRIES):
        found = bench.expected(trial.part, trial.inputs, changed)
        if found is None or any(found[name].shape != array.shape for name, array in trial.expected.items()):
            continue
        if all(same(array, trial.got.get(name)) for name, array in found.items()):
            return changed
    return None


def _said(node: Node, name: str, value: Value | None) -> str:
    was = words(node.attributes[name]) if name in node.attributes else "its default"
    return f"without {name}={was}" if value is None else f"with {name}={words(value)} in place of {was}"


def _remedy(node: Node, instead: Mapping[str, Value | None]) -> str:
    names = ", ".join(instead)
    return f"Export or train {node.kind} so that it needs no other {names}, or compute it with other operators."


def _normalization(nodes: Sequence[Node]) -> Cause | None:
    kinds = {node.kind for node in nodes}
    named = kinds & _NORMALIZATIONS
    if not named and not kinds >= _DEVIATION:
        return None
    axes = next((node.attributes[key] for node in nodes for key in ("axes", "axis") if key in node.attributes), None)
    over = "" if axes is None else f" over {words(axes)}"
    return Cause(
        "NORMALIZATION_AXES",
        f"a normalization{over} becomes one over other dimensions",
        "Transpose so that it is over the last dimension, normalize, and transpose back.",
    )


def _by_numbers(node: Node, trial: Trial) -> Cause | None:
    """What the tensors themselves say."""
    for name, each in trial.alike.items():
        expected, got = trial.expected[name], trial.got.get(name)
        if got is None:
            return Cause("OUTPUT_DROPPED", f"the converter leaves {name} out", "Export the model without that output.")
        if each.kind == "arranged":
            return Cause("LAYOUT_CHANGED", each.what or "", "Add a Transpose or Reshape behind the model.")
        if expected.shape != got.shape:
            what = f"{each.what}: MNN computes its sizes in another way"
            return Cause("SHAPE_WRONG", what, "Give it sizes that leave nothing to round, or fix them on export.")
        if each.what is not None:
            return Cause("NOT_FINITE", each.what, "Keep NaN and infinite numbers out of this operator.")
        if (found := _where(node, trial, expected, got)) is not None:
            return found
    return None


def _where(node: Node, trial: Trial, expected: np.ndarray, got: np.ndarray) -> Cause | None:
    """Of an operator on each element: the inputs at which it departs."""
    inputs = list(trial.inputs.values())
    if len(inputs) != 1 or inputs[0].shape != expected.shape or expected.dtype.kind != "f" or expected.size < 2:
        return None
    error = np.abs(expected.astype(np.float64) - got)
    bad = error > 1e-3 * np.maximum(np.abs(expected), 1e-3)
    if not bad.any() or bad.all():
        return None
    values, others = inputs[0][bad], inputs[0][~bad]
    if np.all(np.abs(values - np.trunc(values)) == 0.5):
        return Cause(
            "TIES_ROUNDED_OTHERWISE", "it departs at halves alone", "Keep halves out of it: add a small number."
        )
    for side, beyond in (("above", values.min() > others.max()), ("below", values.max() < others.min())):
        if beyond:
            edge = values.min() if side == "above" else values.max()
            limit = node.kind in _ACTIVATIONS and abs(edge) >= _FAR
            return Cause(
                "ACTIVATION_LIMIT" if limit else "DEPARTS_FOR_SOME_INPUTS",
                f"it departs for inputs {side} {edge:.4g} alone{f': {node.kind} of MNN has a limit' if limit else ''}",
                f"Keep its inputs {'below' if side == 'above' else 'above'} that, with a Clip in front of it, or "
                "compute it with other operators.",
            )
    return None
