"""Reports of benches of every kind, and whether whatever is made of one says what it says."""

from __future__ import annotations

import csv
import io
import random
import re
from typing import Any
from xml.etree import ElementTree

from rich.console import Console

from edgequant import plain
from edgequant.judge.disturbed import CAUSES, SIGNS
from edgequant.judge.verdict import Verdict, worst
from edgequant.report import bench_words as words
from edgequant.report.bench import BenchReport, loads, to_json
from edgequant.report.bench_console import render
from edgequant.report.bench_csv import to_csv
from edgequant.report.bench_junit import to_junit
from edgequant.report.bench_summary import to_summary
from edgequant.report.html.bench import page
from tests.report.pages import Reader

CODES = (*CAUSES, *SIGNS, "TOO_FEW_BLOCKS", "TOO_SPREAD")
MS = ("p50", "mean", "trimmed", "p90", "p99")


def any_bench(seed: int, name: str = "") -> BenchReport:
    """name: text that is in everything that has a text."""
    draw = random.Random(seed)
    uris = [f"ssh://board{number}{name}" for number in range(draw.randint(1, 3))]
    devices = [_device(draw, uri, name) for uri in uris if draw.random() < 0.9]
    known = {each["uri"] for each in devices}
    failed = {
        uri: {"code": "HOST_UNREACHABLE", "message": f"gone {name}", "hint": name} for uri in uris if uri not in known
    }
    interrupted = draw.random() < 0.1
    parts = [Verdict.ERROR] * bool(failed) + [Verdict(each["verdict"]) for each in devices]
    parts += [Verdict.INCONCLUSIVE] * interrupted
    with_baseline = any(each.get("baseline") for each in devices)
    info = {"folder": f"old{name}", "created": "2026-01-02T03:04:05Z", "edgequant": "1", "mnn": "3.6.0", "model": "m",
            "model_sha256": "0" * 64}  # fmt: skip
    report = BenchReport.model_validate(
        {
            "model": f"/m/m{name}.onnx", "verdict": worst(parts), "edgequant": "1", "mnn": "3.6.1", "blocks": 7,
            "runs": 30, "seconds_each": 1.0, "within": 0.025, "tell": 0.03, "seconds": 12.5, "failed": failed,
            "devices": devices, "interrupted": interrupted, "baseline": info if with_baseline else None,
            "files": [{"name": f"float{name}", "sha256": "a" * 64, "mb": 1.5}], "model_sha256": "c" * 64,
            "allowed": [name] if name else [],
        }
    )  # fmt: skip
    return loads(to_json(report))


def _device(draw: random.Random, uri: str, name: str) -> dict[str, Any]:
    settings = [_setting(draw, f"variant{number}{name}", name) for number in range(draw.randint(1, 4))]
    ids = [each["id"] for each in settings]
    compared = [_compared(draw, ids[0], each) for each in ids[1:] if draw.random() < 0.8]
    findings = [{"code": "INT8_SLOWER", "severity": "warn", "message": f"slow {name}", "remedy": f"do {name}"}]
    since = {
        "settings": [_since(draw, each, name) for each in ids],
        "notes": [f"kernel {name}"],
        "missing": [f"x{name}"],
    }
    facts = {"cpu": f"A76{name}", "cores": 4, "mnn": "3.6.1", "facts": {name: name}}
    return {
        "uri": uri, "facts": draw.choice([None, facts]),
        "verdict": worst([Verdict(each["verdict"]) for each in settings]), "case": f"middle{name}",
        "shapes": {f"x{name}": [1, 8]}, "rounds": 7, "rounds_good": draw.randint(0, 7), "settings": settings,
        "compared": compared, "findings": draw.choice([[], findings]), "baseline": draw.choice([None, since]),
    }  # fmt: skip


def _compared(draw: random.Random, base: str, name: str) -> dict[str, Any]:
    value = draw.lognormvariate(0, 0.2)
    bounds = draw.choice([{}, {"low": value * 0.9, "high": value * 1.1}])
    says = draw.choice(["slower", "faster", "same", "unclear"])
    return {"base": base, "name": name, "says": says, "rounds": 7, "ratio": value, **bounds}


def _since(draw: random.Random, name: str, text: str) -> dict[str, Any]:
    if draw.random() < 0.3:
        return {"name": name, "says": "not compared", "why": f"another device {text}"}
    value = draw.lognormvariate(0, 0.2)
    says = draw.choice(["slower", "faster", "same", "unclear"])
    return {"name": name, "says": says, "ratio": value, "before_ms": 5.0,
            "ms": 5 * value, "low": value * 0.9, "high": value * 1.1, "blocks_before": 7, "blocks": 7,
            "same_file": draw.choice([True, False, None])}  # fmt: skip


