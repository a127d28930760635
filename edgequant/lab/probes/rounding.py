"""How far rounding carries this model: this host against itself, with inputs moved by next to nothing.

Two machines add in another order, so their activations part by some last bits; one of them now and then rounds to
another of 255 steps on one side; and all that follows goes with it.  How far depends on the model and the case: a long
sequence evens it out, a decision does not.  Moving the inputs on one machine does the same thing, so what comes of it
says what another machine may do.  (Other thread counts, MNN's hints for Winograd and precision high change no bit of
what this host computes, or next to none.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from edgequant.archive.types import CaseCapture, Moved, Strayed
from edgequant.cases.case import Case
from edgequant.compare.metrics import compare
from edgequant.errors import RunnerError
from edgequant.lab.take import HOST_DEATHS, Place, Taking, each_case

NOISE = 2.0**-16
"""Of a number: 128 last bits of a float32, which sums and approximated functions add up to."""
STEPS = 255
NOISES_TAKEN, STEPS_TAKEN, NOISES_NORMAL = 3, 3, 2
"""So often each case is moved; the last one with memory normal, where the file is run with memory low."""


class RoundingProbe:
    """Runs each case again with its inputs moved, as the trial runs it and, where that is with memory low, with memory
    normal too.  int8: the file holds layers that MNN may run in int8.  A case without float inputs cannot be moved."""

    name = "rounding"

    def __init__(self, *, int8: bool) -> None:
        self._int8 = int8

    def take(self, taking: Taking) -> None:
        place = taking.place
        self._take(taking, place, taking.cases, NOISES_TAKEN, STEPS_TAKEN if self._int8 else 0)
        if place.model.memory == "low":
            model = replace(place.model, memory="normal")
            runner = place.session.runner()
            loaded = runner.load(place.path, "normal", precision=model.precision)
            normal = Place(place.session, model, place.path, runner, loaded)
            self._take(taking, normal, {each.case: each for each in taking.normal}, NOISES_NORMAL, 0)
            normal.unload()

    def _take(self, taking: Taking, place: Place, still: Mapping[str, CaseCapture], noises: int, steps: int) -> None:
        known = [case for case in taking.done if still[case.name].outputs is not None]
        wanted = [each for case in known for each in moved(case, noises, steps)]
        ran = each_case(place, (case for _, case in wanted), deaths=HOST_DEATHS)
        for (by, _), (case, result) in zip(wanted, ran, strict=True):
            if isinstance(result, RunnerError):
                continue
            expected = still[case.name].outputs or {}
            outputs = {name: _strayed(taking.sink.get(expected[name]), array) for name, array in result.outputs.items()}
            moved_by = Moved.model_validate(
                {"case": case.name, "by": by, "memory": place.model.memory, "outputs": outputs}
            )
            taking.moved.append(moved_by)


def _strayed(expected: np.ndarray, got: np.ndarray) -> Strayed:
    found = compare(expected, got)
    return Strayed(sqnr_db=found.sqnr_db, max_abs=found.max_abs, mismatch=found.mismatch)


def moved(case: Case, noises: int, steps: int) -> Iterator[tuple[str, Case]]:
    """The case with its inputs moved in so many ways, the same ones for the same case; none where it has no float."""
    if not any(array.dtype.kind == "f" and array.size for array in case.inputs.values()):
        return
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(case.name.encode()).digest()[:8], "little"))
    for by, count, move in (("noise", noises, _noisy), ("step", steps, _stepped)):
        for _ in range(count):
            inputs = {
                name: move(array, rng) if array.dtype.kind == "f" and array.size else array
                for name, array in case.inputs.items()
            }
            yield by, replace(case, inputs=inputs)


def _noisy(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each number moved by up to NOISE of it, or of the root mean square where this is more; of 1 where all are 0."""
    size = np.abs(array.astype(np.float64))
    scale = np.maximum(size, float(np.sqrt(np.mean(np.square(size)))) or 1.0)
    noise: np.ndarray = NOISE * scale * rng.uniform(-1, 1, array.shape)
    found: np.ndarray = array + noise.astype(array.dtype)
    return found


def _stepped(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One number moved by a step of 8 bits: of the range, of the size where all are equal, of 1 where all are 0."""
    span = float(np.ptp(array.astype(np.float64))) or float(np.abs(array).max()) or 1.0
    found: np.ndarray = array.copy()
    found.flat[int(rng.integers(array.size))] += span / STEPS * rng.choice((-1, 1))
    return found
