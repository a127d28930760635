"""A bench as Markdown for the summary of a CI step."""

from __future__ import annotations

from collections.abc import Iterator

from edgequant.report import bench_words as words
from edgequant.report.bench import BenchDeviceReport, BenchReport, ComparedReport, SettingReport
from edgequant.report.summary import markdown

_MOST_ROWS, _MOST_LINES = 100, 40


def to_summary(report: BenchReport) -> str:
    """GitHub-flavoured Markdown, at most some 150 lines; everything untrusted is escaped."""
    rows = [_row(device, each) for device in report.devices for each in device.settings]
    lines = [
        f"## {report.verdict}: {markdown(words.name_of(report))}",
        "",
        f"bench, edgequant {markdown(report.edgequant or 'unknown')}, {markdown(words.sum_up(report))}, "
        f"SHA-256 `{(report.model_sha256 or 'unknown')[:12]}`",
        "",
        "| setting | device | valid | p50 ms | 95 % interval | p90 ms | peak MB | against base | since baseline |",
        "|---|---|---|---:|---:|---:|---:|---|---|",
        *rows[:_MOST_ROWS],
    ]
    if len(rows) > _MOST_ROWS:
        lines.append(f"\nand {len(rows) - _MOST_ROWS} more")
    told = list(_lines(report))
    lines += [f"\n- {line}" for line in told[:_MOST_LINES]]
    if len(told) > _MOST_LINES:
        lines.append(f"\nand {len(told) - _MOST_LINES} more, see bench.json")
    return "\n".join(lines) + "\n"


def _row(device: BenchDeviceReport, found: SettingReport) -> str:
    times, name = words.times(found), found.id or found.name
    compared = next((f"{_says(device, each)}, {each.ratio:.3f}" for each in device.compared if each.name == name), "-")
    before = [] if device.baseline is None else device.baseline.settings
    since = next(
        (each.says + ("" if each.ratio is None else f", {each.ratio:.3f}") for each in before if each.name == name), "-"
    )
    marked = "" if found.valid or times["p50"] == "-" else " (not valid)"
    cells = [
        found.name, device.uri, "yes" if found.valid else "NO", times["p50"] + marked, words.interval(found),
        times["p90"], words.peak(found), compared, since,
    ]  # fmt: skip
    return "| " + " | ".join(markdown(cell) for cell in cells) + " |"


def _says(device: BenchDeviceReport, found: ComparedReport) -> str:
    return found.says if words.why_unclear(device, found) is None else "not compared"


def _lines(report: BenchReport) -> Iterator[str]:
    for uri, failure in report.failed.items():
        yield f"**{markdown(str(failure.get('code')))}** {markdown(uri)}: {markdown(str(failure.get('message')))}"
    for device in report.devices:
        for finding in words.findings(device):
            then = f" → {markdown(finding.remedy)}" if finding.remedy else ""
            yield f"**{markdown(finding.code)}** {markdown(device.uri)}: {markdown(finding.message)}{then}"
        yield from (f"{markdown(device.uri)}: {markdown(line)}" for line in words.device_lines(device))
