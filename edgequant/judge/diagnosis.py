"""The whole story of a diagnosis: stage, layers, cause, and the table of all layers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from edgequant.archive.layers import LayerCapture, LayerFacts
from edgequant.compare.decibel import power_db
from edgequant.findings import Finding
from edgequant.judge.causes import beyond_half, cause_of, spread_cause
from edgequant.judge.layer_births import STATES, left_float, misshapen, unlike_calibration, unsteady
from edgequant.judge.layer_graph import Graph
from edgequant.judge.layers import Blame, not_finite, of_device, of_quantization, suspects
from edgequant.judge.near_limit import near_limits


@dataclass(frozen=True)
class Row:
    """A layer in the table.

    entire: dB of its output, with all that comes in from before.  single: the output of the whole model where this
    layer alone is quantized.  device: dB of the device against this host.  moved: what rounding explains of that.
    place: among the layers, as they are computed.  here_ill, there_ill: "NaN", "Inf" or "shape" of its output on this
    host or the device, where it is that and should not be; the dB are of the other elements then.
    """

    layer: str
    type: str
    entire: float | None = None
    single: float | None = None
    device: float | None = None
    moved: float | None = None
    blamed: bool = False
    place: int = 0
    here_ill: str | None = None
    there_ill: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """The story.  stage: None where nothing is to be blamed.  cause: a finding: code, evidence and the one remedy."""

    stage: str | None
    blame: Blame = field(default_factory=Blame)
    cause: Finding | None = None
    findings: tuple[Finding, ...] = ()
    rows: tuple[Row, ...] = ()


def taps_finding(capture: LayerCapture) -> list[Finding]:
    """Where asking for inner tensors changes what the model computes, what they show is of another model."""
    if not capture.changed:
        return []
    worst = min(capture.changed, key=lambda each: math.inf if each.sqnr_db is None else each.sqnr_db)
    where = {"plain": "float MNN", "here": "this host", "there": "the device"}[worst.where]
    db = "" if worst.sqnr_db is None else f", down to {worst.sqnr_db:.1f} dB"
    return [
        Finding(
            code="TAPS_CHANGE_OUTPUTS",
            severity="info",
            where=worst.output,
            message=f"asking for tensors inside of the model changed its outputs on {where}{db}: what is told of "
            "layers is of what MNN computed then; the verdict is not, its outputs were taken without",
            evidence={"tensors": list(worst.tensors[:20]), "case": worst.case, "times": len(capture.changed)},
        )
    ]


def _device_too(graph: Graph) -> list[Finding]:
    """Where a device strays beside what quantizing costs, though not so far that an output is blamed on it."""
    found = of_device(graph)
    if found.proof != "proven":
        return []
    layer = graph.by_key[found.layers[0]]
    times = max(excess for name in layer.outputs if (excess := graph.excess(name)) is not None)
    return [
        Finding(
            code="DEVICE_LAYER_STRAYS",
            severity="info",
            where=layer.key,
            message=f"the device, too: in '{layer.key}' it is {10 * math.log10(times):.0f} dB farther from this host "
            "than rounding explains, with right inputs",
            evidence={"times": times},
        )
    ]


def rows_of(capture: LayerCapture, graph: Graph, blamed: Sequence[str]) -> list[Row]:
    """Worst first: those that are blamed, then by what they cost alone, then by their own error."""
    single = dict(suspects(capture))
    found = []
    for place, layer in enumerate(graph.layers):
        shares = {
            stage: _most(graph.share(name, stage) for name in layer.outputs)
            for stage in ("quantization", "device", "moved")
        }
        if layer.key not in single and all(share is None for share in shares.values()):
            continue
        found.append(
            Row(
                layer.key, layer.type, _db(shares["quantization"]), _db(single.get(layer.key)), _db(shares["device"]),
                _db(shares["moved"]), layer.key in blamed, place, _ill(graph, layer, False), _ill(graph, layer, True),
            )
        )  # fmt: skip
    device = capture.stage == "device"

    def rank(row: Row) -> tuple[bool, float, float]:
        one = row.device if device else row.single
        return not row.blamed, math.inf if one is None else one, math.inf if row.entire is None else row.entire

    return sorted(found, key=rank)


def _most(shares: Iterator[float | None]) -> float | None:
    return max((share for share in shares if share is not None), default=None)


def _ill(graph: Graph, layer: LayerFacts, there: bool) -> str | None:
    """What no dB tell: of float MNN against this host, or of this host against the device (there)."""
    for tap in (tap for name in layer.outputs for tap in graph.taps.get(name, ())):
        base, side = (tap.here, tap.there) if there else (tap.plain, tap.here)
        if base is None or side is None:
            continue
        if base.n != side.n:
            return "shape"
        for what, had, has in (("NaN", base.nan, side.nan), ("Inf", base.inf, side.inf)):
            if has and not had:
                return what
    return None


def _db(share: float | None) -> float | None:
    return None if share is None else power_db(1.0, share)


_SIDE_BY_SIDE = "in single steps all limits are kept; source, float MNN, this file and the device were run side by side"
_OF_WEIGHTS = ("ZERO_SCALE", "BIAS_LOST", "WEIGHTS_MISPLACED", "WEIGHT_SCALE_WRONG", "WEIGHT_ROUNDED_BADLY")


def _unlike_rounding(graph: Graph, more: Mapping[str, object]) -> tuple[Blame, Finding] | None:
    """Layers whose weights are no rounding of the float ones, where that alone is what fails: no limit is broken, so
    there is nothing that float layers could mend."""
    named = more.get("beyond_rounding")
    if not isinstance(named, Finding) or more.get("failing"):
        return None
    rows = [each for each in named.evidence.get("layers", ()) if isinstance(each, dict)]
    keys = [f"{row['subgraph']}/{row['layer']}" if row.get("subgraph") else str(row["layer"]) for row in rows]
    known = tuple(key for key in keys if key in graph.by_key)
    how = (
        "its weights in the file are not the float model's, rounded as was asked for; every limit is kept all the same"
    )
    return (Blame(known, "proven", how), named) if known else None


def _findings(more: Mapping[str, object]) -> list[Finding]:
    found = more.get("findings")
    return [each for each in found if isinstance(each, Finding)] if isinstance(found, (list, tuple)) else []


def diagnose(capture: LayerCapture, outputs: Sequence[str], more: Mapping[str, object] | None = None) -> Diagnosis:
    """The whole story of a capture.

    outputs: of the model.  more: evidence from the verdict: {"engaged": False}, {"failing": outputs that break limits},
    {"beyond_rounding": its finding}, {"over_steps": that of a rollout}, and all its "findings".
    """
    graph, more = Graph(capture), more or {}
    findings = taps_finding(capture)
    born = not_finite(graph, outputs)
    stage = capture.stage
    blame = Blame()
    cause: Finding | None = None
    ill = misshapen(graph) or unsteady(graph)
    state = next((each for each in _findings(more) if each.code in STATES and each.severity == "fail"), None)
    if state is not None and more.get("failing") and state.evidence.get("stage") != stage:
        state = None  # what single inferences break comes first
    if born is not None:
        stage = stage or str(born.evidence["stage"])
        blame = Blame((born.where or "",), "proven", "its inputs are finite and its output is not")
        cause = born
        bad = next((each for each in graph.layers if each.weights is not None and each.weights.bad_channels), None)
        if bad is not None and stage == "quantization":  # MNN may show the NaN in a later tensor
            blame = Blame((bad.key,), "proven", "its weights in the file are NaN or Inf, and float MNN's are not")
            cause = cause_of(capture.model_copy(update={"stage": stage}), graph, blame, more)
        elif stage == "device" and (told := beyond_half(capture, graph, blame)) is not None:
            more_of_it = born.model_copy(update={"severity": "info", "message": f"of the same cause: {born.message}"})
            cause, findings = told, [*findings, more_of_it]
    elif ill is not None:
        stage = stage or ("device" if any(tap.there is not None for tap in capture.taps) else "quantization")
        cause, how = ill, "what goes into it is as it should be and what comes out is not"
        blame = Blame((ill.where or "",), "proven", how)
    elif stage is not None and state is not None:
        cause, blame = state, Blame(() if state.where is None else (state.where,), "proven", "steps run by themselves")
    elif stage is not None and isinstance(over_steps := more.get("over_steps"), Finding) and not more.get("failing"):
        blame, cause = Blame((), "proven", _SIDE_BY_SIDE), over_steps
    elif stage == "quantization" and (named := _unlike_rounding(graph, more)) is not None:
        blame, cause = named
        found = cause_of(capture, graph, blame, more)
        cause = cause if found is None or found.code not in _OF_WEIGHTS else found
        findings += _device_too(graph)
    elif stage == "quantization" and (unlike := unlike_calibration(graph)) is not None:
        cause, how = unlike, "float MNN's own tensors are beyond the scales in the file"
        blame = Blame((), "proven", how, spread=True)
    elif stage == "quantization":
        blame = of_quantization(capture, graph)
        cause = spread_cause(capture, graph, blame) if blame.spread else cause_of(capture, graph, blame, more)
        findings += _device_too(graph)
    elif stage == "device":
        blame = of_device(graph)
        cause = cause_of(capture, graph, blame, more)
        if cause is not None and cause.code == "LOW_MEMORY_NOT_ENGAGED" and cause.evidence:
            blame = Blame((), "proven", "the same file gives the device's outputs on this host, with memory normal")
        elif cause is not None and cause.code == "HOST_KERNEL_DIFFERS":
            how = "host and device agree on what goes into it and not on what comes out, and the host is then far from "
            how += "float MNN"
            blame = replace(blame, how=how)
    findings += [*left_float(capture), *near_limits(capture)]
    rows = tuple(rows_of(capture, graph, blame.layers))
    return Diagnosis(stage, blame, cause, tuple(findings), rows)
