"""Which node of a TFLite source float MNN computes otherwise; it is not cut out: its tensors are the proof, or none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgequant.cases.case import Case
from edgequant.jobs.conversion_causes import known_cause
from edgequant.jobs.conversion_likeness import Suspect, suspects
from edgequant.jobs.conversion_survey import Survey, survey_of, wrong_outputs
from edgequant.jobs.departure import SHOWN, Departure, TensorFact
from edgequant.lab.session import Session
from edgequant.models import ModelGraph
from edgequant.models.onnx_cut import Node
from edgequant.reference.inside import LiteInside
from edgequant.reference.reference import CaseRefused


def first_departing_of_lite(
    graph: ModelGraph, mnn: Path, host: Session, cases: Sequence[Case], work: Path, timeout: float
) -> Departure | None:
    """See `diagnose_conversion.first_departing`."""
    main = [op for op in graph.ops if op.subgraph is None]
    nodes = [
        Node(op.name, op.type, tuple(filter(None, op.inputs)), op.inputs, op.outputs, op.attributes, (0, 0))
        for op in main
    ]
    with LiteInside(graph, work / "reference.log", timeout) as inside:
        for case in cases:
            try:
                survey = survey_of(inside, nodes, graph.outputs or (), mnn, host, case)
            except CaseRefused:
                continue
            found = suspects(nodes, survey.seen, wrong_outputs(survey, graph.outputs or ()))
            if found:
                return _lite_departure(graph, nodes, survey, found[0], case, inside.name)
    return None


def _lite_departure(
    graph: ModelGraph, nodes: Sequence[Node], survey: Survey, suspect: Suspect, case: Case, name: str
) -> Departure:
    node = nodes[suspect.place]
    cause = known_cause(graph, [nodes[place] for place in reversed(suspect.stretch)])
    if cause is not None:
        node = next(each for each in nodes if each.name == cause.node)
    inputs = [each for each in node.reads if each not in graph.constants and each not in case.inputs]
    right = len(suspect.stretch) == 1 and all(each in survey.seen and not survey.seen[each].departs for each in inputs)
    return Departure(
        node=node.name,
        operator=node.kind,
        attributes=dict(node.attributes),
        inputs=tuple(TensorFact.of(each, survey.seen.get(each)) for each in node.reads if each in survey.seen),
        outputs=tuple(TensorFact.of(each, survey.seen.get(each)) for each in node.makes),
        case=case.name,
        proof="its tensors" if right else "none",
        proven_by=f"in the whole model its inputs are those {name} has, and its output is not"
        if right
        else "nothing: parts of TFLite models cannot be cut out, and what lies before it was not all seen",
        stretch=tuple(nodes[each].name for each in suspect.stretch) if len(suspect.stretch) > 1 else (),
        cause=None if cause is None else cause.code,
        why=None if cause is None else cause.what,
        remedy=cause.remedy if cause is not None else "Convert the model by way of ONNX.",
        unseen=tuple(f"{each}: {survey.unseen[each]}" for each in suspect.unseen if each in survey.unseen)[:SHOWN],
        reference=name,
    )
