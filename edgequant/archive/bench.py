"""The folder of a bench: what was asked for, what each device was given, and the capture of every block.

bench-plan.json                         what was asked for, and the files that were measured
measured/<device>.json                  the case and the settings of one device, or why it could not be used
captures/<device>/<setting>-<n>.json    the n-th block of a setting: a process of its own
captures/<device>/apart/                its long run, and its operators, where they were asked for
baseline.json                           of an earlier bench, what this one is held against
closing.json                            how it ended
bench.json                              the judgement
models/, cases/, arrays/, logs/, journal.jsonl   as in the folder of a run

As that one it can be moved, and judged without device, MNN or model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field, model_validator

from edgequant.archive.folder import safe_name
from edgequant.archive.open import invalid, read_record
from edgequant.archive.record import Failure, Name, Record, Sha256
from edgequant.archive.types import Capture, CaseFacts, Closing, DeviceCapture, HostFacts, now
from edgequant.errors import InputError
from edgequant.spec import MemoryMode, RunOptions

PLAN = "bench-plan"
BASELINE = "baseline"
REPORT = "bench.json"


class BenchFile(Record):
    """A file that was measured.

    name: what settings call it.  path: relative to the folder where it lies in it, absolute elsewhere.  size: bytes.
    memory: the mode it runs with where none is asked for.  quantized: it is to be faster than the first.
    """

    name: Name
    path: str
    sha256: Sha256
    size: int = Field(ge=0)
    memory: MemoryMode
    quantized: bool = False
    has_subgraphs: bool = False


class BenchPlan(Record):
    """What a bench was asked to do: see `plan.bench.BenchRequest`.  options: as of a run; files: the first is what the
    others are held against; command: that would do it again."""

    schema_: Literal["edgequant.bench-plan/1"] = Field(default="edgequant.bench-plan/1", alias="schema")
    edgequant: str
    host: HostFacts
    created: AwareDatetime = Field(default_factory=now)
    model: str
    model_sha256: Sha256
    devices: tuple[str, ...]
    variants: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    files: tuple[BenchFile, ...]
    inputs: str | None = None
    shapes: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    threads: tuple[int, ...] = ()
    memory: tuple[MemoryMode, ...] = ()
    blocks: int = Field(ge=1)
    runs: int = Field(ge=1)
    seconds: float = Field(ge=0)
    warm_seconds: float = Field(ge=0)
    redo: float = Field(default=1.0, ge=0)
    within: float = Field(gt=0)
    tell: float = Field(gt=0)
    allowed: tuple[str, ...] = ()
    options: RunOptions = Field(default_factory=RunOptions)
    laboratory: dict[str, Any] = Field(default_factory=dict)
    reach: dict[str, Any] = Field(default_factory=dict)
    command: str = ""

    model_config = ConfigDict(populate_by_name=True)

    def file(self, name: str) -> BenchFile | None:
        return next((each for each in self.files if each.name == name), None)


class BenchCores(Record):
    """Where settings were held to cores that are alike, in words.  mixed: no sort of cores has as many as threads."""

    says: str
    mixed: bool = False


class BenchSetting(Record):
    """One of a device: a file with threads and a memory mode.  base: the setting it is held against; empty for the
    first.  cores: it was held to; None for none beyond what the options say."""

    name: Name
    file: Name
    threads: int = Field(ge=1)
    memory: MemoryMode
    base: str = ""
    quantized: bool = False
    cores: tuple[int, ...] | None = None


class BenchDevice(Record):
    """What was measured on one device, and with what.

    cpus: how many the process may use; None where it is not known.  failure: why the device could not be used.
    """

    schema_: Literal["edgequant.bench-device/1"] = Field(default="edgequant.bench-device/1", alias="schema")
    uri: str
    is_host: bool = False
    case: CaseFacts | None = None
    settings: tuple[BenchSetting, ...] = ()
    cpus: int | None = None
    cores: tuple[BenchCores, ...] = ()
    failure: Failure | None = None

    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="after")
    def _each_has_a_base(self) -> BenchDevice:
        names = [each.name for each in self.settings]
        if len(set(names)) < len(names):
            raise ValueError("two settings have one name")
        if any(each.base not in names for each in self.settings[1:]):
            raise ValueError("a setting is held against one that is not there")
        return self


class BaselineSetting(Record):
    """p50_ms: of each block that counted.  valid: whether its numbers could be believed; else why_invalid says why."""

    name: Name
    threads: int
    memory: MemoryMode
    sha256: Sha256
    valid: bool
    why_invalid: tuple[tuple[str, str], ...] = ()
    p50_ms: tuple[float, ...] = ()


class BaselineDevice(Record):
    """work_ms: of the known work at its fastest in that session."""

    uri: str
    device: DeviceCapture | None = None
    case: CaseFacts | None = None
    work_ms: float | None = None
    settings: tuple[BaselineSetting, ...] = ()


class Baseline(Record):
    """All of an earlier bench that comparing with it needs, so that its folder need not be there any more."""

    schema_: Literal["edgequant.bench-baseline/1"] = Field(default="edgequant.bench-baseline/1", alias="schema")
    folder: str
    created: AwareDatetime
    edgequant: str
    mnn: str
    model: str
    model_sha256: Sha256
    options: RunOptions = Field(default_factory=RunOptions)
    devices: tuple[BaselineDevice, ...] = ()

    model_config = ConfigDict(populate_by_name=True)


def device_record(uri: str) -> str:
    return f"measured/{safe_name(uri)}"


def block_record(uri: str, setting: str, number: int) -> str:
    """The name of the capture of a block; number: of its round, from 0."""
    return f"{safe_name(uri)}/{safe_name(setting)}-{number + 1}"


def apart_record(uri: str, setting: str, what: str) -> str:
    """The name of the capture of what is taken behind the blocks; what: "sustain" or "operators"."""
    return f"{safe_name(uri)}/apart/{safe_name(setting)}-{what}"


@dataclass(frozen=True)
class Bench:
    """The folder of a bench, read back.  Raises InputError (RUN_INVALID) where a record is not what it was."""

    path: Path

    @cached_property
    def plan(self) -> BenchPlan:
        found = read_record(self.path, PLAN, BenchPlan)
        if found is None:
            raise invalid(self.path, f"it has no {PLAN}.json")
        return found

    @property
    def closing(self) -> Closing:
        return read_record(self.path, "closing", Closing) or Closing()

    @property
    def baseline(self) -> Baseline | None:
        return read_record(self.path, BASELINE, Baseline)

    def device(self, uri: str) -> BenchDevice | None:
        """None where it was not begun."""
        return read_record(self.path, device_record(uri), BenchDevice)

    def blocks(self, uri: str, setting: str) -> Iterator[tuple[int, Capture]]:
        """Rounds, from 0, and what each brought back.  A setting is taken in every round until it fails."""
        number = 0
        while (found := self._capture(block_record(uri, setting, number))) is not None:
            yield number, found
            number += 1

    def apart(self, uri: str, setting: str, what: str) -> Capture | None:
        return self._capture(apart_record(uri, setting, what))

    def _capture(self, name: str) -> Capture | None:
        """It says itself what it is of: a file that was renamed would turn a comparison round."""
        found = read_record(self.path, f"captures/{name}", Capture)
        if found is not None and found.trial != name:
            raise invalid(self.path, f"captures/{name}.json is of {found.trial[:200]}")
        return found


def folder_of_bench(path: str | Path) -> Path | None:
    """The folder, given itself or as a file in it; None where it is not that of a bench."""
    folder = Path(path)
    folder = folder.parent if folder.is_file() else folder
    return folder if (folder / f"{PLAN}.json").exists() else None


def open_bench(path: str | Path) -> Bench:
    """Raises InputError (RUN_NOT_FOUND, RUN_INVALID)."""
    folder = folder_of_bench(path)
    if folder is None:
        if not Path(path).exists():
            raise InputError("RUN_NOT_FOUND", f"{path}: no such folder", hint="Give the folder of a bench.")
        raise InputError(
            "RUN_INVALID",
            f"{path}: not the folder of a bench, or of a version that kept none of what judging needs: "
            f"it has no {PLAN}.json",
            hint="Measure again; a bench.json of any version can be read by itself.",
        )
    found = Bench(folder)
    _ = found.plan  # now, so that what is wrong with it is told by whoever opens it
    return found
