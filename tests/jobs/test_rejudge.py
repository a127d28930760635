"""Judging a run again: what is different is told line by line, and nothing that is there is lost."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from edgequant.archive.open import open_run
from edgequant.errors import InputError
from edgequant.jobs import rejudge
from edgequant.jobs.rejudge import judge, keep
from edgequant.judge.verdict import Verdict
from edgequant.report.model import Report
from edgequant.report.read import load
from edgequant.report.write import write
from edgequant.spec import Limit
from edgequant.spec.file import VerifySpec
from tests.judge.archives import BOARD, HOST, TRUE, WAVE, Archive, all_off


def judged_once(tmp_path: Path, *variants: str, **more: Any) -> Archive:
    """A run of 40 dB on this host, with its report."""
    archive = Archive(tmp_path, *(variants or ("weight:8",)), **more)
    for variant in variants or ("weight:8",):
        archive.tried(HOST, variant, all_off(TRUE, 40))
    stored(archive)
    return archive


def stored(archive: Archive) -> None:
    archive.close()
    write(judge(archive.folder.path).report, archive.folder.report)


def test_the_same_comes_out_again(tmp_path: Path) -> None:
    archive = judged_once(tmp_path, limits=("sqnr_db>=30",))
    found = judge(archive.folder.path)
    assert found.changes == ()
    assert found.stored == load(archive.folder.report)
    assert found.report.verdict is Verdict.PASS
    assert repr(found) == "<Rejudged PASS: 0 change(s)>"
    # An open run, and a path as text, are as good.
    assert judge(open_run(archive.folder.path)).changes == judge(str(archive.folder.path)).changes == ()


def test_numbers_that_a_report_rounds_are_no_change(tmp_path: Path) -> None:
    """The bound for an output that is zero in a case is computed from its size in the others."""
    archive = Archive(tmp_path, "weight:8", reference=(cases := {"a": {"y": 0 * WAVE}, "b": {"y": WAVE}}))
    archive.tried(HOST, "weight:8", cases)
    stored(archive)
    assert "max_abs" in {limit.metric for limit in load(archive.folder.report).runs[0].outputs["y"].limits}
    assert judge(archive.folder.path).changes == ()


def test_other_limits_are_told_with_what_they_change(tmp_path: Path) -> None:
    archive = judged_once(tmp_path, limits=("sqnr_db>=30",))
    before = archive.folder.report.read_bytes()
    found = judge(archive.folder.path, ["sqnr_db>=50", Limit.parse("max_abs<=1.5")])
    assert found.changes == (
        "verdict: PASS -> FAIL",
        "weight:8 on local:, verdict: PASS -> FAIL",
        "weight:8 on local:, output y: PASS -> FAIL",
        "weight:8 on local:, output y: sqnr_db >= 50, was 30",
        "weight:8 on local:, output y: max_abs <= 1.5, was not limited",
        "weight:8 on local:, new: LIMIT_EXCEEDED",
    )
    assert found.report.options["limits"] == ["sqnr_db>=30", "sqnr_db>=50", "max_abs<=1.5"]
    assert archive.folder.report.read_bytes() == before
    # The other way round.
    write(found.report, archive.folder.report)
    assert judge(archive.folder.path).changes == (
        "verdict: FAIL -> PASS",
        "weight:8 on local:, verdict: FAIL -> PASS",
        "weight:8 on local:, output y: FAIL -> PASS",
        "weight:8 on local:, output y: sqnr_db >= 30, was 50",
        "weight:8 on local:, no longer: LIMIT_EXCEEDED",
    )


def test_runs_and_outputs_that_are_new_or_gone(tmp_path: Path) -> None:
    archive = judged_once(tmp_path, "weight:8", "dynamic:8")
    report = load(archive.folder.report)
    other = report.runs[1].model_copy(update={"variant": "fp16"})
    bare = report.runs[0].model_copy(update={"outputs": {}})
    write(report.model_copy(update={"runs": [bare, other]}), archive.folder.report)
    assert judge(archive.folder.path).changes == (
        "weight:8 on local:, output y: new, PASS",
        "dynamic:8 on local:, new: PASS",
        "fp16 on local:, no longer there",
    )


def test_a_run_without_a_report_is_judged_all_the_same(tmp_path: Path) -> None:
    archive = judged_once(tmp_path)
    archive.folder.report.unlink()
    found = judge(archive.folder.path)
    assert (found.report.verdict, found.stored) == (Verdict.PASS, None)
    assert found.changes == (f"{archive.folder.report}: there is none",)
    # Damaged, it is as good as none.
    archive.folder.report.write_text('{"schema": ')
    found = judge(archive.folder.path)
    assert (found.report.verdict, found.stored) == (Verdict.PASS, None)
    assert "not JSON" in found.changes[0]


def test_a_file_takes_the_place_of_the_runs_limits(tmp_path: Path) -> None:
    archive = judged_once(tmp_path, limits=("max_abs<=9",), goals=("cosine>=0.5",))
    spec = VerifySpec(limits=["sqnr_db>=50"], goals=["sqnr_db>=10"])
    found = judge(archive.folder.path, spec=spec)
    assert (found.report.verdict, found.report.options["limits"]) == (Verdict.FAIL, ["sqnr_db>=50"])
    # What is given beside it comes on top.
    found = judge(archive.folder.path, ["sqnr_db>=20"], spec)
    assert found.report.options["limits"] == ["sqnr_db>=50", "sqnr_db>=20"]
    assert found.report.verdict is Verdict.PASS
    assert judge(archive.folder.path, spec=VerifySpec()).report.options["limits"] == []


def test_goals_of_a_file_bind_auto(tmp_path: Path) -> None:
    archive = judged_once(tmp_path, "auto", goals=("sqnr_db>=50",))
    assert judge(archive.folder.path).report.verdict is Verdict.FAIL
    assert judge(archive.folder.path, spec=VerifySpec(goals=["sqnr_db>=30"])).report.verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("limit", "code"),
    [("q:sqnr_db>=3", "LIMIT_UNKNOWN_OUTPUT"), ("mismatch<=0", "LIMIT_UNDEFINED"), ("nonsense", "LIMIT_INVALID")],
)
def test_limits_that_cannot_be(tmp_path: Path, limit: str, code: str) -> None:
    archive = judged_once(tmp_path)
    with pytest.raises(InputError) as caught:
        judge(archive.folder.path, [limit])
    assert caught.value.code == code


def test_a_run_that_ended_before_anything_was_run(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8", source={"kinds": {}, "cases": ()})
    assert judge(archive.folder.path).report.verdict is Verdict.ERROR
    for limits, spec in ((["sqnr_db>=3"], None), ((), VerifySpec())):
        with pytest.raises(InputError, match="it ended before there was anything to judge") as caught:
            judge(archive.folder.path, limits, spec)
        assert caught.value.code == "RUN_INVALID"


def test_judgements_are_kept_beside_each_other(tmp_path: Path) -> None:
    archive = judged_once(tmp_path)
    first = archive.folder.report.read_bytes()
    found = judge(archive.folder.path, ["sqnr_db>=50"]).report
    paths = [keep(where, found) for where in (archive.folder.path, str(archive.folder.path))]
    assert [path.name for path in paths] == ["report-2.json", "report-3.json"]
    assert archive.folder.report.read_bytes() == first
    assert paths[0].read_text() == paths[1].read_text()
    assert load(paths[0]).verdict is Verdict.FAIL
    paths[0].unlink()
    assert keep(archive.folder.path, found).name == "report-2.json"


def test_of_two_that_keep_at_once_neither_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment before one of them writes, held open."""
    archive = judged_once(tmp_path)
    found, kept = judge(archive.folder.path).report, []

    def slow(report: Report, path: Path) -> Path:
        monkeypatch.setattr(rejudge, "write", write)
        kept.append(keep(archive.folder.path, report))
        return write(report, path)

    monkeypatch.setattr(rejudge, "write", slow)
    kept.append(keep(archive.folder.path, found))
    assert [path.name for path in kept] == ["report-3.json", "report-2.json"]
    assert [load(path).verdict for path in kept] == [Verdict.PASS] * 2


