"""What a run was of and by: model, cases, files, devices, and the SHA-256 of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from edgequant import plain
from edgequant.report import words
from edgequant.report.html.archive import Kept
from edgequant.report.html.runs import MOST_CELLS, Named
from edgequant.report.html.table import NOT_MEASURED, Cell, Table, name, number, said
from edgequant.report.model import DeviceInfo, Report

_SHOWN_ABOVE = ("why_null", "manufacturer", "model", "android")


def head(report: Report) -> list[tuple[str, str]]:
    """Lines like those at the top of the console's."""
    model, found = report.model, []
    size = f", {plain.megabytes(model.bytes / 1e6)}" if model.bytes is not None else ""
    found.append(("model", f"{plain.name(model.path)} (sha256 {model.sha256[:12]}{size})"))
    if (reference := report.reference) is not None:
        version = f" {reference.version}" if reference.version else ""
        found.append(("reference", said(f"{reference.kind}{version}{f': {reference.why}' if reference.why else ''}")))
    if report.cases:
        sources = list(dict.fromkeys(case.source for case in report.cases if case.source))
        more = f", and {len(sources) - 4} more sources" if len(sources) > 4 else ""
        found.append(("cases", said(f"{len(report.cases)}: {' · '.join(sources[:4])}{more}")))
    if limits := report.options.get("limits"):
        found.append(("limits", said(f"{', '.join(map(str, limits))}, in place of the defaults")))
    for run in report.runs:
        if run.calibration is not None:
            line = ("calibrated", said(f"{run.calibration.samples} samples: {run.calibration.source}"))
            found += [line] if line not in found else []
    mnn = f", MNN {report.mnn}" if report.mnn else ""
    found.append(("made by", said(f"edgequant {report.edgequant}{mnn}, {report.created.isoformat(sep=' ')}")))
    return found


def devices(report: Report) -> list[tuple[str, Table]]:
    """What each is, in a line, and its facts."""
    known: dict[str, DeviceInfo] = {}
    for run in report.runs:
        if run.device.uri not in known or run.device.arch is not None:
            known[run.device.uri] = run.device
    return device_tables(list(known.values()))


def device_tables(known: Sequence[DeviceInfo]) -> list[tuple[str, Table]]:
    """The same of devices that are known."""
    return [(_line(each), _facts(f"device-{place + 1}", each)) for place, each in enumerate(known)]


def _line(device: DeviceInfo) -> str:
    return f"{plain.name(device.uri)} \u2013 {said(words.device_facts(device)) or 'nothing is known of it'}"


def _facts(id_: str, device: DeviceInfo) -> Table:
    """With why others are not known."""
    table = Table(id_, f"What {plain.name(device.uri)} told of itself", ["fact", "value"])
    why = device.facts.get("why_null")
    reasons = why if isinstance(why, dict) else {}
    if device.os:
        table.add([Cell("os", head=True), Cell(said(device.os))])
    for key, value in list(device.facts.items())[:60]:
        if key in _SHOWN_ABOVE or (value is None and not reasons.get(key)):
            continue
        cell = Cell(said(value if isinstance(value, str) else _plain(value)))
        if value is None:
            cell = Cell("not known", "missing", (str(reasons[key]),))
        table.add([name(key, head=True), cell])
    return table


def _plain(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str).strip("{}[]").replace('"', "")


def hashes(report: Report, runs: Sequence[Named], kept: Kept) -> Table:
    """Every SHA-256 that the run kept: by them anybody finds out whether two reports are of the same files."""
    table = Table("hashes", "SHA-256 of what was used and made", ["what", "SHA-256"])
    for what, digest in list(_hashes(report, runs, kept))[: MOST_CELLS // 8]:
        table.add([Cell(what, "name", head=True), Cell(said(digest), "hash")])
    return table


def _hashes(report: Report, runs: Sequence[Named], kept: Kept) -> Iterator[tuple[str, str]]:
    yield f"source model {plain.name(report.model.path)}", report.model.sha256
    source = kept.source
    if source is not None and source.float_sha256 is not None:
        yield "float MNN", source.float_sha256
    files = {(run.file, run.sha256): run.variant for run in report.runs if run.file and run.sha256}
    for (file, digest), variant in files.items():
        yield f"{plain.name(variant)}: {plain.name(file or '')}", digest or NOT_MEASURED
    for case in () if source is None else source.cases:
        for tensor, ref in case.inputs.items():
            yield f"case {plain.name(case.name)}, input {plain.name(tensor)}", ref.sha256
    for run, trial in kept.trials(report.runs):
        title = next(each.title for each in runs if each.run is run)
        yield f"trial: {title}", trial


def steps(report: Report) -> Table:
    """Seconds of each phase."""
    table = Table("seconds", "Seconds of each phase; phases run beside each other", ["phase", "s"])
    for phase, seconds in sorted(report.timing_s.items(), key=lambda item: -item[1]):
        table.add([name(phase, head=True), number(f"{seconds:.2f}")])
    return table
