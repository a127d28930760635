"""Operators of a model that MNN's converter does not know."""

from __future__ import annotations

from collections.abc import Collection

from edgequant.findings import Finding
from edgequant.models.model import ModelGraph

CODE = "OPERATOR_UNSUPPORTED"
_CUSTOM = "CUSTOM:"
_CUSTOM_KNOWN = {"TFLite_Detection_PostProcess", "Convolution2DTransposeBias"}
"""Of TFLite's custom operators; the converter speaks of all of them as one."""
_SHOWN = 20


def find_lacking(graph: ModelGraph, known: Collection[str]) -> dict[str, list[str]]:
    """Names of operators by their type, of those types that are not `known` to the converter.

    Not of those whose results nobody takes: the converter leaves these out.
    """
    taken = {name for op in graph.ops for name in op.inputs} | {spec.name for spec in graph.outputs or ()}
    found: dict[str, list[str]] = {}
    for op in graph.ops:
        if _known(op.type, known) or (graph.format == "onnx" and op.subgraph is None and not taken & {*op.outputs}):
            continue
        found.setdefault(op.type, []).append(op.name)
    return found


def _known(kind: str, known: Collection[str]) -> bool:
    if kind.startswith(_CUSTOM):
        return kind.removeprefix(_CUSTOM) in _CUSTOM_KNOWN
    return kind.rpartition("::")[2] in known  # of a domain it takes no notice


def find_unsupported(graph: ModelGraph, known: Collection[str], version: str) -> list[Finding]:
    """One finding, where there are such operators.  known: what the converter of MNN `version` takes."""
    lacking = find_lacking(graph, known)
    if not lacking:
        return []
    names = [name for each in lacking.values() for name in each]
    return [
        Finding(
            code=CODE,
            severity="error",
            where=names[0],
            message=f"MNN {version} has no operator for {', '.join(lacking)}: the model cannot be converted",
            evidence={"operators": list(lacking)[:_SHOWN], "names": names[:_SHOWN], "count": len(names)},
            remedy="Export the model without them, or upgrade MNN.",
        )
    ]
