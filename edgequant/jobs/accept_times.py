"""How long parts of an acceptance take: by what earlier runs took; where there are none, by a guess that is stated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from edgequant.archive.acceptance import AcceptFolder, is_acceptance, open_acceptance
from edgequant.archive.folder import MAX_BYTES
from edgequant.archive.record import Record
from edgequant.devices.registry import make_device
from edgequant.errors import EdgequantError
from edgequant.files import read_bounded
from edgequant.history.store import History, Wanted
from edgequant.jobs.accept_judge import own_spec
from edgequant.plan.accept import BenchPart, VerifyPart
from edgequant.report.read import load
from edgequant.spec.accept import AcceptSpec, BenchEntry

Cell = tuple[str, str, str]
"""(file name of the model, variant, URI): an earlier run may call them by other names."""
HERE, ELSEWHERE, EMULATED = 10.0, 30.0, 60.0
"""Seconds that a trial of verify is guessed to take: on this host, on a device to which a runtime may have to be sent
first, on a CPU that is emulated.  Small models take less, large ones, and those with many cases, more."""
BESIDE = 2.0
"""Seconds that each block of a bench is guessed to take beside its samples: a process, the model, the warm-up."""
GUESSED = (
    f"guessed at {HERE:g} s for each variant on this host, {ELSEWHERE:g} s on another device, {EMULATED:g} s on an "
    f"emulated one; of bench at {BESIDE:g} s beside the samples of each block"
)
_NEWEST = 20
"""Acceptances of the history that are looked at, and runs of verify with each model."""


@dataclass(frozen=True)
class Time:
    """Seconds; from_: the folders of earlier runs that they are from, none where they are a guess."""

    seconds: float
    from_: tuple[str, ...] = ()


class Times:
    """What earlier runs took, the nearest first: `near` (the folder itself, the baseline), then those of a history."""

    def __init__(self, spec: AcceptSpec, near: Sequence[Path], history: Path | None) -> None:
        self._spec = spec
        self._took: dict[tuple[str, Cell], Time] = {}
        self.trouble: EdgequantError | None = None
        """Why the history could not be asked."""
        self._learn(near)
        if history is not None and history.exists():
            try:
                self._learn(_noted(spec, history))
            except EdgequantError as error:
                self.trouble = error

    def _learn(self, folders: Iterable[Path]) -> None:
        for folder in folders:
            for place, seconds in _took(folder):
                if math.isfinite(seconds) and seconds > 0:
                    self._took.setdefault(place, Time(seconds, (str(folder),)))

    def of(self, part: VerifyPart | BenchPart) -> Time:
        """Of a whole part: of earlier runs only where they had all of it."""
        kind, keys = ("trials", part.trials.values()) if isinstance(part, VerifyPart) else ("bench", part.trials)
        spec = self._spec
        found = [
            self._took.get((kind, (spec.models[key.model].path.name, spec.variant(key).variant, uri)))
            for key in keys
            for uri in [spec.devices[key.device].uri]
        ]
        known = [each for each in found if each is not None]
        if known and len(known) == len(found):
            folders = dict.fromkeys(name for each in known for name in each.from_)
            return Time(round(sum(each.seconds for each in known), 1), tuple(folders))
        if isinstance(part, BenchPart):
            return Time(least(part, spec.bench) + len(part.trials) * spec.bench.blocks * (BESIDE - _WARMS))
        return Time(sum(_guess(spec.devices[key.device].uri) for key in keys))


_WARMS = 0.25


def least(part: BenchPart, bench: BenchEntry) -> float:
    """Seconds that its settings alone ask for: each block warms up for a quarter of a second at least, and measures."""
    return len(part.trials) * bench.blocks * (bench.seconds + _WARMS)


def _guess(uri: str) -> float:
    device = make_device(uri)
    return EMULATED if device.emulated is not None else HERE if device.is_host else ELSEWHERE


def _noted(spec: AcceptSpec, history: Path) -> Iterator[Path]:
    """Folders of acceptances, the newest first, then those of verify with each model, as far as they are noted."""
    models = dict.fromkeys(each.path.name for each in spec.models.values())
    for wanted in (Wanted(kind="accept"), *(Wanted(model=name, kind="verify") for name in models)):
        for entry in History(history).find(wanted, most=_NEWEST):
            yield Path(entry.folder)


def _took(folder: Path) -> list[tuple[tuple[str, Cell], float]]:
    """Seconds of each trial of an earlier run: the share it has in those of its part.  Nothing, where it has none."""
    try:
        if is_acceptance(folder):
            return list(_of_acceptance(open_acceptance(folder)))
        report = load(folder / "report.json" if folder.is_dir() else folder)
    except EdgequantError:
        return []
    cells = [(Path(report.model.path).name, run.variant, run.device.uri) for run in report.runs]
    whole = sum(report.timing_s.values())
    return [(("trials", cell), whole / len(cells)) for cell in cells]


def _of_acceptance(folder: AcceptFolder) -> Iterator[tuple[tuple[str, Cell], float]]:
    plan = folder.plan()
    spec = own_spec(folder, plan)
    for line in ends_of(folder):
        trials = [each for each in plan.trials if (each.part if line.kind == "trials" else each.bench) == line.part]
        for each in trials:
            cell = (spec.models[each.model].path.name, each.method, each.uri)
            yield (line.kind, cell), line.seconds / len(trials)


class End(Record):
    """A line of the journal: an attempt at a part has come to something."""

    what: Literal["end"]
    kind: Literal["trials", "bench"]
    part: str
    seconds: float = Field(gt=0)
    error: None = None


def ends_of(folder: AcceptFolder) -> Iterator[End]:
    try:
        lines = read_bounded(folder.path / "journal.jsonl", MAX_BYTES).splitlines()
    except OSError:
        return
    for line in lines:
        try:
            yield End.model_validate_json(line)
        except ValidationError:
            continue  # something else, or the half of a line
