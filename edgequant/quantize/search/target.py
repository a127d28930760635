"""What a search aims at, and how a file is found to reach it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgequant.errors import InputError
from edgequant.quantize.search.trials import Signals
from edgequant.spec import Limit, MemoryMode


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


@dataclass(frozen=True)
class Target:
    """SQNR in dB that outputs have to have; outputs without one may have any.

    noise: allowed for each of `places`, the (case, output) pairs that count, by their number in `Signals.powers`.
    """

    floors: Mapping[str, float]
    places: np.ndarray
    noise: np.ndarray = field(repr=False)

    def margins(self, sqnr_db: Mapping[str, float]) -> dict[str, float]:
        """By how many dB each output keeps its floor.  An output that was not seen keeps nothing."""
        return {name: sqnr_db.get(name, -np.inf) - floor for name, floor in self.floors.items()}


def make_target(limits: Sequence[Limit], signals: Signals) -> Target:
    """Raises InputError: TARGET_UNSUPPORTED, TARGET_OUTPUT_UNKNOWN, TARGET_NOT_JUDGEABLE."""
    if not limits:
        raise InputError("TARGET_UNSUPPORTED", "there is no target", hint='For example --target "sqnr_db>=30".')
    judged = signals.judged
    floors: dict[str, float] = {}
    for limit in sorted(limits, key=lambda limit: limit.output is not None):
        if limit.metric != "sqnr_db":
            raise InputError(
                "TARGET_UNSUPPORTED",
                f"target '{limit}': auto can aim at sqnr_db only, whose noise adds up over layers",
                hint='For example --target "sqnr_db>=30"; hold the result against other limits with verify.',
            )
        if limit.output is not None and limit.output not in signals.outputs:
            raise InputError(
                "TARGET_OUTPUT_UNKNOWN",
                f"target '{limit}': the model has no such output",
                hint=f"Its outputs are {', '.join(signals.outputs)}.",
            )
        if limit.output is not None and limit.output not in judged:
            raise InputError(
                "TARGET_NOT_JUDGEABLE",
                f"target '{limit}': this output has no SQNR: its values are integers, all zero, NaN or Inf",
                hint=f"These have one: {', '.join(judged)}.",
            )
        for name in judged if limit.output is None else [limit.output]:
            # The user's own word on one output stands, be it less than what holds for all.
            floors[name] = limit.value
    outputs = len(signals.outputs)
    places = [
        place for place, power in enumerate(signals.powers) if power > 0 and signals.outputs[place % outputs] in floors
    ]
    allowed = [signals.powers[place] / 10 ** (floors[signals.outputs[place % outputs]] / 10) for place in places]
    return Target(floors, np.asarray(places), np.asarray(allowed))
