"""Captures of a diagnosis made by hand: a chain of three layers, x > first > a > second > b > third > y."""

from __future__ import annotations

import math
from typing import Any

from edgequant.archive.layers import Apart, Held, LayerCapture, LayerFacts, Stats, Swap, Tap, WeightFacts
from edgequant.judge.diagnosis import Diagnosis, diagnose

SOUND: dict[str, Any] = {
    "kept": "quantized", "bits": 8, "channels": 16, "sqnr_db": 45.0, "excess": 1.3, "excess_channel": 2, "gain": 1.001,
    "gain_channel": 1, "range_ratio": 2.0, "peak": 4.0,
}  # fmt: skip


def layer(name: str, before: str, behind: str, *, weights: dict[str, Any] | None = None, **more: Any) -> LayerFacts:
    facts = None if weights is None else WeightFacts(**{**SOUND, **weights})
    more.setdefault("type", "Convolution" if weights is not None else "BinaryOp")
    return LayerFacts(name=name, inputs=(before,), outputs=(behind,), weights=facts, **more)


def part(db: float, **more: Any) -> Apart:
    return Apart(n=100, signal=1.0, error=0.0 if db == math.inf else 10 ** (-db / 20), max_abs=0.1, **more)


def stats(low: float = -1.0, high: float = 1.0, **more: Any) -> Stats:
    return Stats(**{"n": 100, "min": low, "max": high, "mean": 0.0, "mean_abs": 0.3, "rms": 0.4, **more})


def tap(tensor: str, quantization: float = 40.0, device: float | None = None, moved: float = 50.0, **more: Any) -> Tap:
    told: dict[str, Any] = {"plain": stats(), "here": stats(), "quantization": part(quantization)}
    if device is not None:
        told.update(there=stats(), device=part(device), moved=part(moved))
    return Tap(case="one", tensor=tensor, **{**told, **more})


def swap(what: Any, *layers: str, db: float, holds: bool, memory: Any = "normal") -> Swap:
    share = 10 ** (-db / 10)
    outputs = {"y": Held(sqnr_db=db, holds=holds)}
    return Swap(what=what, layers=layers, memory=memory, outputs=outputs, share=share, holds=holds)


CHAIN = (
    layer("first", "x", "a", weights={}),
    layer("second", "a", "b", weights={}),
    layer("third", "b", "y", weights={}),
)
GUILTY = (
    swap("alone", db=10, holds=False),
    swap("all", db=200, holds=True),
    swap("one", "first", db=40, holds=True),
    swap("one", "second", db=11, holds=False),
    swap("one", "third", db=35, holds=True),
    swap("without", "second", db=33, holds=True),
)


def capture(**more: Any) -> LayerCapture:
    told: dict[str, Any] = {"variant": "dynamic:8", "uri": "local:", "stage": "quantization", "layers": CHAIN}
    told["taps"] = (tap("a"), tap("b", 11), tap("y", 10))
    return LayerCapture(**{**told, **more})


def guilty(weights: dict[str, Any], **more: Any) -> Diagnosis:
    layers = (CHAIN[0], layer("second", "a", "b", weights=weights), CHAIN[2])
    return diagnose(capture(**{"layers": layers, "swaps": GUILTY, **more}), ("y",))


def cause(found: Diagnosis) -> str:
    assert found.cause is not None
    return found.cause.code
