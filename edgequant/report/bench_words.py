"""What a bench says of itself in words: the same on a terminal, on a page and to a CI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from edgequant import plain
from edgequant.findings import Finding
from edgequant.judge.verdict import Verdict
from edgequant.report import laboratory
from edgequant.report.bench import AgainstReport, BenchDeviceReport, BenchReport, ComparedReport, SettingReport

MEANING = {
    Verdict.PASS: "Every number is valid: nothing got in its way, and it is known as well as was asked for.",
    Verdict.FAIL: "MNN cannot run one of the files.",
    Verdict.ERROR: "It could not be measured. This says nothing about the model.",
    Verdict.INCONCLUSIVE: "It was measured, but some of the numbers may not be believed.",
}
STAGES = {
    "empty": "empty runtime", "loaded": "model read", "first": "first inference", "timed": "timed inferences",
}  # fmt: skip
PLUS_MINUS = "+-: half of the 95 % interval of p50, from block to block; load, first, CPU: means of the blocks"
MEMORY = (
    "MB (10^6 bytes): model file, MNN's session, highest RSS of the empty runtime, reading the model, its first "
    "inference, the timed ones; PSS at the end; above the empty runtime; highest of all"
)
_SAYS = {
    "slower": "takes longer than",
    "faster": "is faster than",
    "same": "takes as long as",
    "unclear": "cannot be told from",
}
_SINCE = {
    "slower": "is slower than it was",
    "faster": "is faster than it was",
    "same": "takes as long as it did",
    "unclear": "cannot be told from what it was",
}


def half(setting: SettingReport) -> str:
    """Half of the interval of p50, as a share of it; empty where there is none."""
    p50 = setting.ms.get("p50")
    if p50 is None or p50.low is None or p50.high is None or p50.value <= 0:
        return ""
    return f"{(p50.high - p50.low) / 2 / p50.value:.1%}"


def times(setting: SettingReport) -> dict[str, str]:
    """Every time of a setting, in ms as it is shown everywhere; "-" where there is none."""
    found = {key: setting.ms.get(key) for key in ("p50", "mean", "trimmed", "p90", "p99")}
    found |= {"CPU": setting.cpu_ms, "load": setting.load_ms, "first": setting.first_ms}
    shown = {key: "-" if each is None else plain.milliseconds(each.value) for key, each in found.items()}
    return shown | {key: plain.milliseconds(setting.spread.get(key)) for key in ("min", "max", "stdev")}


def interval(setting: SettingReport) -> str:
    """Of p50, in ms."""
    p50 = setting.ms.get("p50")
    if p50 is None or p50.low is None or p50.high is None:
        return "-"
    return f"{plain.milliseconds(p50.low)} to {plain.milliseconds(p50.high)}"


def peak(setting: SettingReport) -> str:
    """MB."""
    return "-" if setting.rss_peak_kb is None else f"{setting.rss_peak_kb * 1.024e-3:.1f}"


def title(device: BenchDeviceReport, id_: str) -> str:
    """The name of a setting, with what was borne: it never stands without."""
    return next((each.name for each in device.settings if (each.id or each.name) == id_), id_)


def against_it(setting: SettingReport) -> list[str]:
    """Why it is not valid, a line each."""
    return [f"{each.code}: {each.message}" for each in setting.why_invalid]


def ratio(found: ComparedReport | AgainstReport) -> str:
    """With its interval."""
    if found.ratio is None:
        return "-"
    if found.low is None or found.high is None:
        return f"{found.ratio:.3f} times"
    return f"{found.ratio:.3f} times (99 %: {found.low:.3f} to {found.high:.3f})"


def why_unclear(device: BenchDeviceReport, found: ComparedReport) -> str | None:
    """Why two settings were not compared; None where they were, or where the interval itself leaves it open."""
    bad = [each.id or each.name for each in device.settings if not each.valid]
    named = [title(device, name) for name in (found.base, found.name) if name in bad]
    if found.says != "unclear" or not named:
        return None
    return f"not compared: numbers of {plain.joined(named, 'and')} are not valid"


def compared(device: BenchDeviceReport, found: ComparedReport) -> str:
    """A comparison within the session."""
    beside = f"{found.rounds} rounds beside each other"
    name, base = title(device, found.name), title(device, found.base)
    if (why := why_unclear(device, found)) is not None:
        return f"{name} against {base}: {why} ({ratio(found)}, {beside})"
    return f"{name} {_SAYS[found.says]} {base}: {ratio(found)}, {beside}"


def since(device: BenchDeviceReport, found: AgainstReport) -> str:
    """A comparison with the baseline."""
    name = title(device, found.name)
    if found.says == "not compared":
        return f"{name}: not compared with the baseline: {found.why}"
    before, now = plain.milliseconds(found.before_ms), plain.milliseconds(found.ms)
    why = f"; {found.why}" if found.why else ""
    file = {True: ", the same file", False: "", None: ""}[found.same_file]
    blocks = f"{found.blocks_before} and {found.blocks} blocks"
    return f"{name} {_SINCE[found.says]}: {ratio(found)}, {before} ms then, {now} ms now, {blocks}{file}{why}"


def shapes(device: BenchDeviceReport) -> str:
    named = (f"{name} {'x'.join(map(str, sizes)) or 'scalar'}" for name, sizes in device.shapes.items())
    return ", ".join(named)[:300]


def facts(device: BenchDeviceReport) -> str:
    """What it is, in a line."""
    told = device.facts or {}
    threads = sorted({each.threads for each in device.settings if each.threads})
    parts = [
        str(told.get("cpu") or told.get("arch") or ""),
        f"{told['cores']} cores" if told.get("cores") else "",
        f"MNN {told['mnn']}" if told.get("mnn") else "",
        f"threads {', '.join(map(str, threads))}" if threads else "",
    ]
    return ", ".join(part for part in parts if part)


def how(report: BenchReport, device: BenchDeviceReport) -> str:
    return (
        f"{device.rounds_good} of {device.rounds} rounds undisturbed (a round: every setting once in a process of its "
        f"own, warmed up until it is at rest, then at least {report.runs} inferences and {report.seconds_each:g} s)"
    )


def sum_up(report: BenchReport) -> str:
    settings = [each for device in report.devices for each in device.settings]
    valid = sum(each.valid for each in settings)
    parts = [f"{valid} of {len(settings)} settings valid"] if settings else ["nothing was measured"]
    parts += [f"{len(report.failed)} device(s) could not be used"] if report.failed else []
    parts += ["it was interrupted"] if report.interrupted else []
    return ", ".join(parts)


def name_of(report: BenchReport) -> str:
    return PurePath(report.model).name


def baseline_line(report: BenchReport) -> str | None:
    found = report.baseline
    if found is None:
        return None
    when = found.created.isoformat(sep=" ")
    return f"baseline {found.folder}: {when}, edgequant {found.edgequant}, MNN {found.mnn}"


def device_lines(device: BenchDeviceReport) -> Iterator[str]:
    """Everything that is told below the numbers."""
    for each in device.settings:
        yield from (f"not valid: {each.name}: {line}" for line in against_it(each))
    yield from (compared(device, each) for each in device.compared)
    if device.baseline is not None:
        yield from (since(device, each) for each in device.baseline.settings)
        yield from (f"only the baseline measured {each}" for each in device.baseline.missing)
        yield from (f"baseline: {each}" for each in device.baseline.notes)
    yield from laboratory.lines(device.apart)


def next_step(report: BenchReport) -> str | None:
    """What to do about numbers that may not be believed."""
    if report.verdict is not Verdict.INCONCLUSIVE:
        return None
    codes = {each.code for device in report.devices for setting in device.settings for each in setting.why_invalid}
    if codes == {"TOO_SPREAD"}:
        return "Measure more blocks (--blocks), which narrows the intervals, or be content with less (--within)."
    return (
        "Measure where nothing else runs, or bear a condition by name (--allow CODE); docs/bench.md says what each is."
    )


def findings(device: BenchDeviceReport) -> list[Finding]:
    return [*device.findings, *device.apart.findings]
