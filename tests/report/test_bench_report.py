"""A bench's report: whatever is made of it says the same, and nothing that anybody wrote is markup."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from edgequant.errors import InputError
from edgequant.judge.bench_run import judge_folder
from edgequant.report import laboratory
from edgequant.report.bench import BenchReport, SettingReport, loads, rounded, to_json
from edgequant.report.bench_build import build_bench
from edgequant.report.bench_console import render
from edgequant.report.bench_csv import to_csv
from edgequant.report.bench_junit import to_junit
from edgequant.report.bench_summary import to_summary
from edgequant.report.bench_words import next_step
from edgequant.report.html.bench import page
from edgequant.report.laboratory import ApartReport
from tests.judge.benches import BenchMade, blocks, powersave, simple
from tests.report.bench_agreeing import agrees, any_bench
from tests.report.pages import EVIL, Reader


@pytest.mark.parametrize("seed", range(5))
def test_of_any_bench_all_that_is_made_of_it_agrees(seed: int) -> None:
    agrees(any_bench(seed))


@pytest.mark.nightly
@pytest.mark.parametrize("hundred", range(5))
def test_of_500_benches_all_that_is_made_of_them_agrees(hundred: int) -> None:
    for seed in range(hundred * 100, hundred * 100 + 100):
        agrees(any_bench(seed))


def test_of_one_that_was_judged(tmp_path: Path) -> None:
    before = simple(tmp_path / "a")
    bench = simple(tmp_path / "b", 12.0, seed=5, baseline=before)
    report = rounded(build_bench(bench, judge_folder(bench)))
    agrees(report)
    text = page(report, bench)
    assert page(report, bench) == text
    assert "edgequant bench m" in text
    assert text.count("<svg") == 5
    found = Reader(text)
    assert [row["round"] for row in found.rows("blocks-1")] == [str(number) for number in range(1, 8)]
    hashes = {row["what"]: row["SHA-256"] for row in found.rows("hashes")}
    assert hashes["float"] == "a" * 64
    alone = page(report)
    assert "Made of bench.json alone" in alone


def test_what_is_not_valid_is_not_compared_and_says_so(tmp_path: Path) -> None:
    loud = list(blocks(20.0, 7, **powersave()))
    bench = BenchMade(tmp_path / "a").device({"float": list(blocks(10.0, 7)), "int8": loud}).close()
    report = rounded(build_bench(bench, judge_folder(bench)))
    why = "not compared: numbers of int8 are not valid"
    shown = io.StringIO()
    render(report, Console(file=shown, width=200), folder=None)
    assert f"int8 against float: {why} (" in shown.getvalue()
    assert "cannot be told" not in shown.getvalue()
    assert why in page(report)
    assert report.devices[0].compared[0].says == "unclear"
    assert "| not compared, " in to_summary(report)
    lines = shown.getvalue().splitlines()
    assert lines[-2].startswith("-> Measure where nothing else runs, or bear a condition by name (--allow CODE)")
    assert "0 of 7 blocks were undisturbed; 3 are needed" in shown.getvalue()
    assert "0 of 7 rounds undisturbed (" in shown.getvalue()


def test_what_is_only_spread_needs_more_blocks(tmp_path: Path) -> None:
    spread = list(blocks(10.0, 7, spread=0.2))
    bench = BenchMade(tmp_path / "a").device({"float": spread}).close()
    told = next_step(build_bench(bench, judge_folder(bench)))
    assert told is not None
    assert told.startswith("Measure more blocks (--blocks)")


def test_times_of_operators_have_headings_and_plain_words() -> None:
    kind = {"type": "Convolution", "count": 2, "ms": 5.0, "share": 0.9}
    layer = {"name": "conv1", "type": "Convolution", "ms": 4.0, "share": 0.7}
    told = {"total_ms": 5.48, "plain_ms": 8.14, "types": [kind], "layers": [layer]}
    found = ApartReport.model_validate({"operators": {"float": told}})
    head, *lines = laboratory.lines(found)
    assert head.endswith("the operators add up to 5.48 ms; an inference without watching them takes 8.14 ms")
    assert [line.split()[0] for line in lines] == ["by", "90.0%", "by", "70.0%"]


@pytest.mark.parametrize("text", EVIL, ids=lambda text: text[:12].encode("ascii", "backslashreplace").decode())
def test_nothing_that_anybody_wrote_is_markup(text: str) -> None:
    report = any_bench(2, text[:20_000])
    html, plainly = page(report), page(any_bench(2, "harmless"))
    assert len(html) < 2_000_000
    assert [tag for tag, _ in Reader(html).tags] == [tag for tag, _ in Reader(plainly).tags]
    assert not {tag for tag, _ in Reader(plainly).tags} & {"script", "img", "iframe", "object", "embed", "form"}
    assert not re.search(r"[\x1b\u202e\x07]", html + to_junit(report) + to_summary(report) + to_csv(report))
    assert not re.search(r"<script|\]\(|@you", to_summary(report))


def test_a_large_one_stays_small_and_quick(tmp_path: Path) -> None:
    """16 settings of 10 blocks of 100 samples."""
    settings = {f"variant {number}": list(blocks(10.0 + number, 10, seed=number)) for number in range(16)}
    bench = BenchMade(tmp_path / "a").device(settings).close()
    report = build_bench(bench, judge_folder(bench))
    start = time.process_time()
    text = page(report, bench)
    assert time.process_time() - start < 10
    assert len(text) < 700_000


def setting(**changed: object) -> dict[str, object]:
    return {"name": "a", "valid": True, "verdict": "PASS", **changed}


@pytest.mark.parametrize(
    "changed",
    [
        {"valid": False, "why_invalid": [{"code": "A", "message": "b"}]},
        {"why_invalid": [{"code": "A", "message": "b"}]},
        {"valid": False, "verdict": "INCONCLUSIVE"},
    ],
)
def test_validity_and_its_reasons_belong_together(changed: dict[str, object]) -> None:
    SettingReport.model_validate(setting())
    with pytest.raises(ValueError, match="valid"):
        SettingReport.model_validate(setting(**changed))


def test_a_report_is_not_better_than_its_parts() -> None:
    report = next(found for seed in range(99) if (found := any_bench(seed)).verdict.exit_code)
    with pytest.raises(ValueError, match="is better than its devices"):
        BenchReport.model_validate({**report.model_dump(by_alias=True), "verdict": "PASS"})


def test_what_is_no_report_of_a_bench() -> None:
    for text in ("{", "[]", '{"schema": "edgequant.report/1"}', '{"schema": "edgequant.bench/1"}'):
        with pytest.raises(InputError) as caught:
            loads(text)
        assert caught.value.code == "REPORT_INVALID"
    report = any_bench(0)
    later = to_json(report).replace('"runs": 30', '"runs": 30, "later": 1')
    assert loads(later) == report
