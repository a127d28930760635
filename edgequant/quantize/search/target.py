"""What a search aims at, and how a file is found to reach it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgequant.compare.decibel import power_db
from edgequant.errors import InputError
from edgequant.quantize.search.trials import Signals
from edgequant.spec import Limit

_KEPT = 0.5
"""Share of a value's deviation that a varied case keeps (so a quarter of its power)."""
_LOWEST_DB = 1000.0


@dataclass(frozen=True)
class Target:
    """SQNR in dB that outputs have to have; outputs without one may have any.

    A search among thousands of models finds some whose errors cancel on the very cases it looks at: measured, 33 dB on
    three cases of two values each, and 10 dB on others.  So there are varied cases as well, and on all of them
    together each output has to keep its floor too.

    Attributes:
        places: (case, output) pairs that count, by their number in `Signals.powers`; of the given cases.
        pooled: of each output with a floor, its pairs in the varied cases.
        noise: allowed: for each of `places`, then for each of `pooled`.
    """

    floors: Mapping[str, float]
    places: np.ndarray
    pooled: Mapping[str, np.ndarray]
    noise: np.ndarray = field(repr=False)

    def constraints(self, noise: np.ndarray) -> np.ndarray:
        """What is held against `noise`, from the noise of every case and output."""
        return np.concatenate([noise[self.places], [noise[each].sum() for each in self.pooled.values()]])

    def varied_db(self, noise: np.ndarray) -> dict[str, float]:
        """SQNR in dB over all varied cases together, by output, from constraints as above."""
        found = {}
        for place, name in enumerate(self.pooled, len(self.places)):
            power = self.noise[place] * 10 ** (max(self.floors[name], -_LOWEST_DB) / 10)
            found[name] = power_db(power, noise[place])
        return found

    def margins(self, sqnr_db: Mapping[str, float]) -> dict[str, float]:
        """By how many dB each output keeps its floor.  An output that was not seen keeps nothing."""
        return {name: sqnr_db.get(name, -np.inf) - floor for name, floor in self.floors.items()}


def varied(cases: Sequence[Mapping[str, np.ndarray]], count: int) -> list[dict[str, np.ndarray]]:
    """`count` cases like each of the given ones: floats half replaced by noise of their own mean and deviation.

    Integers stay: they may be indexes, lengths or modes.  The same cases give the same ones.
    """
    # A seed nobody else takes: with that of the cases, their own values would come again.
    random = np.random.default_rng([0x76617279, 0x63617365])
    found = []
    for case in cases:
        for _ in range(count):
            arrays = {}
            for name, array in case.items():
                if array.dtype.kind == "f" and array.size > 1:
                    mean = array.mean(dtype=np.float64)
                    drawn = random.standard_normal(array.shape) * array.std(dtype=np.float64)
                    array = (mean + _KEPT * (array - mean) + np.sqrt(1 - _KEPT**2) * drawn).astype(array.dtype)
                arrays[name] = array
            found.append(arrays)
    return found


def make_target(limits: Sequence[Limit], signals: Signals, given: int) -> Target:
    """`given` is the number of cases that are not varied ones, which follow them.

    Raises InputError: TARGET_UNSUPPORTED, TARGET_OUTPUT_UNKNOWN, TARGET_NOT_JUDGEABLE."""
    if not limits:
        raise InputError("TARGET_UNSUPPORTED", "there is no target", hint='For example --target "sqnr_db>=30".')
    judged = signals.judged
    floors: dict[str, float] = {}
    # Of two on the same outputs the harder one comes last, and so stands.
    for limit in sorted(limits, key=lambda limit: (limit.output is not None, limit.value)):
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
    # A limit may be as low as one likes; the power of the noise it allows has to be a number.
    shares = {name: 10 ** (min(-floor, _LOWEST_DB) / 10) for name, floor in floors.items()}
    judgeable = [p for p, power in enumerate(signals.powers) if power > 0 and signals.outputs[p % outputs] in floors]
    places = [place for place in judgeable if place < given * outputs]
    pooled: dict[str, np.ndarray] = {}
    for number, name in enumerate(signals.outputs):
        found = [place for place in judgeable if place >= given * outputs and place % outputs == number]
        if found:
            pooled[name] = np.asarray(found)
    allowed = [signals.powers[place] * shares[signals.outputs[place % outputs]] for place in places]
    allowed += [float(signals.powers[each].sum()) * shares[name] for name, each in pooled.items()]
    return Target(floors, np.asarray(places), pooled, np.asarray(allowed))
