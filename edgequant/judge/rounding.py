"""Whether the weights of a file are what rounding them to what was asked for leaves of the float model's.

Rounding moves a weight by half a step at most, and what a step is follows from the range of its row and the bits: so
what it costs is known of each row of each layer without anything being run, and what is beyond that is no rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgequant.archive.types import Artifact, LayerRounding, TensorScale
from edgequant.findings import Finding
from edgequant.judge.types import NOTHING, Observed, Summaries
from edgequant.judge.verdict import Verdict
from edgequant.spec import Variant

SCALE = 0.01
"""A row's scale may be off by so much; found: 1e-7, and 5e-4 where scales are kept in half precision."""
STEPS, HQQ_STEPS = 0.75, 1.5
"""A weight may be moved by so many steps; found: 0.5.  The second where half-quadratic quantization chooses where the
steps begin, or where that is not known; found: 0.61."""
BIAS = 1e-5
"""A bias is not quantized: it may be off by so much of the layer's largest."""
TENSOR = 1e-3
"""The scale of a tensor may be off by so much of itself: one is set apart from its neighbour's by a last bit."""
COARSE_DB = 10.0
"""Below it an error is a third of the signal."""
_TOLD = 3


def beyond_rounding(artifact: Artifact) -> Observed:
    """FAIL where it is not."""
    layers, asked = artifact.rounding or (), artifact.run_as
    if artifact.asked.method in ("recipe", "auto"):
        asked = artifact.asked  # each layer has a form of its own there, however the file is run
    found = [(layer, why) for layer in layers if (why := _beyond(layer, asked)) is not None]
    floats = [layer for layer in layers if layer.kept in ("float", "fp16")]
    if asked.method in ("weight", "dynamic") and len(floats) > artifact.float_layers:
        found.append((floats[0], f"{floats[0].kept} weights, in one layer more than the converter left so"))
    scales = [(each, why) for each in artifact.scales if (why := _other_scale(each)) is not None]
    if not found and scales:
        return _scales_beyond(artifact, scales)
    if not found:
        return NOTHING
    told = "; ".join(f"'{layer.layer}': {why}" for layer, why in found[:_TOLD])
    more = f"; and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
    finding = Finding(
        code="QUANTIZATION_BEYOND_ROUNDING",
        severity="fail",
        where=found[0][0].layer,
        message=f"the weights of {len(found)} of {len(layers)} layers are not those of the float model, rounded as "
        f"{asked} rounds them: {told}{more}",
        evidence={"layers": [layer.model_dump() | {"why": why} for layer, why in found[:1000]]},
        remedy="No rounding does this: the file is not the float model, quantized so.  Make it anew (edgequant cache "
        "clean first); where it stays, MNN's converter has made it wrong: report it to MNN with this layer.",
    )
    return Observed((finding,), Verdict.FAIL)


def _other_scale(each: TensorScale) -> str | None:
    """Where nobody looked there is nothing to say: a file without a scale in its place is made in float there."""
    if each.found is None:
        return None
    scale, zero = each.found
    if not abs(scale - each.scale) <= TENSOR * each.scale:
        return f"a scale of {scale:.4g} in place of {each.scale:.4g}"
    return None if zero == each.zero else f"zero point {zero:g} in place of {each.zero:g}"


def _scales_beyond(artifact: Artifact, found: Sequence[tuple[TensorScale, str]]) -> Observed:
    told = "; ".join(f"'{each.tensor}': {why}" for each, why in found[:_TOLD])
    more = f"; and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
    finding = Finding(
        code="QUANTIZATION_BEYOND_ROUNDING",
        severity="fail",
        where=found[0][0].tensor,
        message=f"{len(found)} of {len(artifact.scales)} tensors have other scales in the file than calibrating gave "
        f"them: {told}{more}",
        evidence={"scales": [each.model_dump() | {"why": why} for each, why in found[:1000]]},
        remedy="Make it anew (edgequant cache clean first); where it stays, MNN's converter has written it wrong.",
    )
    return Observed((finding,), Verdict.FAIL)


def coarsely(artifact: Artifact, stage: Summaries) -> set[str]:
    """Outputs whose rounding does not look like small noise: all where weights have less than 8 bits, else those that
    are left with less than COARSE_DB.  stage: what quantizing costs each output."""
    bits = {layer.bits for layer in artifact.rounding or () if layer.kept == "quantized"} | {artifact.run_as.bits or 8}
    worst = {name: each.values.get("sqnr_db") for name, each in stage.items()}
    return {name for name, db in worst.items() if min(bits) < 8 or (db is not None and db < COARSE_DB)}


def weighed(artifact: Artifact) -> bool:
    """Whether the weights of all of its layers are held against the float model's."""
    layers, asked = artifact.rounding or (), artifact.run_as
    return bool(layers) and not any(_as_they_see_fit(layer, asked) for layer in layers)


def _as_they_see_fit(layer: LayerRounding, asked: Variant) -> bool:
    """MNN's own methods change weights as they like, and equalizing moves them from layer to layer: that counts where
    the float model was not equalized alike (runs of earlier versions)."""
    if asked.method == "static":  # the layers that stay float or int8 at run time, too
        return (asked.calib is None or asked.equalize) and layer.equalized is None
    return layer.kept == "static"


def _beyond(layer: LayerRounding, asked: Variant) -> str | None:
    return next(_reasons(layer, asked), None)


def _reasons(layer: LayerRounding, asked: Variant) -> Iterator[str]:
    if _as_they_see_fit(layer, asked):
        return
    where = f"output channel {layer.row}"
    if layer.kept == "quantized" and asked.method in ("weight", "dynamic"):
        if layer.bits != asked.bits:
            yield f"{layer.bits} bits in place of {asked.bits}"
        if layer.sym != asked.sym:
            yield f"{'no' if layer.sym else 'a'} zero point, unlike what was asked for"
        if layer.block not in (None, asked.block):
            yield f"a scale for each {layer.block} input channels, unlike what was asked for"
    if layer.kept == "quantized" and asked.method == "fp16":
        yield f"{layer.bits} bits in place of 16"
    if abs(layer.scale - 1) > SCALE:
        yield f"the scale of {where} is {layer.scale:.4g} times what its range gives"
    if layer.kept == "float" and layer.error > 0:
        yield f"float weights of {where} are others"
    plain = asked.method in ("weight", "dynamic", "static", "fp16") and not asked.hqq
    if layer.error > (STEPS if plain else HQQ_STEPS):
        yield f"a weight of {where} is off by {layer.error:.3g} steps, where rounding moves it by 0.5"
    if layer.bias > BIAS:
        yield f"its bias is off by {layer.bias:.2%} of its size"
