"""The file of the history: SQLite, with a rollback journal, so that it is one file and may lie anywhere.

Every writer takes the write lock first (BEGIN IMMEDIATE) and waits for others, so that any number of processes may add
to it at once.  PRAGMA application_id tells it from other databases, user_version is the number of its schema.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import get_args

from edgequant.errors import EdgequantError, InputError
from edgequant.history.entry import Entry, Kind, Trial, Value

APPLICATION = 0x65717268
WAIT_SECONDS = 60.0
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE documents (
            id TEXT PRIMARY KEY, kind TEXT NOT NULL, created TEXT NOT NULL, edgequant TEXT NOT NULL, mnn TEXT NOT NULL,
            model TEXT NOT NULL, model_sha256 TEXT NOT NULL, verdict TEXT NOT NULL, folder TEXT NOT NULL,
            plan TEXT NOT NULL) WITHOUT ROWID""",
        """CREATE TABLE trials (
            trial INTEGER PRIMARY KEY, document TEXT NOT NULL REFERENCES documents ON DELETE CASCADE,
            variant TEXT NOT NULL, device TEXT NOT NULL, verdict TEXT NOT NULL, cpu TEXT NOT NULL, os TEXT NOT NULL,
            emulated INTEGER NOT NULL, sha256 TEXT NOT NULL)""",
        """CREATE TABLE numbers (
            trial INTEGER NOT NULL REFERENCES trials ON DELETE CASCADE, output TEXT NOT NULL, metric TEXT NOT NULL,
            value REAL NOT NULL, why TEXT NOT NULL, PRIMARY KEY (trial, output, metric)) WITHOUT ROWID""",
        """CREATE TABLE findings (
            document TEXT NOT NULL REFERENCES documents ON DELETE CASCADE,
            trial INTEGER REFERENCES trials ON DELETE CASCADE, severity TEXT NOT NULL, code TEXT NOT NULL)""",
        "CREATE INDEX documents_created ON documents (created)",
        "CREATE INDEX documents_folder ON documents (folder)",
        "CREATE INDEX trials_document ON trials (document)",
        "CREATE INDEX findings_document ON findings (document)",
        "CREATE INDEX findings_trial ON findings (trial)",
    ),
)
"""What makes of each schema the next one; the first begins with nothing."""


@dataclass(frozen=True)
class Wanted:
    """Which documents; None for all.

    model: the file's name, with or without what follows its last dot, or the beginning of its SHA-256.  since: in
    UTC, as `Entry.when`.
    """

    model: str | None = None
    variant: str | None = None
    device: str | None = None
    verdict: str | None = None
    kind: str | None = None
    since: str | None = None


@dataclass(frozen=True)
class Point:
    """One number of one run."""

    document: str
    created: str
    variant: str
    output: str
    value: float
    why: str
    edgequant: str
    mnn: str
    verdict: str
    sha256: str


