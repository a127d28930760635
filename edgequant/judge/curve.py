"""How the error of one output goes on over the steps of a rollout.

Errors are held against the root mean square of the reference over the whole rollout: a step in which it happens to be
quiet is none that has to be better.  Steps are taken together by octaves, 1, 2, 3-4, 5-8, ...
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from edgequant.compare.decibel import amplitude_db, capped_db
from edgequant.spec import Limit

Kind = Literal["exact", "steady", "saturates", "grows", "explodes"]

ENOUGH = 64
"""Numbers.  Octaves of fewer are judged with the next."""
GROWS_DB, GROWS_ERRORS = 0.5, 3.0
"""It grows where the slope over the last half of the octaves (four at least) is more than this, and more than so many
of its standard errors.  A random walk has 3 dB in each octave, an error that adds up 6 dB."""
RISES_DB = 3.0
"""It has risen, and then saturated, where the last half lies so far above the first step."""
EXPLODES = 10.0
"""It explodes where the error is as large as the signal, and so many times as large as in the first half; or where
something is not finite any more."""


@dataclass(frozen=True)
class Errors:
    """Of each step (counted from 1) the root mean square of the error; `signal`: that of the reference over all steps.

    Of whole numbers the share that differs, and `signal` is 1.  Infinite where something is not finite that should be.
    elements: of one step.
    """

    steps: np.ndarray
    rms: np.ndarray
    signal: float
    elements: int

    def octaves(self) -> list[np.ndarray]:
        """Places of the steps of each octave that has any."""
        of = np.ceil(np.log2(self.steps)).astype(int)
        return [np.flatnonzero(of == each) for each in np.unique(of)]

    def judged(self) -> list[np.ndarray]:
        """The same, with octaves of few numbers joined to the next; the last to the one before."""
        found: list[np.ndarray] = []
        for places in self.octaves():
            if found and len(found[-1]) * self.elements < ENOUGH:
                found[-1] = np.concatenate([found[-1], places])
            else:
                found.append(places)
        if len(found) > 1 and len(found[-1]) * self.elements < ENOUGH:
            found[-2:] = [np.concatenate(found[-2:])]
        return found

    def level(self, places: np.ndarray) -> float:
        return float(np.sqrt(np.mean(np.square(self.rms[places]))))

    def db(self, level: float) -> float:
        """Signal to error, capped at +-200."""
        return -200.0 if math.isinf(level) else capped_db(amplitude_db(self.signal, level))


@dataclass(frozen=True)
class Curve:
    """octaves: (its last step, dB).  slope_db: in each octave, over the last half; slope_error: its standard error;
    None where there are too few."""

    octaves: tuple[tuple[int, float], ...]
    kind: Kind
    slope_db: float | None = None
    slope_error: float | None = None

    @property
    def worst_db(self) -> float:
        return min(db for _, db in self.octaves)


@dataclass(frozen=True)
class OutputDrift:
    """One output.  curves: stage -> its error, "total" for source against device.  breaks: the step in which the limit
    does, in which stage; None: it holds.  bound: the limit."""

    curves: Mapping[str, Curve] = field(default_factory=dict)
    bound: Limit | None = None
    breaks: int | None = None
    stage: str | None = None


@dataclass(frozen=True)
class Drift:
    """What a trial's rollout comes to."""

    asked: int = 0
    done: int = 0
    outputs: Mapping[str, OutputDrift] = field(default_factory=dict)


def errors(
    expected: tuple[Sequence[int], np.ndarray], got: tuple[Sequence[int], np.ndarray], *, whole: bool = False
) -> Errors | None:
    """Of two stacks of steps, over those that both have; None where there is nothing to hold one against another."""
    one = {step: place for place, step in enumerate(expected[0])}
    other = {step: place for place, step in enumerate(got[0])}
    steps = [step for step in expected[0] if step in other]
    if not steps or expected[1].shape[1:] != got[1].shape[1:] or not expected[1].size:
        return None
    a = expected[1][[one[step] for step in steps]].reshape(len(steps), -1)
    b = got[1][[other[step] for step in steps]].reshape(len(steps), -1)
    if whole:
        return Errors(np.array(steps), np.mean(a != b, axis=1), 1.0, a.shape[1])
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(a)
    signal = float(np.sqrt(np.mean(np.square(a[finite])))) if finite.any() else 0.0
    if signal == 0.0:
        return None
    lost = (finite & ~np.isfinite(b)).any(axis=1)
    difference = np.subtract(a, b, where=finite & np.isfinite(b), out=np.zeros_like(a))
    rms = np.sqrt(np.mean(np.square(difference), axis=1))
    return Errors(np.array(steps), np.where(lost, np.inf, rms), signal, a.shape[1])


def curve(found: Errors) -> Curve:
    """What the errors of all steps come to."""
    levels = [found.level(places) for places in found.octaves()]
    last = [int(found.steps[places[-1]]) for places in found.octaves()]
    decibels = [found.db(level) for level in levels]
    octaves = tuple(zip(last, decibels, strict=True))
    slope, error = _slope([-db for db in decibels])
    if not any(levels):
        return Curve(octaves, "exact")
    half = len(levels) // 2
    early, late = levels[: max(1, half)], levels[half:]
    large = max(late) >= found.signal and max(late) >= EXPLODES * max(early)
    kind: Kind = "steady"
    if math.isinf(max(levels)) or large:
        kind = "explodes"
    elif slope is not None and error is not None and slope > GROWS_DB and slope > GROWS_ERRORS * error:
        kind = "grows"
    elif decibels[0] - float(np.median(decibels[half:])) > RISES_DB:
        kind = "saturates"
    return Curve(octaves, kind, slope, error)


def _slope(rising: Sequence[float]) -> tuple[float | None, float | None]:
    """Least squares over the last half, in dB an octave, and its standard error."""
    y = np.array(rising[-max(4, len(rising) // 2) :])
    if len(y) < 4:
        return None, None
    x = np.arange(len(y)) - (len(y) - 1) / 2
    slope = float(x @ y / (x @ x))
    rest = y - y.mean() - slope * x
    return slope, float(np.sqrt(rest @ rest / (len(y) - 2) / (x @ x)))


def first_break(found: Errors, bound: float, *, whole: bool = False) -> int | None:
    """The first step of the first octave that breaks a limit: sqnr_db >= bound, or of whole numbers mismatch <= bound;
    in it the first step that does so by itself."""
    allowed = bound if whole else found.signal * 10 ** (-bound / 20)
    for places in found.judged():
        level = float(np.mean(found.rms[places])) if whole else found.level(places)
        if not level <= allowed:
            alone = [place for place in places if not found.rms[place] <= allowed]
            return int(found.steps[(alone or list(places))[0]])
    return None


def envelope(own: Errors | None, steps: np.ndarray) -> np.ndarray | None:
    """Of each step the largest error of a rollout that was moved by next to nothing, up to twice as many steps."""
    if own is None:
        return None
    highest = np.maximum.accumulate(own.rms)
    place = np.searchsorted(own.steps, 2 * steps, side="right") - 1
    found: np.ndarray = highest[np.clip(place, 0, len(highest) - 1)]
    return found
