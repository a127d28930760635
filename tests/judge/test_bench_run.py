"""A bench's folder, judged: a pure function of what is in it."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
from rich.console import Console

from edgequant.archive.bench import open_bench
from edgequant.archive.types import Failure
from edgequant.errors import InputError
from edgequant.jobs.rejudge_bench import judge_bench_again, keep
from edgequant.judge.bench_run import BenchRules, baseline_of, judge_folder
from edgequant.judge.verdict import Verdict
from edgequant.report.bench import BenchReport, json_schema, load, to_json, write
from edgequant.report.bench_build import build_bench
from edgequant.report.bench_console import render
from edgequant.report.bench_csv import to_csv
from edgequant.report.openmetrics import bench_openmetrics
from tests.judge.benches import URI, BenchMade, blocks, powersave, simple


def reported(path: Path) -> BenchReport:
    bench = open_bench(path)
    return build_bench(bench, judge_folder(bench))


def test_it_is_judged_without_its_place(tmp_path: Path) -> None:
    """Moved, it gives the same bytes but for the date; what is not there is none."""
    simple(tmp_path / "a")
    report = reported(tmp_path / "a")
    assert report.verdict is Verdict.PASS
    write(report, tmp_path / "a" / "bench.json")
    shutil.move(tmp_path / "a", tmp_path / "b")
    again = judge_bench_again(tmp_path / "b")
    assert again.changes == ()
    assert to_json(again.report.model_copy(update={"created": report.created})) == to_json(report)
    (device,) = report.devices
    assert [each.name for each in device.settings] == ["float", "dynamic:8"]
    assert device.compared[0].says == "faster"
    assert (device.rounds, device.rounds_good, report.seconds) == (7, 7, 12.5)
    assert report.files[0].mb == 1.0
    assert device.settings[0].blocks[0].ms["p50"] == pytest.approx(10, rel=0.02)
    assert device.settings[0].blocks[0].celsius == [40.0, 40.0]


@pytest.mark.parametrize("what", ["renamed", "of another file"])
def test_a_block_that_lies_in_the_place_of_another_is_refused(what: str, tmp_path: Path) -> None:
    """Blocks of two settings, each in the other's place, turned the comparison round and were valid."""
    bench = simple(tmp_path / "a")
    one = next(bench.path.glob("captures/*/float-2.json"))
    other = next(bench.path.glob("captures/*/dynamic*-2.json"))
    if what == "renamed":
        was = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(was)
    else:
        one.write_text(one.read_text().replace('"artifact_sha256": null', f'"artifact_sha256": "{"9" * 64}"'))
    with pytest.raises(InputError, match="is of") as caught:
        judge_folder(bench)
    assert caught.value.code == "RUN_INVALID"


def test_what_was_borne_stands_wherever_the_setting_is_named(tmp_path: Path) -> None:
    """On a terminal of 80 columns, in comparisons and for monitors, too."""
    before = simple(tmp_path / "before", **powersave(), seed=5)
    bench = simple(tmp_path / "a", **powersave())
    found = judge_folder(bench, BenchRules(0.025, 0.03, ("GOVERNOR_SLOW",)), baseline_of(before))
    report = build_bench(bench, found, baseline_of(before))
    stream = io.StringIO()
    render(report, Console(file=stream, width=80), folder=None)
    shown = stream.getvalue()
    assert re.search(r"\[GOVERNOR_SLOW +\n? *allowed", shown), shown
    named = "float [GOVERNOR_SLOW allowed]"
    assert f"dynamic:8 is faster than {named}" in shown
    assert f"{named}: not compared with the baseline" in shown
    assert f'base="{named}"' in bench_openmetrics(report)
    assert f",{named},0." in to_csv(report)


def test_a_ratio_with_what_is_not_valid_is_for_no_monitor(tmp_path: Path) -> None:
    assert "edgequant_bench_ratio{" in bench_openmetrics(reported(simple(tmp_path / "a").path))
    assert "edgequant_bench_ratio" not in bench_openmetrics(reported(simple(tmp_path / "b", **powersave()).path))


