"""Inner tensors by name, of float MNN and of a quantized file, on this host and on a device, reduced to numbers.

Tensors are asked for in batches: each is loaded with these as outputs, run, reduced and dropped, so that memory is
bounded on both sides whatever the model.  On the device they are reduced there, against this host's, which are sent,
and their batches are smaller: what they hold is known by then, and so is what the device has left.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from edgequant.archive.layers import Apart, Changed, LookMemory, Stats, Tap
from edgequant.cases.case import Case
from edgequant.compare.metrics import compare
from edgequant.device_scripts import tensor_stats
from edgequant.errors import DeviceError, RunnerError
from edgequant.host_memory import memory_for
from edgequant.lab.probes.rounding import flags, movable, moved
from edgequant.lab.session import Session
from edgequant.lab.take import DEATHS, ModelFile, feed
from edgequant.runner.client import Loaded, RunResult

BATCH_BYTES = 24 << 20
"""Of one case's tensors that are held at a time, on each side."""
DEVICE_BYTES, OF_FREE = 8 << 20, 1 / 16
"""Of these at most on a device, and no more than this part of what it has free.  A tensor is there about four times:
MNN's own, in the layout it is compared in, what it is held against, and the difference."""
FIRST, MOST = 4, 64
"""Tensors of the first batch, whose size is not known yet; and of the largest."""
MOST_SPLITS = 24
"""Batches that are asked for again in halves, because asking for them changed what the model computes."""
_OF_ASKING = (*DEATHS, "MODEL_LOAD_FAILED", "INFERENCE_FAILED", "TENSOR_UNKNOWN", "JOB_FAILED", "OUT_OF_MEMORY")
"""What may come of asking for a tensor: then its batch is asked for in halves."""

Arrays = dict[str, np.ndarray]
Where = Literal["plain", "here", "there"]


@dataclass
class Spot:
    """A model where it is run.  path: on the device; None: that of this host."""

    where: Where
    session: Session
    model: ModelFile
    path: str | None = None
    still: dict[str, Arrays] = field(default_factory=dict)
    """Its outputs without any inner tensors, by case."""
    unsteady: bool = False
    """Whether they are others when the first case comes again, after all the others."""
    free: float | None = None
    """Bytes that its machine had left with the model loaded; None where it does not tell."""
    own: int | None = None
    """The runner's peak with the model as it is, in KiB; `peak`: with inner tensors."""
    peak: int | None = None

    def load(self, outputs: Sequence[str] | None) -> Loaded:
        runner = self.session.living_runner()
        self.session.device.bound_memory(memory_for(self.model.size))
        return runner.load(
            self.path or str(self.model.path.resolve()),
            self.model.memory,
            precision=self.model.precision,
            outputs=outputs,
        )

    def run(self, loaded: Loaded, case: Case) -> Arrays:
        return self._result(loaded, case).outputs

    def _result(self, loaded: Loaded, case: Case) -> RunResult:
        size = sum(array.nbytes for array in case.inputs.values())
        self.session.device.bound_memory(memory_for(self.model.size, size))
        return self.session.runner().run(loaded, feed(loaded, case.inputs))

    def drop(self, loaded: Loaded) -> None:
        self.session.runner().unload(loaded)

    def outputs(self, cases: Sequence[Case]) -> dict[str, Arrays]:
        """Of the model as it is.  Raises DeviceError."""
        loaded = self.load(None)
        found = {case.name: self.run(loaded, case) for case in cases}
        self.drop(loaded)
        return found

    def learn(self, cases: Sequence[Case]) -> None:
        """Run the model as it is, and its first case once more.  Raises DeviceError."""
        loaded = self.load(None)
        self.free = None if loaded.answer.free_mb is None else 1e6 * loaded.answer.free_mb
        for case in cases:
            found = self._result(loaded, case)
            self.still[case.name] = found.outputs
            self.own = found.memory.rss_peak  # that of the process since the model was loaded
        for case in cases[:1]:
            again = self.run(loaded, case)
            self.unsteady = any(_other(array, again.get(name)) for name, array in self.still[case.name].items())
        self.drop(loaded)


@dataclass
class Taken:
    """What came of it: see `archive.layers.LayerCapture`."""

    taps: list[Tap] = field(default_factory=list)
    unseen: dict[str, str] = field(default_factory=dict)
    changed: list[Changed] = field(default_factory=list)
    memory_mb: LookMemory | None = None


