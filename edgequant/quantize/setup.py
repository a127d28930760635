"""What every way to make a file is given: the source, where files go, how it is done, and what takes a runner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypedDict

import numpy as np

from edgequant.archive.types import Artifact, CalibrationFacts, CalibrationShapes
from edgequant.cases.case import Case
from edgequant.clock import Clock
from edgequant.host_memory import memory_for
from edgequant.models import ModelGraph
from edgequant.progress import Progress
from edgequant.spec import Limit, MemoryMode, RunOptions
from edgequant.spec.images import ImageOptions
from edgequant.tensors import TensorSpec

if TYPE_CHECKING:
    from edgequant.judge.sane import Sanity
    from edgequant.quantize.calibration import CalibrationSet
    from edgequant.quantize.evaluation import Evaluation


@dataclass(frozen=True)
class MakeOptions:
    """How variants are made.

    Attributes:
        timeout: seconds one run of a tool may take.
        calibration: samples for methods that need them: a path, or ``module:function``; None for `inputs`, or random.
        inputs: where the cases come from; None where they are random.
        images: how pictures become tensors.
        fallback: whether another way may be tried where the one that was asked for does not work.
        budget: of auto: the smallest model, or the fastest on a device.
        run: how models will be run: seed, memory, time for one inference.
    """

    timeout: float = 900.0
    calibration: str | None = None
    inputs: Path | None = None
    images: ImageOptions | None = None
    fallback: bool = True
    budget: Literal["size", "latency"] = "size"
    run: RunOptions = field(default_factory=RunOptions)


class Evaluator(Protocol):
    """Runs a file on a device, in a memory mode."""

    def key(self) -> str:
        """What its answers depend on besides the file: device, options, references."""

    def __call__(self, path: Path, memory: MemoryMode) -> Evaluation: ...


@dataclass(frozen=True)
class OnHost:
    """What is known only to those who have a runner, and what they do for the maker.

    Attributes:
        inputs: what a sample must hold, with the sizes that are pinned.
        cases: in order; expected: the reference outputs of a case, by its name.
        goals: of auto: what its model has to keep.
        check: looks at a file that a ladder has made, with a private folder for what that takes.  Raises RunnerError
            where it crashes or does not load.
        checked_on: gives a digest of all that `check` depends on besides the file.
        refuse: raises InputError CALIBRATION_REFUSED where the float model cannot run one of the samples.
        evaluator: of auto with budget latency.  Raises InputError LATENCY_UNKNOWN.
    """

    inputs: tuple[TensorSpec, ...]
    cases: Sequence[Case]
    expected: Callable[[str], Mapping[str, np.ndarray]]
    goals: tuple[Limit, ...]
    check: Callable[[Artifact, Path], Sanity]
    checked_on: Callable[[], str]
    refuse: Callable[[CalibrationSet], None]
    evaluator: Callable[[], Evaluator]


class Tools(TypedDict):
    """How MNN's tools are run: folder of their logs, seconds and bytes each may take; and the float model of the
    source, where it was made already."""

    log_dir: Path
    timeout: float
    memory_limit: int | None
    float_model: Artifact | None


@dataclass(frozen=True)
class Setup:
    """folder: of the run; models go into models/, logs into logs/, samples of a function into calibration/, what a
    search came to into auto/.  float_model: the source as float MNN, once that is made."""

    source: ModelGraph
    folder: Path
    options: MakeOptions
    progress: Progress = field(default_factory=Progress)
    clock: Clock = field(default_factory=Clock)
    float_model: Artifact | None = None

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def tools(self) -> Tools:
        return Tools(
            log_dir=self.logs,
            timeout=self.options.timeout,
            memory_limit=memory_for(self.source.size),
            float_model=self.float_model,
        )


def calibration_facts(used: CalibrationSet | None) -> CalibrationFacts | None:
    """The samples a file was made from, as they are kept."""
    if used is None:
        return None
    shapes = tuple(
        CalibrationShapes(samples=count, inputs=dict(sizes)) for sizes, count in used.shapes.most_common(100)
    )
    return CalibrationFacts(source=used.source, samples=len(used), shapes=shapes, images=used.images)
