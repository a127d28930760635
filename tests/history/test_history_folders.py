"""From folders to the history and out of it again: numbers, plots and comparisons; what is hostile is left out."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from edgequant.errors import EdgequantError
from edgequant.history.adapt import read_folder, run_folders
from edgequant.history.entry import Entry, Trial, Value
from edgequant.history.plot import to_html, to_svg, trend
from edgequant.history.store import History, Wanted
from edgequant.jobs import remember
from edgequant.report.bench import load as load_bench
from edgequant.report.bench import write as write_bench
from edgequant.report.numbers import BETTER, bench_numbers, numbers
from edgequant.report.read import load
from tests.cli.command import edgequant
from tests.recorded import unpacked
from tests.report.bench_agreeing import any_bench
from tests.report.pages import EVIL, Reader

ESTIMATE = {"value": 2.5, "low": 2.4, "high": 2.6}


def bench(**more: Any) -> dict[str, Any]:
    setting = {
        "name": "float", "valid": True, "verdict": "PASS", "why_invalid": [], "spread": {"min": 2.0, "max": 9.0},
        "ms": {"p50": ESTIMATE, "p90": ESTIMATE}, "cpu_ms": ESTIMATE, "load_ms": None, "first_ms": ESTIMATE,
        "rss_peak_kb": 1000,
    }  # fmt: skip
    bad = {**setting, "name": "dynamic:8", "valid": False, "verdict": "INCONCLUSIVE"}
    bad["why_invalid"] = [{"code": "BUSY", "message": "load 7"}]
    device = {"uri": "local:", "facts": {"cpu": "a76", "os": "Debian", "mnn": "3.6.1"}, "settings": [setting, bad]}
    return {"schema": "edgequant.bench/1", "model": "/x/m.onnx", "verdict": "INCONCLUSIVE", "devices": [device]} | more


def test_of_a_report(tmp_path: Path) -> None:
    for name in ("cnn", "gru"):
        folder = unpacked(name, tmp_path)
        report, found = load(folder / "report.json"), read_folder(folder)
        assert (found.verdict, found.model_sha256) == (report.verdict, report.model.sha256)
        assert found == replace(read_folder(folder / "report.json"))
        for run, trial in zip(report.runs, found.trials, strict=True):
            assert (trial.variant, trial.device, trial.verdict) == (run.variant, run.device.uri, run.verdict)
            assert [(each.output, each.metric, each.value) for each in trial.values] == [
                each[:3] for each in numbers(run)
            ]


@pytest.mark.parametrize("when", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00", "0900-01-01T00:00:00Z"])
def test_a_time_that_no_run_has_is_left_out(when: str, tmp_path: Path) -> None:
    """One such folder kept all others out, or nothing could be listed any more."""
    for name, text in (("odd", when), ("sound", "2026-01-01T00:00:00Z")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bench.json").write_text(json.dumps(bench(created=text)))
    report = unpacked("cnn", tmp_path / "runs") / "report.json"
    report.write_text(json.dumps(json.loads(report.read_text()) | {"created": when}))
    history = History(tmp_path / "h.sqlite")
    found = remember.add(history, [tmp_path])
    assert (found.new, len(found.skipped)) == (1, 2)
    assert {error.code for error in found.skipped.values()} == {"RUN_INVALID"}
    assert [each.when for each in history.find(Wanted())] == ["2026-01-01T00:00:00Z"]


def test_what_was_moved_and_judged_again_is_one_run(tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    for name, when in (("a", "2026-01-01T00:00:00Z"), ("b", "2026-01-02T00:00:00Z")):
        if name == "b":
            (tmp_path / "a").rename(tmp_path / "b")
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "bench-plan.json").write_text("{}")
        (tmp_path / name / "bench.json").write_text(json.dumps(bench(created=when)))
        remember.add(history, [tmp_path / name])
    assert [each.when for each in history.find(Wanted())] == ["2026-01-02T00:00:00Z"]


def test_of_a_bench(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(json.dumps(bench()))
    found = read_folder(tmp_path)
    good, bad = found.trials
    assert (found.kind, found.model, found.mnn) == ("bench", "m.onnx", "3.6.1")
    told = {each.metric: (each.value, each.why) for each in good.values}
    assert told["latency_p50_ms"] == (2.5, "")
    assert told["memory_rss_peak_mb"] == (1.024, "")
    assert told.keys() <= BETTER.keys()
    assert {each.why for each in bad.values if each.metric.startswith("latency")} == {"BUSY: load 7"}
    # What is not told is not there, and what is no number is none.
    (tmp_path / "bench.json").write_text(json.dumps(bench(devices=[{"uri": "x", "settings": [{"verdict": "ERROR"}]}])))
    (trial,) = read_folder(tmp_path).trials
    assert (trial.verdict, trial.values) == ("ERROR", ())


@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_of_every_bench(seed: int, tmp_path: Path) -> None:
    report = any_bench(seed)
    write_bench(report, tmp_path / "bench.json")
    report, found = load_bench(tmp_path / "bench.json"), read_folder(tmp_path)
    assert (found.verdict, found.created) == (report.verdict, report.created)
    settings = [(device.uri, each) for device in report.devices for each in device.settings]
    for (uri, setting), trial in zip(settings, found.trials, strict=True):
        assert (trial.device, trial.verdict) == (uri, setting.verdict)
        told = {each.metric: (each.value, each.valid) for each in bench_numbers(setting)}
        assert {each.metric: (each.value, not each.why) for each in trial.values} == told


def test_of_an_acceptance(tmp_path: Path) -> None:
    trial = {"model": "/a/m.onnx", "variant": "fp16", "device": "local:", "state": "FLAKY"}
    document = {
        "schema": "edgequant.acceptance/1",
        "state": "FAIL",
        "trials": [trial],
        "created": "2026-01-02T03:04:05Z",
    }
    (tmp_path / "acceptance.json").write_text(json.dumps(document))
    found = read_folder(tmp_path)
    assert (found.kind, found.when, found.model) == ("accept", "2026-01-02T03:04:05Z", "m.onnx")
    assert found.trials[0].verdict == "FLAKY"
    run = tmp_path / "trials" / "m" / "attempt-1"
    run.parent.mkdir(parents=True)
    unpacked("cnn", tmp_path).rename(run)
    assert list(run_folders(tmp_path)) == [tmp_path, run]


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "[" * 100_000, '{"schema": "other/1"}', '{"schema": "edgequant.bench/1"}',
        '{"schema": "edgequant.bench/1", "verdict": "<script>"}', '{"schema": "edgequant.bench/1", "verdict": 1e999}',
        json.dumps(bench(created="yesterday")), json.dumps(bench(created="9999-99-99")),
        json.dumps(bench(devices=[{"settings": [{"name": "x", "verdict": {}}]}])),
    ],
    ids=range(11),
)  # fmt: skip
@pytest.mark.parametrize("name", ["bench.json", "acceptance.json", "report.json"])
def test_broken_documents_are_left_out_by_name(name: str, text: str, tmp_path: Path) -> None:
    folder, good = tmp_path / "bad", unpacked("cnn", tmp_path)
    folder.mkdir()
    (folder / name).write_text(text)
    found = remember.add(History(tmp_path / "h.sqlite"), [tmp_path])
    assert (found.found, found.new) == (2, 1)
    assert list(found.skipped) == [str(folder)]
    assert History(tmp_path / "h.sqlite").find(Wanted())[0].folder == str(good)


def test_hostile_documents(tmp_path: Path) -> None:
    """Names of every kind, deep and odd values: all are kept bounded, and shown as text."""
    odd: list[Any] = [*(each[:5000] for each in EVIL), None, 1e999, [], {}, True, "x\0y"]
    settings = [
        {
            "name": each, "verdict": "PASS", "valid": True, "why_invalid": each,
            "ms": {"p50": {"value": each}, "p90": each}, "spread": each, "load_ms": each, "rss_peak_kb": each,
        }
        for each in odd
    ]  # fmt: skip
    devices = [{"uri": each, "facts": each, "settings": settings, "findings": [{"code": each}]} for each in odd]
    text = json.dumps(bench(devices=devices, model=EVIL[0] + "/" + EVIL[3]))
    (tmp_path / "bench.json").write_text(text)
    found = read_folder(tmp_path)
    assert max(len(each.variant) + len(each.device) for each in found.trials) <= 600
    history = tmp_path / "h.sqlite"
    assert History(history).add([found]) == 1
    for words in (["list"], ["show", found.short], ["compare", found.short, str(tmp_path)]):
        done = edgequant("history", *words, "--db", str(history))
        assert done.code == 0, done.err
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2066]", done.out)


def test_pipes_links_and_what_cannot_be_read(tmp_path: Path) -> None:
    folder = unpacked("cnn", tmp_path)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "report.json")
    assert list(run_folders(tmp_path)) == [folder]
    for path in (tmp_path / "none", tmp_path / "a", folder / "plan.json"):
        with pytest.raises(EdgequantError):
            read_folder(path)


def test_rebuilt_from_folders_it_is_the_same(tmp_path: Path) -> None:
    for name in ("cnn", "gru"):
        unpacked(name, tmp_path / "runs")
    (tmp_path / "runs" / "bench").mkdir()
    (tmp_path / "runs" / "bench" / "bench.json").write_text(json.dumps(bench()))
    history = tmp_path / "h.sqlite"
    assert edgequant("history", "add", str(tmp_path / "runs"), "--db", str(history)).code == 0
    before = History(history).find(Wanted())
    shutil.move(tmp_path / "runs" / "gru", tmp_path / "runs" / "later")
    again = edgequant("history", "add", str(tmp_path / "runs"), "--db", str(history), "--json")
    assert again.json["new"] == 0
    assert edgequant("history", "rebuild", str(tmp_path / "runs"), "--db", str(history)).code == 0
    after = History(history).find(Wanted())
    assert [each.id for each in after] == [each.id for each in before]
    assert {Path(each.folder).name for each in after} == {"cnn", "later", "bench"}


# ---- over time


def series(values: Sequence[float], *, invalid: Sequence[int] = (), variant: str = "dynamic:8") -> list[Entry]:
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    return [
        Entry(
            f"{number:03d}{abs(hash(variant)) % 10**9:09d}".ljust(64, "0"), "verify", start + timedelta(days=number),
            f"0.{number}", "3.6.1", "m.onnx", "a" * 64, "PASS", f"/runs/{variant}/{number}",
            trials=(
                Trial(
                    variant, "local:", "PASS",
                    values=(
                        Value("", "latency_p50_ms", value, "load 7" if number in invalid else ""),
                        Value("a", "sqnr_db", 40 - value), Value("b", "sqnr_db", 50 - value),
                    ),
                ),
            ),
        )
        for number, value in enumerate(values)
    ]  # fmt: skip


WANTED = Wanted(model="m", device="local:")


def test_a_slower_release_is_found(tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    values = [8 + (number % 3) / 10 for number in range(8)] + [9.5 + (number % 3) / 10 for number in range(8)]
    values[3] = 70.0
    history.add([*series(values, invalid=[3]), *series([5.0] * 16, variant="fp16")])
    found = trend(history, "latency_p50_ms", WANTED, None)
    slow, same = sorted(found.series, key=lambda each: each.variant)
    assert [(two.edgequant, change.before, change.after) for _, two, change in slow.changed()] == [("0.8", 8.1, 9.6)]
    assert same.changes == ()
    assert found.output == ""
    svg = to_svg(found)
    assert "not valid" in svg
    assert "dynamic:8: level" in svg
    assert "70 ms" not in svg  # it is drawn at the edge
    page = Reader(to_html(found))
    assert page.rows("changes")[0]["on"] == "2026-01-09T00:00:00Z"
    assert len(page.rows("values")) == 32
    assert [page.why("values", place, "value") for place in range(32)].count(["load 7"]) == 1


def test_the_worst_output_is_followed_unless_one_is_named(tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    history.add(series([1.0, 2.0]))
    assert [each.output for each in trend(history, "sqnr_db", WANTED, None).series[0].points] == ["a", "a"]
    assert trend(history, "sqnr_db", WANTED, None).output is None
    (named,) = trend(history, "sqnr_db", WANTED, "b").series
    assert [each.value for each in named.points] == [49.0, 48.0]
    with pytest.raises(EdgequantError) as caught:
        trend(history, "cosine", WANTED, None)
    assert caught.value.code == "HISTORY_NOTHING"
    assert "latency_p50_ms, sqnr_db" in (caught.value.hint or "")


def test_hostile_names_in_a_plot(tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    short = [each[:200] for each in EVIL[:-1]]
    history.add([entry for name in short for entry in series([1.0, 2.0], variant=name)])
    page = to_html(trend(history, "sqnr_db", WANTED, None))
    assert not re.search("<script|<img|\u202e|\x9b", page)
    Reader(page)


def test_the_commands(tmp_path: Path) -> None:
    db, page, svg = tmp_path / "h.sqlite", tmp_path / "p.html", tmp_path / "p.svg"
    entries = series([8.0] * 6 + [9.0] * 6)
    History(db).add(entries)
    words = ["history", "plot", "latency_p50_ms", "--model", "m", "--device", "local:"]
    done = edgequant(*words, "--html", str(page), "--svg", str(svg), "--json", EDGEQUANT_HISTORY=str(db))
    assert done.code == 0
    (found,) = done.json["series"]
    (change,) = found["changes"]
    assert (change["before"], change["after"], change["first_behind"]) == (8.0, 9.0, entries[6].id)
    assert "8 ms -> 9 ms (1.125 times) since 2026-01-07" in done.err
    assert "<svg" in svg.read_text()
    assert "Changes of level" in page.read_text()
    listed = edgequant("history", "list", "--db", str(db), "--since", "2026-01-10", "--json", "--verdict", "pass")
    assert (listed.json["count"], len(listed.json["runs"])) == (3, 3)
    two = edgequant("history", "compare", entries[0].short, entries[11].short, "--db", str(db), "--json")
    says = {(each["output"], each["what"]): each["says"] for each in two.json["changes"]}
    assert says == {("", "latency_p50_ms"): "worse", ("a", "sqnr_db"): "worse", ("b", "sqnr_db"): "worse"}
    assert edgequant("history", "show", entries[0].short, "--db", str(db), "--json").json["trials"][0]["numbers"]


@pytest.mark.nightly
def test_mistakes(tmp_path: Path) -> None:
    db = tmp_path / "h.sqlite"
    History(db).add(series([8.0] * 12))
    for line, code in (
        (["plot", "x"], 2), (["plot", "x", "--model", "m", "--device", "local:"], 2), (["list", "--since", "soon"], 2),
        (["list", "--verdict", "<>"], 2), (["show", "none"], 2), (["add", str(tmp_path / "none")], 2),
        (["plot", "sqnr_db", "--model", "m", "--device", "local:", "--svg", str(db)], 2),
    ):  # fmt: skip
        assert edgequant("history", *line, "--db", str(db)).code == code, line
    assert History(db).count(Wanted()) == 12


@pytest.mark.nightly
def test_a_screen_holds_what_is_listed(tmp_path: Path) -> None:
    db = tmp_path / "h.sqlite"
    History(db).add(series([float(number) for number in range(60)]))
    for words in (["list"], ["plot", "sqnr_db", "--model", "m", "--device", "local:"], ["compare", "000", "059"]):
        entries = History(db).find(Wanted())
        words = [entries[-1].short if each == "000" else entries[0].short if each == "059" else each for each in words]
        done = edgequant("history", *words, "--db", str(db))
        assert done.code == 0, done.err
        assert len(done.out.splitlines()) <= 25
        assert max(map(len, done.out.splitlines())) <= 120
