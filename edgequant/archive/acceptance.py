"""The folder of an acceptance: what was to be run, where each part of it is, and what became of it.

accept.json                             what is run: trials, parts; the spec's SHA-256, where it lay, the baseline
spec.yaml                               the spec as it was
baseline.json                           what the baseline's folder said (its acceptance.json or report.json)
trials/<part>/attempt-N/                the folders of verify
bench/<part>/attempt-N/                 the folders of bench, with measured.json: what it came to
tasks/<task>-<trial>-N.json             what a task metric came to in attempt N
.../attempt-N.error.json                why a part came to nothing
journal.jsonl                           a line whenever a part begins and ends
manifest.json                           the SHA-256 of its own files, when it was finished
acceptance.json                         the judgement
logs/                                   what task metrics printed

A file is there whole or not at all.  Nothing in it names the folder's own place: it can be moved.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from edgequant.archive.folder import MAX_BYTES, RunFolder, encoded
from edgequant.archive.record import Failure, Record, Sha256
from edgequant.archive.types import now
from edgequant.errors import InputError
from edgequant.files import append, atomic_write, disk_error, read_bounded, safe_name
from edgequant.problems import first_problem
from edgequant.spec import RunOptions

Model = TypeVar("Model", bound=BaseModel)
PLAN = "accept.json"
SPEC = "spec.yaml"
BASELINE = "baseline.json"
JUDGEMENT = "acceptance.json"
MEASURED = "measured.json"
_ATTEMPT = re.compile(r"attempt-(\d{1,6})")


class PlannedTrial(Record):
    """A model, a variant and a device by the names the spec gives them.

    method, uri: the variant and the device as they are written.  part: of verify.  bench, tasks: what else there is of
    it.  informative: it is only there for rules that are relative to float, and decides nothing.
    """

    model: str
    variant: str
    device: str
    method: str
    uri: str
    part: str
    options: RunOptions = Field(default_factory=RunOptions)
    bench: str | None = None
    tasks: tuple[str, ...] = ()
    informative: bool = False


class AcceptPlan(Record):
    """What an acceptance was to run.

    folder: where the spec lay, which its paths are relative to.  baseline: where that was.  baseline_sha256: of
    baseline.json.  baseline_cases: SHA-256 of
    the cases of a baseline that is a folder of verify, whose report does not tell them.
    """

    schema_: Literal["edgequant.accept-plan/1"] = Field(default="edgequant.accept-plan/1", alias="schema")
    name: str
    edgequant: str
    created: AwareDatetime = Field(default_factory=now)
    spec_sha256: Sha256
    spec_name: str
    folder: str
    baseline: str | None = None
    baseline_sha256: Sha256 | None = None
    baseline_cases: str | None = None
    retries: int = Field(default=0, ge=0)
    trials: tuple[PlannedTrial, ...]

    model_config = ConfigDict(populate_by_name=True)


class PartFailure(Record):
    """Why an attempt at a part came to nothing, and whose it was: (model, variant, device) each."""

    failure: Failure
    trials: tuple[tuple[str, str, str], ...]


class Number(Record):
    """A value, and its 95 % interval where it has one."""

    value: float
    low: float | None = None
    high: float | None = None


class BenchSetting(Record):
    """One file as it was measured.

    Attributes:
        variant: what it is.
        valid, why: whether its numbers may be believed, and what speaks against them: (code, message).
        borne: codes of what would speak against them, and was allowed.
        numbers: by the names of rules: latency_ms.p50, .p90, .p99, .mean, .min, .max, .first, .load, cpu_ms,
            memory_mb.rss_peak.
        blocks: samples in ms, of each block (a process of its own) that the numbers are of.
        rounds: number of each of these blocks: those of one number ran beside each other.
        findings: codes of what was found of it beside the others.
    """

    variant: str
    valid: bool
    why: tuple[tuple[str, str], ...] = ()
    borne: tuple[str, ...] = ()
    numbers: dict[str, Number] = Field(default_factory=dict)
    blocks: tuple[tuple[float, ...], ...] = ()
    rounds: tuple[int, ...] = ()
    findings: tuple[str, ...] = ()


class BenchRecord(Record):
    """What a bench part came to: its settings by variant."""

    schema_: Literal["edgequant.measured/1"] = Field(default="edgequant.measured/1", alias="schema")
    uri: str
    settings: tuple[BenchSetting, ...] = ()
    threads: int | None = None
    case: str | None = None
    seconds: float = Field(default=0.0, ge=0)

    model_config = ConfigDict(populate_by_name=True)

    def of(self, variant: str) -> BenchSetting | None:
        return next((each for each in self.settings if each.variant == variant), None)


class TaskRecord(Record):
    """What a task metric came to: values ("" for its one number), or why there are none.

    code_sha256: of the file the function is in.  labels_sha256: of the labels it was given.  cases: how many.
    """

    schema_: Literal["edgequant.task/1"] = Field(default="edgequant.task/1", alias="schema")
    task: str
    function: str
    model: str
    variant: str
    device: str
    attempt: int = Field(ge=1)
    cases: int = Field(default=0, ge=0)
    values: dict[str, float] = Field(default_factory=dict)
    error: Failure | None = None
    code_sha256: Sha256 | None = None
    labels_sha256: Sha256 | None = None
    seconds: float = Field(default=0.0, ge=0)

    model_config = ConfigDict(populate_by_name=True)


class AcceptFolder(RunFolder):
    """To write into, and to read."""

    @classmethod
    def create(cls, path: Path | None, model: str) -> AcceptFolder:
        made = super().create(path, model)
        assert isinstance(made, cls)
        return made

    def _prepare(self) -> None:
        for name in ("trials", "bench", "tasks"):
            self._make(self.path / name)

    def _complete_journal(self) -> None:
        """A line of the journal that was written in part goes away; what it was of is looked at itself."""
        path = self.path / "journal.jsonl"
        data = read_bounded(path, MAX_BYTES) if path.exists() else b""
        if len(data) > (whole := data.rfind(b"\n") + 1):
            with path.open("r+b") as stream:
                stream.truncate(whole)

    @property
    def judgement(self) -> Path:
        return self.path / JUDGEMENT

    @property
    def interrupted(self) -> bool:
        """Whether the journal tells of a beginning and of no end after it."""
        try:
            lines = read_bounded(self.path / "journal.jsonl", MAX_BYTES).splitlines()
        except OSError:
            return False  # nothing is known
        told = [line for line in lines if b'"closed": ' not in line]  # the manifest's
        return bool(told) and b'"what": "ended"' not in told[-1]

    def begin(self, plan: AcceptPlan, spec: bytes, baseline: bytes | None) -> None:
        """Keep what is asked for; from now on it is the folder of an acceptance.  The plan is written last."""
        if baseline is not None:
            self.write(BASELINE, baseline)
        self.write(SPEC, spec)
        self.save(PLAN, plan)

    def plan(self) -> AcceptPlan:
        """Raises InputError (RUN_INVALID)."""
        return read_record(self.path / PLAN, AcceptPlan)

    def note(self, what: str, **more: Any) -> None:
        """A line in the journal.  Raises EdgequantError (RUN_DIR_FULL, RUN_DIR_UNWRITABLE)."""
        path = self.path / "journal.jsonl"
        line = json.dumps({"time": now().isoformat(), "what": what, **more}, ensure_ascii=True) + "\n"
        try:
            append(path, line.encode())
        except OSError as error:
            raise disk_error(path, error) from None

    def save(self, name: str, record: BaseModel) -> Path:
        return self.write(name, encoded(record))

    def write(self, name: str, data: bytes) -> Path:
        """Raises EdgequantError (RUN_DIR_FULL, RUN_DIR_UNWRITABLE)."""
        path = self.path / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as stream:
                stream.write(data)
        except OSError as error:
            raise disk_error(path, error) from None
        return path

    # ---- attempts

    def attempts(self, part: str) -> list[tuple[int, Path]]:
        """(number, its folder or what says why there is none) of every attempt at a part of verify, in order."""
        found = [
            (int(match[1]), path)
            for path in (self.path / "trials" / part).glob("attempt-*")
            if (match := _ATTEMPT.match(path.name))
        ]
        return sorted(found, key=lambda each: (each[0], each[1].name))


def task_name(task: str, trial: tuple[str, str, str], attempt: int) -> str:
    """The name of what a task metric came to in one attempt at a trial (model, variant, device)."""
    # Names hold dashes: only what no name holds keeps (a-b, c) and (a, b-c) apart.
    told = "\n".join([task, *trial])
    return f"{safe_name(told, 160)}-{attempt}"


def read_record(path: Path, model: type[Model]) -> Model:
    """Raises InputError (RUN_INVALID)."""
    try:
        return model.model_validate_json(read_bounded(path, MAX_BYTES))
    except ValidationError as error:
        raise damaged(path, first_problem(error)) from None
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from None


def damaged(path: Path, why: str) -> InputError:
    return InputError("RUN_INVALID", f"{path}: {why}", hint="The folder is damaged, or of another version.")


def is_acceptance(path: str | Path) -> bool:
    """Whether it is the folder of an acceptance, or a file in one."""
    return (folder_of(path) / PLAN).exists()


def folder_of(path: str | Path) -> Path:
    """The folder, given itself or as a file in it."""
    found = Path(path)
    return found.parent if found.is_file() else found


def open_acceptance(path: str | Path) -> AcceptFolder:
    """Raises InputError (RUN_NOT_FOUND, RUN_INVALID)."""
    folder = folder_of(path)
    if not folder.is_dir():
        raise InputError("RUN_NOT_FOUND", f"{folder}: no such folder", hint="Give the folder that --run-dir named.")
    if not is_acceptance(folder):
        raise InputError(
            "RUN_INVALID", f"{folder}: not the folder of an acceptance: it has no {PLAN}",
            hint="`edgequant verify --resume` and `edgequant judge` take the folders of verify.",
        )  # fmt: skip
    found = AcceptFolder(folder)
    found.plan()
    return found
