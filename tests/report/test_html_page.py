"""A report as a page: the numbers of report.json and of the console, nothing of anybody's text as markup, and small."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from edgequant.archive.folder import device_capture
from edgequant.archive.layers import Spread, Swap
from edgequant.archive.open import open_run
from edgequant.findings import Finding
from edgequant.jobs.html import page_of
from edgequant.report.console import render
from edgequant.report.diagnosis import DiagnosisReport
from edgequant.report.html import page
from edgequant.report.html.figures import accuracy
from edgequant.report.html.runs import named
from edgequant.report.read import load, loads
from edgequant.report.write import to_json
from tests import recorded
from tests.judge.archives import BOARD, TRUE, all_off, on_board
from tests.report.agreeing import any_report, held_against
from tests.report.pages import EVIL, Reader, devices, evil_report, layers, report_of


def read(text: str) -> Reader:
    return Reader(text)


@pytest.fixture(params=recorded.MODELS)
def run_dir(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return recorded.unpacked(request.param, tmp_path)


def test_its_tables_read_back_are_the_report(run_dir: Path) -> None:
    report = load(run_dir / "report.json")
    found = read(page_of(report, run_dir))
    held_against(report, found)
    (devices, variants) = (found.tables["matrix"][0][1:], [row[0] for row in found.tables["matrix"][1:]])
    assert (tuple(devices), tuple(variants)) == (recorded.DEVICES, recorded.VARIANTS)


def test_its_numbers_are_those_of_the_console(run_dir: Path) -> None:
    report = load(run_dir / "report.json")
    stream = io.StringIO()
    render(report, Console(file=stream, width=250), verbose=True)
    console = re.sub(r"\s+", " ", stream.getvalue())
    found = read(page_of(report, run_dir))
    for place, run in enumerate(report.runs):
        for row in found.rows(f"run-{place + 1}-outputs"):
            assert " ".join(row.values()) in console, run.variant


def test_a_bar_is_not_long_where_the_error_is_larger_than_the_signal(tmp_path: Path) -> None:
    """-18 dB was the longest bar of all."""
    for db, long, told in ((-18.0, False, 1), (5.0, True, 0), (30.0, True, 0)):
        here = all_off(TRUE, db)
        figure = accuracy(named(report_of(on_board(tmp_path / str(db), here, here))))
        assert figure is not None
        assert "0 dB or less" in figure.about
        (bar,) = re.findall(r'<rect[^>]*class="rect reactive', figure.svg)
        assert (' width="' in bar, figure.svg.count("0 or less")) == (long, told)


def test_the_same_run_gives_the_same_bytes_and_the_report_alone_is_enough(run_dir: Path, tmp_path: Path) -> None:
    report = load(run_dir / "report.json")
    first = page_of(report, run_dir)
    assert page_of(report, run_dir) == first
    assert "edgequant verify" in first
    moved = tmp_path / "moved.json"
    moved.write_bytes((run_dir / "report.json").read_bytes())
    alone = page_of(report, moved)
    held_against(report, read(alone))
    assert "Made of report.json alone" in alone


def test_every_hash_of_the_archive_is_there(run_dir: Path) -> None:
    report, run = load(run_dir / "report.json"), open_run(run_dir)
    found = dict(read(page_of(report, run_dir)).tables["hashes"][1:])
    wanted = {report.model.sha256, *(each.sha256 for each in report.runs)}
    wanted |= {ref.sha256 for case in run.source.cases for ref in case.inputs.values()}
    assert wanted <= set(found.values())


def test_an_invalid_time_says_so_wherever_it_is(tmp_path: Path) -> None:
    """It is throttled: its second half takes three times as long."""
    archive = devices(tmp_path, "local:", BOARD)
    report = report_of(archive)
    why = ["the second half took 3 times as long as the first"]
    bad = report.runs[1].latency_ms.model_copy(update={"valid": False, "why_invalid": why})  # type: ignore[union-attr]
    report = report.model_copy(update={"runs": [report.runs[0], report.runs[1].model_copy(update={"latency_ms": bad})]})
    text = page(report, open_run(archive.folder.path))
    found = read(text)
    said = [f"not valid: {why[0]}"]
    assert found.why("latency", 1, "valid") == said
    assert all(found.why("latency", 1, key) == said for key in ("p50", "p90", "mean", "max", "first"))
    assert found.why("overview", 1, "p50 ms") == said
    assert found.why("overview", 0, "p50 ms") == []
    assert found.why("matrix", 0, BOARD) == said
    assert "ms (not valid)" in found.rows("matrix")[0][BOARD]
    assert text.count(">not valid: dynamic:8") == 2  # spread and series


def test_what_fails_or_was_refused_is_marked_with_its_reason(tmp_path: Path) -> None:
    bad = {"a": {"y": all_off(TRUE, 3)["a"]["y"]}, "b": "no kernel for it"}
    archive = on_board(tmp_path, bad, all_off(TRUE, 40))
    report = report_of(archive)
    found = read(page(report, open_run(archive.folder.path)))
    assert found.rows("overview")[0]["verdict"] == "FAIL"
    rows = {row["case"]: place for place, row in enumerate(found.rows("run-1-cases"))}
    assert found.rows("run-1-cases")[rows["a"]]["y"] == "3.0!"
    assert found.why("run-1-cases", rows["b"], "y") == ["no kernel for it"]


def agrees(seed: int) -> None:
    report = loads(to_json(any_report(seed)))
    text = page(report)
    found = read(text)
    held_against(report, found)
    assert f"<title>{report.verdict}: m.onnx</title>" in text
    stream = io.StringIO()
    render(report, Console(file=stream, width=250), verbose=True)
    console = re.sub(r"\s+", " ", stream.getvalue())
    for place, run in enumerate(report.runs):
        for row in found.rows(f"run-{place + 1}-outputs") if run.outputs else []:
            assert " ".join(row.values()) in console


@pytest.mark.parametrize("seed", range(5))
def test_of_any_report_page_console_and_json_agree(seed: int) -> None:
    agrees(seed)


@pytest.mark.nightly
@pytest.mark.parametrize("hundred", range(5))
def test_of_500_reports_page_console_and_json_agree(hundred: int) -> None:
    for seed in range(hundred * 100, hundred * 100 + 100):
        agrees(seed)


@pytest.mark.parametrize("text", EVIL, ids=lambda text: text[:12].encode("ascii", "backslashreplace").decode())
def test_nothing_that_anybody_wrote_is_markup(text: str) -> None:
    html = page(evil_report(text), command=text)
    plainly = read(page(evil_report("harmless"), command="x"))
    assert len(html) < 2_000_000
    assert [tag for tag, _ in read(html).tags] == [tag for tag, _ in plainly.tags]
    assert not {tag for tag, _ in plainly.tags} & {"script", "img", "iframe", "object", "embed", "base", "form"}
    for _, given in read(html).tags:
        assert not [key for key in given if key.startswith("on")]
        assert str(given.get("href", "#")).startswith(("#", "data:,"))
        assert "src" not in given
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html)
    html.encode("utf-8")  # no half of a surrogate pair


def cpu_of_page(tmp_path: Path, layers: int) -> tuple[float, str]:
    """Seconds of CPU that the page of eight devices takes, and the page."""
    uris = ("local:", *(f"ssh://board{n}" for n in range(7)))
    archive = devices(tmp_path, *uris, layers_each=layers, samples=2000)
    report, run = report_of(archive), open_run(archive.folder.path)
    page(report)  # what is loaded once
    begun = time.process_time()
    text = page(report, open_run(run.path))
    return time.process_time() - begun, text


def test_eight_devices_of_500_layers_are_small_and_no_slower_than_five_times_100(tmp_path: Path) -> None:
    """How long it takes depends on the machine, 0.4 s to 1 s; with layers by layers it would be 25 times as long."""
    few, _ = cpu_of_page(tmp_path / "few", 100)
    many, text = cpu_of_page(tmp_path / "many", 500)
    assert many < 15 * few
    assert len(text.encode()) < 2_000_000
    rows = read(text).rows("run-1-layers-all")
    assert len(rows) == 500
    assert (rows[61]["entire dB"], rows[61]["noise dB"], rows[61]["device dB, ssh://board3"]) == ("6.0", "80.0", "65.0")


def test_a_diagnosis_that_was_just_made_is_told(tmp_path: Path) -> None:
    """Also one of the conversion, which looks at no layers."""
    archive = devices(tmp_path, "local:")
    cause = Finding(code="OPERATOR_MISREAD", severity="fail", message="MNN reads it otherwise", remedy="Do <b>this</b>")
    told = DiagnosisReport(
        verdict="FAIL", model="/m.onnx", device="local:", variant="dynamic:8", stage="conversion", layers=["node <1>"],
        proof="proven", how="it was seen", cause=cause, next="edgequant inspect m.onnx",
    )  # fmt: skip
    text = page_of(report_of(archive), archive.folder.path, diagnoses=[told])
    assert "Where the error enters" in text
    assert "The conversion to MNN breaks it: MNN reads it otherwise (OPERATOR_MISREAD)." in text
    assert "Do &lt;b&gt;this&lt;/b&gt; Next: edgequant inspect m.onnx" in text


def test_a_damaged_record_is_named_and_the_rest_is_there(tmp_path: Path) -> None:
    archive = devices(tmp_path, "local:")
    report = report_of(archive)
    (record,) = archive.folder.path.glob("captures/local*/dynamic*.json")
    record.write_text("{")
    text = page(report, open_run(archive.folder.path))
    assert "cannot be read, and is missing below" in text
    assert read(text).rows("overview")[0]["verdict"] == report.runs[0].verdict


def test_the_numbers_of_the_worst_layers_are_drawn_and_in_a_table(tmp_path: Path) -> None:
    archive = devices(tmp_path, "local:")
    name, evil = "block/conv", "<b>x</b>"
    capture = layers("local:", 3).model_copy(
        update={
            "spreads": (
                Spread(layer=name, tensor=name, case=evil, low=-1.0, high=1.0,
                       counts={"plain": (0, 5, 90, 5), "here": (0, 0, 80, 20)}),
                Spread(layer="none", tensor=name, case="a", low=0.0, high=1.0, counts={"plain": (0, 0)}),
            ),
            "swaps": (Swap(what="one", layers=("block0/conv1/Conv_output_0",), share=0.01),),
        }
    )  # fmt: skip
    archive.folder.save_layers(device_capture("local:", "dynamic:8"), capture)
    text = page_of(report_of(archive), archive.folder.path)
    assert "Numbers of block/conv" in text
    assert "Numbers of none" not in text
    assert evil not in text
    assert "Points: what the model has with that layer alone quantized." in text
    first, second = read(text).rows("run-1-layers-spread")[:2]
    assert (first["where"], first["% in the last bin"], first["bins with any"]) == ("float", "5", "3 of 4")
    assert (second["where"], second["% in the last bin"], second["numbers"]) == ("this host", "20", "100")