class History:
    """One file.

    Raises (from everything) InputError (HISTORY_NOT_FOUND, HISTORY_INVALID), EdgequantError (HISTORY_UNUSABLE).
    """

    def __init__(self, path: Path, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> None:
        self.path = path
        self._migrations = migrations

    def add(self, entries: Iterable[Entry]) -> int:
        """Returns how many were not there before; the same document twice changes nothing."""
        with self._writing() as database:
            return sum(_insert(database, each) for each in entries)

    def replace_all(self, entries: Iterable[Entry]) -> int:
        """Nothing else is in it afterwards; who reads meanwhile sees what was before."""
        with self._writing() as database:
            database.execute("DELETE FROM documents")
            return sum(_insert(database, each) for each in entries)

    def find(self, wanted: Wanted, most: int | None = None) -> list[Entry]:
        """The newest first, with trials, without numbers."""
        where, given = _where(wanted)
        limit = "" if most is None else f" LIMIT {most:d}"
        with self._reading() as database:
            rows = database.execute(
                f"SELECT * FROM documents AS d WHERE {where} ORDER BY created DESC, id{limit}",  # noqa: S608
                given,
            ).fetchall()
            return [_entry(database, row, numbers=False) for row in rows]

    def count(self, wanted: Wanted) -> int:
        where, given = _where(wanted)
        with self._reading() as database:
            found = database.execute(f"SELECT count(*) FROM documents AS d WHERE {where}", given)  # noqa: S608
            return int(found.fetchone()[0])

    def get(self, id_: str) -> Entry:
        """By the beginning of its id.  Raises InputError (HISTORY_UNKNOWN_RUN)."""
        if not id_.isalnum() or len(id_) < 4:
            raise _unknown(id_, "an id has at least four letters and digits")
        with self._reading() as database:
            rows = database.execute(
                "SELECT * FROM documents WHERE substr(id, 1, ?) = ?", (len(id_), id_.lower())
            ).fetchall()
            if len(rows) != 1:
                raise _unknown(id_, "several begin so" if rows else "no run of the history begins so")
            return _entry(database, rows[0], numbers=True)

    def points(self, metric: str, wanted: Wanted, output: str | None = None) -> list[Point]:
        """Of one metric, the oldest first."""
        where, given = _where(wanted, trial="t")
        with self._reading() as database:
            rows = database.execute(
                "SELECT d.id, d.created, t.variant, n.output, n.value, n.why, d.edgequant, d.mnn, t.verdict, t.sha256"  # noqa: S608
                " FROM numbers AS n JOIN trials AS t ON n.trial = t.trial JOIN documents AS d ON t.document = d.id"
                f" WHERE {where} AND n.metric = ? AND (? IS NULL OR n.output = ?)"
                " ORDER BY d.created, d.id, t.trial, n.output",
                (*given, metric, output, output),
            ).fetchall()
        return [Point(*row) for row in rows]

    def metrics(self, wanted: Wanted) -> list[str]:
        """Those that are known of such runs."""
        where, given = _where(wanted, trial="t")
        with self._reading() as database:
            rows = database.execute(
                "SELECT DISTINCT n.metric FROM numbers AS n JOIN trials AS t ON n.trial = t.trial"  # noqa: S608
                f" JOIN documents AS d ON t.document = d.id WHERE {where} ORDER BY n.metric",
                given,
            ).fetchall()
        return [str(row[0]) for row in rows]

    # ---- the file

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(self.path, error.strerror or str(error)) from None
        with self._open("rwc") as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                self._migrate(database)
                yield database
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if not self.path.exists():
            raise InputError(
                "HISTORY_NOT_FOUND", f"{self.path}: there is no history",
                hint="Begin one: edgequant history add RUN_DIR, or edgequant history rebuild edgequant-runs.",
            )  # fmt: skip
        # What a writer that was killed has left undone is undone by the next one who may write.
        with self._open("rw" if os.access(self.path, os.W_OK) else "ro") as database:
            database.execute("BEGIN")
            version = self._version(database)
            if version == len(self._migrations):
                yield database
                database.execute("ROLLBACK")
                return
        with self._writing():  # an older one: made to fit once
            pass
        with self._reading() as database:
            yield database

    @contextmanager
    def _open(self, mode: str) -> Iterator[sqlite3.Connection]:
        if self.path.exists() and not self.path.is_file():
            raise _invalid(self.path, "it is not a file")
        try:
            uri = f"{self.path.resolve().as_uri()}?mode={mode}"
            database = sqlite3.connect(uri, uri=True, timeout=WAIT_SECONDS, isolation_level=None)
        except (sqlite3.Error, OSError, ValueError) as error:
            raise _unusable(self.path, str(error)) from None
        try:
            database.execute("PRAGMA foreign_keys = ON")
            database.execute("PRAGMA trusted_schema = OFF")
            yield database
        except sqlite3.OperationalError as error:
            raise _unusable(self.path, str(error)) from None
        except sqlite3.DatabaseError as error:
            raise _invalid(self.path, str(error)) from None
        finally:
            database.close()

    def _version(self, database: sqlite3.Connection) -> int:
        """Of its schema; 0 for one that is empty.  Raises InputError (HISTORY_INVALID)."""
        kind = database.execute("PRAGMA application_id").fetchone()[0]
        version = int(database.execute("PRAGMA user_version").fetchone()[0])
        empty = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
        if kind != APPLICATION and not empty:
            raise _invalid(self.path, "it is a database of something else")
        if version > len(self._migrations):
            raise _invalid(
                self.path, f"a newer edgequant made it: schema {version}, this one knows {len(self._migrations)}"
            )
        return 0 if empty else version

    def _migrate(self, database: sqlite3.Connection) -> None:
        version = self._version(database)
        if version == len(self._migrations):
            return
        for steps in self._migrations[version:]:
            for step in steps:
                database.execute(step)
        database.execute(f"PRAGMA application_id = {APPLICATION}")
        database.execute(f"PRAGMA user_version = {len(self._migrations)}")


def _insert(database: sqlite3.Connection, entry: Entry) -> bool:
    known = database.execute("SELECT folder FROM documents WHERE id = ?", (entry.id,)).fetchone()
    if known is not None:
        if known[0] != entry.folder and not os.path.lexists(known[0]):  # it was moved
            database.execute("UPDATE documents SET folder = ? WHERE id = ?", (entry.folder, entry.id))
        return False
    if entry.plan:
        # The same run, judged or looked into again since, perhaps where it was moved to.
        for id_, folder in database.execute(
            "SELECT id, folder FROM documents WHERE plan = ?", (entry.plan,)
        ).fetchall():
            if folder == entry.folder or not os.path.lexists(folder):
                database.execute("DELETE FROM documents WHERE id = ?", (id_,))
    database.execute(
        "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            entry.id, entry.kind, entry.when, entry.edgequant, entry.mnn, entry.model, entry.model_sha256,
            entry.verdict, entry.folder, entry.plan,
        ),
    )  # fmt: skip
    for trial in entry.trials:
        row = database.execute(
            "INSERT INTO trials (document, variant, device, verdict, cpu, os, emulated, sha256)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                entry.id, trial.variant, trial.device, trial.verdict, trial.cpu, trial.os, int(trial.emulated),
                trial.sha256,
            ),
        ).lastrowid  # fmt: skip
        database.executemany(
            "INSERT OR REPLACE INTO numbers VALUES (?, ?, ?, ?, ?)",
            [(row, each.output, each.metric, each.value, each.why) for each in trial.values],
        )
        database.executemany(
            "INSERT INTO findings VALUES (?, ?, ?, ?)", [(entry.id, row, *each) for each in trial.findings]
        )
    database.executemany("INSERT INTO findings VALUES (?, NULL, ?, ?)", [(entry.id, *each) for each in entry.findings])
    return True


