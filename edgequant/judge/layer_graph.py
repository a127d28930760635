"""The layers of a capture, how tensors flow between them, and what their weights and fixed scales are like."""

from __future__ import annotations

from collections.abc import Iterator

from edgequant.archive.layers import Apart, LayerCapture, LayerFacts, Tap, WeightFacts

FLOOR = {"quantization": 1e-8, "device": 1e-10}
"""Error power in the signal that nobody asks after: the last bits of a float."""


class Graph:
    """The layers of a capture, and how tensors flow between those that were looked at."""

    def __init__(self, capture: LayerCapture) -> None:
        self.layers = capture.layers
        self.reruns = capture.reruns
        self.disturbed = {name for each in capture.changed if each.where != "plain" for name in each.tensors}
        """Tensors that were asked for together with others, upon which the file computed something else."""
        self.by_key = {each.key: each for each in capture.layers}
        self.maker = {name: each for each in capture.layers if not each.subgraph for name in each.outputs}
        self.scales = {each.outputs[0]: each.scale for each in self.maker.values() if each.scale is not None}
        """Fixed scales and zero points, by tensor."""
        self.taps: dict[str, list[Tap]] = {}
        for tap in capture.taps:
            self.taps.setdefault(tap.tensor, []).append(tap)

    def seen_before(self, layer: LayerFacts) -> list[str]:
        """The nearest tensors in front of a layer that were looked at."""
        found, seen, waiting = [], set(layer.inputs), list(layer.inputs)
        while waiting:
            name = waiting.pop()
            if name in self.taps:
                found.append(name)
            elif (maker := self.maker.get(name)) is not None:
                new = [each for each in maker.inputs if each not in seen]
                seen.update(new)
                waiting += new
        return found

    def seen_behind(self, layer: LayerFacts) -> list[str]:
        """The nearest tensors behind a layer that were looked at."""
        found: list[str] = []
        waiting = set(layer.outputs)
        for each in self.main():
            if waiting.isdisjoint(each.inputs):
                continue
            seen = [name for name in each.outputs if name in self.taps]
            found += seen
            waiting.update(() if seen else each.outputs)
        return found

    def share(self, tensor: str, stage: str) -> float | None:
        """Error power in the signal, of the case where it is most; None where it was not compared."""
        found = [part.share for tap in self.taps.get(tensor, ()) if (part := _part(tap, stage)) is not None]
        return max(found, default=None)

    def excess(self, tensor: str) -> float | None:
        """How many times more a device errs than rounding explains, of the case where it is most."""
        floor = FLOOR["device"]
        found = [
            tap.device.share / max(tap.moved.share if tap.moved is not None else 0.0, floor)
            for tap in self.taps.get(tensor, ())
            if tap.device is not None
        ]
        return max(found, default=None)

    def excess_at_worst(self, tensor: str) -> float:
        """The same of the index of an axis where the device errs most, by the most that rounding has at any: at least
        so many times more than rounding explains there."""
        found = [0.0]
        for tap in self.taps.get(tensor, ()):
            if tap.device is None or tap.moved is None or not tap.moved.share > 0:
                continue
            for (_, there, length), (_, here, _) in zip(tap.device.axes, tap.moved.axes, strict=False):
                if length > 1 and here > 0:
                    found.append(tap.device.share * there / (tap.moved.share * here))
        return max(found)

    def main(self) -> Iterator[LayerFacts]:
        return (each for each in self.layers if not each.subgraph)


def _part(tap: Tap, stage: str) -> Apart | None:
    return {"quantization": tap.quantization, "device": tap.device, "moved": tap.moved}[stage]


EXCESS = 16.0
"""Times the error that rounding with a layer's own scales has (power): 1 to 1.7 in sound files, up to 4 with hqq."""


def sound(found: WeightFacts | None) -> bool:
    """Whether a layer's weights are what rounding the float ones makes, its bias included."""
    if found is None:
        return True
    lost = (
        found.bad_channels or found.zero_channels or found.like is not None or found.bias_zero or found.bias_gap > 0.05
    )
    return not lost and (found.excess is None or found.excess <= EXCESS)


CLIPPED = 1.3
"""Float MNN has so many times more than a fixed scale can say: calibration clips a little, and means to."""
WIDE = 1 / 16
"""Float MNN uses so little of what a fixed scale can say."""


def misfit(graph: Graph, tensor: str) -> tuple[float, Tap] | None:
    """How many times too small (above 1) or too wide (below 1) the fixed scale of a tensor is, in the case where it is
    most; None where it has none, or fits."""
    maker = graph.maker.get(tensor)
    if maker is None or maker.scale is None or not maker.scale[0] > 0 or tensor != maker.outputs[0]:
        return None
    scale, zero = maker.scale
    high, low = scale * (127 - zero), scale * (-128 - zero)
    worst: tuple[float, Tap] | None = None
    for tap in graph.taps.get(tensor, ()):
        plain = tap.plain
        if plain is None or plain.max is None or plain.min is None:
            continue
        over = max(plain.max / high if high > 0 else 0.0, plain.min / low if low < 0 else 0.0)
        if worst is None or over > worst[0]:
            worst = over, tap
    return None if worst is None or not worst[0] > 0 or WIDE <= worst[0] <= CLIPPED else worst


MANY_CLIPPED, SOME_CLIPPED, LEAST_SCALES = 0.4, 0.15, 3


def clipped_all_over(graph: Graph) -> tuple[int, int] | None:
    """(tensors that are clipped, tensors with a fixed scale), where so many are, or the first of all and some more,
    that it is the input and no layer."""
    found = [misfit(graph, tensor) for tensor in graph.scales if tensor in graph.taps]
    bad = [each is not None and each[0] > CLIPPED for each in found]
    least = (SOME_CLIPPED if bad[:1] == [True] else MANY_CLIPPED) * len(bad)
    return (sum(bad), len(bad)) if sum(bad) >= max(LEAST_SCALES, least) else None
