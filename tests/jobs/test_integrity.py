"""A folder that is not what it was when it was finished is noticed, whatever changed in it, and each file is named."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgequant.archive import manifest
from edgequant.errors import InputError
from edgequant.jobs.integrity import check
from edgequant.jobs.rejudge import judge, keep
from edgequant.judge.bench_run import judge_folder
from edgequant.report.bench import rounded, write
from edgequant.report.bench_build import build_bench
from tests.cli.command import edgequant
from tests.judge.benches import simple
from tests.nightly import all_but
from tests.recorded import unpacked
from tests.waiting import LONG

KINDS = ("byte", "shorter", "longer", "gone", "extra", "other", "link", "renamed", "folder", "empty")


def closed(name: str, where: Path) -> Path:
    """A run that was recorded before there were manifests, with one."""
    folder = unpacked(name, where)
    manifest.close(folder)
    return folder


def bench_folder(where: Path) -> Path:
    bench = simple(where / "bench")
    write(rounded(build_bench(bench, judge_folder(bench))), bench.path / "bench.json")
    manifest.close(bench.path)
    return bench.path


def changed(folder: Path, kind: str, draw: random.Random) -> str:
    """Change one thing; returns the name that has to be told."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = draw.choice(files)
    name, data = path.relative_to(folder).as_posix(), path.read_bytes()
    if kind == "extra":
        path = path.with_name(f"{draw.randrange(1000)}.npy")
        path.write_bytes(b"x")
        return path.relative_to(folder).as_posix()
    if kind in ("renamed", "link"):
        path.rename(folder.parent / "elsewhere" if kind == "link" else path.with_name(f"{path.name}.bak"))
        if kind == "link":
            path.symlink_to(folder.parent / "elsewhere")
        return name
    path.unlink()  # it is a hard link
    if kind == "byte" and data:
        place = draw.randrange(len(data))
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :])
    elif kind == "shorter" and data:
        path.write_bytes(data[:-1])
    elif kind == "empty" and data:
        path.write_bytes(b"")
    elif kind == "other":
        other = draw.choice([each for each in files if each != path and each.read_bytes() != data])
        path.write_bytes(other.read_bytes())
    elif kind == "folder":
        path.mkdir()
    elif kind != "gone":
        path.write_bytes(data + b" ")
    return name


@pytest.mark.parametrize("name", all_but("cnn", "bench", of=["cnn", "gru", "bench"]))
def test_each_of_many_changes_is_noticed(name: str, tmp_path: Path) -> None:
    whole = bench_folder(tmp_path / "whole") if name == "bench" else closed(name, tmp_path / "whole")
    assert manifest.differences(whole) == []
    draw = random.Random(3)
    for number in range(100):
        folder = tmp_path / "one" / "run"
        shutil.copytree(whole, folder, copy_function=os.link)
        kind = KINDS[number % len(KINDS)]
        what = changed(folder, kind, draw)
        found = manifest.differences(folder)
        assert found, f"{number}: {kind} of {what}"
        assert what in [each.file for each in found] or what == manifest.MANIFEST, (kind, what, found)
        if number % 25 == 0:
            assert not check(folder).holds
        shutil.rmtree(tmp_path / "one")


@pytest.mark.parametrize("name", ["cnn", "gru"])
def test_a_run_of_an_older_version_is_checked_by_its_names(name: str, tmp_path: Path) -> None:
    folder = unpacked(name, tmp_path)
    found = check(folder)
    assert found.holds
    assert not found.listed
    assert any("no manifest.json" in note for note in found.notes)
    array = next((folder / "arrays").glob("*.npy"))
    array.write_bytes(array.read_bytes()[:-1] + b"\0\1")
    model = next((folder / "models").glob("*.mnn"))
    model.unlink()
    record = folder / "captures" / "reference.json"
    record.write_bytes(record.read_bytes() + b"\n")
    told = {each.file: each.what for each in check(folder).differences}
    assert told == {
        f"arrays/{array.name}": "changed",
        f"models/{model.name}": "missing",
        "captures/reference.json": "changed",
    }


def test_a_report_that_says_something_else_is_noticed_without_a_manifest(tmp_path: Path) -> None:
    folder = unpacked("gru", tmp_path)
    report = folder / "report.json"
    report.write_text(report.read_text().replace('"sqnr_db": 53.', '"sqnr_db": 63.', 1))
    (found,) = check(folder).differences
    assert (found.file, found.what) == ("report.json", "changed")
    assert "not what judging gives" in found.why
    report.unlink()
    (found,) = check(folder).differences
    assert (found.file, found.what) == ("report.json", "missing")


def test_a_bench_is_judged_anew(tmp_path: Path) -> None:
    folder = bench_folder(tmp_path)
    assert check(folder).holds
    done = edgequant("judge", str(folder), "--write", "--csv", str(folder / "t.csv"))
    assert done.code == 0
    assert check(folder / "bench.json").holds
    for name in ("bench.json", "bench-2.json"):
        path = folder / name
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b'"blocks": 7', b'"blocks": 8', 1))
        assert [each.file for each in check(folder).differences] == [name]
        path.write_bytes(whole)
    (folder / manifest.MANIFEST).unlink()
    (folder / "journal.jsonl").open("a").write("{}\n")
    assert check(folder).holds
    path = folder / "bench.json"
    path.write_bytes(path.read_bytes().replace(b'"rounds_good": 7', b'"rounds_good": 6', 1))
    (found,) = check(folder).differences
    assert (found.file, "not what judging gives" in found.why) == ("bench.json", True)


