"""The file of the history: what is added is there once, whoever adds it; what is no history is refused."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from edgequant.errors import EdgequantError, InputError
from edgequant.history.entry import Entry, Trial, Value
from edgequant.history.store import MIGRATIONS, History, Wanted

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
EVERYTHING = Wanted()


def entry(
    number: int, *, model: str = "m.onnx", device: str = "local:", verdict: str = "PASS", **more: object
) -> Entry:
    values = (Value("", "latency_p50_ms", 2.0, "load 7" if number % 2 else ""), Value("y", "sqnr_db", 30.0 + number))
    trial = Trial("dynamic:8", device, verdict, "a76", "Android", False, "f" * 64, values, (("warn", "CODE"),))
    given = {"plan": "", "trials": (trial,), "findings": (("info", "OTHER"),), "folder": f"/runs/{number}"} | more
    return Entry(
        f"{number:064x}", "verify", START + timedelta(days=number), "0.1", "3.6.1", model, "a" * 64, verdict, **given
    )  # type: ignore[arg-type]


def test_what_is_added_is_there_once(tmp_path: Path) -> None:
    history = History(tmp_path / "deep" / "h.sqlite")
    entries = [entry(number) for number in range(5)]
    assert history.add(entries) == 5
    before = history.path.read_bytes()
    assert history.add(entries) == 0
    assert history.path.read_bytes() == before
    assert [each.id for each in history.find(EVERYTHING)] == [each.id for each in reversed(entries)]
    assert history.get(entries[2].id[:64]) == entries[2]


def test_filters(tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    history.add([entry(0), entry(1, model="n_x.onnx"), entry(2, device="ssh://b"), entry(3, verdict="FAIL")])

    def found(**wanted: str) -> list[int]:
        chosen = Wanted(**wanted)
        assert history.count(chosen) == len(history.find(chosen))
        return sorted(int(each.id, 16) for each in history.find(chosen))

    assert found(model="n_x.onnx") == found(model="n_x") == [1]
    assert found(model="n%") == found(model="nax") == []
    assert found(model="a" * 8) == [0, 1, 2, 3]
    assert found(device="ssh://b") == [2]
    assert found(verdict="fail") == [3]
    assert found(since="2026-01-03") == [2, 3]
    assert found(variant="fp16") == []
    assert found(kind="bench") == []
    assert len(history.find(EVERYTHING, 2)) == 2
    assert [(each.value, each.why) for each in history.points("latency_p50_ms", Wanted(device="local:"))] == [
        (2.0, ""), (2.0, "load 7"), (2.0, "load 7"),
    ]  # fmt: skip


def test_the_same_run_judged_again_takes_its_own_place(tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    one, copy = (tmp_path / name for name in ("one", "copy"))
    for each in (one, copy):
        each.mkdir()
    history.add([entry(1, plan="p", folder=str(one)), entry(2, plan="p", folder=str(copy))])
    history.add([entry(3, plan="p", folder=str(one))])
    assert sorted(int(each.id, 16) for each in history.find(EVERYTHING)) == [2, 3]


def test_a_run_that_was_moved_is_found_where_it_is(tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    history.add([entry(1, folder="/nowhere")])
    assert history.add([entry(1, folder=str(tmp_path))]) == 0
    assert history.find(EVERYTHING)[0].folder == str(tmp_path)


def test_rebuilt_it_has_these_and_no_others(tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    history.add([entry(number) for number in range(5)])
    assert history.replace_all([entry(7), entry(8)]) == 2
    assert sorted(int(each.id, 16) for each in history.find(EVERYTHING)) == [7, 8]
    with sqlite3.connect(history.path) as database:
        counts = [database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("trials", "numbers")]
    assert counts == [2, 4]


@pytest.mark.parametrize("id_", ["0", "zz", "ffff", "%", "' OR 1 --", "0" * 40])
def test_an_id_that_is_none(id_: str, tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    history.add([entry(1), entry(2)])
    with pytest.raises(InputError) as caught:
        history.get(id_)
    assert caught.value.code == "HISTORY_UNKNOWN_RUN"


_ADDS = """
import sys
from pathlib import Path
from edgequant.history.store import History
from tests.history.test_history_store import entry
history, first = History(Path(sys.argv[1])), int(sys.argv[2])
for number in range(first, first + 20):
    history.add([entry(number), entry(number % 10)])
    history.find(__import__("edgequant.history.store", fromlist=["Wanted"]).Wanted(), 3)
