"""Activations whose inputs come near the place where a device is wrong: captures made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from edgequant.archive.layers import ActivationFacts, LayerCapture, Stats, Tap
from edgequant.judge.diagnosis import diagnose

SOFTPLUS: dict[str, Any] = {
    "node": "soft", "operator": "Softplus", "tensor": "x", "high": 88.0, "right_high": 87.0, "got_high": "87",
    "want_high": "88",
}  # fmt: skip
LOG: dict[str, Any] = {"node": "log", "operator": "Log", "tensor": "x", "low": -1e-45, "right_low": 0.0}


def capture(low: float, high: float, facts: dict[str, Any]) -> LayerCapture:
    taps = tuple(
        Tap(case=case, tensor="x", plain=Stats(n=4, min=scale * low, max=scale * high))
        for case, scale in (("quiet", 0.5), ("loud", 1.0))
    )
    return LayerCapture(
        variant="dynamic:8", uri="ssh://board", taps=taps, memory="low", activations=(ActivationFacts(**facts),)
    )


@pytest.mark.parametrize(
    ("low", "high", "facts", "severity", "margin"),
    [
        (-1.0, 60.0, SOFTPLUS, "info", 88 / 60),
        (-1.0, 90.0, SOFTPLUS, "warn", 88 / 90),
        (-500.0, 20.0, SOFTPLUS, None, None),
        (0.1, 3.0, LOG, None, None),
        (-0.1, 3.0, LOG, "warn", 1e-44),
    ],
)
def test_what_comes_near_a_limit_is_told_with_its_margin(
    low: float, high: float, facts: dict[str, Any], severity: str | None, margin: float | None
) -> None:
    story = diagnose(capture(low, high, facts), ["y"])
    assert story.stage is None, "what only comes near a limit blames nobody"
    found = story.findings
    assert [each.severity for each in found] == ([] if severity is None else [severity])
    for each in found:
        assert (each.code, each.where) == ("ACTIVATION_NEAR_LIMIT", facts["node"])
        assert each.evidence["case"] == "loud"
        assert each.evidence["margin"] == pytest.approx(margin)
        assert "edgequant devices probe ssh://board --activations" in (each.remedy or "")
