"""What all rules about causes share: what they look at, and how they say what they found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgequant.archive.layers import LayerCapture, LayerFacts, Stats, Tap
from edgequant.judge.layer_graph import Graph

Told = tuple[str, str, dict[str, Any], str]
"""Code, message, evidence, remedy."""
FLOAT = "Keep this layer in float."
AGAIN = (
    "Quantize the model again: this layer of the .mnn file was made wrongly, or the file was damaged later.  If it "
    "comes out the same, keep the layer in float."
)


@dataclass(frozen=True)
class At:
    """What a rule looks at."""

    capture: LayerCapture
    graph: Graph
    layer: LayerFacts

    @property
    def taps(self) -> list[Tap]:
        return [tap for name in self.layer.outputs for tap in self.graph.taps.get(name, ())]

    @property
    def taps_before(self) -> list[Tap]:
        return [tap for name in self.graph.seen_before(self.layer) for tap in self.graph.taps.get(name, ())]

    def pair(self, tap: Tap) -> tuple[Stats, Stats] | None:
        """What it should be, and what it is on the side that is looked into."""
        base, side = (tap.here, tap.there) if self.capture.stage == "device" else (tap.plain, tap.here)
        return None if base is None or side is None else (base, side)


def better(before: float | None, after: float | None) -> bool:
    """10 dB and more."""
    return before is not None and after is not None and after > before + 10


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def shown(db: float | None) -> str:
    return "no number" if db is None else "more than 150 dB" if db > 150 else f"{round(db, 1) + 0.0:.1f} dB"


def place(where: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" + (", counted from 0" if key == "axis" else "") for key, value in where.items())
