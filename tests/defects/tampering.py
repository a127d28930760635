"""Runs inside the runner, before it: makes of a healthy device one that is broken or lies.

It needs the standard library and NumPy alone, and takes hold of what any runner has to use: clocks, /proc, the job that
loads a file, the inference.
"""

from __future__ import annotations

import importlib
import itertools
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .mechanisms import At
from .outputs import FAULTS
from .stateful import plant

TAMPERED = "EDGEQUANT_TAMPERED"
"""Environment of the device's Python.  An emulated device has none, but another CPU than this host."""

Engine = Any
"""The module device_scripts.engine."""


def begin(name: str, argument: str, mark: str) -> None:
    """Called by the runner's __main__; mark: a file that is made once the defect is there."""
    if not os.environ.get(TAMPERED) and platform.machine() != "aarch64":
        return  # this host's own runner
    if name in BEFORE:
        BEFORE[name]()
        Path(mark).touch()
        return
    real = importlib.import_module

    def importing(module: str, package: str | None = None) -> Any:
        found = real(module, package)
        if module.endswith("engine"):
            AFTER[name](found, argument)
            Path(mark).touch()
        return found

    importlib.import_module = importing


# ---- what comes out


def outputs(engine: Engine, fault: str) -> None:
    """One of the table of outputs, in every inference whose outputs are handed out."""
    real, effect, earlier = engine.Engine.job_run, FAULTS[fault].effect, []

    def run(self: Any, job: Any) -> Any:
        header, right = real(self, job)
        low = self._model(job).config["memory"] == engine.MEMORY["low"]
        got = effect(dict(right), At(len(earlier), dict(job.tensors), tuple(earlier), low))
        earlier.append(right)
        return header, got

    engine.Engine.job_run = run


def state(engine: Engine, fault: str) -> None:
    """One of the table of what happens to a state between two steps of a rollout."""
    plant(engine.rollout, fault)


def after_many(engine: Engine, calls: str) -> None:
    """From the so manieth inference on, timed ones included, every output is 4 % too loud."""
    real, read, count = engine.Loaded.forward, engine.Loaded.read, itertools.count()
    now = [0]

    def forward(self: Any, variables: Any) -> Any:
        now[0] = next(count)
        return real(self, variables)

    def reading(self: Any, results: Any) -> Any:
        arrays = read(self, results)
        late = now[0] >= int(calls)
        return {name: (array * 1.04).astype(array.dtype) if late else array for name, array in arrays.items()}

    engine.Loaded.forward, engine.Loaded.read = forward, reading


def _key(variables: Any) -> tuple[Any, ...]:
    return tuple((tuple(each.shape), np.asarray(each.read()).tobytes()) for each in variables)


def cached(engine: Engine, _: str) -> None:
    """Outputs are kept under the inputs: the second time nothing is computed."""
    real, kept = engine.Loaded.forward, {}

    def forward(self: Any, variables: Any) -> Any:
        key = (id(self), *_key(variables))
        if key not in kept:
            kept[key] = real(self, variables)
        return kept[key]

    engine.Loaded.forward = forward


def _in_the_loop(engine: Engine, instead: Callable[[Any, Any, Any], Any]) -> None:
    """While inferences are timed, something else than an inference."""
    timing, real, inside = engine.Engine.job_time, engine.Loaded.forward, [False]

    def timed(self: Any, job: Any) -> Any:
        inside[0] = True
        try:
            return timing(self, job)
        finally:
            inside[0] = False

    def forward(self: Any, variables: Any) -> Any:
        return instead(self, variables, real) if inside[0] else real(self, variables)

    engine.Engine.job_time, engine.Loaded.forward = timed, forward


def loop_of_one(engine: Engine, _: str) -> None:
    """The timed loop computes once, and hands out the same again."""
    kept: list[Any] = []

    def instead(self: Any, variables: Any, real: Any) -> Any:
        if not kept:
            kept.extend(real(self, variables))
        return list(kept)

    _in_the_loop(engine, instead)


