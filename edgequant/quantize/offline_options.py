"""What a user can say about MNN's offline methods."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from edgequant.judge.advice import OTHER_WAYS
from edgequant.spec import Variant

OfflineMethod = Literal["kl", "ema", "admm"]

OR_DYNAMIC = f"{OTHER_WAYS}, or use dynamic:8."
"""What to do where one of the methods fails."""


class OfflineOptions(BaseModel):
    """How MNN's own offline methods quantize to int8.

    Attributes:
        method: how the ranges of activations are found: ``kl`` (least divergence of the histogram), ``ema`` (moving
            average of the range), ``admm`` (alternating direction method of multipliers).
        weights: how the scales of weights are found.
        clamp: activations are quantized to -clamp..clamp; None for 127.
        skip: layers to leave float.
        samples: how many samples are used; None for all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    method: OfflineMethod
    weights: Literal["max_abs", "admm"] = "max_abs"
    clamp: int | None = Field(default=None, ge=1, le=127)
    skip: tuple[str, ...] = ()
    samples: int | None = Field(default=None, ge=1)

    def variant(self) -> Variant:
        """As a user would write it."""
        weights = None if self.weights == "max_abs" else self.weights
        return Variant(method=self.method, weights=weights, clamp=self.clamp, skip=self.skip, samples=self.samples)

    def unused(self) -> list[str]:
        """The options given that the method ignores without a word: ema takes none of them (MNN 3.6.1, measured)."""
        if self.method != "ema":
            return []
        given = {"weights": self.weights != "max_abs", "clamp": self.clamp is not None, "skip": bool(self.skip)}
        return [name for name, there in given.items() if there]