def _setting(draw: random.Random, name: str, text: str) -> dict[str, Any]:
    verdict = draw.choice([Verdict.PASS, Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.ERROR, Verdict.FAIL])
    measured = verdict in (Verdict.PASS, Verdict.INCONCLUSIVE) and (verdict is Verdict.PASS or draw.random() < 0.8)
    codes = draw.sample(CODES, draw.randint(1, 3)) if verdict is Verdict.INCONCLUSIVE else ["RUNNER_DIED"]
    why = [] if verdict is Verdict.PASS else [{"code": code, "message": f"why {code} {text}"} for code in codes]
    value = draw.lognormvariate(1, 2)
    known = MS[: draw.randint(3, 5)] if measured else ()
    ms = {key: _estimate(draw, value * (1 + place / 5)) for place, key in enumerate(known)}
    spread = {"n": 700.0, "min": value * 0.9, "max": value * 3, "stdev": value / 10, "mad": value / 20, "cv": 0.1}
    stage = {"rss": draw.uniform(10, 90), "pss": draw.choice([None, 9.0]), "peak": draw.choice([None, 91.0])}
    memory = {"file_mb": 1.5, "session_mb": draw.choice([None, 2.5]), "session_why": f"no {text}", "peak_mb": 95.0,
              "stages": {key: stage for key in words.STAGES if draw.random() < 0.9}}  # fmt: skip
    blocks = [_block(draw, number, value, text) for number in range(draw.randint(0, 7))]
    return {
        "name": f"{name} [STALLED allowed]" if draw.random() < 0.2 else name, "id": name, "verdict": verdict,
        "valid": verdict is Verdict.PASS, "why_invalid": why, "ms": ms, "spread": spread if measured else {},
        "cpu_ms": draw.choice([None, _estimate(draw, value)]), "load_ms": draw.choice([None, _estimate(draw, 3.0)]),
        "rss_peak_kb": draw.choice([None, 90_000]), "memory": draw.choice([None, memory]), "threads": 2,
        "memory_mode": "low", "blocks": blocks,
    }  # fmt: skip


def _estimate(draw: random.Random, value: float) -> dict[str, Any]:
    return draw.choice([{"value": value}, {"value": value, "low": value * 0.97, "high": value * 1.03}])


def _block(draw: random.Random, number: int, value: float, text: str) -> dict[str, Any]:
    doubts = [{"code": draw.choice(CODES), "message": f"seen {text}"}] if draw.random() < 0.3 else []
    return {"round": number + 1, "used": not doubts, "n": 100, "warmup": 30, "ms": {"p50": value, "mean": value * 1.1},
            "cpu_ms": value * 2, "celsius": draw.choice([[], [40.0, 44.0]]), "work_ms": [2.0, 2.1], "doubts": doubts,
            "failure": draw.choice([None, None, "RUNNER_DIED"])}  # fmt: skip


def agrees(report: BenchReport) -> None:
    """JSON, exit code, console, page, table, JUnit and Markdown."""
    stream = io.StringIO()
    render(report, Console(file=stream, width=400), folder=None)
    _console(report, re.sub(r" +", " ", stream.getvalue()))
    _page(report, Reader(page(report)))
    _table(report, list(csv.DictReader(io.StringIO(to_csv(report)))))
    _junit(report, ElementTree.fromstring(to_junit(report).encode("utf-8")))
    _summary(report, to_summary(report).splitlines())


def _console(report: BenchReport, text: str) -> None:
    assert text.rstrip().splitlines()[-1].split()[0] == report.verdict.value
    for device in report.devices:
        part = text[text.index(f" on {device.uri} case ") :]
        for setting in device.settings:
            times = words.times(setting)
            numbers = [times["p50"], words.half(setting), times["p90"], times["p99"], times["min"], times["CPU"]]
            shown = [each for each in numbers if each not in ("", "-")]
            line = " ".join([setting.name, *shown])
            assert line in part
            row = next(each for each in part[part.index(line) :].splitlines())
            assert row.split()[-1] == ("yes" if setting.valid else "NO")
            for reason in setting.why_invalid:
                assert f"not valid: {setting.name}: {reason.code}: {reason.message}" in text
        for compared in device.compared:
            assert words.compared(device, compared) in text
        for since in [] if device.baseline is None else device.baseline.settings:
            assert words.since(device, since) in text
    for uri in report.failed:
        assert f"ERROR {uri}: HOST_UNREACHABLE" in text