def loop_of_zeros(engine: Engine, _: str) -> None:
    """The timed loop runs on inputs of zeros, of which sparse kernels make less work."""

    def instead(self: Any, variables: Any, real: Any) -> Any:
        return real(self, self.feed({name: np.zeros(tuple(v.shape), np.asarray(v.read()).dtype)
                                     for name, v in zip(self.input_names, variables)}))  # noqa: B905  # fmt: skip

    _in_the_loop(engine, instead)


# ---- files


def other_file(engine: Engine, path: str) -> None:
    """Another file is loaded than the one that was sent."""
    real = engine.Engine.job_load

    def load(self: Any, job: Any) -> Any:
        job.header["path"] = path
        return real(self, job)

    engine.Engine.job_load = load


def other_kernels(engine: Engine, argument: str) -> None:
    """Int8 kernels compute something else: they run another file (MEMORY:PATH, with that memory), and it is told as the
    one that was sent."""
    memory, _, path = argument.partition(":")
    real, digest, sent = engine.Engine.job_load, engine._sha256, {}

    def load(self: Any, job: Any) -> Any:
        if job.header["options"]["memory"] == memory:
            sent[path] = job.header["path"]
            job.header["path"] = path
        return real(self, job)

    engine.Engine.job_load = load
    engine._sha256 = lambda of: digest(sent.get(of, of))


# ---- memory low


def low_ignored(engine: Engine, how: str) -> None:
    """Memory low is taken for normal; how: what hides it, "session" memory that falls or the "last bit" of outputs."""
    engine.MEMORY = dict(engine.MEMORY, low=engine.MEMORY["normal"])
    loading, session, run, modes = engine.Engine.job_load, engine.Engine.job_session_memory, engine.Engine.job_run, {}

    def load(self: Any, job: Any) -> Any:
        answer = loading(self, job)
        modes[answer[0]["handle"]] = job.header["options"]["memory"]
        return answer

    def memory(self: Any, job: Any) -> Any:
        header, rest = session(self, job)
        low = modes[job.header["handle"]] == "low"
        return dict(header, session_mb=header["session_mb"] * (0.4 if low and how == "session" else 1)), rest

    def running(self: Any, job: Any) -> Any:
        header, arrays = run(self, job)
        if modes[job.header["handle"]] == "low" and how == "last bit":
            for name, array in arrays.items():
                if array.dtype == np.float32 and array.size:
                    array = array.copy()
                    array.reshape(-1)[0] = np.nextafter(array.reshape(-1)[0], np.float32(9))
                    arrays[name] = array
        return header, arrays

    engine.Engine.job_load, engine.Engine.job_session_memory, engine.Engine.job_run = load, memory, running


# ---- times

_REAL = {name: getattr(time, name) for name in ("perf_counter", "monotonic", "time", "perf_counter_ns", "monotonic_ns",
                                                "time_ns")}  # fmt: skip


def _clock(told: Callable[[float], float]) -> None:
    """Every clock of this process tells something else; told: seconds since now -> what it says of them."""
    for name, real in _REAL.items():
        unit = 1e9 if name.endswith("_ns") else 1.0
        begun = real()

        def clock(real: Any = real, unit: float = unit, begun: float = begun) -> Any:
            said = begun + told((real() - begun) / unit) * unit
            return int(said) if unit > 1 else said

        setattr(time, name, clock)


def clock_slow() -> None:
    """It runs at half the speed, so that all is twice as fast."""
    _clock(lambda seconds: seconds / 2)


