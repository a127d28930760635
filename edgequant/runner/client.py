"""MNN on a device, as methods: load a model, run it, time it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from edgequant.deadline import Deadline
from edgequant.errors import DeviceError, RunnerError
from edgequant.mnn_version import require_supported
from edgequant.runner import answers, rolling
from edgequant.runner.session import RunnerSession
from edgequant.spec import MemoryMode, Precision, RunOptions

if TYPE_CHECKING:
    from edgequant.runner.laboratory import Laboratory

DEFAULT_THREADS = 4
TIME_MAX_SECONDS = 60.0


@dataclass(frozen=True)
class Loaded:
    """A model in the runner's memory."""

    answer: answers.LoadAnswer
    memory: MemoryMode

    @property
    def handle(self) -> int:
        return self.answer.handle


@dataclass(frozen=True)
class RunResult:
    """One inference: outputs by name (their own memory), time in milliseconds, memory after it."""

    outputs: dict[str, np.ndarray]
    ms: float
    memory: answers.MemoryKb


@dataclass
class TimeResult:
    """A timing: latencies in milliseconds in order.

    `end` is None where the runner did not get to the end; what was measured before is kept.  `seconds`: that this host
    waited for it; `looped`: for the timed part alone.  `outputs`: of the last inference that was timed.  Of a block of
    a bench, its end is `block`, and `cpu` has the CPU time of each sample.
    """

    samples: list[float] = field(default_factory=list)
    warmup: int = 0
    end: answers.TimeAnswer | None = None
    seconds: float | None = None
    looped: float | None = None
    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    cpu: list[float] = field(default_factory=list)
    block: answers.BenchAnswer | None = None