@dataclass
class Layers:
    """Takes inner tensors.

    Attributes:
        plain, here: float MNN and the quantized file on this host; there: the file on a device that is another machine.
        int8: the file holds what MNN may run in int8.
        batch_bytes, device_bytes: see `BATCH_BYTES` and `DEVICE_BYTES`.
    """

    plain: Spot
    here: Spot
    there: Spot | None
    cases: Sequence[Case]
    int8: bool = True
    batch_bytes: int = BATCH_BYTES
    device_bytes: int = DEVICE_BYTES

    def take(self, tensors: Sequence[str]) -> Taken:
        """Reduce them, in the order given.  Raises DeviceError for what asking for tensors does not bring about."""
        found = Taken()
        for spot in self._spots():
            spot.learn(self.cases)
        waiting = list(dict.fromkeys(tensors))
        count, splits = FIRST, 0
        halves: list[list[str]] = []
        while waiting or halves:
            names = halves.pop() if halves else [waiting.pop(0) for _ in range(min(count, len(waiting)))]
            try:
                taps, changed, size = self._batch(names)
            except RunnerError as error:
                if error.code not in _OF_ASKING:
                    raise
                for spot in self._spots():
                    if error.code in DEATHS or spot.where == "there":
                        spot.session.drop_runner()
                if len(names) == 1:
                    found.unseen[names[0]] = f"{error.code}: {error.message}"[:300]
                else:
                    halves += [names[len(names) // 2 :], names[: len(names) // 2]]
                continue
            if len(names) > 1 and splits < MOST_SPLITS and any(each.where != "plain" for each in changed):
                # Of the others the numbers are of the model as it is.
                splits += 1
                halves += [names[len(names) // 2 :], names[: len(names) // 2]]
                continue
            found.taps += taps
            found.changed += changed
            if not halves:
                room = int(self.batch_bytes * len(names) / max(size, 1))
                count = max(1, min(2 * count, MOST, room))
        found.memory_mb = self._memory()
        return found

    def _room(self) -> float:
        """Bytes of tensors that the device is asked for at once."""
        free = None if self.there is None else self.there.free
        return min(self.device_bytes, math.inf if free is None else OF_FREE * free)

    def _memory(self) -> LookMemory | None:
        there = self.there
        if there is None or there.own is None or there.peak is None:
            return None
        free = None if there.free is None else there.free / 1e6
        return LookMemory(
            own=there.own * 1.024e-3, peak=max(there.own, there.peak) * 1.024e-3, batch=self._room() / 1e6, free=free
        )

    def _portions(self, names: Sequence[str], here: Mapping[str, Arrays]) -> Iterator[list[str]]:
        """The tensors of a batch, so few at a time that the device has room for them."""
        portion, size = list[str](), 0
        for name in names:
            bytes_ = max((arrays[name].nbytes for arrays in here.values() if name in arrays), default=0)
            if portion and size + bytes_ > self._room():
                yield portion
                portion, size = [], 0
            portion, size = [*portion, name], size + bytes_
        if portion:
            yield portion

    def whole(self, tensors: Sequence[str]) -> dict[str, dict[str, dict[Where, np.ndarray]]]:
        """Tensor -> case -> where -> the tensor itself, of a few.  What cannot be read is left out."""
        found: dict[str, dict[str, dict[Where, np.ndarray]]] = {}
        for name in tensors:
            for spot in self._spots():
                try:
                    loaded = spot.load([name])
                    for case in self.cases:
                        array = spot.run(loaded, case)[name]
                        found.setdefault(name, {}).setdefault(case.name, {})[spot.where] = array
                    spot.drop(loaded)
                except RunnerError as error:
                    if error.code not in _OF_ASKING:
                        raise
                    spot.session.drop_runner()
        return found

    def _spots(self) -> list[Spot]:
        return [self.plain, self.here, *([] if self.there is None else [self.there])]

    def _batch(self, names: list[str]) -> tuple[list[Tap], list[Changed], int]:
        """One batch over all cases, and the bytes of its largest case.

        One model at a time is loaded on this host; what it found waits for the others.
        """
        unsteady: dict[str, list[str]] = {}
        plain, changed = self._run(self.plain, names, unsteady)
        here, more = self._run(self.here, names, unsteady)
        changed += more
        nudged: dict[str, Arrays] = {}
        if self.there is not None:
            loaded = self.here.load(self._with_outputs(self.here, names))
            exact = flags(case.inputs for case in self.cases)
            for case in self.cases:
                spared = exact if movable(case, exact) else ()
                for _, near in itertools.islice(moved(case, int8=self.int8, exact=spared), 1):
                    nudged[case.name] = self.here.run(loaded, near)
            self.here.drop(loaded)
        device: dict[tuple[str, str], tuple[Stats | None, Apart | None]] = {}
        for portion in () if self.there is None else self._portions(names, here):
            assert self.there is not None
            device |= self._reduced(self.there, portion, here, changed, unsteady)
        taps = []
        for case in self.cases:
            for name in names:
                one, two = plain[case.name].get(name), here[case.name].get(name)
                if two is None or two.dtype.kind != "f" or (one is not None and one.dtype.kind != "f"):
                    continue
                other = nudged.get(case.name, {}).get(name)
                stats, apart = device.get((case.name, name), (None, None))
                taps.append(
                    Tap(
                        case=case.name,
                        tensor=name,
                        plain=None if one is None else Stats(**tensor_stats.stats(one)),
                        here=Stats(**tensor_stats.stats(two)),
                        there=stats,
                        quantization=None if one is None else _apart(one, two),
                        moved=None if other is None else _apart(two, other),
                        device=apart,
                        unsteady=tuple(unsteady.get(name, ())) if case is self.cases[0] else (),
                    )
                )
        size = max(sum(array.nbytes for array in each.values()) for each in here.values())
        return taps, changed, size

    def _with_outputs(self, spot: Spot, names: list[str]) -> list[str]:
        return list(dict.fromkeys([*names, *(next(iter(spot.still.values()), {}))]))

    def _run(
        self, spot: Spot, names: list[str], unsteady: dict[str, list[str]]
    ) -> tuple[dict[str, Arrays], list[Changed]]:
        loaded = spot.load(self._with_outputs(spot, names))
        found, changed = {}, []
        for case in self.cases:
            found[case.name] = spot.run(loaded, case)
            changed += list(_changes(spot, case.name, names, found[case.name]))
        if spot.unsteady and spot.where == "here":
            first, again = found[self.cases[0].name], spot.run(loaded, self.cases[0])
            for name in names:
                if name in first and _other(first[name], again.get(name)):
                    unsteady.setdefault(name, []).append(spot.where)
        spot.drop(loaded)
        return found, changed

    def _reduced(
        self,
        spot: Spot,
        names: list[str],
        expected: Mapping[str, Arrays],
        changed: list[Changed],
        unsteady: dict[str, list[str]],
    ) -> dict[tuple[str, str], tuple[Stats | None, Apart | None]]:
        loaded = spot.load(self._with_outputs(spot, names))
        outputs = list(next(iter(spot.still.values()), {}))
        found: dict[tuple[str, str], tuple[Stats | None, Apart | None]] = {}
        for case in self.cases:
            sent = {name: expected[case.name][name] for name in names if expected[case.name][name].dtype.kind == "f"}
            runner = spot.session.runner()
            answer, back = runner.taps(loaded, feed(loaded, case.inputs), sent, whole=outputs)
            spot.peak = max(spot.peak or 0, answer.memory.rss_peak or 0) or None
            changed += list(_changes(spot, case.name, names, back))
            for name in sent:
                told, apart = answer.stats.get(name), answer.apart.get(name)
                found[case.name, name] = (
                    None if told is None else Stats(**told.model_dump()),
                    None if apart is None else Apart(**apart.model_dump()),
                )
        if spot.unsteady:
            case = self.cases[0]
            sent = {name: expected[case.name][name] for name in names if (case.name, name) in found}
            answer, _ = spot.session.runner().taps(loaded, feed(loaded, case.inputs), sent)
            for name in sent:
                told = answer.stats.get(name)
                if told is not None and found[case.name, name][0] != Stats(**told.model_dump()):
                    unsteady.setdefault(name, []).append(spot.where)
        spot.drop(loaded)
        return found


def _other(one: np.ndarray, two: np.ndarray | None) -> bool:
    return two is None or one.shape != two.shape or one.tobytes() != two.tobytes()


def _apart(expected: np.ndarray, got: np.ndarray) -> Apart | None:
    found = tensor_stats.apart(expected, got)
    return None if found is None else Apart(**found)


def _changes(spot: Spot, case: str, names: Sequence[str], got: Mapping[str, np.ndarray]) -> Iterator[Changed]:
    """Outputs that are not, bit by bit, what they are where no inner tensor is asked for."""
    for name, array in spot.still.get(case, {}).items():
        other = got.get(name)
        if other is not None and array.tobytes() != other.tobytes():
            yield Changed(
                where=spot.where, case=case, output=name, tensors=tuple(names), sqnr_db=compare(array, other).sqnr_db
            )


def once(
    session: Session, model: ModelFile, cases: Sequence[Case], *, path: str | None = None
) -> dict[str, Arrays] | DeviceError:
    """A model's outputs by case, or why it cannot be run."""
    try:
        return Spot("here", session, model, path).outputs(cases)
    except RunnerError as error:
        session.drop_runner()
        return error