def _page(report: BenchReport, found: Reader) -> None:
    for place, device in enumerate(report.devices):
        rows = found.rows(f"results-{place + 1}")
        assert [each["setting"] for each in rows] == [each.name for each in device.settings]
        for number, (row, setting) in enumerate(zip(rows, device.settings, strict=True)):
            table = f"results-{place + 1}"
            assert row["valid"] == ("yes" if setting.valid else f"NO: {setting.verdict.value}")
            reasons = [f"{each.code}: {each.message}" for each in setting.why_invalid]
            assert found.why(table, number, "valid") == reasons
            for key in MS:
                each = setting.ms.get(key)
                assert row[key] == plain.milliseconds(None if each is None else each.value)
                why = found.why(table, number, key)
                assert bool(why) is (each is None or not setting.valid)
                if each is not None and not setting.valid:
                    assert why[0].startswith("not valid: ")
                    assert all(reason.code in why[0] for reason in setting.why_invalid)
    says = [
        (words.title(device, each.name), each.says, f"{each.ratio:.3f}")
        for device in report.devices
        for each in device.compared
    ]
    shown = found.rows("comparisons") if says else []
    assert [(row["setting"], row["says"], row["ratio"]) for row in shown] == says
    since = [(device, each) for device in report.devices if device.baseline for each in device.baseline.settings]
    rows = found.rows("since-baseline") if since else []
    for number, (row, (device, one)) in enumerate(zip(rows, since, strict=True)):
        assert (row["setting"], row["says"]) == (words.title(device, one.name), one.says)
        assert row["ratio"] == ("-" if one.ratio is None else f"{one.ratio:.3f}")
        if one.why:
            assert found.why("since-baseline", number, "says") == [one.why]
    codes = {tag[1].get("class", "") for tag in found.tags if tag[0] == "header"}
    assert codes == {report.verdict.value}


def _table(report: BenchReport, rows: list[dict[str, str]]) -> None:
    settings = [(device, each) for device in report.devices for each in device.settings]
    lines = [row for row in rows if row["level"] == "setting"]
    assert len(lines) == len(settings)
    for row, (device, setting) in zip(lines, settings, strict=True):
        assert (row["device"], row["setting"], row["valid"]) == (device.uri, setting.name, str(setting.valid))
        assert row["why_invalid"] == " ".join(each.code for each in setting.why_invalid)
        for key in MS:
            assert row[f"{key}_ms"] == (f"{setting.ms[key].value:.9g}" if key in setting.ms else "")
    assert sum(row["level"] == "block" for row in rows) == sum(len(setting.blocks) for _, setting in settings)
    assert [row["device"] for row in rows if row["level"] == "device"] == list(report.failed)


def _junit(report: BenchReport, root: ElementTree.Element) -> None:
    *suites, whole = list(root)

    def broken(suite: ElementTree.Element) -> bool:
        return bool(suite.findall("testcase/failure") or suite.findall("testcase/error"))

    assert broken(whole) is bool(report.verdict.exit_code)
    assert [each.get("name") for each in suites] == [*(each.uri for each in report.devices), *report.failed]
    for device, suite in zip(report.devices, suites, strict=False):
        assert broken(suite) is bool(device.verdict.exit_code)
        cases = {case.get("name"): case for case in suite}
        assert len(cases) == len(list(suite)) == len(device.settings) + 1
        for setting in device.settings:
            tags = {each.tag for each in cases[f"{setting.name}: p50 is valid"]} - {"system-out"}
            wanted = set() if setting.valid else {"failure" if setting.verdict is Verdict.FAIL else "error"}
            assert tags == wanted
    assert all(broken(suite) for suite in suites[len(report.devices) :])


def _summary(report: BenchReport, lines: list[str]) -> None:
    assert lines[0].startswith(f"## {report.verdict}: ")
    rows = [line.split(" | ") for line in lines if line.startswith("| ") and not line.startswith("| setting")]
    settings = [each for device in report.devices for each in device.settings]
    assert len(rows) == len(settings)
    for row, setting in zip(rows, settings, strict=True):
        assert row[2] == ("yes" if setting.valid else "NO")
        p50 = words.times(setting)["p50"]
        marked = "" if setting.valid or p50 == "-" else " &#40;not valid&#41;"
        assert row[3] == f"{p50}{marked}"
