"""How `auto` is to search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgequant.spec import MemoryMode


@dataclass(frozen=True)
class AutoOptions:
    """How to search.

    Attributes:
        budget: ``size``: the smallest; ``latency``: the fastest by the evaluator's clock.
        memories: MNN's memory modes that may be used.
        varied: cases made from each given one, see `Target`; None for 2, or 8 where the outputs have few values.
        rounds: of measuring what each layer's neighbouring forms change.
        timeout: seconds for each run of the converter; run_timeout: for one inference of one model.
    """

    budget: Literal["size", "latency"] = "size"
    memories: tuple[MemoryMode, ...] = ("low", "normal")
    rounds: int = 3
    varied: int | None = None
    timeout: float = 900.0
    run_timeout: float = 60.0
    memory_limit: int | None = None
