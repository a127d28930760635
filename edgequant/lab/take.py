"""THE loop: a model on a device, every case through it, what comes back kept.

Everything that runs cases runs them here: captures of devices and of this host, checks of files, calibration samples.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from edgequant.archive.arrays import ArraySink
from edgequant.archive.laboratory import OperatorsCapture, SustainCapture
from edgequant.archive.rollout import RolloutCapture, Setting
from edgequant.archive.types import (
    ArrayRef,
    Capture,
    CaseCapture,
    DeviceCapture,
    Failure,
    Memory,
    Moved,
    Role,
    SessionCapture,
    TimingCapture,
)
from edgequant.archive.witness import Witness
from edgequant.cases.case import Case, usual
from edgequant.clock import Clock
from edgequant.errors import DeviceError, EdgequantError, RunnerError, ToolError
from edgequant.host_memory import memory_for
from edgequant.lab.session import Session
from edgequant.runner.answers import MemoryKb
from edgequant.runner.client import Loaded, MnnRunner, RunResult
from edgequant.spec import MemoryMode, Precision

DEATHS = ("RUNNER_DIED", "RUNNER_OUT_OF_MEMORY")
HOST_DEATHS = 3
"""So many cases may kill the runner on this host before no more are tried."""

_HINTS = {
    "CORES_UNAVAILABLE": "Give --cores that this device has, or leave it out.",
    "CORES_UNSUPPORTED": "Leave --cores out.",
    "INFERENCE_FAILED": "MNN on this host runs this case: compare the MNN versions, or pin other sizes with --shape.",
    "MODEL_LOAD_FAILED": "MNN on this host made this file: install the same version there.",
    "OUT_OF_MEMORY": "Use smaller cases (--shape), or a smaller variant.",
}
"""What to do about a job that the runner refused; it does not know the command line."""


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Add what to do to errors of the runner that do not say it."""
    try:
        yield
    except EdgequantError as error:
        error.hint = error.hint or _HINTS.get(error.code)
        raise


