"""`edgequant judge`, on run folders made by hand: no model, no MNN, no device."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from edgequant.jobs.rejudge import judge
from edgequant.report.read import load
from edgequant.report.write import write
from tests.cli.command import edgequant
from tests.judge.archives import HOST, TRUE, Archive, all_off, failed


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Of one variant at 40 dB, which passes."""
    found = Archive(tmp_path, "weight:8")
    found.tried(HOST, "weight:8", all_off(TRUE, 40))
    found.close()
    write(judge(found.folder.path).report, found.folder.report)
    return found


def test_the_same_again_and_by_other_limits(archive: Archive) -> None:
    folder, before = str(archive.folder.path), archive.folder.report.read_bytes()
    done = edgequant("judge", folder)
    assert (done.code, done.errors) == (0, [])
    assert "Nothing changed against report.json." in done.out
    assert "This judgement is not kept; --write keeps it beside the old one." in done.out
    done = edgequant("judge", folder, "--limit", "sqnr_db>=50")
    assert (done.code, done.errors) == (1, [])
    assert "Changed against report.json:\n  verdict: PASS -> FAIL\n" in done.out
    assert archive.folder.report.read_bytes() == before
    assert [file.name for file in archive.folder.path.glob("report*.json")] == ["report.json"]
    assert "Report: " not in done.out  # what was shown is in no file


def test_a_table_never_replaces_a_record(archive: Archive) -> None:
    folder = archive.folder.path
    before = (folder / "plan.json").read_bytes()
    for words in (("judge", str(folder)), ("report", str(folder / "report.json")), ("verify", "--resume", str(folder))):
        done = edgequant(*words, "--csv", str(folder / "plan.json"))
        assert done.code == 2
        assert "OUTPUT_INVALID" in done.err
        assert "has to end in .csv" in done.err
    assert (folder / "plan.json").read_bytes() == before
    assert edgequant("judge", str(folder), "--csv", str(folder / "table.csv")).code == 0


def test_as_json_and_kept(archive: Archive, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("limits: ['sqnr_db>=50']\n")
    done = edgequant("judge", str(archive.folder.path), "--json", "--write", "--spec", str(spec))
    assert (done.code, done.errors) == (1, [])
    assert (done.json["verdict"], done.json["options"]["limits"]) == ("FAIL", ["sqnr_db>=50"])
    kept = archive.folder.path / "report-2.json"
    assert load(kept).verdict == "FAIL"
    assert load(archive.folder.report).verdict == "PASS"


def test_exit_codes_are_those_of_the_verdict(archive: Archive) -> None:
    archive.on_device(HOST, "weight:8", repeated=all_off(TRUE, 30))
    assert edgequant("judge", str(archive.folder.path)).code == 4
    archive.on_device(HOST, "weight:8", {"a": TRUE["a"]}, failure=failed())
    assert edgequant("judge", str(archive.folder.path)).code == 3


@pytest.mark.parametrize(
    ("limit", "code"),
    [("nonsense", "LIMIT_INVALID"), ("q:cosine>=0.5", "LIMIT_UNKNOWN_OUTPUT"), ("mismatch<=0", "LIMIT_UNDEFINED")],
)
def test_a_limit_that_cannot_be(archive: Archive, limit: str, code: str) -> None:
    done = edgequant("judge", str(archive.folder.path), "--limit", limit, "--write")
    assert done.code == 2
    assert code in done.err
    assert not (archive.folder.path / "report-2.json").exists()


def test_what_an_output_decides_can_be_said_later(archive: Archive) -> None:
    run = str(archive.folder.path)
    done = edgequant("judge", run, "--json", "--decides", "y=ordered")
    assert done.json["options"]["decides"] == {"y": "ordered"}
    assert done.json["runs"][0]["outputs"]["y"]["decision"] == "ordered"
    for text, code in (
        ("y=classes", "DECIDES_WRONG_KIND"),
        ("z=set", "DECIDES_UNKNOWN_OUTPUT"),
        ("y", "DECIDES_INVALID"),
    ):
        done = edgequant("judge", run, "--decides", text)
        assert (done.code, code in done.err) == (2, True)


def test_folders_that_are_none_of_a_run(archive: Archive, tmp_path: Path) -> None:
    done = edgequant("judge", str(tmp_path / "nowhere"))
    assert done.code == 2
    assert "RUN_NOT_FOUND" in done.err
    # An earlier version kept a report, and nothing to judge again.
    (archive.folder.path / "plan.json").unlink()
    done = edgequant("judge", str(archive.folder.path))
    assert done.code == 2
    assert "RUN_INVALID" in done.err
    assert "no plan.json" in done.err


def test_numbers_of_each_case(archive: Archive, tmp_path: Path) -> None:
    """In the report, and as a table with a line for each."""
    folder, table = archive.folder.path, tmp_path / "table.csv"
    output = load(archive.folder.report).runs[0].outputs["y"]
    assert list(output.by_case) == sorted(TRUE)
    assert min(each.sqnr_db for each in output.by_case.values() if each.sqnr_db is not None) == output.sqnr_db
    assert edgequant("report", str(folder), "--csv", str(table), "--by-case").code == 0
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [(row["variant"], row["output"], row["case"]) for row in rows] == [("weight:8", "y", case) for case in TRUE]
    for row in rows:
        assert float(row["sqnr_db"]) == pytest.approx(output.by_case[row["case"]].sqnr_db)
        assert (row["problem"], row["mismatch"]) == ("", "")
    assert edgequant("report", str(folder), "--by-case").code == 2


def test_what_is_wrong_with_a_case_stands_beside_it(tmp_path: Path) -> None:
    found = Archive(tmp_path, "weight:8")
    found.tried(HOST, "weight:8", {**TRUE, "b": {}})
    found.close()
    report = judge(found.folder.path).report
    by_case = report.runs[0].outputs["y"].by_case
    assert [each.problem for each in by_case.values()] == [None, "no such output came back"]
