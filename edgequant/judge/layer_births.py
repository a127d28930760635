"""What is wrong with a tensor whatever its numbers: a shape, or numbers that are others each time.

As with NaN, the first layer whose output has it and whose inputs have not is to blame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edgequant.archive.layers import LayerCapture, LayerFacts, Stats, Tap
from edgequant.findings import Finding
from edgequant.judge.layer_graph import Graph, clipped_all_over

STATES = ("STATE_IGNORED", "STATE_ALTERED", "STATE_STALE")
"""What a rollout says of a state, which no single inference shows."""
LEAST_WEIGHTS, LEAST_PART = 1000, 0.02
"""A float layer among quantized ones is worth a word from so many weights, and this part of all of them."""


def misshapen(graph: Graph) -> Finding | None:
    """The first layer whose output has another number of elements than float MNN's, or than this host's."""
    found = _first(graph, lambda tap: _other_shape(tap) is not None)
    if found is None:
        return None
    layer, tap = found
    told = _other_shape(tap)
    assert told is not None
    where, want, have = told
    return Finding(
        code="SHAPE_WRONG",
        severity="fail",
        where=layer.key,
        message=f"its output on {where} is {_shape(have)} in place of {_shape(want)} (in case '{tap.case}')",
        evidence={"tensor": tap.tensor, "case": tap.case, "shape": have.shape, "expected": want.shape},
        remedy="Take sizes for which both agree (--shape); and report it to MNN: the next command writes what that "
        "takes into the folder 'case'.",
    )


def _other_shape(tap: Tap) -> tuple[str, Stats, Stats] | None:
    """(Where, what it should be, what it is.)"""
    for where, base, side in (("this host", tap.plain, tap.here), ("the device", tap.here, tap.there)):
        if base is not None and side is not None and base.n != side.n:
            return where, base, side
    return None


def _shape(side: Stats) -> str:
    return f"{side.n} elements" if side.shape is None else "x".join(map(str, side.shape))


def unsteady(graph: Graph) -> Finding | None:
    """The first layer that computes something else when the same inputs come again."""
    found = _first(graph, lambda tap: bool(tap.unsteady))
    if found is None:
        return None
    layer, tap = found
    where = "this host" if "here" in tap.unsteady else "the device"
    return Finding(
        code="STALE_MEMORY",
        severity="fail",
        where=layer.key,
        message=f"on {where} its output is another when the same inputs come again (in case '{tap.case}'), though what "
        "it reads is the same then: it takes in what an earlier inference left, or what was never written",
        evidence={"tensor": tap.tensor, "case": tap.case, "where": list(tap.unsteady)},
        remedy="Keep this layer in float, or take another MNN; until then its outputs change from run to run.",
    )


def _first(graph: Graph, has: Callable[[Tap], bool]) -> tuple[LayerFacts, Tap] | None:
    for layer in graph.main():
        mine = next((tap for name in layer.outputs for tap in graph.taps.get(name, ()) if has(tap)), None)
        before = (tap for name in graph.seen_before(layer) for tap in graph.taps.get(name, ()))
        if mine is not None and not any(has(tap) for tap in before):
            return layer, mine
    return None


def unlike_calibration(graph: Graph) -> Finding | None:
    """Float MNN is beyond the fixed scales of many tensors: it is what comes in that calibrating has not seen."""
    found = clipped_all_over(graph)
    if found is None:
        return None
    clipped, total = found
    return Finding(
        code="INPUT_UNLIKE_CALIBRATION",
        severity="fail",
        message=f"float has numbers beyond what the fixed scales of {clipped} of {total} tensors can say: the inputs "
        "are unlike those it was calibrated with",
        evidence={"clipped": clipped, "of": total},
        remedy="Calibrate with data like these inputs (--calibration); or they are not what the model is for.",
    )


def left_float(capture: LayerCapture) -> Iterator[Finding]:
    """Layers that nothing quantized, though others are and nobody asked for it."""
    if capture.variant.split(",")[0].split(":")[0] not in ("dynamic", "weight", "static", "kl", "ema", "admm"):
        return
    if "skip=" in capture.variant:
        return
    known = [(each, each.weights) for each in capture.layers if each.weights is not None]
    total = sum(found.count for _, found in known)
    if not any(found.kept in ("quantized", "static") for _, found in known):
        return
    for each, found in known:
        if found.kept == "float" and found.count >= max(LEAST_WEIGHTS, LEAST_PART * total):
            yield Finding(
                code="LAYER_NOT_QUANTIZED",
                severity="info",
                where=each.key,
                message=f"nothing quantized it: it keeps {found.count} weights in float, "
                f"{100 * found.count / max(total, 1):.0f} % of all",
                evidence={"count": found.count, "of": total},
                remedy="Give it bits in a recipe, where size or speed matters.",
            )
