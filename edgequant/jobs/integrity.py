"""Whether the folder of a run is still what it was when it was finished."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from edgequant.archive import manifest
from edgequant.archive.acceptance import (
    JUDGEMENT,
    MEASURED,
    BenchRecord,
    is_acceptance,
    open_acceptance,
    read_record,
)
from edgequant.archive.bench import open_bench
from edgequant.archive.manifest import Difference
from edgequant.archive.open import open_run
from edgequant.errors import EdgequantError, InputError
from edgequant.files import read_bounded, sha256_of
from edgequant.history.adapt import run_folders
from edgequant.jobs.accept_judge import own_spec, rejudge
from edgequant.jobs.accept_measured import measured
from edgequant.jobs.rejudge import judge
from edgequant.jobs.rejudge_bench import judge_bench_again
from edgequant.report.acceptance import to_json as acceptance_json
from edgequant.report.bench import to_json as bench_json
from edgequant.report.read import MAX_BYTES
from edgequant.report.write import to_json
from edgequant.version import __version__

_MAX_RECORD = 256 << 20
_OTHERS = ("bench.json", "acceptance.json")


class _Kind(NamedTuple):
    """What a command leaves.  judge: folder -> edgequant that made it, the report anew, the one that is there, and what
    is different.  text: a report as it is written."""

    plan: str
    report: str
    judge: Callable[[Path], tuple[str, Any, Any, Sequence[str]]]
    text: Callable[[Any], str]


def _run(folder: Path) -> tuple[str, Any, Any, Sequence[str]]:
    run = open_run(folder)
    found = judge(run)
    return run.plan.edgequant, found.report, found.stored, found.changes


def _bench(folder: Path) -> tuple[str, Any, Any, Sequence[str]]:
    found = judge_bench_again(folder)
    return open_bench(folder).plan.edgequant, found.report, found.stored, found.changes


_KINDS = (_Kind("plan.json", "report.json", _run, to_json), _Kind("bench-plan.json", "bench.json", _bench, bench_json))


@dataclass(frozen=True)
class Integrity:
    """What was found.

    Attributes:
        folder: that was looked at.
        files: how many were held against what is known of them.
        listed: they stand in a manifest; else only what is named by its hash, or in the journal, could be checked.
        differences: nothing where all holds.
        notes: what could not be checked, and why.
    """

    folder: Path
    files: int
    listed: bool
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not self.differences


def check(run_dir: str | Path) -> Integrity:
    """Compute all hashes anew, and judge anew.

    run_dir: the folder, or a file in it.  Raises InputError (RUN_NOT_FOUND, RUN_INVALID), EdgequantError
    (RUN_DIR_UNREADABLE).
    """
    folder = _folder(Path(run_dir))
    notes: list[str] = []
    if is_acceptance(folder):
        return _of_acceptance(folder)
    try:
        found = manifest.differences(folder)
        held = manifest.read(folder)
        listed, files = found is not None, len(held or ())
        if found is None:
            found, files = _by_name(folder, notes)
        found += _judged(folder, found, listed, notes)
    except OSError as error:
        raise EdgequantError(
            "RUN_DIR_UNREADABLE", f"{error.filename or folder}: {error.strerror or error}",
            hint="Look at its permissions, and its disk.",
        ) from None  # fmt: skip
    return Integrity(folder, files, listed, tuple(found), tuple(notes))


def _of_acceptance(folder: Path) -> Integrity:
    """Of its own files, of each run in it, and of the judgement."""
    known, held = manifest.differences(folder), manifest.read(folder)
    found, files, listed, notes = list(known or ()), len(held or ()), known is not None, list[str]()
    if known is None:  # an older version made it, or it did not get to its end
        notes.append("accept.json and tasks have no manifest: the judgement is held against them")
    for run in run_folders(folder):
        if run == folder:
            continue
        below, name = check(run), run.relative_to(folder).as_posix()
        files, listed = files + below.files, listed and below.listed
        for each in below.differences:
            if (each.file, each.what) == (MEASURED, "extra"):  # of older versions no manifest has it
                found += _measured(folder, run)
            else:
                found.append(each._replace(file=f"{name}/{each.file}"))
        notes += [f"{name}: {each}" for each in below.notes]
    if not found:
        found += _accepted(folder, notes)
    return Integrity(folder, files, listed, tuple(found), tuple(notes))


def _measured(folder: Path, bench: Path) -> Iterator[Difference]:
    try:
        accepted = open_acceptance(folder)
        if read_record(bench / MEASURED, BenchRecord) == measured(bench, own_spec(accepted, accepted.plan()).bench):
            return
        why = "it is not what judging gives"
    except EdgequantError as error:
        why = f"it cannot be held against anything: {error.code}: {error}"
    yield Difference((bench / MEASURED).relative_to(folder).as_posix(), "changed", why)


def _accepted(folder: Path, notes: list[str]) -> list[Difference]:
    """Whether acceptance.json is what judging the rest gives."""
    try:
        maker = open_acceptance(folder).plan().edgequant
        found = rejudge(folder)
        stored = read_bounded(folder / JUDGEMENT, MAX_BYTES)
    except FileNotFoundError:
        return [Difference(JUDGEMENT, "missing")]
    except EdgequantError as error:
        return [Difference(JUDGEMENT, "changed", f"it cannot be judged again: {error.code}: {error}")]
    if found.stored is None:
        return [Difference(JUDGEMENT, "changed", "it cannot be read")]
    # Where models lie is told as it was typed.
    same = {name: getattr(found.stored, name) for name in ("created", "edgequant", "models")}
    again = found.found.model_copy(update=same)
    if acceptance_json(again).encode("utf-8", "backslashreplace") == stored:
        return []
    first = found.changes[0] if found.changes else "its numbers or words"
    if maker != __version__:
        notes.append(f"edgequant {__version__} judges it otherwise than {maker[:40]}, which made it: {first}")
        return []
    return [Difference(JUDGEMENT, "changed", f"it is not what judging gives: {first}")]


def _folder(path: Path) -> Path:
    folder = path.parent if path.is_file() else path
    if not folder.is_dir():
        raise InputError("RUN_NOT_FOUND", f"{folder}: no such folder", hint="Give the folder that --run-dir named.")
    known = ("plan.json", "bench-plan.json", "accept.json", manifest.MANIFEST, "journal.jsonl", *_OTHERS)
    if not any(os.path.lexists(folder / name) for name in known):
        raise InputError("RUN_INVALID", f"{folder}: not the folder of a run", hint="It has none of a run's files.")
    return folder


def _judged(folder: Path, before: list[Difference], listed: bool, notes: list[str]) -> list[Difference]:
    """Whether the report is what judging the rest gives."""
    kind = next((each for each in _KINDS if os.path.lexists(folder / each.plan)), None)
    if kind is None:
        notes.append("what was judged here was not judged anew")
        return []
    name = kind.report
    if any(each.file in (name, manifest.MANIFEST) and each.what != "extra" for each in before):
        return []  # it is said already
    try:
        maker, report, was, changes = kind.judge(folder)
        stored = read_bounded(folder / name, MAX_BYTES)
    except FileNotFoundError:
        return [Difference(name, "missing")]
    except EdgequantError as error:
        if not any(each.file not in (name, manifest.MANIFEST) for each in before):
            return [Difference(name, "changed", f"it cannot be judged again: {error.code}: {error}")]
        notes.append(f"{name} could not be held against what judging gives: {error.code}")
        return []
    if was is None:
        return [Difference(name, "changed", "it cannot be read")]
    if kind.text(report.model_copy(update={"created": was.created})).encode() == stored:
        return []
    first = changes[0] if changes else "its numbers or words"
    if maker != __version__ and listed:
        told = f"edgequant {__version__} judges it otherwise than {maker[:40]}, which made it"
        notes.append(f"{told}: {first}")
        return []
    return [Difference(name, "changed", f"it is not what judging gives: {first}")]


def _by_name(folder: Path, notes: list[str]) -> tuple[list[Difference], int]:
    """Of a folder without a manifest: files that are named by their hash, and records that the journal has."""
    notes.append(
        "there is no manifest.json (an older version made it, or it did not get to its end): of logs, cases, "
        "closing.json, and of files that nobody knows, nothing can be said"
    )
    known: dict[str, str] = {}
    for line in _journal(folder):
        if isinstance(name := line.get("file"), str) and isinstance(digest := line.get("sha256"), str):
            known[name] = digest
    for name in [name for name in known if name.startswith("artifacts/")]:
        made = _document(folder / name).get("artifact")
        made = made if isinstance(made, dict) else {}
        path = made.get("path")
        if isinstance(path, str) and path.startswith("models/"):  # a source that is taken as it is lies elsewhere
            known[path] = str(made.get("sha256"))
    for name in [name for name in known if name.startswith(("captures/", "source"))]:
        for digest in _arrays(_document(folder / name)):
            known[f"arrays/{digest}.npy"] = digest
    for path in sorted((folder / "arrays").glob("*.npy")):
        known.setdefault(f"arrays/{path.name}", path.stem)
    found = [each for name, digest in sorted(known.items()) for each in _held(folder, name, digest)]
    return found, len(known)


def _held(folder: Path, name: str, digest: str) -> Iterator[Difference]:
    if ".." in Path(name).parts or Path(name).is_absolute():
        yield Difference(name, "changed", "the journal names what is not in the folder")
        return
    try:
        if sha256_of(folder / name) != digest:
            yield Difference(name, "changed", "its SHA-256 is another")
    except FileNotFoundError:
        yield Difference(name, "missing")
    except OSError as error:
        yield Difference(name, "changed", error.strerror or str(error))


def _journal(folder: Path) -> Iterator[dict[str, Any]]:
    try:
        text = read_bounded(folder / "journal.jsonl", _MAX_RECORD).decode("utf-8", "replace")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            yield found


def _document(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_bounded(path, _MAX_RECORD))
    except (OSError, ValueError, RecursionError):
        return {}  # that its hash is another is said anyway
    return found if isinstance(found, dict) else {}


def _arrays(value: Any) -> Iterator[str]:
    """SHA-256 of every array that a record refers to."""
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, dict):
            digest = each.get("sha256")
            if isinstance(digest, str) and "dtype" in each and "shape" in each and digest.isalnum():
                yield digest
            todo += each.values()
        elif isinstance(each, list):
            todo += each