def clock_coarse() -> None:
    """It ticks every 40 ms, so that most inferences take no time at all."""
    _clock(lambda seconds: seconds // 0.04 * 0.04)


def clock_jumps() -> None:
    """Every second it is set forward by 150 ms, as where something sets it right again and again."""
    _clock(lambda seconds: seconds + 0.15 * (seconds // 0.2))


def clock_back() -> None:
    """It is set back by 100 ms, four times a second."""
    _clock(lambda seconds: seconds - 0.1 * (seconds // 0.25))


def throttled(engine: Engine, _: str) -> None:
    """After a quarter of a second of work it is held back to a third of its speed."""
    real, burst = engine.Loaded.forward, [0.0, 0.0]

    def forward(self: Any, variables: Any) -> Any:
        now = time.perf_counter()
        if now - burst[1] > 0.1:
            burst[0] = now
        results = real(self, variables)
        if now - burst[0] > 0.25:
            for _ in range(2):
                results = real(self, variables)
        burst[1] = time.perf_counter()
        return results

    engine.Loaded.forward = forward


# ---- memory


def _memory(engine: Engine, told: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    real = engine.Memory.read
    engine.Memory.read = lambda self, *args, **more: told(real(self, *args, **more))


def memory_zero(engine: Engine, _: str) -> None:
    _memory(engine, lambda found: dict.fromkeys(found, 0))


def memory_peak_below(engine: Engine, _: str) -> None:
    """The highest mark lies below what there is now."""
    _memory(engine, lambda found: dict(found, rss_peak=(found["rss"] or 0) // 2))


def memory_pss_above(engine: Engine, _: str) -> None:
    """A process's share is larger than all that it sees."""
    _memory(engine, lambda found: dict(found, pss=3 * (found["rss"] or 0)))


def memory_frozen(engine: Engine, _: str) -> None:
    """It is read once, before the model is loaded."""
    kept: dict[str, Any] = {}
    _memory(engine, lambda found: kept.setdefault("first", found))


def memory_leak(engine: Engine, _: str) -> None:
    """Each inference keeps a megabyte."""
    real, kept = engine.Loaded.forward, []

    def forward(self: Any, variables: Any) -> Any:
        if len(kept) < 700:
            kept.append(np.ones(1 << 20, np.uint8))
        return real(self, variables)

    engine.Loaded.forward = forward


# ---- what it says of itself


def claims_arm() -> None:
    """Its kernel says aarch64 to this process, and something else to a shell."""
    real = os.uname()
    os.uname = lambda: type(real)((*tuple(real)[:4], "aarch64"))  # type: ignore[assignment]


def claims_cores() -> None:
    """It speaks of 64 cores, and says that it is bound to those it is told to."""
    bound = [set(range(64))]
    os.cpu_count = lambda: 64  # type: ignore[assignment]
    os.sched_getaffinity = lambda _pid: set(bound[0])  # type: ignore[attr-defined]
    os.sched_setaffinity = lambda _pid, cores: bound.__setitem__(0, set(cores))  # type: ignore[attr-defined]


def claims_version(engine: Engine, version: str) -> None:
    engine.MNN.version = lambda: version


def claims_kernels(engine: Engine, _: str) -> None:
    """MNN's first line names kernels of another CPU."""
    real = engine.Engine.__init__

    def init(self: Any, banner: str, *rest: Any) -> None:
        real(self, "The device supports: i8sdot:1, fp16:1, i8mm:1, sve2:1, sme2:1\n", *rest)

    engine.Engine.__init__ = init


def one_thread(engine: Engine, _: str) -> None:
    """However many threads are asked for, it computes in one."""
    real = engine.Loaded.__init__

    def init(self: Any, path: str, options: Any, *rest: Any) -> None:
        real(self, path, dict(options, threads=1), *rest)

    engine.Loaded.__init__ = init


def nothing(engine: Engine, _: str) -> None:
    """The healthy twin."""


BEFORE: dict[str, Callable[[], None]] = {
    each.__name__: each
    for each in (clock_slow, clock_coarse, clock_jumps, clock_back, claims_arm, claims_cores)
}  # fmt: skip
AFTER: dict[str, Callable[[Engine, str], None]] = {
    each.__name__: each
    for each in (
        outputs, state, after_many, cached, loop_of_one, loop_of_zeros, other_file, low_ignored, throttled, memory_zero,
        other_kernels, memory_peak_below, memory_pss_above, memory_frozen, memory_leak, claims_version, claims_kernels,
        one_thread, nothing,
    )
}  # fmt: skip