def _where(wanted: Wanted, trial: str | None = None) -> tuple[str, list[str]]:
    """Of documents `d`; trial: of its row too, where it is joined."""
    parts, given = ["1"], []
    if wanted.model is not None:
        parts.append(
            "(d.model = ? OR d.model LIKE ? ESCAPE '\\' OR (length(?) >= 6 AND substr(d.model_sha256, 1, ?) = ?))"
        )
        stem = wanted.model.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        given += [wanted.model, f"{stem}.%", wanted.model, str(len(wanted.model)), wanted.model.lower()]
    if wanted.kind is not None:
        parts.append("d.kind = ?")
        given.append(wanted.kind)
    if wanted.verdict is not None:
        parts.append("d.verdict = ?")
        given.append(wanted.verdict.upper())
    if wanted.since is not None:
        parts.append("d.created >= ?")
        given.append(wanted.since)
    for name, value in (("variant", wanted.variant), ("device", wanted.device)):
        if value is not None:
            one = f"{trial}.{name} = ?" if trial else f"d.id IN (SELECT document FROM trials WHERE {name} = ?)"  # noqa: S608
            parts.append(one)
            given.append(value)
    return " AND ".join(parts), given


def _entry(database: sqlite3.Connection, row: Sequence[str], *, numbers: bool) -> Entry:
    trials = []
    for each in database.execute(
        "SELECT trial, variant, device, verdict, cpu, os, emulated, sha256 FROM trials"
        " WHERE document = ? ORDER BY trial",
        (row[0],),
    ).fetchall():
        values = database.execute(
            "SELECT output, metric, value, why FROM numbers WHERE trial = ? ORDER BY output, metric", (each[0],)
        ).fetchall() if numbers else []  # fmt: skip
        trials.append(
            Trial(
                variant=each[1], device=each[2], verdict=each[3], cpu=each[4], os=each[5], emulated=bool(each[6]),
                sha256=each[7], values=tuple(Value(*value) for value in values),
                findings=_codes(database, "trial = ?", each[0]),
            )
        )  # fmt: skip
    id_, kind, created, edgequant, mnn, model, model_sha256, verdict, folder, plan = row
    return Entry(
        id_, _kind(kind), datetime.fromisoformat(created.replace("Z", "+00:00")), edgequant, mnn, model, model_sha256,
        verdict, folder, plan, tuple(trials), _codes(database, "document = ? AND trial IS NULL", id_),
    )  # fmt: skip


def _kind(text: str) -> Kind:
    return text if text in get_args(Kind) else "unknown"  # type: ignore[return-value]


def _codes(database: sqlite3.Connection, where: str, value: object) -> tuple[tuple[str, str], ...]:
    found = database.execute(f"SELECT severity, code FROM findings WHERE {where}", (value,))  # noqa: S608
    return tuple((str(severity), str(code)) for severity, code in found)


def _unknown(id_: str, why: str) -> InputError:
    return InputError("HISTORY_UNKNOWN_RUN", f"{id_}: {why}", hint="edgequant history list shows what there is.")


def _invalid(path: Path, why: str) -> InputError:
    hint = "Name another file with --db; edgequant history rebuild DIR makes one from the folders of runs."
    return InputError("HISTORY_INVALID", f"{path}: not a history: {why}", hint=hint)


def _unusable(path: Path, why: str) -> EdgequantError:
    return EdgequantError("HISTORY_UNUSABLE", f"{path}: {why}", hint="Look at its permissions and its disk.")
