"""The page of a bench: a pure function of its report and its folder."""

from __future__ import annotations

from edgequant import plain
from edgequant.archive.bench import Bench
from edgequant.archive.types import Capture
from edgequant.errors import EdgequantError
from edgequant.findings import Finding
from edgequant.report import bench_words, words
from edgequant.report.bench import BenchDeviceReport, BenchReport
from edgequant.report.html import bench_apart, bench_figures, bench_tables
from edgequant.report.html.figures import Figure, left_out
from edgequant.report.html.page import Group, Line, group_of, style, template
from edgequant.report.html.sources import device_tables
from edgequant.report.html.table import said
from edgequant.report.model import DeviceInfo


def page(report: BenchReport, bench: Bench | None = None) -> str:
    """The report as one HTML document.  bench: the folder it was made of; without it there are no single samples."""
    damaged: list[str] = []
    wrong, rest = _findings(report)
    since = bench_tables.baseline(report)
    return template("bench.html.j2").render(
        made_by=report.edgequant or "of an older version",
        product="edgequant bench",
        css=style(),
        title=f"{report.verdict}: {plain.name(bench_words.name_of(report))}",
        model=plain.name(bench_words.name_of(report)),
        verdict=report.verdict.value,
        meaning=bench_words.MEANING.get(report.verdict, ""),
        sum_up=bench_words.sum_up(report),
        head=_head(report),
        results=bench_tables.results(report),
        wrong=wrong,
        rest=rest,
        compared=bench_tables.compared(report),
        baseline=None if since is None else since[0],
        notes=[] if since is None else since[1],
        figures=_figures(report, bench, damaged),
        undrawn=left_out(len(report.devices) - bench_figures.MOST_DEVICES, "devices"),
        memory=bench_tables.memory(report),
        blocks=bench_tables.blocks(report),
        apart=bench_apart.summary(report),
        apart_notes=bench_apart.notes(report),
        operators=bench_apart.operators(report),
        devices=device_tables([_info(each) for each in report.devices]),
        command=None if bench is None or not bench.plan.command else said(bench.plan.command),
        hashes=bench_tables.hashes(report),
        damaged=[said(each) for each in damaged],
        archived=bench is not None,
        judged=report.created.isoformat(sep=" "),
    )


def _head(report: BenchReport) -> list[tuple[str, str]]:
    found = [("model", f"{plain.name(report.model)} (sha256 {(report.model_sha256 or 'not known')[:12]})")]
    for device in report.devices:
        found.append(("device", said(f"{device.uri} \u2013 {bench_words.facts(device) or 'nothing is known of it'}")))
        found.append(("case", said(f"{device.case} ({bench_words.shapes(device)})")))
    found = list(dict.fromkeys(found))[:20]
    wanted = f"p50 to {report.within:.1%}, differences from {report.tell:.1%}"
    found.append(("wanted", f"{report.blocks} blocks of at least {report.runs} inferences; {wanted}"))
    if report.allowed:
        found.append(("allowed", said(", ".join(report.allowed))))
    if (line := bench_words.baseline_line(report)) is not None:
        found.append(("baseline", said(line)))
    if report.measured is not None:
        mnn = f", MNN {report.mnn}" if report.mnn else ""
        when = report.measured.isoformat(sep=" ")
        found.append(("measured", said(f"{when}, {report.seconds:.0f} s, edgequant {report.edgequant}{mnn}")))
    return found


def _findings(report: BenchReport) -> tuple[list[Group], list[Group]]:
    """What could not be measured, what is not valid by its reasons, and what was found."""
    groups = [
        Group("error", str(failure.get("code")), [plain.name(uri)], [Line("", said(failure.get("message")), [])], 0,
              [said(failure["hint"])] if failure.get("hint") else [])
        for uri, failure in list(report.failed.items())[:50]
    ]  # fmt: skip
    groups += _not_valid(report)
    whose: dict[int, str] = {}
    every: list[Finding] = []
    for device in report.devices:
        for finding in bench_words.findings(device):
            whose[id(finding)] = plain.name(device.uri)
            every.append(finding)
    found = [group_of(level, code, group, whose) for level, code, group in words.grouped(every)]
    groups += [each for each in found if each.level != "info"]
    return groups, [each for each in found if each.level == "info"]


def _not_valid(report: BenchReport) -> list[Group]:
    """By code: forty settings with one reason are one thing to do."""
    places: dict[str, list[tuple[str, str]]] = {}
    for device in report.devices:
        for setting in device.settings:
            for reason in setting.why_invalid:
                title = f"{plain.name(setting.name)} on {plain.name(device.uri)}"
                places.setdefault(reason.code, []).append((title, reason.message))
    return [
        Group(
            "error", code, [], [Line(title, said(message), []) for title, message in found[:20]],
            max(len(found) - 20, 0), [],
        )
        for code, found in places.items()
    ]  # fmt: skip


def _figures(report: BenchReport, bench: Bench | None, damaged: list[str]) -> list[Figure]:
    shown = report.devices[: bench_figures.MOST_DEVICES]
    found: list[Figure] = []
    for device in shown:
        taken = {} if bench is None else _blocks(bench, device, damaged)
        found += bench_figures.of_device(device, taken, titled=len(report.devices) > 1)
        found += bench_apart.figures(device, titled=len(report.devices) > 1)
    return found


def _blocks(bench: Bench, device: BenchDeviceReport, damaged: list[str]) -> dict[str, list[Capture]]:
    found: dict[str, list[Capture]] = {}
    for setting in device.settings:
        name = setting.id or setting.name
        try:
            found[name] = [capture for _, capture in bench.blocks(device.uri, name)]
        except EdgequantError as error:
            damaged.append(error.message)
    return found


def _info(device: BenchDeviceReport) -> DeviceInfo:
    told = device.facts or {}
    same = {key: told.get(key) for key in ("arch", "cpu", "mnn", "cores", "ram_mb", "os")}
    return DeviceInfo(
        uri=device.uri,
        features=list(told.get("features") or ()),
        emulated=bool(told.get("emulator")),
        is_host=bool(told.get("is_host")),
        facts=dict(told.get("facts") or {}),
        **same,
    )