class MnnRunner:
    """The runner of device_scripts/ on one device.

    Args:
        session: a started session.
        options: threads, precision, cores and so on for every model loaded through it.

    Raises DeviceError (MNN_TOO_OLD) where the MNN there must not be used.
    """

    def __init__(self, session: RunnerSession, options: RunOptions, *, uri: str) -> None:
        self._session = session
        self._options = options
        self.uri = uri
        self.used = False
        """Whether a model has been loaded, or was to be: its memory then tells of that one too."""
        self.hello = session.hello
        require_supported(self.hello.mnn, uri)
        header, _ = session.request("facts", deadline=Deadline(60))
        self.facts = session.checked(answers.Facts, header.get("facts", {}))
        self.threads = options.threads or min(DEFAULT_THREADS, self.facts.cores or 1)

    @cached_property
    def laboratory(self) -> Laboratory:
        """What it does for a bench."""
        from edgequant.runner.laboratory import Laboratory

        return Laboratory(self._session, self._options.timeout)

    def alive(self) -> bool:
        """Whether it still answers."""
        try:
            self._session.request("hello", deadline=Deadline(30))
        except DeviceError:
            return False
        return True

    def restarted(self) -> MnnRunner:
        """In place of this one, a runner in the same process that has its lock, and none of its memory.

        Raises RunnerError, DeviceError: see RunnerSession.restart.
        """
        self._session.restart(self._deadline())
        return MnnRunner(self._session, self._options, uri=self.uri)

    def lock(self, who: str, seconds: float, waiting: Callable[[str], None]) -> None:
        """Have the device alone as long as this runner lives; `waiting` is told who has it meanwhile.

        Where the system there has no such lock, nothing happens: it only keeps edgequants out of each other's way.

        Raises DeviceError (DEVICE_BUSY) where somebody else still has it after `seconds`.
        """

        def heard(event: dict[str, object]) -> None:
            if event.get("event") == "waiting":
                waiting(self._session.checked(answers.LockAnswer, event).holder or "")

        try:
            header, _ = self._session.request(
                "lock", {"who": who, "seconds": seconds}, deadline=Deadline(seconds + 60), on_event=heard
            )
        except RunnerError as error:
            if error.code != "LOCK_UNSUPPORTED":
                raise
            return
        if (holder := self._session.checked(answers.LockAnswer, header).holder) is not None:
            raise DeviceError(
                "DEVICE_BUSY",
                f"it is being used by {holder}",
                transient=True,
                where=self.uri,
                hint="Two at once would spoil each other's measurements.  Try again later, or wait longer with --wait.",
            )

    def load(
        self,
        path: str,
        memory: MemoryMode,
        *,
        precision: Precision | None = None,
        outputs: Sequence[str] | None = None,
        sha256: str | None = None,
        threads: int | None = None,
        cores: Sequence[int] | None = None,
    ) -> Loaded:
        """Load the model at `path` on the device.

        sha256: of the file that is meant.  precision, threads, cores: others than the options say.  outputs: the
        tensors of its main graph that it hands out, by the names MNN's file gives them; None for the model's own.

        Raises RunnerError (MODEL_LOAD_FAILED, MODEL_FILE_OTHER, TENSOR_UNKNOWN, CORES_UNAVAILABLE, ...).
        """
        options = {
            "memory": memory,
            "precision": precision or self._options.precision,
            "threads": threads or self.threads,
            "cores": list(cores or self._options.cores or ()) or None,
            "dynamic_quant_option": self._options.dynamic_quant_option,
        }
        self.used = True
        asked = {"path": path, "options": options, "outputs": None if outputs is None else list(outputs)}
        header, _ = self._session.request("load", asked, deadline=self._deadline())
        answer = self._session.checked(answers.LoadAnswer, header)
        if sha256 is not None and answer.sha256 != sha256:
            raise RunnerError(
                "MODEL_FILE_OTHER",
                f"it loaded another file than was sent: SHA-256 {answer.sha256[:12] or 'unknown'}, not {sha256[:12]}",
                where=self.uri,
                hint="Something there changes files, or its storage fails: edgequant devices clean, then run again.",
            )
        if outputs and answer.outputs != list(outputs):
            raise self._session.broken("it loaded the model with other outputs than were asked for")
        return Loaded(answer, memory)

    def unload(self, model: Loaded) -> None:
        self._session.request("unload", {"handle": model.handle}, deadline=self._deadline())

    def run(self, model: Loaded, inputs: Mapping[str, np.ndarray]) -> RunResult:
        """One inference.  Raises RunnerError (INFERENCE_FAILED, INPUT_NAMES, INPUT_DTYPE, INPUT_RANGE)."""
        header, outputs = self._session.request("run", {"handle": model.handle}, inputs, deadline=self._deadline())
        answer = self._session.checked(answers.RunAnswer, header)
        if set(outputs) != set(model.answer.outputs):
            # MNN's own failures have a code; this is a runner that does not keep its word.
            raise self._session.broken("it returned other outputs than the model has")
        return RunResult(outputs, answer.ms, answer.memory)

    def taps(
        self,
        model: Loaded,
        inputs: Mapping[str, np.ndarray],
        expected: Mapping[str, np.ndarray],
        whole: Sequence[str] = (),
    ) -> tuple[answers.TapsAnswer, dict[str, np.ndarray]]:
        """One inference of a model that was loaded with inner tensors as outputs, reduced to numbers there.

        expected: what its tensors are held against.  whole: those that come back as they are.  Raises as `run`.
        """
        sent = {f"in:{name}": array for name, array in inputs.items()}
        sent.update({f"want:{name}": array for name, array in expected.items()})
        asked = {"handle": model.handle, "whole": list(whole)}
        header, arrays = self._session.request("taps", asked, sent, deadline=self._deadline())
        if not set(arrays) <= set(whole):
            raise self._session.broken("it sent tensors that nobody asked for")
        return self._session.checked(answers.TapsAnswer, header), arrays

    def roll(self, model: Loaded, asked: rolling.Asked) -> rolling.RollResult:
        """Many steps with outputs fed back, in one request: see `rolling.roll`."""
        known = asked.of([entry.name for entry in model.answer.inputs])
        return rolling.roll(
            self._session, model.handle, known, seconds=self._options.timeout, outputs=model.answer.outputs
        )

    def time(
        self,
        model: Loaded,
        inputs: Mapping[str, np.ndarray],
        *,
        warmup: int,
        repeat: int,
        min_seconds: float = 0.0,
        max_seconds: float = TIME_MAX_SECONDS,
        into: TimeResult | None = None,
    ) -> TimeResult:
        """Warm up, then at least `repeat` timed inferences and `min_seconds`, at most `max_seconds`.

        With `into`, samples land there as they arrive, so that they survive the runner's death.
        """
        result = TimeResult() if into is None else into
        asked = {"warmup": warmup, "repeat": repeat, "min_seconds": min_seconds, "max_seconds": max_seconds}
        header = self._timed("time", model, inputs, asked, result)
        result.end = self._session.checked(answers.TimeAnswer, header)
        result.warmup = result.end.warmup
        if result.end.n != len(result.samples) or (result.end.complete and len(result.samples) < repeat):
            raise self._session.broken(f"it speaks of {result.end.n} latencies and sent {len(result.samples)}")
        return result

    def bench(
        self,
        model: Loaded,
        inputs: Mapping[str, np.ndarray],
        *,
        runs: int,
        seconds: float,
        warm_seconds: float,
        max_seconds: float,
        into: TimeResult,
    ) -> answers.BenchAnswer:
        """One block of a measurement: warm up until it is at rest, then at least `runs` and `seconds`."""
        asked = {"runs": runs, "seconds": seconds, "warm_seconds": warm_seconds, "max_seconds": max_seconds}
        header = self._timed("bench", model, inputs, asked, into)
        found = into.block = self._session.checked(answers.BenchAnswer, header)
        into.warmup = found.warmup
        if {found.n} != {len(into.samples), len(into.cpu)} or (found.complete and found.n < runs):
            raise self._session.broken(f"it speaks of {found.n} latencies and sent {len(into.samples)}")
        return found

    def _timed(
        self, op: str, model: Loaded, inputs: Mapping[str, np.ndarray], asked: dict[str, float], result: TimeResult
    ) -> dict[str, Any]:
        """A job that sends samples while it goes on; they land in `result` as they arrive."""
        warm: float | None = None

        def collect(event: dict[str, object]) -> None:
            nonlocal warm
            if event.get("event") == "warm":
                warm = time.monotonic()
            if event.get("event") == "samples":
                result.looped = None if warm is None else time.monotonic() - warm
                came = self._session.checked(answers.SamplesEvent, event)
                result.samples += came.samples
                result.cpu += came.cpu
                if max(len(result.samples), len(result.cpu)) > answers.MAX_SAMPLES:
                    raise self._session.broken(f"it sent more than {answers.MAX_SAMPLES} latencies")

        start = time.monotonic()
        header, result.outputs = self._session.request(
            op,
            {"handle": model.handle, **asked},
            inputs,
            deadline=Deadline(asked["max_seconds"] + self._options.timeout),
            on_event=collect,
        )
        result.seconds = time.monotonic() - start
        return header

    def session_memory(self, model: Loaded, shapes: Mapping[str, tuple[int, ...]]) -> float:
        """MB that MNN says a session needs.  Only for models without subgraphs; loads the model a second time."""
        header, _ = self._session.request(
            "session_memory",
            {"handle": model.handle, "shapes": {name: list(shape) for name, shape in shapes.items()}},
            deadline=self._deadline(),
        )
        return self._session.checked(answers.SessionMemory, header).session_mb

    def close(self) -> None:
        self._session.close()

    def _deadline(self) -> Deadline:
        return Deadline(self._options.timeout)
