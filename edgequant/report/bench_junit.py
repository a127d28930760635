"""A bench as JUnit XML: a suite per device, a test case per setting.  What is not valid is an `error`, what the model
itself is to blame for a `failure`; comparisons are no rules, and are told in passing."""

from __future__ import annotations

from collections.abc import Iterator

from edgequant.judge.verdict import Verdict
from edgequant.report import bench_words as words
from edgequant.report.bench import BenchDeviceReport, BenchReport, SettingReport
from edgequant.report.junit import Rule, document


def to_junit(report: BenchReport) -> str:
    """The XML document, read alike by GitLab, Jenkins and actions of GitHub."""
    suites = [(device.uri, list(_of_device(device))) for device in report.devices]
    for uri, failure in report.failed.items():
        told = f"{failure.get('code')}: {failure.get('message')}"
        suites.append((uri, [Rule("it can be used", Verdict.ERROR, told, str(failure.get("code")))]))
    suites.append(("the whole", [Rule("verdict", report.verdict, words.sum_up(report), "verdict")]))
    return document(suites, report.model, report.created)


def _of_device(device: BenchDeviceReport) -> Iterator[Rule]:
    for each in device.settings:
        kind = each.why_invalid[0].code if each.why_invalid else ""
        yield Rule(f"{each.name}: p50 is valid", each.verdict, "\n".join(_told(device, each)), kind)
    yield Rule("verdict", device.verdict, f"{device.verdict}", "verdict")


def _told(device: BenchDeviceReport, setting: SettingReport) -> Iterator[str]:
    yield from words.against_it(setting)
    valid = "valid" if setting.valid else "not valid"
    yield f"p50 {words.times(setting)['p50']} ms ({words.interval(setting)} ms), {valid}"
    name = setting.id or setting.name
    yield from (words.compared(device, each) for each in device.compared if each.name == name)
    if device.baseline is not None:
        yield from (words.since(device, each) for each in device.baseline.settings if each.name == name)
