"""A machine that was made up, with a clock of its own, on which the runner's own code measures a model.

Its files are read by the code that reads the kernel's; its inferences, its clocks and its known work are simulated, so
that a block takes milliseconds and comes out the same each time.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgequant.archive.timing import ConditionsCapture, EnergyCapture, Readied, TimingCapture
from edgequant.device_scripts import bench, conditions, energy, system
from edgequant.runner.answers import BenchAnswer
from tests.device_scripts.trees import TICKS, Tree

CPUS = [0, 1]
BASE_MS = 10.0
WORK_MS = 2.0
RUNS, SECONDS, WARM = 30, 1.0, 8.0


class Death(Exception):
    """The runner is killed."""


@dataclass
class World:
    """A quiet machine; plants change its fields, at once or later.

    Attributes:
        threads: CPUs that the model keeps busy.  noise: of an inference's time, as a share.
        speed: of the CPUs; bandwidth: of what the model needs beside them, which known work does not feel.
        others, stolen, waiting: CPUs' worth each second, beyond which nothing is seen of them.
        clock: seconds of the device's clock in one of the host's.  tick: seconds of its steps.
        held: seconds in which each inference waits for something.  cpus: that it may use.
        calendar, boot: seconds by which clocks were set.
        readied: how it was made ready.  fastest: known work at its fastest in the session.
    """

    tree: Tree
    random: random.Random
    threads: int = 1
    noise: float = 0.01
    speed: float = 1.0
    bandwidth: float = 1.0
    others: float = 0.0
    stolen: float = 0.0
    waiting: float = 0.0
    clock: float = 1.0
    calendar: float = 0.0
    boot: float = 0.0
    most_seconds: float = 600.0
    tick: float = 0.0
    held: float = 0.0
    cpus: list[int] = field(default_factory=lambda: list(CPUS))
    readied: Readied | None = None
    fastest: float | None = WORK_MS
    now: float = 0.0
    own: float = 0.0
    _busy: float = 40.0
    _stolen: float = 0.0
    _waiting: float = 0.0
    begun: float | None = None
    pauses: list[float] = field(default_factory=list)
    """Milliseconds that next inferences are held up."""
    later: list[tuple[float, Callable[[], object]]] = field(default_factory=list)
    drift: Callable[[float], float] = lambda _: 1.0
    """By what an inference takes longer, so many seconds after the block began."""

    CLOCK_BOOTTIME = CLOCK_MONOTONIC = 7

    def at(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something so many seconds after the warm-up; negative ones are from the begin of the block."""
        self.later.append((seconds, action))

    # ---- the module `time`, as the runner knows it

    def perf_counter(self) -> float:
        told = self.now * self.clock
        return 100.0 + (told // self.tick * self.tick if self.tick else told)

    def perf_counter_ns(self) -> int:
        return round(self.perf_counter() * 1e9)

    def process_time(self) -> float:
        self._files()
        return self.own

    def process_time_ns(self) -> int:
        return round(self.own * 1e9)

    def clock_gettime(self, _which: int) -> float:
        return 5000.0 + self.now * self.clock + self.boot

    def time(self) -> float:
        return 1.7e9 + self.now * self.clock + self.calendar

    # ---- what happens

    def infer(self) -> tuple[float, None]:
        """One inference."""
        self._due()
        begin = self.perf_counter()
        ms = BASE_MS / self.speed / self.bandwidth * self.drift(self.now) * (1 + self.noise * self.random.random())
        self._pass(ms / 1e3, self.threads)
        self._pass(self.held, 0)
        if self.begun is not None and self.pauses:
            self._pass(self.pauses.pop() / 1e3, 0)
        return (self.perf_counter() - begin) * 1e3, None

    def known_work(self) -> float:
        ms = WORK_MS / self.speed * (1 + 0.01 * self.random.random())
        self._pass(5 * ms / 1e3, 1)
        return ms

    def _pass(self, seconds: float, cpus: float) -> None:
        self.now += seconds
        self.own += seconds * cpus
        self._busy += seconds * (cpus + self.others)
        self._stolen += seconds * self.stolen
        self._waiting += seconds * self.waiting

    def _due(self) -> None:
        for each in list(self.later):
            seconds, action = each
            if (self.begun is not None and self.now >= self.begun + seconds) if seconds >= 0 else self.now >= -seconds:
                self.later.remove(each)
                action()

    def _files(self) -> None:
        lines = []
        for cpu in CPUS:
            busy, stolen = (round(value / len(CPUS) * TICKS) for value in (self._busy, self._stolen))
            lines.append(f"cpu{cpu} {busy} 0 0 999 0 0 0 {stolen} 0 0")
        self.tree.write("proc/stat", "\n".join([*lines, "procs_running 2"]))
        micro = round(self._waiting * 1e6)
        self.tree.write("proc/pressure/cpu", f"some avg10=0.00 avg60=0.00 avg300=0.00 total={micro}\nfull total=0")

    # ---- the runner

    def block(self) -> TimingCapture:
        """One block as the runner takes it, and the host keeps it."""
        samples: list[float] = []
        cpu: list[float] = []

        def emit(event: dict[str, Any]) -> None:
            if event["event"] == "warm":
                self.begun = self.now
            else:
                samples.extend(event["samples"])
                cpu.extend(event["cpu"])

        header = {"runs": RUNS, "seconds": SECONDS, "warm_seconds": WARM, "max_seconds": self.most_seconds}
        found = {"case": "middle", "readied": self.readied}
        begin = self.now
        with self._inside():
            try:
                answer, _ = bench.block(self.infer, header, emit, 0.3)
            except Death:
                return TimingCapture(samples_ms=tuple(samples), cpu_ms=tuple(cpu), **found)
        told = BenchAnswer.model_validate(answer)
        return TimingCapture(
            samples_ms=tuple(samples), cpu_ms=tuple(cpu), warmup=told.warmup, complete=told.complete,
            steady=told.steady, work_ms=tuple(told.work_ms), seconds=self.now - begin,
            looped=self.now - (self.begun or 0.0), energy=EnergyCapture.model_validate(answer["energy"]),
            conditions=tuple(ConditionsCapture.model_validate(each.model_dump()) for each in told.conditions), **found,
        )  # fmt: skip

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        changes = [(bench, "time", self), (conditions, "time", self), (energy, "time", self),
                   (conditions, "known_work", self.known_work), (system, "cpus", lambda: self.cpus),
                   (system, "root", lambda: str(self.tree.root))]  # fmt: skip
        before = [(module, name, getattr(module, name)) for module, name, _ in changes]
        try:
            for module, name, value in changes:
                setattr(module, name, value)
            yield
        finally:
            for module, name, value in before:
                setattr(module, name, value)


def world(root: Path, seed: int) -> World:
    """A quiet one."""
    return World(Tree(root, CPUS), random.Random(seed))
