"""Outputs that decide something: which of a model's outputs are probabilities, classes, or in an order of their own.

Numbers that come close say little there: one letter, one class, one detection more or less is what a user sees.
"""

from __future__ import annotations

from collections import deque

from edgequant.models.model import ModelGraph, OpInfo
from edgequant.spec import Decision

_DIRECT: dict[str, Decision] = {
    "softmax": "probabilities", "logsoftmax": "probabilities", "log_softmax": "probabilities", "sigmoid": "scores",
    "logistic": "scores", "argmax": "classes", "argmin": "classes", "arg_max": "classes", "arg_min": "classes",
}  # fmt: skip
_PASSING = {
    "identity", "reshape", "transpose", "squeeze", "unsqueeze", "flatten", "cast", "slice", "expanddims", "expand_dims",
    "permute", "raster", "stridedslice", "strided_slice",
}  # fmt: skip
"""Operators that hand on what they get, in another shape."""
_ANYWHERE: dict[str, Decision] = {
    "topk": "ordered", "topkv2": "ordered", "topk_v2": "ordered", "nonmaxsuppression": "ordered",
    "nonmaxsuppressionv2": "ordered", "tflite_detection_postprocess": "ordered", "detectionpostprocess": "ordered",
    "unique": "set", "nonzero": "set", "where_nonzero": "set", "compress": "set",
}  # fmt: skip
_MOST_STEPS = 100_000


def find_decisions(graph: ModelGraph) -> dict[str, Decision]:
    """Output -> what it decides, for those that do."""
    makers = {name: op for op in graph.ops if op.subgraph is None for name in op.outputs if name}
    found: dict[str, Decision] = {}
    for output in graph.outputs or ():
        decision = _direct(output.name, makers) or _somewhere(output.name, makers)
        if decision is not None:
            found[output.name] = decision
    return found


def _kind(op: OpInfo) -> str:
    return op.type.rpartition(":")[2].lower()


def _direct(name: str, makers: dict[str, OpInfo]) -> Decision | None:
    """By the operator right in front of an output."""
    for _ in range(len(makers) + 1):
        op = makers.get(name)
        if op is None:
            return None
        kind = _kind(op)
        if kind in _DIRECT or kind in _ANYWHERE:
            return _DIRECT.get(kind) or _ANYWHERE[kind]
        if kind not in _PASSING or not op.inputs:
            return None
        name = op.inputs[0]
    return None


def _somewhere(name: str, makers: dict[str, OpInfo]) -> Decision | None:
    """By one anywhere before it: all that follows on a sorted list is in its order."""
    waiting, seen, steps = deque([name]), {name}, 0
    while waiting and steps < _MOST_STEPS:
        steps += 1
        op = makers.get(waiting.popleft())
        if op is None:
            continue
        kind = _kind(op)
        if kind in _ANYWHERE:
            return _ANYWHERE[kind]
        for each in op.inputs:
            if each and each not in seen:
                seen.add(each)
                waiting.append(each)
    return None
