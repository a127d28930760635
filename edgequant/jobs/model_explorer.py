"""Writes what a diagnosis found as node data for Google's Model Explorer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edgequant.archive.layers import LayerCapture
from edgequant.errors import EdgequantError, InputError
from edgequant.files import atomic_write, host_error
from edgequant.jobs.overwriting import refuse_overwriting, require_folder
from edgequant.models import ModelGraph
from edgequant.models.model import BrokenFileError
from edgequant.models.onnx_names import node_names
from edgequant.report.diagnosis import DiagnosisReport
from edgequant.report.model_explorer import overlay

_SHOWN = 3


def require_shown(graph: ModelGraph, out: Path, run_dir: Path | None = None) -> None:
    """Raise InputError: OPTION_INVALID where Model Explorer does not show such a source, OUTPUT_INVALID where `out` is
    a folder, or the model itself, or has no folder that may be written to (run_dir: one that comes to be first)."""
    if graph.format == "mnn":
        raise InputError(
            "OPTION_INVALID",
            "--model-explorer: Model Explorer reads no .mnn",
            hint="Diagnose the model it was made from: ONNX, TFLite or a TensorFlow .pb.",
        )
    refuse_overwriting(out, graph.path, "the model")
    if out.is_dir():
        raise InputError("OUTPUT_INVALID", f"{out}: is a folder", hint="Name a file for --model-explorer.")
    require_folder(out, "--model-explorer", run_dir)


def write_overlay(told: DiagnosisReport, capture: LayerCapture | None, graph: ModelGraph, out: Path) -> str:
    """Returns what was written, in words: how many nodes, and which tensors are none of the source's.

    Raises EdgequantError (DISK_FULL, ...) where it cannot be written.
    """
    made = overlay(told, capture, node_ids(graph))
    try:
        with atomic_write(out) as stream:
            stream.write(made.text.encode())
    except OSError as error:
        raise host_error(error) or EdgequantError("HOST_FILE_ERROR", f"{out}: {error}") from None
    said = f"{made.nodes} nodes have a number"
    if made.lost:
        more = f" and {len(made.lost) - _SHOWN} more" if len(made.lost) > _SHOWN else ""
        said += (
            f"; {len(made.lost)} tensors are no node of the source, but MNN's: {', '.join(made.lost[:_SHOWN])}{more}"
        )
    return said


def node_ids(graph: ModelGraph) -> Mapping[str, str]:
    """Tensor of the main graph -> the node that makes it, as Model Explorer has it.

    ONNX (package model-explorer-onnx 0.4.2): a node's own name, numbered where it has none or another has it too.
    TFLite: Model Explorer finds the node by the name of the tensor.  TensorFlow: the name of the node.
    """
    ops = [op for op in graph.ops if op.subgraph is None]
    if graph.format == "tflite":
        return {tensor: tensor for op in ops for tensor in op.outputs}
    if graph.format != "onnx":
        return {tensor: op.name for op in ops for tensor in (op.name, *op.outputs)}
    try:
        names = node_names(graph.path)
    except (OSError, ValueError, BrokenFileError):
        return {}
    named = zip(ops, _numbered(names, alone=not graph.has_subgraphs), strict=False)
    return {tensor: name for op, name in named if name for tensor in op.outputs if tensor}


def _numbered(names: Sequence[str], *, alone: bool) -> Iterator[str]:
    """As the pass NameFixPass of onnx-ir makes them unique; "" where nodes of branches are counted among them."""
    count: Counter[str] = Counter()
    used: set[str] = set()
    for name in names:
        wanted = found = name or "node"
        while found in used:
            count[wanted] += 1
            found = f"{wanted}_{count[wanted]}"
        used.add(found)
        yield found if alone or found == name else ""
