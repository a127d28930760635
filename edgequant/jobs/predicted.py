"""What rounding activations to 8 bits has to cost: the source in its own runtime against itself, with what each layer
reads rounded.  Nothing of MNN has a part in it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from edgequant.archive.arrays import ArraySink
from edgequant.archive.types import ArrayRef, CaseCapture, Moved, Strayed
from edgequant.cases.case import Case
from edgequant.compare.metrics import strayed
from edgequant.errors import EdgequantError
from edgequant.findings import Finding
from edgequant.models import ModelGraph
from edgequant.models.model import BrokenFileError
from edgequant.models.onnx_cut import OnnxFile
from edgequant.models.onnx_rounding import round_activations
from edgequant.plan.request import Request
from edgequant.reference.reference import CaseRefused, Reference
from edgequant.reference.runtime import RuntimeReference

SECONDS = 20.0
"""After so long no further case is begun: the copy takes some times as long as the source."""
Way = Literal["rows", "tensors"]


def rounding_costs(
    request: Request,
    graph: ModelGraph,
    reference: Reference,
    cases: Sequence[Case],
    captured: Sequence[CaseCapture],
    sink: ArraySink,
) -> tuple[tuple[Moved, ...], list[Finding]]:
    """By case, in the ways that the variants of a run round, and what went wrong on the way; nothing where that cannot
    be told: of what is no ONNX model in ONNX Runtime, one with weights beside it, with layers in branches and bodies,
    or in another float type.

    reference: which has another model in it afterwards.  captured: what it computed of the cases.
    """
    if not (isinstance(reference, RuntimeReference) and reference.name == "onnxruntime") or graph.external_files:
        return (), []
    found: list[Moved] = []
    untold: list[str] = []
    expected = {each.case: each.outputs or {} for each in captured}
    until = time.monotonic() + SECONDS
    for way in _ways(request):
        with tempfile.TemporaryDirectory(prefix="edgequant-") as folder:
            copy = Path(folder) / "rounded.onnx"
            try:
                with OnnxFile(graph.path) as file:
                    if not round_activations(file, copy, whole=way == "tensors"):
                        continue
                reference.load(copy)
                for case in (case for case in cases if case.kind != "strain"):
                    if time.monotonic() >= until:
                        untold.append(f"it takes longer than {SECONDS:g} s, cases from {case.name} on are left out")
                        break
                    got = reference.run(case)
                    outputs = dict(_apart(expected[case.name], got, sink))
                    found.append(Moved(case=case.name, by=way, memory=_MEMORY[way], outputs=outputs))
            except CaseRefused as error:
                untold.append(f"{reference.name} refuses the rounded copy: {error.reason}")
            except (EdgequantError, BrokenFileError, OSError) as error:
                untold.append(f"the rounded copy of the source cannot be made or run: {error}")
    return tuple(found), [_not_predicted(why) for why in dict.fromkeys(untold)]


def _not_predicted(why: str) -> Finding:
    return Finding(
        code="ROUNDING_NOT_PREDICTED",
        severity="info",
        message=f"what rounding activations has to cost is not known of every case: {why}",
        remedy="Where limits and the device's band are enough, none; else give fewer or smaller cases (--shape).",
    )


_MEMORY: Mapping[Way, Literal["low", "normal"]] = {"rows": "low", "tensors": "normal"}


def _ways(request: Request) -> Iterator[Way]:
    methods = {variant.method for variant in request.variants}
    if methods & {"dynamic", "auto", "recipe"} or request.options.memory == "low":
        yield "rows"
    if "static" in methods:
        yield "tensors"


def _apart(
    expected: Mapping[str, ArrayRef], got: Mapping[str, np.ndarray], sink: ArraySink
) -> Iterator[tuple[str, Strayed]]:
    for name, ref in expected.items():
        array = sink.get(ref)
        if name in got and got[name].shape == array.shape and array.dtype.kind == got[name].dtype.kind == "f":
            sqnr_db, max_abs, mismatch = strayed(array, got[name])
            yield name, Strayed(sqnr_db=sqnr_db, max_abs=max_abs, mismatch=mismatch)