def feed(loaded: Loaded, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inputs the MNN model still has: the converter drops those that nothing reads."""
    strangers = [entry.name for entry in loaded.answer.inputs if entry.name not in inputs]
    if strangers:
        raise RunnerError(
            "RUNNER_PROTOCOL", f"the runner wants inputs the model does not have: {', '.join(strangers)[:200]}"
        )
    return {entry.name: inputs[entry.name] for entry in loaded.answer.inputs}


@dataclass(frozen=True)
class ModelFile:
    """A model to be run: where it is on this host, its hash if that is known, and how MNN is to run it.

    precision, threads, cores: others than the session's options say.
    """

    path: Path
    memory: MemoryMode
    sha256: str | None = None
    precision: Precision | None = None
    threads: int | None = None
    cores: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        """Bytes; 0 where it is gone."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0


def load(runner: MnnRunner, path: str, model: ModelFile) -> Loaded:
    """Load it from a path on the device, as it is to be run."""
    return runner.load(
        path, model.memory, precision=model.precision, sha256=model.sha256, threads=model.threads, cores=model.cores
    )


@dataclass
class Place:
    """A model in a device's runner; with both, where the runner died and the model had to be loaded again."""

    session: Session
    model: ModelFile
    path: str
    runner: MnnRunner
    loaded: Loaded
    deaths: int = 0

    @classmethod
    def load(cls, session: Session, model: ModelFile, path: str | None = None) -> Place:
        """Load it into the session's runner.  `path`: on the device; None for that on this host.

        Raises DeviceError.
        """
        runner = session.living_runner()
        session.device.bound_memory(memory_for(model.size))
        where = str(model.path.resolve()) if path is None else path
        return cls(session, model, where, runner, load(runner, where, model))

    def again(self) -> None:
        """Load it into a new runner, after the death of the one that had it."""
        self.deaths += 1
        self.session.drop_runner()
        self.runner = self.session.runner()
        self.session.device.bound_memory(memory_for(self.model.size))
        self.loaded = load(self.runner, self.path, self.model)

    def with_memory(self, memory: MemoryMode) -> Place:
        """The same file in the same runner once more, loaded with another memory mode."""
        model, runner = replace(self.model, memory=memory), self.session.runner()
        return Place(self.session, model, self.path, runner, load(runner, self.path, model))

    def unload(self) -> None:
        """Nothing to do where the runner that had it has been replaced."""
        if self.runner is self.session.known_runner:
            self.runner.unload(self.loaded)


def each_case(
    place: Place, cases: Iterable[Case], *, deaths: int = 0
) -> Iterator[tuple[Case, RunResult | RunnerError]]:
    """Run each case: its result, or why MNN refused it.

    The policy for refusals, everywhere: MNN refuses a case (INFERENCE_FAILED) while the runner lives: that is the
    answer for this case, and the next one is run.  A case kills the runner: the same, with a new runner, but only for
    the first `deaths` of them.  Everything else, such as a lost link, a deadline, nonsense on the wire, or one death
    more, is raised: then nothing is known of the cases that are left.
    """
    for case in cases:
        size = sum(array.nbytes for array in case.inputs.values())
        place.session.device.bound_memory(memory_for(place.model.size, size))
        try:
            yield case, place.runner.run(place.loaded, feed(place.loaded, case.inputs))
        except RunnerError as error:
            if error.code in DEATHS and place.deaths < deaths:
                yield case, error
                place.again()
            elif error.code == "INFERENCE_FAILED":
                yield case, error
            else:
                raise


@dataclass
class Taking:
    """A trial that is being taken: what probes may look at, and where they put what they find."""

    place: Place
    sink: ArraySink
    on_device: bool = True
    cases: dict[str, CaseCapture] = field(default_factory=dict)
    done: list[Case] = field(default_factory=list)
    """Cases that were run, in order."""
    repeated: list[CaseCapture] = field(default_factory=list)
    normal: list[CaseCapture] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)
    timings: list[TimingCapture] = field(default_factory=list)
    session: SessionCapture | None = None
    rollout: RolloutCapture | None = None
    settings: list[Setting] = field(default_factory=list)
    witness: Witness | None = None
    sustained: SustainCapture | None = None
    operators: OperatorsCapture | None = None

    @property
    def middle(self) -> Case:
        """The middle size, so that neither the smallest nor the largest case stands for all."""
        cases = usual(self.done)
        return cases[len(cases) // 2]

    def keep(self, case: Case, result: RunResult) -> CaseCapture:
        """A case that was run, with its arrays in the archive."""
        return CaseCapture(
            case=case.name,
            outputs=self.refs(result.outputs),
            ms=result.ms if result.ms >= 0 else None,
            memory=memory_of(result.memory),
        )

    def refs(self, arrays: Mapping[str, np.ndarray]) -> dict[str, ArrayRef]:
        return {name: self.sink.put(array) for name, array in arrays.items()}


class Probe(Protocol):
    """One thing that is measured after all cases have been run, with the model still loaded."""

    name: str

    def take(self, taking: Taking) -> None:
        """Measure it.  Raises DeviceError, which ends the trial: what came before is kept."""


def refusal_of(case: Case, error: RunnerError) -> CaseCapture:
    """A case that MNN refused, or that killed it."""
    code = None if error.code == "INFERENCE_FAILED" else error.code
    return CaseCapture(case=case.name, refused=error.message, refused_code=code)


def memory_of(answer: MemoryKb) -> Memory:
    return Memory.model_validate(answer.model_dump())


def take(
    session: Session,
    model: ModelFile,
    cases: Sequence[Case],
    probes: Sequence[Probe],
    sink: ArraySink,
    *,
    trial: str,
    role: Role,
    variant: str | None = None,
    clock: Clock | None = None,
    runtime_told: int = 0,
) -> Capture:
    """Take one trial: load the model, run every case, let the probes measure, unload.

    A device gets a runner of its own for it, so that memory of one trial knows nothing of another's.

    runtime_told: what earlier trials have told of the bytes of runner and pack that were sent.

    Device and runner errors end up in the capture, with all that came before them; only errors of this host's disk,
    and what is no EdgequantError, are raised.
    """
    clock = clock or Clock()
    on_device = role == "device"
    found = Capture(trial=trial, role=role, variant=variant, artifact_sha256=model.sha256, memory_mode=model.memory)
    sent = None
    taking: Taking | None = None
    facts: dict[str, object] = {}
    failure: EdgequantError | None = None
    try:
        with explained():
            path = None
            if on_device:
                session.fresh()
                with clock.phase("model push"):
                    path, sent = session.push(model.path, model.sha256)
            place = Place.load(session, model, path)
            answer = place.loaded.answer
            facts = {
                "load_ms": answer.load_ms if answer.load_ms >= 0 else None,
                "before": memory_of(answer.memory_before),
                "loaded": memory_of(answer.memory_after),
                "threads": place.runner.threads,
            }
            taking = Taking(place, sink, on_device)
            for case, result in each_case(place, cases, deaths=0 if on_device else HOST_DEATHS):
                if isinstance(result, RunnerError):
                    taking.cases[case.name] = refusal_of(case, result)
                    continue
                taking.cases[case.name] = taking.keep(case, result)
                taking.done.append(case)
            if taking.done:
                for probe in probes:
                    with clock.phase(probe.name):
                        probe.take(taking)
                place.unload()
    except (DeviceError, ToolError) as error:
        failure = error
        session.drop_runner()  # whatever state it is in, the next trial gets another
    if taking is not None:
        facts |= {
            "cases": tuple(taking.cases.values()),
            "repeated": tuple(taking.repeated),
            "normal": tuple(taking.normal),
            "moved": tuple(taking.moved),
            "timings": tuple(taking.timings),
            "session": taking.session,
            "rollout": taking.rollout,
            "settings": tuple(taking.settings),
            "witness": taking.witness,
            "sustained": taking.sustained,
            "operators": taking.operators,
        }
    return found.model_copy(
        update={
            **facts,
            "device": device_capture_of(session),
            "pushed_bytes": sent,
            "runtime_bytes": session.runtime_bytes - runtime_told,
            "failure": None if failure is None else Failure.of(failure),
        }
    )


def device_capture_of(session: Session) -> DeviceCapture:
    """What a device and its runner have told of themselves so far."""
    runner, chosen, device = session.known_runner, session.chosen, session.facts
    told = DeviceCapture(uri=session.uri, is_host=session.device.is_host, emulator=session.device.emulated)
    if runner is None or chosen is None or device is None:
        return told
    facts = device.model_dump(mode="json")
    top = {key: facts.pop(key) for key in ("arch", "cpu", "features", "cores", "ram_mb", "os")}
    return told.model_copy(
        update={
            **top,
            "features": tuple(top["features"] or ()),
            "mnn": runner.hello.mnn,
            "facts": {
                **facts,
                "emulator": session.device.emulated,
                "mnn_kernels": runner.facts.mnn_kernels,
                "usable_cores": runner.facts.usable_cores,
                "python": runner.hello.python,
                "numpy": runner.hello.numpy,
                "threads": runner.threads,
                "runtime": chosen.runtime,
                "pack": chosen.pack,
                "why_not_pack": None if chosen.instead is None else f"{chosen.instead.code}: {chosen.instead}",
            },
        }
    )
