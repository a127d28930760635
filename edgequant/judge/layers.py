"""From what a diagnosis captured to its story: which stage, which layer, why, and whether that is proven.

Pure: no device, no runner, no MNN.  The layer that is blamed is the one where the error comes in, not where it is
largest: of a quantized layer this is told by the file with only that layer quantized, of a device's kernel by right
inputs and a wrong output.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edgequant.archive.layers import LayerCapture, LayerFacts, Stats, Swap
from edgequant.findings import Finding
from edgequant.judge.layer_graph import CLIPPED, FLOOR, WIDE, Graph, misfit, sound
from edgequant.plain import joined

Proof = Literal["proven", "suspicion"]

JUMP = 10.0
"""So many times more error than rounding explains (power) is more than it; and so many times more than went in."""
_RIGHT = 3.0
"""Up to so many times what rounding explains, inputs are right."""
_CARRIES = 0.1
"""A layer that causes less than this share of the whole error is not what it comes from."""
_COSTS = 0.02
"""Of the worst layer's cost."""
_SAME = 0.5
"""Of another layer's cost: so much is the same."""
SETS = (1, 2, 3, 5, 8, 12)
"""So many of the worst layers are tried in float, one set after the other."""


@dataclass(frozen=True)
class Blame:
    """What is known of who is to blame, before anybody asks why.

    layers: worst first; empty where no few of them are.  spread: the error comes from many.
    """

    layers: tuple[str, ...] = ()
    proof: Proof | None = None
    how: str = ""
    spread: bool = False


# ---- quantization


def suspects(capture: LayerCapture, outputs: Collection[str] = ()) -> list[tuple[str, float]]:
    """Layers by what the model loses where they alone are quantized (error power in the signal), worst first.

    outputs: that are looked at; none: those that break limits.
    """
    found = {names[0]: share for names, share in costs(capture, outputs).items() if len(names) == 1}
    return sorted(found.items(), key=lambda item: -item[1])


def costs(capture: LayerCapture, outputs: Collection[str] = ()) -> dict[tuple[str, ...], float]:
    """The same of all that were tried alone or in groups; infinite where such a file cannot be run at all."""
    found = {}
    for swap in capture.swaps:
        if swap.what != "one" or swap.memory != capture.memory:
            continue
        shares = [10 ** (-held.sqnr_db / 10) for name, held in swap.outputs.items()
                  if name in outputs and held.sqnr_db is not None]  # fmt: skip
        share = max(shares, default=0.0) if outputs else swap.share
        if swap.failure is None or len(swap.layers) > 1:
            found[swap.layers] = math.inf if share is None or swap.failure is not None else share
    return found


