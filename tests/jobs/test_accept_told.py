"""What is told of a release check before and beside its rules: hints, warnings, that it was interrupted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgequant.archive.acceptance import JUDGEMENT, PLAN, AcceptFolder
from edgequant.archive.manifest import close
from edgequant.errors import InputError
from edgequant.jobs.accept_plan import planned
from edgequant.jobs.accept_times import ends_of
from edgequant.judge.verdict import Verdict
from edgequant.report.acceptance import to_json
from tests.beds.models import ModelByName
from tests.cli.command import edgequant
from tests.jobs.accept_specs import write_spec
from tests.judge.releases import KEY, Release, facts, spec_of

SPEC = """
models: {m: {path: m.onnx, inputs: cases}}
variants: ["dynamic:8"]
devices: {host: "local:"}
rules: ["size_mb <= baseline + 1"]
"""


def test_a_model_that_is_not_there_is_looked_for_beside_the_spec(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        planned(write_spec(tmp_path, SPEC))
    assert caught.value.code == "MODEL_NOT_FOUND"
    assert caught.value.hint == "Check the path; it is relative to the spec."


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.PASS])
def test_a_baseline_that_failed_is_taken_with_a_warning(
    verdict: Verdict, generated_model: ModelByName, tmp_path: Path
) -> None:
    earlier = tmp_path / "earlier.json"
    earlier.write_text(to_json(Release(spec_of(), {KEY: [facts(verdict=verdict)]}).report()))
    spec = write_spec(tmp_path, SPEC, model=generated_model("conv_cnn"))
    told = [each for each in planned(spec, earlier).warnings if "is itself FAIL: its numbers are taken" in each]
    assert len(told) == (verdict is Verdict.FAIL)


def test_a_plan_is_not_folded_in_a_pipe(generated_model: ModelByName, tmp_path: Path) -> None:
    name = "a-model-with-a-name-" * 5
    text = SPEC.replace("{m: {", f"{{{name}: {{").replace("baseline + 1", "9")
    spec = write_spec(tmp_path, text, model=generated_model("conv_cnn"))
    lines = edgequant("accept", str(spec), "--plan").out.splitlines()
    assert any(line.split()[:3] == ["verify", name, "dynamic:8"] for line in lines), lines


def test_the_journal_tells_whether_it_has_come_to_its_end(tmp_path: Path) -> None:
    folder = AcceptFolder(tmp_path)
    assert not folder.interrupted  # nothing is known
    for what, interrupted in (("begin", True), ("end", True), ("ended", False), ("begin", True), ("interrupted", True)):
        folder.note(what)
        assert folder.interrupted is interrupted


def test_a_journal_that_cannot_be_read_tells_of_no_attempt(tmp_path: Path) -> None:
    folder, journal = AcceptFolder(tmp_path), tmp_path / "journal.jsonl"
    folder.note("end", kind="trials", part="m", attempt=1, seconds=2.5)
    folder.note("end", kind="trials", part="m", attempt=1, seconds=2.5, error="RUN_FAILED")  # it came to nothing
    folder.note("end", kind="trials", part="m", attempt=1)
    with journal.open("a") as stream:
        stream.write('[]\n{"what": "end", "kind": "trials", "part": "m", "sec')  # killed while writing
    assert [each.seconds for each in ends_of(folder)] == [2.5]
    journal.write_text('{"a":' * 100_000 + "{}" + "}" * 100_000)
    assert list(ends_of(folder)) == []
    journal.unlink()
    os.mkfifo(journal)
    assert list(ends_of(folder)) == []  # at once: nobody writes into it


def test_what_is_of_other_reports_is_refused_and_not_left_out(tmp_path: Path) -> None:
    (tmp_path / PLAN).write_text("{}")  # says whose folder it is
    (tmp_path / "acceptance.json").write_text(to_json(Release(spec_of(), {KEY: [facts()]}).report()))
    folder = str(tmp_path)
    assert edgequant("report", folder, "--schema").json["$id"] == "edgequant.acceptance/1"
    for words in (["--against", folder], ["--by-case"], ["--csv", "t.csv"]):
        done = edgequant("report", folder, *words, cwd=tmp_path)
        assert (done.code, "OPTION_INVALID" in done.err) == (2, True), words
    assert edgequant("report", folder).code == 0


def test_a_baseline_whose_numbers_were_changed_is_refused(generated_model: ModelByName, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, SPEC, model=generated_model("conv_cnn"))
    earlier = tmp_path / "earlier"
    folder = AcceptFolder(earlier)
    earlier.mkdir()
    whole = to_json(Release(spec_of(), {KEY: [facts(facts={"size_mb": 2.0})]}).report())
    folder.note("ended")
    folder.write(JUDGEMENT, whole.encode())
    close(earlier)
    assert planned(spec, earlier).spec.baseline == earlier
    folder.write(JUDGEMENT, whole.replace("2.0", "9.0").encode())
    for named in (earlier, earlier / JUDGEMENT):
        with pytest.raises(InputError) as caught:
            planned(spec, named)
        assert caught.value.code == "RUN_ALTERED"
