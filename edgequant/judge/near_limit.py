"""Activations of a float model whose inputs come near the place from which on the device answers wrongly."""

from __future__ import annotations

from edgequant.archive.layers import ActivationFacts, LayerCapture, Tap
from edgequant.findings import Finding

NEAR = 2.0
"""Inputs within so many times of the limit come near it: other inputs of the same kind may well reach it."""
_SMALL = 1e-3
"""A limit at 0, as that of a logarithm, is reached or not: no number of times leads there."""


def near_limits(capture: LayerCapture) -> list[Finding]:
    """A finding for each activation, those beyond their limits first."""
    taps: dict[str, list[Tap]] = {}
    for tap in capture.taps:
        taps.setdefault(tap.tensor, []).append(tap)
    found = [
        finding
        for facts in capture.activations
        for high in (True, False)
        if (finding := _finding(facts, taps.get(facts.tensor, []), capture, high=high)) is not None
    ]
    return sorted(found, key=lambda each: each.severity != "warn")


def _finding(facts: ActivationFacts, taps: list[Tap], capture: LayerCapture, *, high: bool) -> Finding | None:
    limit, right = (facts.high, facts.right_high) if high else (facts.low, facts.right_low)
    got, want = (facts.got_high, facts.want_high) if high else (facts.got_low, facts.want_low)
    ends = [(end, tap) for tap in taps if tap.plain is not None
            and (end := tap.plain.max if high else tap.plain.min) is not None]  # fmt: skip
    if limit is None or right is None or not ends:
        return None
    value, tap = max(ends, key=lambda each: each[0]) if high else min(ends, key=lambda each: each[0])
    beyond = value > right if high else value < right
    ratio = limit / value if value * limit > 0 else None
    if not beyond and (ratio is None or ratio > NEAR or abs(limit) < _SMALL):
        return None
    how = f"is wrong from {limit:.6g} on ({got} instead of {want})"
    margin = "beyond what is known to be right" if beyond else f"{ratio:.2g} times below that"
    return Finding(
        code="ACTIVATION_NEAR_LIMIT",
        severity="warn" if beyond else "info",
        where=facts.node,
        message=f"{facts.operator} '{facts.node}' on {capture.uri} {how}, precision {capture.precision} and memory "
        f"{capture.memory}; its input goes to {value:.6g} here (case {tap.case}), {margin}",
        evidence={"tensor": facts.tensor, "case": tap.case, "input": value, "wrong_from": limit, "right_to": right,
                  "margin": ratio},
        remedy="Clip or scale what goes into it, or judge with inputs as large as those in use; "
        f"`edgequant devices probe {capture.uri} --activations` shows the whole table.",
    )  # fmt: skip