def test_each_run_of_an_acceptance_is_looked_at(tmp_path: Path) -> None:
    folder = tmp_path / "gate"
    (folder / "trials" / "m").mkdir(parents=True)
    for name in ("accept.json", "acceptance.json"):
        (folder / name).write_text("{}")
    for number in (1, 2):
        closed("cnn", tmp_path).rename(folder / "trials" / "m" / f"attempt-{number}")
    found = check(folder)
    assert [each.file for each in found.differences] == ["acceptance.json"], "it cannot be judged anew"
    assert found.files > 90
    (folder / "trials" / "m" / "attempt-2" / "plan.json").unlink()
    assert [each.file for each in check(folder).differences] == ["trials/m/attempt-2/plan.json"]


def test_two_who_add_to_a_folder_take_turns(tmp_path: Path) -> None:
    """What one adds while the other is at it was in no manifest, and the folder called altered."""
    folder = closed("cnn", tmp_path)
    inside, go = threading.Event(), threading.Event()

    def first() -> None:
        with manifest.amended(folder):
            (folder / "one.txt").write_text("1")
            inside.set()
            go.wait(LONG)

    adding = threading.Thread(target=first)
    adding.start()
    assert inside.wait(LONG)
    code = f"from edgequant.archive.manifest import amended\nfrom pathlib import Path\nfolder = Path({str(folder)!r})\n"
    code += "print('ready', flush=True)\nwith amended(folder):\n    (folder / 'two.txt').write_text('2')\n"
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"
    go.set()
    adding.join()
    assert other.wait(LONG) == 0
    assert (folder / "two.txt").exists()
    assert check(folder).holds
    with manifest.amended(folder), manifest.amended(folder):  # as a diagnosis within a run
        (folder / "three.txt").write_text("3")
    assert check(folder).holds


def test_it_may_be_moved(tmp_path: Path) -> None:
    folder = closed("cnn", tmp_path / "a")
    (tmp_path / "b").mkdir()
    folder.rename(tmp_path / "b" / "moved")
    assert check(tmp_path / "b" / "moved" / "report.json").holds


def test_what_is_judged_again_belongs_to_it_and_hides_nothing(tmp_path: Path) -> None:
    folder = closed("cnn", tmp_path)
    keep(folder, judge(folder).report)
    assert check(folder).holds
    log = folder / "closing.json"
    log.write_bytes(log.read_bytes() + b" ")
    (folder / "notes.txt").write_text("mine")
    keep(folder, judge(folder).report)
    assert {(each.file, each.what) for each in check(folder).differences} == {
        ("closing.json", "changed"),
        ("notes.txt", "extra"),
    }


def test_who_goes_on_with_a_run_opens_it_again(tmp_path: Path) -> None:
    folder = closed("cnn", tmp_path)
    manifest.begin_anew(folder)
    assert not (folder / manifest.MANIFEST).exists()
    # The journal's last line still says that it was closed, until something is written.
    assert [each.file for each in manifest.differences(folder) or ()] == [manifest.MANIFEST]
    (folder / "journal.jsonl").open("a").write('{"file": "x.json", "sha256": "0"}\n')
    assert manifest.differences(folder) is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"files": {"a": 1}}', '{"files": []}', '{"files": {"a": {"sha256": 1}}}', "[" * 100_000],
    ids=range(7),
)
def test_a_manifest_that_is_none(text: str, tmp_path: Path) -> None:
    folder = closed("cnn", tmp_path)
    (folder / manifest.MANIFEST).write_text(text)
    (found,) = check(folder).differences
    assert (found.file, found.what) == (manifest.MANIFEST, "changed")


def test_what_is_no_run(tmp_path: Path) -> None:
    for path, code in ((tmp_path, "RUN_INVALID"), (tmp_path / "none", "RUN_NOT_FOUND")):
        with pytest.raises(InputError) as caught:
            check(path)
        assert caught.value.code == code


def test_the_command(tmp_path: Path) -> None:
    folder = closed("cnn", tmp_path)
    done = edgequant("report", "--verify", str(folder), "--json")
    assert done.code == 0
    assert done.json["holds"] is True
    page = edgequant("report", str(folder), "--html", str(folder / "page.html"), "--quiet")
    assert page.code == 0
    assert edgequant("report", "--verify", str(folder)).code == 0
    array = next((folder / "arrays").glob("*.npy"))
    array.unlink()
    (folder / "logs" / "\x1b[31m.log").write_text("")
    done = edgequant("report", "--verify", str(folder), "--json")
    assert done.code == 2
    assert done.json["error"]["code"] == "RUN_ALTERED"
    named = {each["file"]: each["what"] for each in done.json["error"]["evidence"]["differences"]}
    assert named == {f"arrays/{array.name}": "missing", "logs/\x1b[31m.log": "extra"}
    assert f"missing  arrays/{array.name}" in done.err
    assert json.loads(json.dumps(named))
    for words in (["--csv", "x.csv"], ["--against", "x"]):
        assert edgequant("report", "--verify", str(folder), *words).code == 2