def wanted_next(capture: LayerCapture) -> tuple[int, Swap] | None:
    """How many layers are to be made float next, and what says which outputs still break; None where no more are."""
    tried = [swap for swap in capture.swaps if swap.what == "without" and swap.failure is None]
    last = tried[-1] if tried else next((swap for swap in capture.swaps if swap.what == "alone"), None)
    count = next((count for count in SETS if count > len(tried[-1].layers if tried else ())), None)
    total = len(capture.exchangeable) or len(suspects(capture))
    if last is None or last.holds or count is None or count > max(1, (total + 1) // 2):
        return None
    return count, last


def next_try(capture: LayerCapture) -> tuple[str, ...] | None:
    """The layers to try in float next, of which the limits may hold; None where no more are tried.

    Each time those are added that cost the outputs most which still break.
    """
    wanted = wanted_next(capture)
    if wanted is None:
        return None
    count, last = wanted
    sofar = last.layers if last.what == "without" else ()
    names = list(sofar)
    broken = [name for name, held in last.outputs.items() if not held.holds]
    for name, share in _wrong_first(capture, suspects(capture, broken)):
        if len(names) < count and name not in names and share > 0:
            names.append(name)
    if not names:  # no layer was singled out: the group of a few that costs most
        few = {group: share for group, share in costs(capture, broken).items() if len(group) <= SETS[-1] and share > 0}
        return max(few, key=lambda group: few[group], default=None)
    return tuple(names) if len(names) > len(sofar) else None


def _wrong_first(capture: LayerCapture, ranked: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Layers that are not what quantizing makes come before those that are only sensitive, where they cost anything."""
    wrong = {each.key for each in capture.layers if not sound(each.weights)}
    least = _COSTS * max((share for _, share in ranked), default=0.0)
    return sorted(ranked, key=lambda item: not (item[0] in wrong and item[1] >= least))


def of_quantization(capture: LayerCapture, graph: Graph) -> Blame:
    """Who is to blame for what quantizing costs."""
    return _of_scale(capture, graph, _by_exchange(capture, graph))


def _of_scale(capture: LayerCapture, graph: Graph, found: Blame) -> Blame:
    """A fixed scale that does not fit is the scale of the layers on both of its sides: with one of them in float it is
    still there, so that another layer's part can seem to be more.  Where the one that is blamed is as it should be, or
    nobody is, the scale is to blame in which the error jumps."""
    first = graph.by_key.get(found.layers[0]) if found.layers else None
    if not found.spread and first is not None and (
        not sound(first.weights) or any(badly(graph, name) for name in first.outputs)
    ):  # fmt: skip
        return found
    whole = next((swap.share for swap in capture.swaps if swap.what == "alone"), None)
    jumps: list[tuple[float, LayerFacts]] = []
    for layer in graph.main():
        share = max(
            (graph.share(name, "quantization") or 0.0 for name in layer.outputs if badly(graph, name)), default=0.0
        )
        before = sum(graph.share(name, "quantization") or 0.0 for name in graph.seen_before(layer))
        if whole is not None and share > max(_RIGHT * before, whole / 2):
            jumps.append((share, layer))
    if not jumps:
        return found
    worst = max(jumps, key=lambda each: each[0])[1].key
    if not found.spread and worst in found.layers:
        return replace(found, layers=(worst, *(name for name in found.layers if name != worst)))
    how = "what float MNN has there does not fit its output's fixed scale, and the error jumps there"
    return Blame((worst,), "suspicion", f"{how}; no counter-proof: the layer behind it has that scale as well")


def _by_exchange(capture: LayerCapture, graph: Graph) -> Blame:
    """Of what was run with layers in float."""
    whole_file = next((swap for swap in capture.swaps if swap.what == "alone"), None)
    everything = next((swap for swap in capture.swaps if swap.what == "all"), None)
    ranked = _wrong_first(capture, suspects(capture))
    if everything is not None and everything.failure is None and not everything.holds:
        layer = departing(graph, "quantization")
        how = "with all layers in float the limits do not hold either: it is not the weights of any layer"
        return Blame(() if layer is None else (layer.key,), "suspicion", how)
    cures = [swap for swap in capture.swaps if swap.what == "without" and swap.holds and swap.failure is None]
    whole = whole_file.share if whole_file is not None and whole_file.share is not None else math.inf
    if ranked and max(share for _, share in ranked) < _CARRIES * min(whole, 1.0) and not cures:
        layer = departing(graph, "quantization")
        if layer is not None and layer.weights is None:
            how = "no layer with weights causes it by itself, and the error jumps here"
            return Blame((layer.key,), "suspicion", how)
    if cures:
        best = min(cures, key=lambda swap: len(swap.layers))
        order = {name: number for number, (name, _) in enumerate(ranked)}
        names = tuple(sorted(best.layers, key=lambda name: order.get(name, len(order))))
        blamed = _before(graph, names, dict(ranked))
        how = _cured(names, _still_breaks(capture, names), by_name=len(blamed) > len(names))
        return Blame(blamed, "proven", how)
    if not ranked and not costs(capture):
        layer = departing(graph, "quantization")
        return Blame(() if layer is None else (layer.key,), "suspicion", capture.why_no_proof or "")
    tried = max((len(swap.layers) for swap in capture.swaps if swap.what == "without"), default=0)
    total = len(capture.exchangeable) or len(ranked)
    worst = "worst" if tried == 1 else f"{tried} worst"
    how = f"with the {worst} of {total} layers in float the limits still break" if tried else ""
    alone = [name for name, _ in ranked if _still_breaks(capture, (name,))]
    if alone:
        each = f"'{alone[0]}'" if len(alone) == 1 else f"each of {len(alone)} layers"
        told = f"quantized alone, {each} breaks the limits"
        return Blame(tuple(alone), "proven", f"{told}; {how}" if how else told, spread=True)
    return Blame(tuple(name for name, _ in ranked[:3]), "suspicion", how, spread=True)


def _before(graph: Graph, names: tuple[str, ...], alone: Mapping[str, float]) -> tuple[str, ...]:
    """A fixed scale belongs to the tensor between two layers, and to each by itself: where it is that of the first
    layer's input which does not fit, and not that of its output, it is the layer in front of it that is meant; and
    where both cost the same, it is the tensor between them."""
    layer = graph.by_key.get(names[0])
    if layer is None or not sound(layer.weights):
        return names
    for tensor in layer.inputs:
        maker = graph.maker.get(tensor)
        if (
            maker is not None
            and badly(graph, tensor)
            and alone.get(maker.key, 0.0) > _SAME * alone.get(names[0], math.inf)
        ):
            return (maker.key, *(name for name in names if name != maker.key))
    own = max((badly(graph, name) for name in layer.outputs), default=0.0)
    worst = max(layer.inputs, key=lambda name: badly(graph, name), default=None)
    if worst is None or badly(graph, worst) <= own or (maker := graph.maker.get(worst)) is None:
        return names
    return (maker.key, *(name for name in names if name != maker.key))


def badly(graph: Graph, tensor: str) -> float:
    """How far (ln) a tensor's fixed scale is outside of what fits; 0 where it fits."""
    found = misfit(graph, tensor)
    if found is None:
        return 0.0
    return math.log(found[0] / CLIPPED if found[0] > CLIPPED else WIDE / found[0])


def _cured(names: Sequence[str], also: bool | None, *, by_name: bool = False) -> str:
    """also: whether they alone break the limits; None: that was not run.  by_name: others are blamed beside them."""
    which = "this layer" if len(names) == 1 else f"these {len(names)} layers"
    if by_name:
        which = joined([f"'{name}'" for name in names])
    more = "; with all others in float they still break" if also else ""
    if also is False:
        more = ", though they hold with all others in float, too: it is the largest part of what adds up"
    return f"with only {which} in float the limits hold{more}"


def _still_breaks(capture: LayerCapture, names: Sequence[str]) -> bool | None:
    """With these alone quantized; None where that was not run."""
    found = [
        not swap.holds
        for swap in capture.swaps
        if swap.what == "one" and set(swap.layers) == set(names) and swap.failure is None
        and swap.memory == capture.memory
    ]  # fmt: skip
    return any(found) if found else None


def departing(graph: Graph, stage: str) -> LayerFacts | None:
    """The layer where the error jumps: its output has far more of it than what goes into it.

    Of those whose own part is a tenth of the largest or more, the first.
    """
    born: list[tuple[float, float, LayerFacts]] = []
    for layer in graph.main():
        shares = [share for name in layer.outputs if (share := graph.share(name, stage)) is not None]
        if not shares:
            continue
        before = sum(graph.share(name, stage) or 0.0 for name in graph.seen_before(layer))
        share = max(shares)
        if share > max(JUMP * before, FLOOR[stage]):
            born.append((min(share, 1e6), before, layer))
    top = max((share for share, _, _ in born), default=0.0)
    return next((layer for share, _, layer in born if share >= top / JUMP), None)


# ---- device


def of_device(graph: Graph) -> Blame:
    """Who is to blame where a device computes something else with the same file: right inputs, wrong output.

    The first layer of which that is proven; where asking for tensors changed what is computed, that which is off most.
    """
    disturbed: list[tuple[float, Blame]] = []
    for layer in graph.main():
        over = [found for name in layer.outputs if (found := graph.excess(name)) is not None]
        if not over or max(over) < JUMP:
            continue
        before = [found for name in graph.seen_before(layer) if (found := graph.excess(name)) is not None]
        if max(before, default=0.0) * _RIGHT > max(over):
            continue
        if max(before, default=0.0) <= _RIGHT:
            layer = _in_front(graph, layer)
            how = "its inputs are right on the device and its output is not: more than rounding explains"
            for rerun in graph.reruns:
                if rerun.before_db is not None and rerun.sqnr_db is not None and rerun.sqnr_db > rerun.before_db + 10:
                    return Blame(
                        (layer.key,), "proven", f"{how}; with {rerun.what.replace('=', ' ')} the device is right"
                    )
            if not graph.disturbed.isdisjoint((*layer.outputs, *graph.seen_before(layer))):
                behind = [found for name in graph.seen_behind(layer) if (found := graph.excess(name)) is not None]
                if behind and max(behind) <= _RIGHT:
                    continue  # nothing comes of it: what was read is not what the next layer got
                told = f"{how}, but asking for these tensors changed what MNN computes"
                disturbed.append((max(over), Blame((layer.key,), "suspicion", told)))
                continue
            return Blame((layer.key,), "proven", how)
        if not disturbed:
            return Blame((layer.key,), "suspicion", "its inputs are off too, though less than its output")
    return max(disturbed, key=lambda found: found[0])[1] if disturbed else Blame()


def _in_front(graph: Graph, layer: LayerFacts) -> LayerFacts:
    """The one to blame where an operator without weights (a softmax) makes much of one channel that is already wrong in
    front of it, though too little of the whole tensor to be seen there."""
    tensors = graph.seen_before(layer)
    if layer.weights is not None or len(tensors) != 1 or graph.excess_at_worst(tensors[0]) < JUMP:
        return layer
    maker = graph.maker.get(tensors[0])
    return layer if maker is None or maker.weights is None else maker


# ---- what is not finite


def not_finite(graph: Graph, outputs: Sequence[str]) -> Finding | None:
    """The first layer whose output is not finite where float MNN's is."""
    ends = {each for name in outputs for each in ([name] if name in graph.taps else _nearest(graph, name))}
    clean = all(_bad(side) == 0 for name in ends for tap in graph.taps[name] for side in (tap.here, tap.there))
    for layer in graph.main():
        for tap in (tap for name in layer.outputs for tap in graph.taps.get(name, ())):
            for where, side, base in (("this host", tap.here, tap.plain), ("the device", tap.there, tap.here)):
                if side is None or not _bad(side) or base is None or _bad(base):
                    continue
                what = f"{side.nan} NaN and {side.inf} Inf" if side.nan and side.inf else (
                    f"{side.nan} NaN" if side.nan else f"{side.inf} Inf"
                )  # fmt: skip
                swallowed = clean and tap.tensor not in ends
                told = ""
                if swallowed:
                    told = "; layers behind it hide them from the outputs, where no limit can see them"
                return Finding(
                    code="NAN_SWALLOWED" if swallowed else "NAN_BORN",
                    severity="fail",
                    where=layer.key,
                    message=f"{what} come out of it on {where}, of {side.n} numbers (in case '{tap.case}'){told}",
                    evidence={
                        "tensor": tap.tensor,
                        "case": tap.case,
                        "nan": side.nan,
                        "inf": side.inf,
                        "stage": "device" if side is tap.there else "quantization",
                    },
                    remedy="Keep this layer in float.",
                )
    return None


def _nearest(graph: Graph, output: str) -> list[str]:
    """The last tensors in front of an output that were looked at, where it was not itself."""
    maker = graph.maker.get(output)
    return [] if maker is None else graph.seen_before(maker)


def _bad(side: Stats | None) -> int:
    return 0 if side is None else side.nan + side.inf
