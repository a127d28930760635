"""Where the activations of a model go wrong on a device: of those whose inputs are large enough to get there."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgequant.archive.layers import ActivationFacts, Tap
from edgequant.errors import ToolError
from edgequant.jobs.activations import behaviours, convert_operators
from edgequant.judge.boundaries import ORDINARY, Behaviour
from edgequant.judge.near_limit import NEAR
from edgequant.lab.session import Session
from edgequant.models import ModelGraph
from edgequant.models.model import OpInfo
from edgequant.reference.activations import OPERATORS, VALUES, Operator
from edgequant.spec import MemoryMode, Precision


def activation_limits(
    graph: ModelGraph, taps: Sequence[Tap], session: Session, precision: Precision, memory: MemoryMode
) -> tuple[ActivationFacts, ...]:
    """Of the activations of an ONNX source, as `session` runs them; nothing is run where no input is large.

    Raises DeviceError for what asking does not bring about.
    """
    large = {tap.tensor for tap in taps if _reach(tap) * NEAR > ORDINARY}
    used = [
        (op, operator)
        for op in (graph.ops if graph.format == "onnx" else ())
        if op.subgraph is None and op.inputs and op.inputs[0] in large and (operator := _operator(op)) is not None
    ]
    known: dict[str, Behaviour] = {}
    with tempfile.TemporaryDirectory(prefix="edgequant-") as name:
        operators = list({operator.name: operator for _, operator in used}.values())
        try:
            models = convert_operators(Path(name), operators) if operators else {}
        except ToolError:
            return ()  # this host's MNN converts none of them, as it has converted the model otherwise
        for operator in (each for each in operators if each.name in models):
            for found in behaviours(session, operator, models[operator.name], [(precision, memory)]):
                if found.behaviour is not None:
                    known[operator.name] = found.behaviour
    facts = (_facts(op, operator, known[operator.name]) for op, operator in used if operator.name in known)
    return tuple(each for each in facts if each.low is not None or each.high is not None)


def _reach(tap: Tap) -> float:
    ends = () if tap.plain is None else (tap.plain.min, tap.plain.max)
    return max((abs(end) for end in ends if end is not None), default=0.0)


def _operator(op: OpInfo) -> Operator | None:
    """Its row in the table; none for those that work on rows, whose limits are no single number."""
    return next(
        (
            each for each in OPERATORS
            if each.kind == op.type and not each.by_row and each.kind != "Clip"
            and each.attributes.get("approximate", "none") == op.attributes.get("approximate", "none")
        ), None,
    )  # fmt: skip


def _facts(op: OpInfo, operator: Operator, does: Behaviour) -> ActivationFacts:
    told: dict[str, object] = {}
    for side, values in (("high", _tried(operator, 1)), ("low", _tried(operator, -1))):
        wrong = {each.label: each for each in does.wrong}
        right = next((value for value in reversed(values) if f"{value:.8g}" not in wrong), None)
        first = None if right is None else next((value for value in values if abs(value) > abs(right)), None)
        if right is not None and first is not None:
            seen = wrong[f"{first:.8g}"]
            told |= {side: first, f"right_{side}": right, f"got_{side}": f"{seen.got:.4g}",
                     f"want_{side}": f"{seen.expected:.4g}"}  # fmt: skip
    return ActivationFacts.model_validate({"node": op.name, "operator": op.type, "tensor": op.inputs[0], **told})


def _tried(operator: Operator, sign: int) -> list[float]:
    """The finite inputs of one side, from 0 on."""
    finite = [float(value) for value in VALUES if np.isfinite(value) and abs(value) <= operator.reach]
    return sorted({value for value in finite if value * sign >= 0}, key=abs)
