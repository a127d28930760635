"""Which layers of a quantized file are looked at next: suspicious ones alone, the rest by halves, the worse half first.

What a group of layers costs, quantized alone, is about what its members cost together: a group that costs little needs
no closer look, so that one guilty layer of a hundred is found in a dozen runs.
"""

from __future__ import annotations

import math

from edgequant.archive.layers import LayerCapture, LayerFacts
from edgequant.judge.layer_graph import Graph, sound
from edgequant.judge.layers import badly, costs, departing, wanted_next

FEW = 12
"""Up to so many layers are each tried alone."""
MOST = 32
"""So many runs at most, alone and in groups: an error of all layers has no few to be found."""
PRIORS = 4
_MOST_OF_IT = 0.5
_NOTHING = 0.02
"""Of what the whole file costs: a group with less is left as it is."""


def suspicious(capture: LayerCapture, graph: Graph) -> list[str]:
    """Layers whose weights, scales or tensors are not as they should be, worst first: nothing was tried for it."""
    known = set(capture.exchangeable)
    found: dict[str, float] = {}
    for layer in graph.layers:
        if layer.key in known and (size := _oddness(graph, layer)) > 0:
            found[layer.key] = size
    jump = departing(graph, "quantization")
    if jump is not None and jump.key in known:
        found.setdefault(jump.key, 0.0)
    return sorted(found, key=lambda name: -found[name])[:PRIORS]


def _oddness(graph: Graph, layer: LayerFacts) -> float:
    own = 0.0 if sound(layer.weights) else 1.0
    if layer.weights is not None and layer.weights.excess is not None and not sound(layer.weights):
        own += math.log(max(layer.weights.excess, 1.0))
    return own + max((badly(graph, name) for name in layer.outputs), default=0.0)


def next_group(capture: LayerCapture, graph: Graph) -> tuple[str, ...] | None:
    """The layers to be quantized alone, all others float; None where enough is known for the next counter-proof, or
    no more is looked at."""
    wanted, names = wanted_next(capture), capture.exchangeable
    runs = sum(swap.what == "one" and swap.memory == capture.memory for swap in capture.swaps)
    tried = {swap.layers for swap in capture.swaps if swap.what == "one" and swap.memory == capture.memory}
    if len(names) <= FEW:
        return next(((name,) for name in names if (name,) not in tried), None)
    if wanted is None or runs >= MOST:
        return None
    count, last = wanted
    broken = [name for name, held in last.outputs.items() if not held.holds]
    alone = next((swap for swap in capture.swaps if swap.what == "alone"), last)
    whole = math.inf if alone.share is None else alone.share
    known, first = costs(capture, broken), suspicious(capture, graph)
    if last is alone and any(known.get((name,), 0.0) >= _MOST_OF_IT * min(whole, 1.0) for name in first):
        return None
    for name in first:
        if (name,) not in tried:
            return (name,)
    rest = tuple(name for name in names if name not in first)
    pieces = [(known.get((name,), 0.0), (name,)) for name in first] + [(math.inf, rest)]
    while True:
        pieces.sort(key=lambda piece: -piece[0])
        worst = next((piece for piece in pieces[:count] if len(piece[1]) > 1), None)
        if worst is None or worst[0] < _NOTHING * min(whole, 1.0):
            return None
        pieces.remove(worst)
        half = len(worst[1]) // 2
        for part in (worst[1][:half], worst[1][half:]):
            if part not in tried:
                return part
            pieces.append((known.get(part, 0.0), part))
