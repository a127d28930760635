"""What whoever searches asks of whoever can run a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgequant.spec import MemoryMode


@dataclass(frozen=True)
class Evaluation:
    """How a file did where it counts.

    Attributes:
        sqnr_db: worst over the cases, by output.
        latency_ms: of one inference, such as its median; None where it was not timed.
    """

    sqnr_db: Mapping[str, float]
    latency_ms: float | None = None


Evaluate = Callable[[Path, MemoryMode], Evaluation]
"""Runs a file, on a device or this host, in a memory mode."""