def test_other_rules_change_what_is_said_and_that_is_told(tmp_path: Path) -> None:
    bench = simple(tmp_path / "a", **powersave())
    write(reported(tmp_path / "a"), tmp_path / "a" / "bench.json")
    assert load(tmp_path / "a" / "bench.json").verdict is Verdict.INCONCLUSIVE
    found = judge_bench_again(tmp_path / "a", allowed=["GOVERNOR_SLOW"])
    assert found.report.verdict is Verdict.PASS
    assert "verdict: INCONCLUSIVE -> PASS" in found.changes
    assert f"{URI}, float [GOVERNOR_SLOW allowed]: no longer: GOVERNOR_SLOW" in found.changes
    assert keep(bench, found.report).name == "bench-2.json"
    assert keep(bench, found.report).name == "bench-3.json"
    narrow = judge_bench_again(tmp_path / "a", within=0.0001, allowed=["GOVERNOR_SLOW"]).report
    assert {each.code for each in narrow.devices[0].settings[0].why_invalid} == {"TOO_SPREAD"}
    with pytest.raises(InputError, match="no condition has that name"):
        judge_bench_again(tmp_path / "a", allowed=["HEAT"])


def test_what_was_interrupted_is_not_pass(tmp_path: Path) -> None:
    settings = {"float": list(blocks(10.0, 4)), "dynamic:8": list(blocks(5.0, 3))}
    bench = BenchMade(tmp_path / "a").device(settings).close(ended=False)
    found = build_bench(bench, judge_folder(bench))
    assert found.interrupted
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.devices[0].verdict is Verdict.PASS


def test_a_device_that_was_not_used(tmp_path: Path) -> None:
    made = BenchMade(tmp_path / "a", devices=(URI, "ssh://gone", "ssh://later"))
    made.device({"float": list(blocks(10.0, 7))})
    made.device({}, uri="ssh://gone", failure=Failure(code="HOST_UNREACHABLE", message="it is not there"))
    found = reported(made.close().path)
    assert found.verdict is Verdict.ERROR
    assert {uri: each["code"] for uri, each in found.failed.items()} == {
        "ssh://gone": "HOST_UNREACHABLE", "ssh://later": "INTERRUPTED",
    }  # fmt: skip


def test_what_died_is_told(tmp_path: Path) -> None:
    dead = next(blocks(5.0, 1)).model_copy(update={"failure": Failure(code="RUNNER_DIED", message="dead")})
    made = BenchMade(tmp_path / "a").device({"float": list(blocks(10.0, 7)), "dynamic:8": [dead]})
    found = reported(made.close().path)
    assert found.verdict is Verdict.ERROR
    assert [each.code for each in found.devices[0].settings[1].why_invalid] == ["RUNNER_DIED"]
    assert found.devices[0].settings[0].valid


def test_memory_stage_by_stage(tmp_path: Path) -> None:
    found = reported(simple(tmp_path / "a").path).devices[0].settings[0].memory
    assert found is not None
    assert found.file_mb == 1.0
    stages = {"empty": 20.48, "loaded": 21.504, "first": 22.528}
    assert {name: each.rss for name, each in found.stages.items()} == pytest.approx(stages)
    assert found.stages["empty"].peak is None
    assert found.stages["loaded"].peak == pytest.approx(21_005 * 1.024e-3)
    assert found.peak_mb == pytest.approx(22_009 * 1.024e-3)
    assert found.above_mb == pytest.approx(2_009 * 1.024e-3)
    assert found.session_why == "it was not asked"


@pytest.mark.parametrize("damage", ["not JSON", "no plan", "another schema"])
def test_a_damaged_folder_says_so(damage: str, tmp_path: Path) -> None:
    bench = simple(tmp_path / "a")
    plan = bench.path / "bench-plan.json"
    if damage == "no plan":
        plan.unlink()
    else:
        text = plan.read_text()
        plan.write_text(text[:50] if damage == "not JSON" else text.replace("edgequant.bench-plan/1", "other/7"))
    with pytest.raises(InputError) as caught:
        open_bench(tmp_path / "a")
    assert caught.value.code == "RUN_INVALID"


def test_the_schema_takes_what_is_written(tmp_path: Path) -> None:
    report = reported(simple(tmp_path / "a").path)
    jsonschema.validate(json.loads(to_json(report)), json_schema())


def test_rules_of_the_plan_are_replaced_one_by_one(tmp_path: Path) -> None:
    plan = simple(tmp_path / "a").plan
    assert BenchRules.of(plan) == BenchRules(0.025, 0.03)
    assert BenchRules.of(plan, tell=0.1, allowed=["STALLED"]) == BenchRules(0.025, 0.1, ("STALLED",))
