"""Faults of the loop that feeds a model's states back: they are in no file, and no single inference shows one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgequant.jobs.planted import Tried, rolled
from edgequant.jobs.planting import Planter
from edgequant.judge.verdict import Verdict
from edgequant.lab.probes.rollout import PlaceRoller, Roller, take_rollout
from edgequant.lab.take import ModelFile, Place
from edgequant.models.mnn.faults import Fault
from edgequant.runner.rolling import Asked, RollResult

Change = Callable[[Asked], Asked]
SIZES = (1.0, 0.1, 0.01)
"""By which a first state is off, in all of its numbers."""


def state_faults(planter: Planter) -> Iterator[Tried]:
    """Each, as what the device alone does; none where the run has no rollout."""
    rollout, kept = planter.run.source.rollout, planter.device.rollout
    if rollout is None or kept is None:
        return
    model = ModelFile(
        planter.run.path / planter.artifact.path, planter.device.memory_mode or "normal", planter.artifact.sha256
    )
    place = Place.load(planter.host, model)
    sound = rolled(take_rollout(PlaceRoller(place), rollout, planter.overlay))
    for kind, name, size, change in _faults(tuple(rollout.feedback)):
        planter.overlay.clear()
        found, fault = (
            take_rollout(_Altered(PlaceRoller(place), change), rollout, planter.overlay),
            Fault(kind, name, "", None, size),
        )
        if found.failure is not None:
            yield Tried(fault, "device", Verdict.ERROR, died=True)
        elif rolled(found) == sound:
            yield Tried(fault, "device", None, cost_db=0.0)
        else:
            wrong = planter.device.model_copy(update={"rollout": found})
            yield planter.tried(fault, "device", {planter.device_name: wrong})
    place.unload()


class _Altered:
    """A model whose loop does something else with its states; a single step is right."""

    def __init__(self, roller: Roller, change: Change) -> None:
        self._roller, self._change = roller, change

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._roller.run(inputs)

    def roll(self, asked: Asked) -> RollResult:
        return self._roller.roll(self._change(asked))


def _faults(names: Sequence[str]) -> Iterator[tuple[str, str, float | None, Change]]:
    """Kind, state, size, and what becomes of a rollout."""
    for name in names:
        yield "state not fed back", name, None, _lost(name)
        for size in SIZES:
            yield "state starts off", name, size, _begun(name, size)
    for one, other in itertools.combinations(names, 2):
        yield "states exchanged", f"{one}, {other}", None, _exchanged(one, other)


def _lost(name: str) -> Change:
    """In every step it is what it was in the first."""

    def change(asked: Asked) -> Asked:
        return replace(
            asked,
            feedback={key: output for key, output in asked.feedback.items() if key != name},
            start={key: array for key, array in asked.start.items() if key != name},
            frames={**asked.frames, name: asked.start[name][None]},
        )

    return change


def _begun(name: str, size: float) -> Change:
    def change(asked: Asked) -> Asked:
        was = asked.start[name]
        return replace(asked, start={**asked.start, name: (was + np.asarray(size, was.dtype)).astype(was.dtype)})

    return change


def _exchanged(one: str, other: str) -> Change:
    def change(asked: Asked) -> Asked:
        swapped = {**asked.feedback, one: asked.feedback[other], other: asked.feedback[one]}
        return replace(asked, feedback=swapped)

    return change
