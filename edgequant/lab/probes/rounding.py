"""How far rounding carries this model: this host against itself, with inputs moved by next to nothing.

Two machines add in another order, so their activations part by some last bits; one of them now and then rounds to
another of 255 steps on one side; and all that follows goes with it.  How far depends on the model and the case: a long
sequence evens it out, a decision does not.  Moving the inputs on one machine does the same thing, so what comes of it
says what another machine may do.  (Other thread counts, MNN's hints for Winograd and precision high change no bit of
what this host computes, or next to none.)

What only says yes or no (a mask, a flag) stays as it is: 0, 1 and -10000 are numbers that no machine rounds, and a mask
is multiplied by so much that moving it moves decisions, which rounding does not.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgequant.archive.arrays import ArraySink
from edgequant.archive.types import CaseCapture, Moved, Strayed
from edgequant.cases.case import Case
from edgequant.compare.metrics import strayed
from edgequant.errors import RunnerError
from edgequant.lab.take import HOST_DEATHS, Place, Taking, each_case
from edgequant.models.mnn.nudge import nudged, to_nudge
from edgequant.runner.client import RunResult

FLOAT_NOISE, INT8_NOISE = 2.0**-16, 2.0**-12
"""Of a number: 128 last bits of a float32, which sums and approximated functions add up to; and a sixteenth of a step
of 8 bits, with which in any case some activations round the other way."""
STEPS = 255
NOISES, STEPPED = 4, 2
"""So often each case is moved; one that strains the model, and each with memory normal, half as often."""
TRIES = NOISES + STEPPED
"""So many copies of the file are made where no input can be moved."""
LARGEST = 1 << 30
"""Bytes of a file of which copies are made."""


class RoundingProbe:
    """Runs each case again with its inputs moved, as the trial runs it and, where that is with memory low, with memory
    normal too.  Where all inputs are whole numbers or flags, a copy of the file is run whose tables, in which they are
    looked up, are moved.

    int8: the file holds layers that MNN may run in int8.  floats: what float MNN computes, where memory normal is int8
    as well; None where nothing is then.
    """

    name = "rounding"

    def __init__(self, *, int8: bool, floats: Iterable[CaseCapture] | None = None) -> None:
        self._int8, self._floats = int8, floats

    def take(self, taking: Taking) -> None:
        place, plain = taking.place, taking.normal if self._floats is None else self._floats
        self._take(taking, place, taking.cases, {each.case: each for each in plain}, int8=self._int8)
        if place.model.memory == "low":
            normal = place.with_memory("normal")
            self._take(taking, normal, {each.case: each for each in taking.normal}, {}, int8=False)
            normal.unload()

    def _take(
        self, taking: Taking, place: Place, still: Mapping[str, CaseCapture], plain: Mapping[str, CaseCapture], *,
        int8: bool,
    ) -> None:  # fmt: skip
        known = [case for case in taking.done if still[case.name].outputs is not None]
        again = place.model.memory != taking.place.model.memory
        exact = flags(case.inputs for case in taking.done)
        fixed = [case for case in known if not movable(case, exact)]

        def keep(ran: Iterable[tuple[str, Case, RunResult | RunnerError]]) -> bool:
            found = False
            for by, case, result in ran:
                if isinstance(result, RunnerError):
                    continue
                found = True
                taking.moved.append(
                    _moved(taking.sink, place, still[case.name], plain.get(case.name) if int8 else None, by, result)
                )
            return found

        def inputs(cases: Iterable[Case], exact: Container[str]) -> Iterator[tuple[str, Case, RunResult | RunnerError]]:
            wanted = [
                each
                for case in cases
                for each in moved(case, int8=int8, half=again or case.kind == "strain", exact=exact)
            ]
            ran = each_case(place, (case for _, case in wanted), deaths=HOST_DEATHS)
            yield from ((by, *each) for (by, _), each in zip(wanted, ran, strict=True))

        keep(inputs((case for case in known if movable(case, exact)), exact))
        # Where no input can be moved, the file is; where nothing of it can be, a mask is moved after all.
        size, tries = (INT8_NOISE if int8 else FLOAT_NOISE), (NOISES // 2 if again else TRIES)
        if not keep(_with_nudged_files(place, fixed, size, tries)):
            keep(inputs(fixed, ()))


def _with_nudged_files(
    place: Place, cases: Sequence[Case], size: float, tries: int
) -> Iterator[tuple[str, Case, RunResult | RunnerError]]:
    """Run the cases with copies of the file in which the tables they look up are moved by next to nothing."""
    model = place.model
    if not cases or model.size > LARGEST:
        return
    places = to_nudge(model.path)
    if not places:
        return
    data = model.path.read_bytes()
    rng = np.random.default_rng(tries)
    with tempfile.TemporaryDirectory(prefix="edgequant-nudged-") as folder:
        for number in range(tries):
            path = Path(folder) / f"{number}.mnn"
            path.write_bytes(nudged(data, places, size, rng))
            other = Place.load(place.session, replace(model, path=path, sha256=None))
            yield from (("noise", *each) for each in each_case(other, cases, deaths=HOST_DEATHS))
            other.unload()
            path.unlink()


def _moved(
    sink: ArraySink, place: Place, still: CaseCapture, plain: CaseCapture | None, by: str, result: RunResult
) -> Moved:  # fmt: skip
    expected, floats = still.outputs or {}, {} if plain is None else plain.outputs or {}
    outputs = {
        name: _strayed(sink.get(expected[name]), array, sink.get(floats[name]) if name in floats else None)
        for name, array in result.outputs.items()
    }
    return Moved.model_validate({"case": still.case, "by": by, "memory": place.model.memory, "outputs": outputs})


def _strayed(expected: np.ndarray, got: np.ndarray, floats: np.ndarray | None) -> Strayed:
    sqnr_db, max_abs, mismatch = strayed(expected, got)
    rounding = None if floats is None else strayed(floats, got)[0]
    return Strayed(sqnr_db=sqnr_db, max_abs=max_abs, mismatch=mismatch, rounding_db=rounding)


def flags(cases: Iterable[Mapping[str, np.ndarray]]) -> frozenset[str]:
    """Float inputs that say yes or no: in every case at most two different values, both whole, and not always zero."""
    two: dict[str, bool] = {}
    filled: set[str] = set()
    for case in cases:
        for name, array in case.items():
            if array.dtype.kind == "f" and array.size:
                two[name] = two.get(name, True) and _two_whole(array)
                filled |= {name} if array.any() else set()
    return frozenset(name for name, said in two.items() if said and name in filled)


def movable(case: Case, exact: Container[str] = ()) -> set[str]:
    """Its inputs that can be moved by a little."""
    floats = {name for name, array in case.inputs.items() if array.dtype.kind == "f" and array.size}
    return {name for name in floats if name not in exact}


def _two_whole(array: np.ndarray) -> bool:
    """Whether it has at most two different values, both whole numbers (an infinity counts as one)."""
    low, high = array.min(), array.max()
    whole = all(bool(np.isinf(each) or each == np.rint(each)) for each in (low, high))
    return whole and bool(((array == low) | (array == high)).all())


def moved(
    case: Case, *, int8: bool, half: bool = False, exact: Container[str] = ()
) -> Iterator[tuple[str, Case]]:  # fmt: skip
    """The case with its inputs moved, always in the same ways; not at all where it has no float.

    exact: inputs that stay as they are (`flags`).
    """
    if not (moving := movable(case, exact)):
        return
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(case.name.encode()).digest()[:8], "little"))
    noise = functools.partial(noisy, size=INT8_NOISE if int8 else FLOAT_NOISE)
    for by, count, move in (("noise", NOISES, noise), ("step", STEPPED if int8 else 0, _stepped)):
        for _ in range(count // 2 if half else count):
            inputs = {name: move(array, rng) if name in moving else array for name, array in case.inputs.items()}
            yield by, replace(case, inputs=inputs)


def noisy(array: np.ndarray, rng: np.random.Generator, size: float) -> np.ndarray:
    """Each number moved by up to `size` of it, or of the root mean square where this is more; of 1 where all are 0."""
    found = np.abs(array.astype(np.float64))
    scale = np.maximum(found, float(np.sqrt(np.mean(np.square(found)))) or 1.0)
    noise: np.ndarray = size * scale * rng.uniform(-1, 1, array.shape)
    result: np.ndarray = array + noise.astype(array.dtype)
    return result


def _stepped(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One number moved by a step of 8 bits: of the range, of the size where all are equal, of 1 where all are 0."""
    span = float(np.ptp(array.astype(np.float64))) or float(np.abs(array).max()) or 1.0
    found: np.ndarray = array.copy()
    found.flat[int(rng.integers(array.size))] += span / STEPS * rng.choice((-1, 1))
    return found
