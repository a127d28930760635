"""What bench.json holds: the published schema ``edgequant.bench/1``.  Keys may be added, never renamed.

Times are milliseconds, amounts of memory MB of 10^6 bytes where a key says mb, MiB of 2^20 where it says mib, and KiB
where it says kb.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path, PurePath
from typing import Any, Literal

from pydantic import AwareDatetime, Field, ValidationError, model_validator

from edgequant.errors import InputError
from edgequant.files import atomic_write, read_bounded
from edgequant.findings import Finding
from edgequant.judge.verdict import Verdict, severity, worst
from edgequant.problems import first_problem
from edgequant.report.laboratory import ApartReport
from edgequant.report.model import LOADING, _Model
from edgequant.report.write import as_plain, open_schema
from edgequant.text import json_escaped

SCHEMA = "edgequant.bench/1"
MAX_BYTES = 64 << 20


class Reason(_Model):
    """What speaks against a number: the code of a condition, and what was seen."""

    code: str
    message: str


class Estimate(_Model):
    """A number, and its 95 % interval over the blocks; null with fewer than two."""

    value: float
    low: float | None = None
    high: float | None = None


class Stage(_Model):
    """MB (10^6 bytes) at the end of a stage, the median of the blocks; peak: the highest within it."""

    rss: float | None = None
    pss: float | None = None
    uss: float | None = None
    swap: float | None = None
    peak: float | None = None


class MemoryReport(_Model):
    """Of one setting.

    file_mb: of the model's file.  session_mb, session_mib: what MNN says its session holds, which it counts in MiB.
    peak_mb: the highest RSS in all; above_mb: over that of the empty runtime.  stages: empty (the runtime before any
    model), loaded, first (inference), timed.
    """

    file_mb: float | None = None
    session_mb: float | None = None
    session_mib: float | None = None
    session_why: str | None = None
    peak_mb: float | None = None
    above_mb: float | None = None
    stages: dict[str, Stage] = Field(default_factory=dict)


class BlockReport(_Model):
    """One process.  used: whether the setting's numbers are of it.  ms: of its samples.  celsius, mhz: the hottest zone
    and the fastest CPU, before and after the timing."""

    round: int = Field(ge=1)
    used: bool
    n: int = Field(default=0, ge=0)
    warmup: int = Field(default=0, ge=0)
    ms: dict[str, float] = Field(default_factory=dict)
    cpu_ms: float | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    work_ms: list[float] = Field(default_factory=list)
    celsius: list[float] = Field(default_factory=list)
    mhz: list[float] = Field(default_factory=list)
    doubts: list[Reason] = Field(default_factory=list)
    failure: str | None = None


class SettingReport(_Model):
    """One setting.  name: with what was borne.  id: without.  file: of `files`."""

    name: str
    id: str | None = None
    file: str | None = None
    threads: int | None = None
    memory_mode: str | None = None
    valid: bool
    verdict: Verdict
    why_invalid: list[Reason] = Field(default_factory=list)
    ms: dict[str, Estimate] = Field(default_factory=dict)
    spread: dict[str, float] = Field(default_factory=dict)
    cpu_ms: Estimate | None = None
    load_ms: Estimate | None = None
    first_ms: Estimate | None = None
    rss_peak_kb: int | None = None
    memory: MemoryReport | None = None
    blocks: list[BlockReport] = Field(default_factory=list)

    @model_validator(mode="after")
    def _valid_or_why(self) -> SettingReport:
        if self.valid is not (self.verdict is Verdict.PASS):
            raise ValueError(f"valid {self.valid} and verdict {self.verdict} contradict each other")
        if self.valid and self.why_invalid:
            raise ValueError("it is valid, and something speaks against it")
        if not self.valid and not self.why_invalid:
            raise ValueError("it is not valid, and nothing speaks against it")
        return self


class ComparedReport(_Model):
    """How much longer `name` takes than `base`, in rounds beside each other; the interval is at 99 %."""

    base: str
    name: str
    says: Literal["slower", "faster", "same", "unclear"]
    rounds: int
    ratio: float
    low: float | None = None
    high: float | None = None


class AgainstReport(_Model):
    """A setting against the one of its name in the baseline.  why: it was not compared, or nothing can be said."""

    name: str
    says: Literal["slower", "faster", "same", "unclear", "not compared"]
    why: str | None = None
    before_ms: float | None = None
    ms: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    blocks_before: int = 0
    blocks: int = 0
    same_file: bool | None = None

    @model_validator(mode="after")
    def _compared_or_why(self) -> AgainstReport:
        if self.says == "not compared" and not self.why:
            raise ValueError("it was not compared, and nobody says why")
        return self


class BaselineReport(_Model):
    """settings: of this device.  notes: what is not as it was.  missing: what only the baseline has measured."""

    settings: list[AgainstReport] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    missing: list[str] = Field(default_factory=list)


class BenchDeviceReport(_Model):
    """One device.  facts: what it told of itself."""

    uri: str
    facts: dict[str, Any] | None = None
    verdict: Verdict
    case: str
    shapes: dict[str, list[int]] = Field(default_factory=dict)
    rounds: int
    rounds_good: int
    settings: list[SettingReport]
    findings: list[Finding] = Field(default_factory=list)
    compared: list[ComparedReport] = Field(default_factory=list)
    baseline: BaselineReport | None = None
    apart: ApartReport = ApartReport()

    @model_validator(mode="after")
    def _not_better_than_its_settings(self) -> BenchDeviceReport:
        parts = worst([each.verdict for each in self.settings])
        if severity(self.verdict) < severity(parts):
            raise ValueError(f"verdict {self.verdict} is better than its settings' {parts}")
        return self


class FileReport(_Model):
    """A file that was measured; mb: 10^6 bytes."""

    name: str
    sha256: str
    mb: float
    path: str | None = None


class BaselineInfo(_Model):
    """The earlier bench."""

    folder: str
    created: AwareDatetime
    edgequant: str
    mnn: str
    model: str
    model_sha256: str


class BenchReport(_Model):
    """The whole."""

    schema_: Literal["edgequant.bench/1"] = Field(default="edgequant.bench/1", alias="schema")
    model: str
    verdict: Verdict
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(timezone.utc).replace(microsecond=0))
    measured: AwareDatetime | None = None
    edgequant: str | None = None
    mnn: str | None = None
    model_sha256: str | None = None
    blocks: int
    runs: int
    seconds_each: float
    within: float
    tell: float
    allowed: list[str] = Field(default_factory=list)
    options: dict[str, Any] = Field(default_factory=dict)
    files: list[FileReport] = Field(default_factory=list)
    baseline: BaselineInfo | None = None
    seconds: float
    interrupted: bool = False
    failed: dict[str, dict[str, Any]] = Field(default_factory=dict)
    devices: list[BenchDeviceReport] = Field(default_factory=list)

    def __repr__(self) -> str:
        return f"<BenchReport {self.verdict}: {len(self.devices)} device(s), model {PurePath(self.model).name}>"

    @model_validator(mode="after")
    def _not_better_than_its_devices(self) -> BenchReport:
        parts = worst([*([Verdict.ERROR] if self.failed else []), *(each.verdict for each in self.devices)])
        if severity(self.verdict) < severity(parts):
            raise ValueError(f"verdict {self.verdict} is better than its devices' {parts}")
        return self


def to_json(report: BenchReport) -> str:
    """Indented JSON with a final newline, of ASCII alone."""
    return json_escaped(json.dumps(as_plain(report), indent=1, ensure_ascii=True, allow_nan=False)) + "\n"


def rounded(report: BenchReport) -> BenchReport:
    """As it is read back: so that what is shown at once and what is shown later are the same."""
    return loads(to_json(report))


def write(report: BenchReport, path: Path) -> Path:
    """Whole or not at all.  Raises OSError."""
    with atomic_write(path) as file:
        file.write(to_json(report).encode("utf-8"))
    return path


def load(path: Path) -> BenchReport:
    """Read and check one.  Keys that this version does not know are skipped.  Raises InputError (REPORT_INVALID)."""
    try:
        data = read_bounded(path, MAX_BYTES)
    except OSError as error:
        raise _invalid(path, error.strerror or str(error)) from None
    return loads(data, where=path)


def loads(data: bytes | str, *, where: Path | None = None) -> BenchReport:
    """The same from memory.  Raises InputError (REPORT_INVALID)."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _invalid(where, f"not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise _invalid(where, f"its schema is not '{SCHEMA}'")
    try:
        return BenchReport.model_validate(document, context=LOADING)
    except ValidationError as error:
        raise _invalid(where, first_problem(error)) from None


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of bench.json.  It allows unknown keys: a later version may add some."""
    return open_schema(BenchReport, SCHEMA)


def _invalid(where: Path | None, why: str) -> InputError:
    named = "it" if where is None else str(where)
    return InputError("REPORT_INVALID", f"{named}: not the report of a bench: {why}", hint="Give a folder of `bench`.")
