"""OpenMetrics says what the report says, by the parser of Prometheus, and GitLab reads the same."""

from __future__ import annotations

import re
import shlex
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import pytest
from prometheus_client.openmetrics import parser as prometheus

from edgequant.judge.verdict import Verdict, severity
from edgequant.plain import name as plain_name
from edgequant.report.model import Report
from edgequant.report.numbers import BETTER, bench_numbers, numbers
from edgequant.report.openmetrics import bench_openmetrics, to_openmetrics
from edgequant.report.read import load
from tests.cli.command import edgequant
from tests.recorded import unpacked
from tests.report.agreeing import any_report
from tests.report.bench_agreeing import any_bench
from tests.report.test_junit import HOSTILE

parser: Any = prometheus
Samples = dict[str, dict[frozenset[tuple[str, str]], float]]


def parsed(text: str) -> Samples:
    """Sample -> labels -> value, as Prometheus reads it."""
    found: Samples = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            mine = found.setdefault(sample.name, {})
            labels = frozenset(sample.labels.items())
            assert labels not in mine
            mine[labels] = sample.value
    return found


def by_gitlab(text: str) -> dict[str, str]:
    """Name -> value, as lib/gitlab/ci/parsers/metrics takes a line apart: cut at #, then as a shell does."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        words = shlex.split(re.sub("#.*$", "", line))
        if len(words) > 1:
            assert words[0] not in found
            found[words[0]] = words[1]
    return found


def labels(**given: str) -> frozenset[tuple[str, str]]:
    return frozenset((key, plain_name(value).replace("#", "\\x23")) for key, value in given.items())


Kind = TypeVar("Kind", bound=Enum)


def state(samples: Samples, name: str, **given: str) -> Verdict:
    return named(samples, Verdict, name.removeprefix("edgequant_"), **given)


def named(samples: Samples, kind: type[Kind], name: str, **given: str) -> Kind:
    """The one that is 1."""
    wanted, name = labels(**given), f"edgequant_{name}"
    states = {
        dict(each)[name]: value for each, value in samples[name].items() if each - {(name, dict(each)[name])} == wanted
    }
    assert set(states) == {each.value for each in kind}
    (found,) = [each for each, value in states.items() if value == 1]
    return kind(found)


def held(report: Report, samples: Samples) -> None:
    assert state(samples, "edgequant_verdict") is report.verdict
    assert samples["edgequant_verdict_severity"][frozenset()] == severity(report.verdict)
    count = 0
    for run in report.runs:
        own = {"variant": run.variant, "device": run.device.uri}
        assert state(samples, "edgequant_run_verdict", **own) is run.verdict
        for name, output in run.outputs.items():
            assert state(samples, "edgequant_output_verdict", **own, output=name) is output.verdict
        left_out = 0
        for each in numbers(run):
            of = {**own, "output": each.output} if each.output else own
            if each.valid:
                value = samples[f"edgequant_{each.metric}"].get(labels(**of))
                assert value == pytest.approx(each.value, rel=1e-11, abs=0)
                count += 1
            else:
                assert labels(**of) not in samples.get(f"edgequant_{each.metric}", {})
                left_out += 1
        assert samples["edgequant_invalid_numbers"][labels(**own)] == left_out
    known = {f"edgequant_{metric}" for metric in BETTER}
    assert count == sum(len(each) for name, each in samples.items() if name in known)


@pytest.mark.parametrize("seed", range(0, 500, 5))
def test_it_agrees_with_the_report(seed: int) -> None:
    report = any_report(seed)
    text = to_openmetrics(report)
    samples = parsed(text)
    held(report, samples)
    assert len(by_gitlab(text)) == sum(len(each) for each in samples.values())
    assert text.endswith("# EOF\n")


@pytest.mark.parametrize("seed", range(0, 200, 5))
def test_of_a_bench(seed: int) -> None:
    report = any_bench(seed)
    text = bench_openmetrics(report)
    samples = parsed(text)
    assert state(samples, "edgequant_verdict") is report.verdict
    assert len(by_gitlab(text)) == sum(len(each) for each in samples.values())
    for device in report.devices:
        for setting in device.settings:
            own = {"variant": setting.name, "device": device.uri}
            assert state(samples, "edgequant_run_verdict", **own) is setting.verdict
            for each in bench_numbers(setting):
                value = samples.get(f"edgequant_{each.metric}", {}).get(labels(**own))
                assert value == (pytest.approx(each.value, rel=1e-11) if each.valid else None)


@pytest.mark.parametrize("name", ["cnn", "gru"])
def test_of_a_real_run(name: str, tmp_path: Path) -> None:
    folder = unpacked(name, tmp_path)
    done = edgequant("report", str(folder), "--openmetrics", str(tmp_path / "m.txt"), "--quiet")
    report = load(folder / "report.json")
    assert done.code == report.verdict.exit_code
    text = (tmp_path / "m.txt").read_text("utf-8")
    assert text == to_openmetrics(report)
    held(report, parsed(text))
    kept = edgequant("report", str(folder), "--openmetrics", str(folder / "report.json"))
    assert kept.code == 2
    assert "has to end in .txt" in kept.errors[0]


def test_nothing_untrusted_gets_through() -> None:
    report = any_report(3)
    run = next(run for run in report.runs if run.outputs)
    output = next(iter(run.outputs.values()))
    names = [HOSTILE, f"{HOSTILE} ", 'a"} 1\n# EOF\nx{y="', "a\\", "a#b", "{}"]
    device = run.device.model_copy(update={"uri": f"ssh://{HOSTILE}"})
    model = report.model.model_copy(update={"path": HOSTILE})
    evil = run.model_copy(update={"device": device, "outputs": dict.fromkeys(names, output)})
    text = to_openmetrics(report.model_copy(update={"model": model, "runs": [evil, evil]}))
    assert text.encode("utf-8")
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e\ud800]", text)
    samples = parsed(text)
    found = {dict(each)["output"] for each in samples["edgequant_output_verdict"]}
    assert len(found) == len(names)
    assert len(samples["edgequant_run_verdict_severity"]) == 2
    assert len(by_gitlab(text)) == sum(len(each) for each in samples.values())
