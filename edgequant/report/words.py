"""What a report says of itself in words: the same on a terminal and on a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgequant import plain
from edgequant.findings import Finding
from edgequant.judge.latency import Latency
from edgequant.judge.verdict import GOOD as GOOD
from edgequant.report.model import DeviceInfo, Memory, Report, Run
from edgequant.report.tables import count

SEVERITY_ORDER = ("fail", "error", "warn", "info")
LATENCY = ("p50", "p90", "p99", "mean", "stdev", "min", "max")
"""Of the samples; `OUTSIDE` are times of other things."""
OUTSIDE = {"load": "model load", "first": "first"}
MEMORY = {
    "model_file": "file", "session": "session", "rss_load": "RSS after load", "rss_peak": "RSS peak",
    "pss_peak": "PSS peak",
}  # fmt: skip


def on_random_inputs(report: Report) -> str:
    """What a good verdict has to be read with, where its cases were made up."""
    return " on random inputs" if any(finding.code == "RANDOM_INPUTS" for finding in report.findings) else ""


def sum_up(runs: Sequence[Run]) -> str:
    if not runs:
        return "nothing was run"
    codes = sorted({run.error.code for run in runs if run.error is not None})
    why = f" ({', '.join(codes)})" if codes else ""
    return f"{len(runs)} run{'s' if len(runs) > 1 else ''}: {count(run.verdict for run in runs)}{why}"


def bound(run: Run) -> str | None:
    """What its cases leave possible, where none of them failed; None where they say nothing of other inputs."""
    if run.failing_share_95 is None:
        return None
    cases, share = run.independent_cases, f"{100 * run.failing_share_95:.2g} % of inputs may (95 %)"
    return f"{cases} independent case{'s' if cases > 1 else ''}, none failed: up to {share}"


def product(facts: Mapping[str, Any]) -> str | None:
    """What is written on the box, and its Android; None where the device does not tell."""
    maker, model, android = (str(facts.get(key) or "")[:60] for key in ("manufacturer", "model", "android"))
    known = model if model.lower().startswith(maker.lower()) else f"{maker} {model}"
    return f"{known.strip()}{f' (Android {android})' if android else ''}".strip() or None


def device_facts(device: DeviceInfo) -> str:
    """What it is, in a line; empty where it told nothing."""
    facts = [
        product(device.facts),
        device.cpu,
        device.arch,
        " ".join(device.features),
        f"MNN {device.mnn}" if device.mnn else None,
        f"{device.cores} cores" if device.cores else None,
        f"{device.ram_mb:.0f} MiB RAM" if device.ram_mb else None,
        "emulated: accuracy counts, timing does not" if device.emulated else None,
    ]
    return ", ".join(fact for fact in facts if fact)


def engaged(run: Run) -> str | None:
    """Whether dynamic quantization took place; None where nobody asked."""
    if run.low_memory_engaged is None and not run.low_memory_why:
        return None
    said = {True: "engaged", False: "NOT engaged", None: "unknown"}[run.low_memory_engaged]
    return f"dynamic quantization {said}{f': {run.low_memory_why}' if run.low_memory_why else ''}"


def int8(run: Run) -> str | None:
    """How much of the file is kept in 8 bits or fewer; None where that is not known, and of files without weights."""
    found = run.counts
    if found is None or not found.weights:
        return None
    share = found.int8_weights / found.weights
    return f"{found.int8_layers} of {found.layers} layers with weights in 8 bits or fewer ({share:.1%} of the weights)"


def times(latency: Latency, keys: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Those of the times that are known, in ms."""
    for key in keys:
        if (value := getattr(latency, key)) is not None:
            yield key, plain.milliseconds(value)


def memory(found: Memory) -> dict[str, str]:
    """Those of the amounts that are known, by what they are called."""
    return {
        label: plain.megabytes(value)
        for key, label in MEMORY.items()
        if (value := getattr(found, key)) is not None
    }  # fmt: skip


def grouped(
    findings: Sequence[Finding], places: Sequence[str] = ()
) -> list[tuple[str, str, dict[str | None, list[Finding]]]]:
    """Severity, code, and findings by place: the gravest first, then in the order of `places`.  Forty outputs with one
    fault are one thing to do."""
    rank = {name: number for number, name in enumerate(places)}
    groups: dict[tuple[str, str], dict[str | None, list[Finding]]] = {}
    for finding in sorted(findings, key=lambda f: rank.get(f.where or "", len(rank))):
        groups.setdefault((finding.severity, finding.code), {}).setdefault(finding.where, []).append(finding)
    ordered = sorted(groups.items(), key=lambda item: SEVERITY_ORDER.index(item[0][0]))
    return [(level, code, group) for (level, code), group in ordered]
