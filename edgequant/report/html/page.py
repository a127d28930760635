"""The page: a pure function of the report and the folder it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from edgequant import charts, plain
from edgequant.archive.open import Run as Archive
from edgequant.findings import Finding
from edgequant.judge.verdict import Verdict
from edgequant.report import words
from edgequant.report.against import Against
from edgequant.report.diagnosis import DiagnosisReport
from edgequant.report.html import difference, figures, layers, runs, sources
from edgequant.report.html.archive import Kept
from edgequant.report.html.table import Cell, Table, name, number, said
from edgequant.report.model import Report
from edgequant.report.tables import worst_first

if TYPE_CHECKING:
    from jinja2 import Template

MEANING = {
    Verdict.PASS: "Every output keeps every limit, and the device computes what this host computes.",
    Verdict.MARGINAL: "Every limit is kept, but one of them only just, or the cases cannot show more.",
    Verdict.FAIL: "A limit is broken, or MNN does not compute what the model computes.",
    Verdict.ERROR: "It could not be run. This says nothing about the model.",
    Verdict.INCONCLUSIVE: "It ran, but it proves nothing.",
}
_MOST_PLACES = 20
_MOST_DRIFT = 6
_MOST_SPREAD = 4
"""Runs beyond which the numbers of layers stand in tables alone: the page is to stay small."""


@dataclass(frozen=True)
class Line:
    """What was found in one place.  runs: by title, where it is not in all that the group has."""

    where: str
    message: str
    runs: list[str]


@dataclass(frozen=True)
class Group:
    """Findings of one code, or what could not be run for one reason.  runs: where they are, by title."""

    level: str
    code: str
    runs: list[str]
    lines: list[Line]
    more: int
    remedies: list[str]


@dataclass(frozen=True)
class Section:
    """A run by itself."""

    named: runs.Named
    facts: str
    lines: list[tuple[str, str]]
    error: list[tuple[str, str]]
    reasons: list[str]
    tables: list[Table]
    by_case: Table | None


@dataclass(frozen=True)
class Inside:
    """What was looked into, of one variant on each device."""

    figure: figures.Figure | None
    looked: list[tuple[layers.Looked, list[str], Table, list[figures.Figure], Table]]
    whole: Table


def page(
    report: Report,
    archive: Archive | None = None,
    *,
    diagnoses: Sequence[DiagnosisReport] = (),
    command: str | None = None,
    against: Against | None = None,
) -> str:
    """The report as one HTML document.

    Args:
        archive: the folder it was made of; without it there are no single samples, no layers and fewer hashes.
        diagnoses: that were just made; of others what is in the archive is judged again.
        command: that would make the run again.
        against: what is different from an earlier report.
    """
    kept = Kept(archive)
    found = runs.named(report)
    source = kept.source
    held = None if source is None else source.held
    outputs = [] if source is None else list(source.kinds)
    looked = layers.looked_into(found, kept, diagnoses, outputs)
    pictures = [
        figures.size_against_error(found),
        figures.accuracy(found),
        figures.latency_spread(found, kept),
        figures.latency_series(found, kept),
        figures.memory(found),
    ]
    wrong, rest = _findings(report, found)
    return template("page.html.j2").render(
        report=report,
        made_by=report.edgequant,
        product="edgequant report",
        css=style(),
        title=f"{report.verdict}: {plain.name(PurePath(report.model.path).name)}",
        model=plain.name(PurePath(report.model.path).name),
        verdict=report.verdict.value,
        meaning=MEANING[report.verdict],
        on=words.on_random_inputs(report).strip() if report.verdict in words.GOOD else "",
        sum_up=words.sum_up(report.runs),
        head=sources.head(report),
        against=None if against is None else difference.section(against),
        matrix=runs.matrix(found) if len({each.run.device.uri for each in found}) > 1 else None,
        overview=runs.overview(found) if found else None,
        figures=[each for each in pictures if each is not None],
        latency=runs.latencies(found) if found else None,
        memory=runs.memories(found) if found else None,
        wrong=wrong,
        rest=rest,
        sections=[_section(each, [case.name for case in report.cases], held, kept, len(found)) for each in found],
        inside=_inside(looked),
        drifts=_drifts(found),
        drift_table=_drift_table(found),
        devices=sources.devices(report),
        command=None if command is None else said(command),
        again=_again(archive),
        hashes=sources.hashes(report, found, kept),
        seconds=sources.steps(report) if report.timing_s else None,
        damaged=[said(each) for each in kept.damaged],
        archived=archive is not None,
    )


@cache
def template(name: str) -> Template:
    """Whatever it writes is escaped, and harmless."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    made = Environment(loader=loader, autoescape=True, finalize=_harmless, undefined=StrictUndefined)
    made.trim_blocks = made.lstrip_blocks = True
    return made.get_template(name)


