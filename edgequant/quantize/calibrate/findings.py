"""What is to be known of a static int8 model that edgequant's own calibrators made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edgequant.findings import Finding
from edgequant.plain import joined
from edgequant.quantize.calibrate.why import Code

_NAMED = 4
"""Kept layers, in a message."""


class StaticLayer(NamedTuple):
    """One layer of the model that was made.

    how: ``static``, ``weight`` (8-bit weights, computed in float) or ``float``; why: the reason when not static, and
    its code.
    """

    name: str
    input_scale: float | None
    output_scale: float | None
    input_zero: int | None
    output_zero: int | None
    how: str
    why: str | None = None
    code: Code | None = None


def of_static(layers: Sequence[StaticLayer], calib: str, tried: Mapping[str, float]) -> tuple[Finding, ...]:
    """How its scales were chosen, and which layers are what: a model is seldom int8 from end to end.

    calib, tried: as of `StaticInt8`.
    """
    chosen: tuple[Finding, ...] = ()
    if tried:
        ways = [f"{name} {value:.1f} dB" for name, value in tried.items()]
        chosen = (
            Finding(
                code="CALIBRATOR_CHOSEN",
                severity="info",
                message=f"calib={calib}: of {len(ways)} ways to choose scales it is closest to float on the "
                f"calibration samples (SQNR of the worst output, mean of the samples): {', '.join(ways[:3])}"
                + (", ..." if len(ways) > 3 else ""),
                evidence={"tried": {name: max(-200.0, min(value, 200.0)) for name, value in tried.items()}},
                remedy=f"With calib={calib} in the variant it is made again without trying.",
            ),
        )
    left = [layer for layer in layers if layer.how != "static"]
    if not left:
        return chosen
    return (
        *chosen,
        Finding(
            code="STATIC_PARTLY",
            severity="info",
            message=partly(layers),
            evidence={"layers": {layer.name: f"{layer.how}: {layer.why}" for layer in left[:200]}},
            remedy="The evidence in the report has the reason for each.",
        ),
    )


def partly(layers: Sequence[StaticLayer]) -> str:
    """How many layers are what, where not all of them are static, and which ones keep= left in float."""
    counted = Counter(layer.how for layer in layers)
    static, weight, whole = counted["static"], counted["weight"], counted["float"]
    parts = []
    if weight:
        parts.append(
            f"{weight} {'has' if weight == 1 else 'have'} 8-bit weights but compute{'s' * (weight == 1)} in float"
        )
    if whole:
        parts.append(f"{whole} {'is' if whole == 1 else 'are'} float")
    one = weight + whole == 1
    saved = "this saves no time" if one else "these save no time"
    if whole:
        saved += ", and no room either" if not weight else f", the float one{'s' * (whole > 1)} no room either"
    said = f"{static} of {len(layers)} layers compute{'s' * (static == 1)} in int8; {', '.join(parts)}: {saved}"
    if kept := [layer.name for layer in layers if layer.code == "kept"]:
        more = len(kept) - _NAMED
        names = [*kept[:_NAMED], *([f"{more} more"] if more > 0 else [])]
        said += f"; kept float: {joined(names)}"
    return said