def test_given_as_a_file_of_the_run(tmp_path: Path) -> None:
    archive = judged_once(tmp_path)
    found = judge(archive.folder.report)
    assert found.changes == ()
    assert keep(archive.folder.report, found.report) == archive.folder.path / "report-2.json"
    assert open_run(archive.folder.path / "report-2.json").path == archive.folder.path
    for path in (archive.folder.path / "captures" / "reference.json", Path(__file__)):
        with pytest.raises(InputError, match="a file that lies in no folder of a run") as caught:
            open_run(path)
        assert caught.value.code == "RUN_NOT_FOUND"


def test_a_run_that_was_killed_early(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8")
    (archive.folder.path / "source.json").unlink()
    with pytest.raises(InputError, match="interrupted before there was anything to judge") as caught:
        judge(archive.folder.path)
    assert caught.value.hint is not None
    assert f"verify --resume {archive.folder.path}" in caught.value.hint


def test_a_pipe_in_place_of_a_record(tmp_path: Path) -> None:
    archive = judged_once(tmp_path)
    record = archive.folder.path / "captures" / "reference.json"
    record.unlink()
    os.mkfifo(record)
    with pytest.raises(InputError, match=r"reference\.json: not a file"):
        judge(archive.folder.path)


def test_devices_are_told_apart(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8", devices=(HOST, BOARD))
    archive.tried(HOST, "weight:8")
    archive.tried(BOARD, "weight:8", all_off(TRUE, 30))
    stored(archive)
    changes = judge(archive.folder.path, ["sqnr_db>=40"]).changes
    assert [line for line in changes if "local:" in line and "verdict" in line] == []
    assert "weight:8 on ssh://board, verdict: PASS -> FAIL" in changes
    assert load(archive.folder.report).created <= datetime.now(timezone.utc)