def _harmless(value: object) -> object:
    """Whatever is written: no text gets past this, whoever forgot it."""
    return value if not isinstance(value, str) or hasattr(value, "__html__") else said(value)


def style() -> str:
    """Of the page, and of its plots."""
    return charts.CSS + (Path(__file__).parent / "style.css").read_text("utf-8")


def _again(archive: Archive | None) -> list[str]:
    return [] if archive is None else ["edgequant report RUN_DIR", "edgequant judge RUN_DIR"]


def _findings(report: Report, found: Sequence[runs.Named]) -> tuple[list[Group], list[Group]]:
    """Of all runs and of the model: what asks for something, and what is worth knowing."""
    whose: dict[int, str] = {}
    every: list[Finding] = []
    places: list[str] = []
    for each in found:
        places += [label for label, _ in worst_first(each.run)]
        for finding in each.run.findings:
            whose[id(finding)] = each.title
            every.append(finding)
    grouped = words.grouped([*every, *report.findings], places)
    groups = [group_of(level, code, group, whose) for level, code, group in grouped]
    asking = [each for each in groups if each.level != "info"]
    return [*_errors(found), *asking], [each for each in groups if each.level == "info"]


def _errors(found: Sequence[runs.Named]) -> list[Group]:
    """What could not be run, each reason once."""
    whose: dict[tuple[str, str, str | None], list[str]] = {}
    for each in found:
        if (error := each.run.error) is not None:
            whose.setdefault((error.code, error.message, error.hint), []).append(each.title)
    return [
        Group("error", code, titles, [Line("", said(message), [])], 0, [said(hint)] if hint else [])
        for (code, message, hint), titles in whose.items()
    ]


def group_of(level: str, code: str, group: dict[str | None, list[Finding]], whose: dict[int, str]) -> Group:
    """Findings of one code as they are shown.  whose: id of a finding -> title of what it is of."""
    of = dict.fromkeys(whose[id(each)] for findings in group.values() for each in findings if id(each) in whose)
    lines = []
    for where, findings in group.items():
        titles: dict[str, list[str]] = {}
        for finding in findings:
            mine = titles.setdefault(finding.message, [])
            mine += [whose[id(finding)]] if id(finding) in whose else []
        messages: dict[tuple[str, ...], list[str]] = {}
        for message, mine in titles.items():
            messages.setdefault(tuple(dict.fromkeys(mine)), []).append(message)
        for these, told in messages.items():
            # Said once above where it is the same in all of them.
            apart = list(these) if len(these) < len(of) else []
            lines.append(Line("" if where is None else plain.name(where), said("; ".join(told)), apart))
    remedies = dict.fromkeys(finding.remedy for findings in group.values() for finding in findings if finding.remedy)
    more = max(len(lines) - _MOST_PLACES, 0)
    return Group(
        level, code, list(of), lines[:_MOST_PLACES], more, [said(each) for each in list(remedies)[:_MOST_PLACES]]
    )


