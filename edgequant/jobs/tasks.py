"""Task metrics: a function of the user's over what a device made of the cases, in a child process.

It gets a list of cases with their inputs, reference and device outputs and labels, and returns a number, or a dict of
them.  It may need packages edgequant does not have, hang, crash or print without end: it runs apart, bounded in time,
memory and output, and whatever becomes of it is a record.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgequant.archive.acceptance import TaskRecord
from edgequant.archive.open import Run
from edgequant.archive.record import ArrayRef, Failure
from edgequant.archive.types import Capture
from edgequant.cases.load import read_npz
from edgequant.errors import EdgequantError, InputError, ToolError
from edgequant.files import read_bounded, sha256_of
from edgequant.quantize import child
from edgequant.quantize.child import death, run_child
from edgequant.spec import Variant
from edgequant.spec.function import PATTERN
from edgequant.variables import environment_as_found

WORKER = Path(child.__file__).with_name("task_worker.py")
MAX_LABELS = 64 << 20
TIMEOUT = 60.0
MEMORY_MB = 4096.0
_ANSWER = 1 << 20
_PRINTED = 1 << 20


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    values: dict[str, float] = Field(max_length=1000)
    code_sha256: str | None = None
    error: str | None = Field(default=None, max_length=4000)


@dataclass(frozen=True)
class Task:
    """name: in rules, as task:NAME.  function: module:function or path/file.py:function.  labels: a JSON file
    {case: label}, or a folder of CASE.npz.  timeout: seconds.  memory_mb: it may allocate."""

    name: str
    function: str
    labels: Path | None = None
    timeout: float = TIMEOUT
    memory_mb: float = MEMORY_MB


@dataclass
class Labels:
    """What is known of the cases: JSON values, or arrays, by case."""

    values: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    sha256: str | None = None

    def file(self, case: str) -> Path | None:
        path = None if self.folder is None else self.folder / f"{case}.npz"
        return path if path is not None and path.is_file() else None


def read_labels(path: Path | None) -> Labels:
    """Raises InputError (LABELS_INVALID)."""
    if path is None:
        return Labels()
    if path.is_dir():
        files = sorted(path.glob("*.npz"))
        if not files:
            raise _bad_labels(path, "no CASE.npz in it")
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.name} {sha256_of(file)}\n".encode("utf-8", "backslashreplace"))
        return Labels(folder=path, sha256=digest.hexdigest())
    try:
        data = read_bounded(path, MAX_LABELS)
        found = json.loads(data)
    except OSError as error:
        raise _bad_labels(path, error.strerror or str(error)) from None
    except (ValueError, RecursionError) as error:
        raise _bad_labels(path, f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise _bad_labels(path, "not a JSON object of case: label")
    return Labels(values=found, sha256=hashlib.sha256(data).hexdigest())


def _bad_labels(path: Path, why: str) -> InputError:
    return InputError(
        "LABELS_INVALID", f"{path}: {why}",
        hint='Labels are a JSON file, {"case name": label, ...}, or a folder with CASE.npz for each case.',
    )  # fmt: skip


def measure(
    task: Task, run: Run, *, model: str, variant: Variant, uri: str, device: str, attempt: int, log: Path, cwd: Path
) -> TaskRecord:
    """Call the function over the cases of one trial.  Raises only what says that nothing can be kept any more.

    run: the folder of verify the trial is in.  model, device: their names in the spec.  log: for what it prints.
    cwd: where it runs: modules are found from there.
    """
    told = TaskRecord(
        task=task.name, function=task.function, model=model, variant=str(variant), device=device, attempt=attempt
    )
    try:
        labels = read_labels(task.labels)
        with tempfile.TemporaryDirectory(prefix="edgequant-task-") as folder:
            cases = _cases(run, variant, uri, labels, Path(folder))
            told = told.model_copy(update={"cases": len(cases), "labels_sha256": labels.sha256})
            answer, seconds = _call(task, cases, Path(folder), log, cwd)
    except EdgequantError as why:
        if why.code in ("DISK_FULL", "RUN_DIR_FULL", "HOST_EXHAUSTED", "INTERRUPTED"):
            raise
        return told.model_copy(update={"error": Failure.of(why)})
    told = told.model_copy(update={"code_sha256": answer.code_sha256, "seconds": round(seconds, 3)})
    if answer.error is not None:
        error = ToolError("TASK_FAILED", f"{task.function}: {answer.error}", evidence={"log": str(log.name)})
        return told.model_copy(update={"error": Failure.of(error)})
    return told.model_copy(update={"values": answer.values})


def look(task: Task, cwd: Path) -> None:
    """See that the function is there and can be called with cases; nothing is measured.

    It is imported in a child process, bounded as when it is called.  Raises InputError (TASK_...) naming the task.
    """
    if PATTERN.fullmatch(task.function) is None:
        return  # the spec's own check says so
    try:
        with tempfile.TemporaryDirectory(prefix="edgequant-task-") as folder:
            answer, _ = _call(task, None, Path(folder), Path(folder) / "log", cwd)
    except EdgequantError as error:
        if error.code not in _OWN:
            raise
        raise InputError(error.code, f"tasks.{task.name}: {error.message}", hint=error.hint) from None
    if answer.error is not None:
        raise InputError(
            "TASK_FAILED", f"tasks.{task.name}: {task.function}: {answer.error}",
            hint=f"It is a function of one argument, the list of cases; modules are found from {cwd}.",
        )  # fmt: skip


_OWN = ("TASK_FAILED", "TASK_CRASHED", "TASK_OUT_OF_MEMORY", "TASK_TIMEOUT")


def _call(task: Task, cases: list[dict[str, Any]] | None, folder: Path, log: Path, cwd: Path) -> tuple[_Answer, float]:
    """What the function returns, and seconds.  cases: None where it is only looked for."""
    match = PATTERN.fullmatch(task.function)
    if match is None:
        raise InputError(
            "TASK_FAILED", f"'{task.function}' does not name a Python function",
            hint="Write module:function, or path/to/file.py:function.",
        )  # fmt: skip
    job, answer = folder / "job.json", folder / "answer.json"
    job.write_text(json.dumps({"module": match["module"], "function": match["function"], "cases": cases}), "utf-8")
    limit = int(task.memory_mb * 1e6)
    result = run_child(
        [sys.executable, str(WORKER), str(job), str(answer)], log=log, timeout=task.timeout, memory_limit=limit,
        cwd=cwd, env=environment_as_found(), log_limit=_PRINTED,
    )  # fmt: skip
    error = death(
        result, doing=f"the task metric {task.name} ({task.function})", prefix="TASK", timeout=task.timeout,
        memory_limit=limit, where=task.function, hint="Run the function by itself and see where it ends.",
    )  # fmt: skip
    if error is not None:
        raise error
    try:
        if answer.stat().st_size > _ANSWER:
            raise ToolError("TASK_FAILED", f"{task.function}: what it returned is too large")
        return _Answer.model_validate_json(answer.read_bytes()), result.seconds
    except (OSError, ValidationError):
        raise ToolError("TASK_FAILED", f"{task.function}: it ended the process before it returned anything") from None


def _cases(run: Run, variant: Variant, uri: str, labels: Labels, folder: Path) -> list[dict[str, Any]]:
    """What the function gets: the user's own cases, or where there are none the random ones.

    Raises InputError (LABELS_INVALID), ToolError (TASK_NO_OUTPUTS, CAPTURE_UNREADABLE).
    """
    capture = run.on_device(uri, variant)
    asked = [each for each in run.source.cases if each.kind == "usual" and not each.generated]
    asked = asked or [each for each in run.source.cases if each.kind != "strain"]
    found: list[dict[str, Any]] = []
    for case in asked:
        outputs = _outputs(capture, case.name)
        if outputs is None:
            raise ToolError("TASK_NO_OUTPUTS", f"the device gave no outputs for {case.name}")
        told: dict[str, Any] = {
            "name": case.name,
            "inputs": _files(run, case.inputs),
            "reference": _files(run, _outputs(run.reference, case.name) or {}),
            "outputs": _files(run, outputs),
        }
        if (file := labels.file(case.name)) is not None:
            told["labels"] = _unpacked(file, folder / f"labels-{len(found)}")
        elif case.name in labels.values:
            told["label"] = labels.values[case.name]
        elif labels.sha256 is not None:
            raise InputError("LABELS_INVALID", f"there is no label for the case {case.name}")
        found.append(told)
    if not found:
        raise ToolError("TASK_NO_OUTPUTS", "there is no case")
    return found


def _outputs(capture: Capture | None, case: str) -> Mapping[str, ArrayRef] | None:
    cases = () if capture is None else capture.cases
    return next((each.outputs for each in cases if each.case == case), None)


def _files(run: Run, refs: Mapping[str, ArrayRef]) -> dict[str, str]:
    for ref in refs.values():
        run.arrays.get(ref)  # it is what was kept
    return {name: str(run.arrays.path(ref).absolute()) for name, ref in refs.items()}


def _unpacked(file: Path, folder: Path) -> dict[str, str]:
    """Its arrays as files of their own, without anything being unpickled."""
    folder.mkdir()
    found = {}
    for number, (name, array) in enumerate(read_npz(file).items()):
        path = folder / f"{number}.npy"
        np.save(path, array, allow_pickle=False)
        found[name] = str(path)
    return found
