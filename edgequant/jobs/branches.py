"""Which way a source goes where it can go two: the conditions of its If operators, case by case."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgequant.archive.arrays import ArraySink
from edgequant.archive.types import CaseCapture
from edgequant.cases.case import Case
from edgequant.errors import EdgequantError
from edgequant.findings import Finding
from edgequant.models import ModelGraph
from edgequant.models.model import BrokenFileError
from edgequant.models.onnx_cut import OnnxFile
from edgequant.reference.reference import CaseRefused, Reference
from edgequant.reference.runtime import RuntimeReference


def with_conditions(
    graph: ModelGraph, reference: Reference, cases: Sequence[Case], captured: Sequence[CaseCapture], sink: ArraySink
) -> tuple[list[CaseCapture], list[Finding]]:
    """What was captured of the reference, with the conditions as taps; and what kept them from being known.

    Left out are those that follow from sizes alone (exporters ask of a model what it never is), those in branches and
    bodies, and those of models that are not ONNX or have weights beside them.

    reference: which has another model in it afterwards.
    """
    found = list(captured)
    branches = graph.format == "onnx" and any(op.type == "If" for op in graph.ops)
    if not branches or not isinstance(reference, RuntimeReference) or graph.external_files:
        return found, []
    with tempfile.TemporaryDirectory(prefix="edgequant-") as folder:
        copy = Path(folder) / "conditions.onnx"
        try:
            with OnnxFile(graph.path) as file:
                asked = [node.inputs[0] for node in file.nodes if node.kind == "If" and node.inputs]
                told = file.of_values()
                wanted = [name for name in dict.fromkeys(asked) if name in told]
                file.open_tensors([name for name in wanted if name not in file.inputs], (), copy)
            reference.load(copy)
            for place, case in enumerate(cases):
                values = {**case.inputs, **reference.run(case)}
                taps = {name: sink.put(values[name]) for name in wanted if name in values}
                found[place] = found[place].model_copy(update={"taps": taps})
        except (EdgequantError, CaseRefused, BrokenFileError, OSError) as error:
            why = error.reason if isinstance(error, CaseRefused) else str(error)
            return list(captured), [_not_known(why)]
    return found, []


def _not_known(why: str) -> Finding:
    return Finding(
        code="BRANCHES_NOT_KNOWN",
        severity="warn",
        message=f"which branches the cases take is not known, so one may never have been run: {why}",
        remedy="Give inputs of your own (--inputs) that take each of them.",
    )
