"""Whether the weights of a file are what rounding them to what was asked for leaves of the float model's.

Rounding moves a weight by half a step at most, and what a step is follows from the range of its row and the bits: so
what it costs is known of each row of each layer without anything being run, and what is beyond that is no rounding.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgequant.archive.types import Artifact, LayerRounding
from edgequant.findings import Finding
from edgequant.judge.types import NOTHING, Observed
from edgequant.judge.verdict import Verdict
from edgequant.spec import Variant

SCALE = 0.01
"""A row's scale may be off by so much; found: 1e-7, and 5e-4 where scales are kept in half precision."""
STEPS = 0.75
"""A weight may be moved by so many steps; found: 0.5, and 0.56 where half-quadratic quantization chooses where they
begin."""
BIAS = 1e-5
"""A bias is not quantized: it may be off by so much of the layer's largest."""
_FLOAT, _HALF = 32, 16
_TOLD = 3


def beyond_rounding(artifact: Artifact) -> Observed:
    """FAIL where it is not."""
    found = [(layer, why) for layer in artifact.rounding or () if (why := _beyond(layer, artifact.run_as)) is not None]
    if not found:
        return NOTHING
    looked = len(artifact.rounding or ())
    told = "; ".join(f"'{layer.layer}': {why}" for layer, why in found[:_TOLD])
    more = f"; and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
    finding = Finding(
        code="QUANTIZATION_BEYOND_ROUNDING",
        severity="fail",
        where=found[0][0].layer,
        message=f"the weights of {len(found)} of {looked} layers are not those of the float model, rounded as "
        f"{artifact.run_as} rounds them: {told}{more}",
        evidence={"layers": [layer.model_dump() | {"why": why} for layer, why in found[:1000]]},
        remedy="No rounding does this: the file is not the float model, quantized so.  Make it anew (edgequant cache "
        "clean first); where it stays, MNN's converter has made it wrong: report it to MNN with this layer.",
    )
    return Observed((finding,), Verdict.FAIL)


def _beyond(layer: LayerRounding, asked: Variant) -> str | None:
    return next(_reasons(layer, asked), None)


def _reasons(layer: LayerRounding, asked: Variant) -> Iterator[str]:
    if layer.bits < _HALF and asked.method in ("weight", "dynamic"):
        if layer.bits != asked.bits:
            yield f"{layer.bits} bits in place of {asked.bits}"
        if layer.sym != asked.sym:
            yield f"{'no' if layer.sym else 'a'} zero point, unlike what was asked for"
        if layer.block not in (None, asked.block):
            yield f"a scale for each {layer.block} input channels, unlike what was asked for"
    if layer.bits < _HALF and asked.method == "fp16":
        yield f"{layer.bits} bits in place of 16"
    if abs(layer.scale - 1) > SCALE:
        yield f"the scale of output channel {layer.row} is {layer.scale:.4g} times what its range gives"
    if layer.bits == _FLOAT and layer.error > 0:
        yield f"float weights of output channel {layer.row} are others"
    if layer.error > STEPS:
        yield f"a weight of output channel {layer.row} is off by {layer.error:.3g} steps; rounding moves it by 0.5"
    if layer.bias > BIAS:
        yield f"its bias is off by {layer.bias:.2%} of its size"
