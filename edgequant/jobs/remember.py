"""Runs into the history: when they end, and from their folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgequant.errors import EdgequantError, InputError
from edgequant.history.adapt import read_folder, run_folders
from edgequant.history.entry import Entry
from edgequant.history.store import History


@dataclass
class Added:
    """found: folders of runs.  new: that were not known.  skipped: folder -> why."""

    found: int = 0
    new: int = 0
    skipped: dict[str, EdgequantError] = field(default_factory=dict)


def add(history: History, folders: Iterable[Path]) -> Added:
    """Add every run in these folders; those that cannot be read are told and left out.

    Raises InputError (RUN_NOT_FOUND) where a folder is not there, what `History` raises.
    """
    found = Added()
    found.new = history.add(list(_entries(folders, found)))
    return found


def rebuild(history: History, folders: Iterable[Path]) -> Added:
    """The same; nothing but these is in it afterwards."""
    found = Added()
    found.new = history.replace_all(list(_entries(folders, found)))
    return found


def note(run_dir: Path, history: Path) -> EdgequantError | None:
    """Add a run that has just ended, and those in it; what kept one from being noted is returned, for a verdict does
    not hang on it."""
    found = Added()
    try:
        folders = [each for each in run_folders(run_dir) if each != run_dir]
        History(history).add([read_folder(run_dir), *_entries(folders, found)])
    except EdgequantError as error:
        return error
    return next(iter(found.skipped.values()), None)


def _entries(folders: Iterable[Path], told: Added) -> Iterator[Entry]:
    for each in folders:
        if not each.exists():
            raise InputError(
                "RUN_NOT_FOUND", f"{each}: no such folder", hint="Give folders of runs, or a folder that holds some."
            )
        for folder in [each] if each.is_file() else list(run_folders(each)):
            told.found += 1
            try:
                yield read_folder(folder)
            except EdgequantError as error:
                told.skipped[str(folder)] = error
