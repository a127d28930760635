"""The folder of a run: one run's alone, and nobody else's things removed."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from edgequant.archive import folder
from edgequant.archive.folder import FOLDERS, RunFolder, encoded
from edgequant.archive.record import Failure
from edgequant.archive.types import Artifact, Capture, Making
from edgequant.errors import InputError
from edgequant.spec import Variant

_CLAIM = """
    import sys
    from pathlib import Path
    from edgequant.errors import InputError
    from edgequant.archive.folder import RunFolder
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        RunFolder.create(Path(sys.argv[1]), "m.onnx")
        print("mine")
    except InputError as error:
        print(error.code)
"""


def test_text_that_is_not_utf8_is_kept_and_read_as_it_was() -> None:
    """Of file names, and of what a device said."""
    made = Failure(code="LINK_LOST", message="it said \udcff\ud800", evidence={"a": ["\udcff"], "n": np.float32(2)})
    assert json.loads(encoded(made)) == json.loads(json.dumps(made.model_dump(mode="json", fallback=float)))
    assert Failure.model_validate(json.loads(encoded(made))).message == made.message


def test_of_many_that_start_at_once_one_gets_it(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", textwrap.dedent(_CLAIM)]
    for attempt in range(2):
        where = str(tmp_path / "deep" / f"run{attempt}")
        started = [
            subprocess.Popen([*argv, where], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
        ]
        for process in started:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.flush()
        said = sorted(process.communicate(timeout=240)[0].strip() for process in started)
        assert said == ["RUN_DIR_UNUSABLE"] * 3 + ["mine"]
        assert sorted(folder.name for folder in Path(where).iterdir()) == sorted(FOLDERS)


def test_the_second_sees_an_empty_folder_and_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment between looking and making, held open."""
    path = tmp_path / "run"
    first: list[RunFolder] = []
    make = RunFolder._make

    def slow(self: RunFolder, folder: Path) -> bool:
        if folder == path / "logs" and not first:
            monkeypatch.setattr(RunFolder, "_make", make)
            first.append(RunFolder.create(path, "m"))
            (path / "models" / "x.mnn").touch()
        return make(self, folder)

    monkeypatch.setattr(RunFolder, "_make", slow)
    with pytest.raises(InputError) as caught:
        RunFolder.create(path, "m")
    assert caught.value.code == "RUN_DIR_UNUSABLE"
    assert (path / "models" / "x.mnn").exists()
    first[0].discard()
    assert not (path / "models").exists()


def test_discard_removes_what_was_made(tmp_path: Path) -> None:
    deep = RunFolder.create(tmp_path / "a" / "b" / "c", "m")
    (deep.logs / "x.log").touch()
    deep.discard()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    given = RunFolder.create(tmp_path / "mine", "m")
    given.discard()
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]
    given.discard()


def test_discard_leaves_what_others_made(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "m")
    run.discard()
    other = RunFolder.create(tmp_path / "run", "m")
    (other.models / "x.mnn").touch()
    run.discard()
    assert (other.models / "x.mnn").exists()
    (other.path / "note").touch()
    other.discard()
    assert [file.name for file in tmp_path.rglob("*")] == ["run", "note"]


def test_a_file_in_the_way_and_a_half_made_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError) as caught:
            RunFolder.create(path, "m")
        assert caught.value.code == "RUN_DIR_UNUSABLE"
    monkeypatch.setattr(folder, "FOLDERS", ("logs", "x" * 300))
    with pytest.raises(InputError, match="too long"):
        RunFolder.create(tmp_path / "run", "m")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("relative", [True, False])
def test_no_record_names_the_folders_own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool) -> None:
    """However the folder and the file were named: it may be moved."""
    monkeypatch.chdir(tmp_path)
    run = RunFolder.create(Path("run") if relative else tmp_path / "run", "m")
    file = (tmp_path if relative else Path()) / "run" / "models" / "a.mnn"
    variant, digest = Variant.parse("fp16"), "0" * 64
    made = Artifact(path=file, sha256=digest, size=0, source_sha256=digest, asked=variant, run_as=variant)
    run.save_making(Making(variant=variant, artifact=made))
    (record,) = (run.path / "artifacts").iterdir()
    assert Making.model_validate_json(record.read_text()).artifact == made.model_copy(
        update={"path": Path("models/a.mnn")}
    )
    assert str(tmp_path) not in record.read_text()


def test_what_a_kill_left_out_of_the_journal_is_added(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "m")
    for name in ("reference", "local/fp16"):
        run.save_capture(name, Capture(trial=name, role="device"))
    journal = run.path / "journal.jsonl"
    whole = [json.loads(line) for line in journal.read_text().splitlines()]
    journal.write_text(journal.read_text().splitlines()[0] + "\n")
    RunFolder(run.path).reopen()
    after = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [(line["file"], line["sha256"]) for line in after] == [(line["file"], line["sha256"]) for line in whole]
    RunFolder(run.path).reopen()
    assert len(journal.read_text().splitlines()) == 2


def test_a_line_that_was_written_in_part(tmp_path: Path) -> None:
    """As a full disk leaves it: what comes next has a line of its own."""
    run = RunFolder.create(tmp_path / "run", "m")
    for name in ("reference", "local/fp16"):
        run.save_capture(name, Capture(trial=name, role="device"))
    journal = run.path / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-30])
    run.reopen()
    files = [json.loads(line)["file"] for line in journal.read_text().splitlines()]
    assert files == ["captures/reference.json", "captures/local/fp16.json"]
    assert len(whole) == len(journal.read_bytes())


def test_two_in_one_folder(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "m")
    with (
        run.alone(),
        pytest.raises(InputError, match="another edgequant is at work"),
        RunFolder(run.path).alone(),
    ):
        raise AssertionError("both are in it")
    with RunFolder(run.path).alone():
        assert sorted(each.name for each in run.path.iterdir()) == sorted(FOLDERS)
