"""What a bench is asked to do, as its folder keeps it, and as somebody would type it."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edgequant.archive.bench import BenchFile, BenchPlan
from edgequant.archive.types import HostFacts
from edgequant.judge.bench import TELL, WITHIN
from edgequant.plan.request import Request
from edgequant.plan.stored import plan_of
from edgequant.plan.words import options_of
from edgequant.spec import MemoryMode
from edgequant.version import __version__

MINUTE = 60.0
PARTS = 10
"""A long run that is shorter than so many minutes has so many periods."""
MAX_PERIODS = 1000


@dataclass(frozen=True)
class LaboratoryRequest:
    """What is asked beside latencies.

    Attributes:
        governor: CPU frequency governor to be set meanwhile; None to leave it.
        cool_below: degrees Celsius waited for before each block, for at most cool_seconds.
        sustain: seconds without a pause, of each setting, behind the blocks.
        per_op: whether operators are timed, in a pass of its own.
    """

    governor: str | None = None
    cool_below: float | None = None
    cool_seconds: float = 300.0
    sustain: float | None = None
    per_op: bool = False

    @property
    def period(self) -> float:
        """Of the long run: a minute, but a tenth of a shorter run, and of one that is very long more."""
        seconds = self.sustain or 0.0
        return max(min(MINUTE, seconds / PARTS), seconds / MAX_PERIODS)


@dataclass(frozen=True)
class BenchRequest:
    """What is measured.

    Attributes:
        request: model, devices, variants, inputs, how models are run, and where it is kept.
        against: further files that are measured beside it: of an earlier release, or made in another way.
        files: that were made already: they are measured in place of what would be made of the request's variants.
        baseline: the folder of an earlier bench that the numbers are held against.
        threads, memory: each of them; empty for the default.
        blocks: processes per setting.  runs, seconds: that each block takes at least, behind its warm-up of
            at most warm_seconds.
        redo: so many times `blocks` rounds may be taken once more where something was in the way.
        within, tell: see `judge.bench`.  allowed: codes of conditions that are borne.
        laboratory: what is asked beside latencies.
    """

    request: Request
    against: tuple[Path, ...] = ()
    files: tuple[BenchFile, ...] = ()
    baseline: Path | None = None
    threads: tuple[int, ...] = ()
    memory: tuple[MemoryMode, ...] = ()
    blocks: int = 7
    runs: int = 30
    seconds: float = 1.0
    warm_seconds: float = 8.0
    redo: float = 1.0
    within: float = WITHIN
    tell: float = TELL
    allowed: tuple[str, ...] = ()
    laboratory: LaboratoryRequest = field(default_factory=LaboratoryRequest)


def plan_of_bench(asked: BenchRequest, model_sha256: str, files: Sequence[BenchFile], mnn: str) -> BenchPlan:
    """All of it that has to be known later.  mnn: the version on this host."""
    request = asked.request
    stored = plan_of(request, mnn)
    return BenchPlan(
        edgequant=__version__, host=HostFacts(arch=platform.machine(), mnn=mnn), model=stored.model,
        model_sha256=model_sha256, devices=request.devices, variants=tuple(map(str, request.variants)),
        against=tuple(str(each.absolute()) for each in asked.against), files=tuple(files),
        inputs=stored.inputs, shapes=request.shapes, threads=asked.threads, memory=asked.memory,
        blocks=asked.blocks, runs=asked.runs, seconds=asked.seconds, warm_seconds=asked.warm_seconds,
        redo=asked.redo, within=asked.within, tell=asked.tell, allowed=asked.allowed, options=request.options,
        laboratory=asdict(asked.laboratory), reach=stored.reach, command=command_of(asked),
    )  # fmt: skip


def command_of(asked: BenchRequest) -> str:
    """What would be typed for it."""
    request, usual = asked.request, BenchRequest(asked.request)
    words = ["edgequant", "bench", str(request.model)]
    words += [word for uri in request.devices for word in ("--device", uri)]
    words += [word for variant in request.variants for word in ("--variant", str(variant))]
    words += [word for path in asked.against for word in ("--against", str(path))]
    words += [] if asked.baseline is None else ["--baseline", str(asked.baseline)]
    for name in ("threads", "memory"):
        if given := getattr(asked, name):
            words += [f"--{name}", ",".join(map(str, given))]
    for name, option in (("blocks", "blocks"), ("runs", "runs"), ("seconds", "seconds"), ("warm_seconds", "warm-up")):
        if (value := getattr(asked, name)) != getattr(usual, name):
            words += [f"--{option}", f"{value:g}"]
    for name in ("within", "tell"):
        if (value := getattr(asked, name)) != getattr(usual, name):
            words += [f"--{name}", f"{100 * value:g}"]
    words += [word for code in asked.allowed for word in ("--allow", code)]
    words += list(_laboratory(asked.laboratory))
    return shlex.join([*words, *options_of(request)])


def _laboratory(asked: LaboratoryRequest) -> Iterator[str]:
    if asked.governor is not None:
        yield from ("--governor", asked.governor)
    if asked.cool_below is not None:
        yield from ("--cool-below", f"{asked.cool_below:g}")
    if asked.sustain is not None:
        yield from ("--sustain", f"{asked.sustain:g}s")
    if asked.per_op:
        yield "--per-op"