print("done")
"""


def started(path: Path, first: int) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    given = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    words = [sys.executable, "-c", _ADDS, str(path), str(first)]
    return subprocess.Popen(words, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    running = [started(path, first) for first in (0, 10, 20, 30)]
    for each in running:
        out, error = each.communicate(timeout=300)
        assert out == "done\n", error
    assert sorted(int(each.id, 16) for each in History(path).find(EVERYTHING)) == list(range(50))


def test_a_writer_that_is_killed_leaves_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    History(path).add([entry(999)])
    for _ in range(3):
        running = started(path, 0)
        while History(path).count(EVERYTHING) < 2 and running.poll() is None:
            time.sleep(0.001)  # until it is at work; nothing tells
        running.send_signal(signal.SIGKILL)
        running.communicate(timeout=60)
        history = History(path)
        kept = history.find(EVERYTHING)
        assert all(len(history.get(each.id).trials[0].values) == 2 for each in kept)
        history.replace_all([entry(999)])
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_an_older_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    History(path).add([entry(1)])
    newer = (*MIGRATIONS, ("ALTER TABLE documents RENAME COLUMN mnn TO runtime", "CREATE TABLE more (x)"))
    assert [each.mnn for each in History(path, newer).find(EVERYTHING)] == ["3.6.1"]
    History(path, newer).add([entry(2)])
    assert History(path, newer).count(EVERYTHING) == 2
    with pytest.raises(InputError) as caught:
        History(path).find(EVERYTHING)
    assert caught.value.code == "HISTORY_INVALID"
    assert "newer edgequant" in caught.value.message
    with pytest.raises(InputError):
        History(path).add([entry(3)])


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    History(path).add([entry(1)])
    with pytest.raises(EdgequantError):
        History(path, (*MIGRATIONS, ("CREATE TABLE more (x)", "no SQL at all"))).find(EVERYTHING)
    assert History(path).count(EVERYTHING) == 1


def test_what_is_no_history_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello " * 1000)
    with sqlite3.connect(tmp_path / "other") as database:
        database.execute("CREATE TABLE mine (x)")
    database.close()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("text", "other", "folder", "pipe"):
        path = tmp_path / name
        before = path.read_bytes() if path.is_file() else b""
        for work in (lambda path=path: History(path).add([entry(1)]), lambda path=path: History(path).find(EVERYTHING)):
            with pytest.raises(EdgequantError) as caught:
                work()
            assert caught.value.code == "HISTORY_INVALID", (name, caught.value)
        assert (path.read_bytes() if path.is_file() else b"") == before
    with pytest.raises(InputError) as missing:
        History(tmp_path / "none").find(EVERYTHING)
    assert missing.value.code == "HISTORY_NOT_FOUND"
    with pytest.raises(EdgequantError) as unusable:
        History(tmp_path / "text" / "h.sqlite").add([entry(1)])
    assert unusable.value.code == "HISTORY_UNUSABLE"


def test_a_damaged_file_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    History(path).add([entry(number) for number in range(200)])
    data = bytearray(path.read_bytes())
    for place in range(4096, len(data), 512):
        data[place : place + 64] = b"\xff" * 64
    path.write_bytes(data)
    with pytest.raises(EdgequantError) as caught:
        History(path).find(EVERYTHING)
    assert caught.value.code in ("HISTORY_INVALID", "HISTORY_UNUSABLE")
