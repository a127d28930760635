"""Inputs that are row numbers of a table in the model: what lies beyond it is other memory, and MNN reads it."""

from __future__ import annotations

from edgequant.models.model import ModelGraph, OpInfo

_PASSED_ON = {
    "Cast", "Reshape", "Squeeze", "Unsqueeze", "ExpandDims", "Identity", "Flatten", "Transpose", "Permute",
    "CAST", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE",
}  # fmt: skip
"""What hands numbers on as they are."""


def row_limits(graph: ModelGraph) -> dict[str, int]:
    """Rows of the smallest table of constants that an input, or what is only reshaped of it, is looked up in."""
    origin = {spec.name: spec.name for spec in graph.inputs or ()}
    constants = dict(graph.constants)
    rows: dict[str, int] = {}
    added: dict[str, set[int | None]] = {}
    for op in graph.ops:
        if op.subgraph is not None or not op.inputs:
            continue
        if op.type in _PASSED_ON and op.inputs[0] in origin:
            origin.update(dict.fromkeys(op.outputs, origin[op.inputs[0]]))
        if op.type == "BinaryOp" and len(op.inputs) == 2 and op.inputs[0] in origin:
            # MNN's converter adds the number of rows and takes the remainder, for ids that count from the end.
            added.setdefault(origin[op.inputs[0]], set()).add(graph.integers.get(op.inputs[1]))
            origin.update(dict.fromkeys(op.outputs, origin[op.inputs[0]]))
        if op.type == "Identity" and op.inputs[0] in constants:  # frozen TensorFlow graphs read all through one
            constants.update(dict.fromkeys(op.outputs, constants[op.inputs[0]]))
        found = _table(graph, op, constants)
        if found is not None and found[0] in origin:
            name = origin[found[0]]
            if added.get(name, set()) - {found[1]}:
                continue  # it is computed with otherwise
            rows[name] = min(found[1], rows.get(name, found[1]))
    return rows


def _table(graph: ModelGraph, op: OpInfo, constants: dict[str, tuple[int, ...]]) -> tuple[str, int] | None:
    """The tensor of row numbers, and how many rows there are."""
    if op.type == "EMBEDDING_LOOKUP" and len(op.inputs) > 1:
        ids, table, axis = op.inputs[0], op.inputs[1], 0
    elif op.type in ("Gather", "GATHER", "GatherV2") and len(op.inputs) > 1:
        table, ids = op.inputs[:2]
        given = op.attributes.get("axis", 0)
        behind = graph.integers.get(op.inputs[2]) if len(op.inputs) > 2 else 0
        if not isinstance(given, int) or behind is None:
            return None
        axis = given or behind
    else:
        return None
    sizes = constants.get(table)
    if sizes is None or not -len(sizes) <= axis < len(sizes) or sizes[axis] < 1:
        return None
    return ids, sizes[axis]
