"""`edgequant bench`: what is printed, what is in its document, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgequant.archive.bench import open_bench
from edgequant.judge.bench_run import judge_folder
from edgequant.report.bench import load, rounded, write
from edgequant.report.bench_build import build_bench
from edgequant.report.bench_csv import to_csv
from edgequant.report.bench_junit import to_junit
from edgequant.report.bench_summary import to_summary
from edgequant.report.html.bench import page
from tests.beds.models import ModelByName
from tests.cli.command import edgequant
from tests.judge.benches import powersave, simple
from tests.recorded import unpacked

FILES = {"html": "html", "csv": "csv", "junit": "xml", "summary": "md"}


def test_the_command(generated_model: ModelByName, tmp_path: Path) -> None:
    words = ["bench", str(generated_model("conv_cnn")), "--device", "local:", "--run-dir", str(tmp_path / "run"),
             "--blocks", "3", "--seconds", "0", "--runs", "3", "--warm-up", "0.1", "--json"]  # fmt: skip
    result = edgequant(*words, patient=True)
    document = json.loads(result.out)
    assert document == json.loads((tmp_path / "run" / "bench.json").read_text())
    assert document["verdict"] == {0: "PASS", 4: "INCONCLUSIVE"}[result.code]
    (device,) = document["devices"]
    assert [each["name"] for each in device["settings"]] == ["float", "dynamic:8"]
    for each in device["settings"]:
        assert each["valid"] is not bool(each["why_invalid"])
        for reason in each["why_invalid"]:
            assert reason["code"] in result.err
    plan = json.loads((tmp_path / "run" / "bench-plan.json").read_text())
    assert plan["command"].startswith("edgequant bench ")
    assert "--blocks 3 --runs 3 --seconds 0 --warm-up 0.1" in plan["command"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of one whose device was powersaving."""
    bench = simple(tmp_path / "run", **powersave())
    write(rounded(build_bench(bench, judge_folder(bench))), bench.path / "bench.json")
    return bench.path


def test_it_is_shown_again_with_every_file(folder: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / f"b.{end}" for name, end in FILES.items()}
    words = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    shown = edgequant("report", str(folder), *words)
    assert shown.code == 4
    report = load(folder / "bench.json")
    assert files["csv"].read_text("utf-8") == to_csv(report)
    assert files["junit"].read_text("utf-8") == to_junit(report)
    assert files["summary"].read_text("utf-8") == to_summary(report)
    assert files["html"].read_text("utf-8") == page(report, open_bench(folder))
    assert "not valid: float: GOVERNOR_SLOW" in shown.out
    alone = edgequant("report", str(folder / "bench.json"), "--json")
    assert json.loads(alone.out) == json.loads((folder / "bench.json").read_text())
    for where in (folder, folder / "bench.json"):
        kept = edgequant("report", str(where), "--junit", str(folder / "bench-plan.json"))
        assert (kept.code, "has to end in .xml" in kept.err) == (2, True)


def test_one_that_was_interrupted_is_shown_by_judge(folder: Path) -> None:
    (folder / "bench.json").unlink()
    refused = edgequant("report", str(folder))
    assert (refused.code, "edgequant judge" in refused.err) == (2, True)
    shown = edgequant("judge", str(folder))
    assert (shown.code, "There is no report to hold it against" in shown.out) == (4, True)


def test_its_schema(folder: Path) -> None:
    schema = json.loads(edgequant("report", str(folder), "--schema").out)
    assert schema["$id"] == "edgequant.bench/1"
    assert json.loads(edgequant("report", "--schema").out)["$id"] == "edgequant.report/1"


def test_it_is_judged_again(folder: Path) -> None:
    same = edgequant("judge", str(folder))
    assert (same.code, "Nothing changed against bench.json" in same.out) == (4, True)
    other = edgequant("judge", str(folder), "--allow", "GOVERNOR_SLOW", "--tell", "1", "--write")
    assert other.code == 0
    assert "verdict: INCONCLUSIVE -> PASS" in other.out
    assert load(folder / "bench-2.json").tell == 0.01
    refused = edgequant("judge", str(folder), "--limit", "sqnr_db>=30")
    assert (refused.code, "a bench has no limits" in refused.err) == (2, True)


def test_options_of_a_bench_are_not_for_a_run(tmp_path: Path) -> None:
    run_dir = unpacked("gru", tmp_path)
    refused = edgequant("judge", str(run_dir), "--within", "3")
    assert (refused.code, "--within is for the folder of a bench" in refused.err) == (2, True)


@pytest.mark.parametrize(
    "words", [["--threads", "0"], ["--threads", "1,x"], ["--memory", "big"], ["--allow", "HEAT"]], ids=" ".join
)  # fmt: skip
def test_mistakes(words: list[str], generated_model: ModelByName) -> None:
    result = edgequant("bench", str(generated_model("conv_cnn")), "--device", "local:", *words)
    assert result.code == 2
    assert " ".join(words) in result.err