def _section(each: runs.Named, cases: Sequence[str], held: frozenset[str] | None, kept: Kept, of: int) -> Section:
    run = each.run
    room = max(runs.MOST_CELLS // of, 100)
    lines = [] if (bound := words.bound(run)) is None else [("bound", said(bound))]
    lines += [] if (engaged := words.engaged(run)) is None else [("low memory", said(engaged))]
    lines += [] if (int8 := words.int8(run)) is None else [("int8", int8)]
    sent, runtime = run.options.get("pushed_bytes"), run.options.get("runtime_bytes")
    if isinstance(sent, int) and isinstance(runtime, int) and not run.device.is_host:
        lines.append(("sent", f"{sent + runtime:,} bytes" if sent + runtime else "nothing, it was all there"))
    if run.file is not None:
        lines.append(("file", f"{plain.name(run.file)} (sha256 {said(run.sha256 or 'not known')[:12]})"))
    if run.made_as not in (None, run.variant):
        lines.append(("made as", plain.name(run.made_as or "")))
    reasons = [
        f"{plain.name(label)}: {said(reason)}"
        for label, output in worst_first(run)[:20]
        for reason in output.reasons[:5]
    ]
    tables = [runs.outputs(each, room)] if run.outputs else []
    return Section(
        each, said(words.device_facts(run.device)), lines, _error(each), reasons[:40], tables,
        runs.by_case(each, cases, held, kept.refused(run), room),
    )  # fmt: skip


def _error(each: runs.Named) -> list[tuple[str, str]]:
    error = each.run.error
    if error is None:
        return []
    told = [(error.code, said(error.message))]
    told += [("what to do", said(error.hint))] if error.hint else []
    told += [("log", said(log))] if isinstance(log := error.evidence.get("log"), str) else []
    return told


def _inside(looked: Sequence[layers.Looked]) -> list[Inside]:
    found = []
    variants = list(dict.fromkeys(each.variant for each in looked))
    for variant in variants:
        mine = [each for each in looked if each.variant == variant]
        parts = [
            (
                each, [said(sentence) for sentence in layers.story(each)], layers.worst_table(each),
                figures.spreads(each) if len(looked) <= _MOST_SPREAD else [], layers.spread_table(each),
            )
            for each in mine
        ]  # fmt: skip
        figure = figures.layer_errors(plain.name(variant), mine)
        found.append(Inside(figure, parts, layers.whole_table(mine, len(variants))))
    return found


def _drifts(found: Sequence[runs.Named]) -> list[figures.Figure]:
    """Of the outputs that break first, then of the first."""
    curves = [(each, label, drift) for each in found for label, drift in each.run.drift.items()]
    curves.sort(key=lambda one: one[2].breaks_at if one[2].breaks_at is not None else 1 << 60)
    made = (figures.drift(f"{plain.name(label)}, {each.title}", drift) for each, label, drift in curves[:_MOST_DRIFT])
    return [each for each in made if each is not None]


def _drift_table(found: Sequence[runs.Named]) -> Table | None:
    levels = ["step 1 dB", "last step", "last dB", "breaks", "in step"]
    heads = ["output", "run", "stage", "goes on", "dB an octave", *levels]
    table = Table("drift", "Error over the steps of a rollout, by output and stage", heads)
    for each in found:
        for label, drift in list(each.run.drift.items())[: max(200 // len(found), 4)]:
            for stage, curve in drift.curves.items():
                slope = "-" if curve.slope_db is None else f"{curve.slope_db:.1f}"
                first, last = (curve.octaves[0], curve.octaves[-1]) if curve.octaves else ((0, 0.0), (0, 0.0))
                exact = curve.kind == "exact"
                total = stage == "total"
                table.add(
                    [
                        name(label, head=True),
                        Cell(each.title, "name", href=each.id),
                        Cell(stage),
                        Cell(curve.kind),
                        number(slope, why=["too few octaves, or no error"] if slope == "-" else []),
                        number("exact" if exact else f"{first[1]:.0f}"),
                        Cell(str(last[0]), "num"),
                        number("exact" if exact else f"{last[1]:.0f}"),
                        Cell(f"{said(drift.limit)} ({said(drift.stage)})" if total and drift.breaks_at else ""),
                        Cell(str(drift.breaks_at) if total and drift.breaks_at else "", "num"),
                    ]
                )
    return table if table.rows else None
