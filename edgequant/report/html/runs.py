"""Tables of runs beside each other, and of what one run gave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from edgequant import plain
from edgequant.compare.table import TABLE
from edgequant.judge.verdict import Verdict
from edgequant.report import words
from edgequant.report.html.table import NOT_MEASURED, Cell, Table, name, number, said, verdict
from edgequant.report.model import CaseMetrics, OutputReport, Report, Run
from edgequant.report.tables import BROKEN, CLOSE, COLUMNS, STAGES, costs, worst_first
from edgequant.report.tables import number as output_number

MOST_CELLS = 12_000
"""Of the tables of one kind, all runs together: the file stays below 2 MB.  What is left out is said, and is in the
report itself."""
MOST_OUTPUTS_BY_CASE = 10
_OF_MARK = {BROKEN: "broken", CLOSE: "close", "": ""}


@dataclass(frozen=True)
class Named:
    """A run of the page.  title: what tells it from the others."""

    run: Run
    id: str
    title: str


def named(report: Report) -> list[Named]:
    found = []
    for place, run in enumerate(report.runs):
        made = f" (made as {plain.name(run.made_as)})" if run.made_as not in (None, run.variant) else ""
        title = f"{plain.name(run.variant)}{made} on {plain.name(run.device.uri)}"
        found.append(Named(run, f"run-{place + 1}", title))
    return found


def why_invalid(run: Run) -> tuple[str, ...]:
    """What speaks against its times; empty where they are valid, or there are none."""
    latency = run.latency_ms
    return () if latency is None or latency.valid else tuple(f"not valid: {each}" for each in latency.why_invalid)


def why_no_time(run: Run) -> str:
    code = run.error.code if run.error is not None and not run.outputs else None
    return code or run.latency_why or "not measured"


def cost_cells(run: Run) -> dict[str, Cell]:
    """Of `report.tables.costs`, with reasons."""
    ordered = worst_first(run)
    output = ordered[0][1] if ordered else None
    texts, memory = costs(run, output), run.memory_mb
    failed = run.error.code if run.error is not None else None

    def of_memory(key: str) -> str:
        return (memory.why_null.get(key) if memory is not None else failed or run.memory_why) or "not measured"

    why: dict[str, Sequence[str]] = {
        "file MB": (of_memory("model_file"),),
        "session MB": (of_memory("session"),),
        "p50 ms": (_why_no_p50(run),),
        "worst dB": (_why_no_db(output, failed),),
    }
    cells = {key: number(text, why=why[key] if text == NOT_MEASURED else ()) for key, text in texts.items()}
    if texts["p50 ms"] != NOT_MEASURED:
        cells["p50 ms"] = number(texts["p50 ms"], why=why_invalid(run))
    return cells


def _why_no_p50(run: Run) -> str:
    latency = run.latency_ms
    return why_no_time(run) if latency is None else latency.why_null.get("p50", why_no_time(run))


def _why_no_db(output: OutputReport | None, failed: str | None) -> str:
    if output is None:
        return failed or "nothing came back"
    if output.exact:
        return "exact: equal in every bit"
    return output.why_null.get("sqnr_db", "not defined")


def matrix(runs: Sequence[Named]) -> Table:
    """Variants by devices."""
    devices = list(dict.fromkeys(each.run.device.uri for each in runs))
    table = Table(
        "matrix",
        "Variants by devices: verdict, worst output, median time",
        ["variant", *(plain.name(uri) for uri in devices)],
    )
    for variant in dict.fromkeys(each.run.variant for each in runs):
        row = [name(variant, head=True)]
        for uri in devices:
            here = [each for each in runs if (each.run.variant, each.run.device.uri) == (variant, uri)]
            row.append(_glance(here[0]) if here else Cell("not run", "missing"))
        table.add(row)
    return table


def _glance(each: Named) -> Cell:
    """What is worst, and how fast it is; why where it has no time, or one that is not valid."""
    cells = cost_cells(each.run)
    worst, time = cells["worst dB"], cells["p50 ms"]
    known = [f"{worst.text} dB"] if worst.text != NOT_MEASURED else []
    known += [f"{time.text} ms{' (not valid)' if time.why else ''}"] if time.text != NOT_MEASURED else ["no time"]
    made = verdict(each.run.verdict, href=each.id)
    return replace(made, why=time.why, more=", ".join(known))


def overview(runs: Sequence[Named]) -> Table:
    """A line for each run, each by its worst output in its worst case."""
    heads = ["run", "verdict", "file MB", "session MB", "p50 ms", "worst dB", "worst output", "worst case"]
    table = Table("overview", "All runs, each by its worst output in its worst case", heads)
    for each in runs:
        ordered = worst_first(each.run)
        worst, output = ordered[0] if ordered else (None, None)
        why = each.run.error.code if each.run.error is not None else "nothing came back"
        last = [name(worst) if worst is not None else number(NOT_MEASURED, why=[why])]
        case = output.worst_case if output is not None else None
        last.append(name(case) if case is not None else number(NOT_MEASURED, why=[why if worst is None else None]))
        head = Cell(each.title, "name", href=each.id, head=True)
        table.add([head, verdict(each.run.verdict), *cost_cells(each.run).values(), *last])
    return table


def latencies(runs: Sequence[Named]) -> Table:
    """All times of all runs."""
    keys = [*words.LATENCY, *words.OUTSIDE]
    heads = ["run", "valid", *words.LATENCY, *words.OUTSIDE.values(), "n", "warm-up", "threads", "case"]
    table = Table("latency", "Latency of one inference, ms", heads)
    for each in runs:
        latency, row = each.run.latency_ms, [Cell(each.title, "name", href=each.id, head=True)]
        if latency is None:
            row += [number("not measured", why=[why_no_time(each.run)]), *[Cell(NOT_MEASURED, "num missing")] * 13]
            table.add(row)
            continue
        against = why_invalid(each.run)
        row.append(Cell("yes" if latency.valid else "no", "" if latency.valid else "invalid", against))
        texts = dict(words.times(latency, keys))
        for key in keys:
            if key in texts:
                # The load is none of the samples that are judged.
                row.append(number(texts[key], why=against if key != "load" else ()))
            else:
                row.append(number(NOT_MEASURED, why=[latency.why_null.get(key, "not measured")]))
        row += [Cell(str(latency.n), "num"), Cell(str(latency.warmup), "num")]
        row += [Cell(said(each.run.options.get("threads") or NOT_MEASURED), "num")]
        table.add([*row, name(latency.case) if latency.case is not None else Cell(NOT_MEASURED)])
    return table


def memories(runs: Sequence[Named]) -> Table:
    """All amounts of all runs."""
    table = Table("memory", "Memory, MB (10^6 bytes)", ["run", *words.MEMORY.values()])
    for each in runs:
        memory, row = each.run.memory_mb, [Cell(each.title, "name", href=each.id, head=True)]
        texts = words.memory(memory) if memory is not None else {}
        for key, label in words.MEMORY.items():
            error = each.run.error.code if each.run.error is not None else None
            why = error or each.run.memory_why if memory is None else memory.why_null.get(key)
            text = texts.get(label, NOT_MEASURED)
            row.append(number(text.removesuffix(" MB"), why=[] if label in texts else [why or "not measured"]))
        table.add(row)
    return table


def outputs(each: Named, room: int) -> Table:
    """What the console's table has, worst first.  room: cells there may be."""
    ordered = worst_first(each.run)
    texts = {label: dict(_numbers(each.run, label, output)) for label, output in ordered[: max(room // 14, 5)]}
    columns = [
        column
        for column in COLUMNS
        if column in ("verdict", "worst case") or any("".join(row[column]) != NOT_MEASURED for row in texts.values())
    ]
    caption = f"Outputs of {each.title}, worst first; each number of its worst case"
    table = Table(f"{each.id}-outputs", caption, ["output", *columns])
    for label, output in ordered[: len(texts)]:
        row = [name(label, head=True)]
        for column in columns:
            row.append(_output_cell(each.run, output, column, *texts[label].get(column, ("", ""))))
        table.add(row)
    stages = [column for column in STAGES if column in columns]
    parts = ["! breaks its limit", "~ only just keeps it"]
    if stages:
        parts.append(f"{', '.join(stages)}: SQNR in dB that {plain.joined([STAGES[each] for each in stages])} leave")
    rest = len(ordered) - len(texts)
    table.after = "; ".join(parts) + (
        f". {rest} more outputs, none of them worse, are in report.json." if rest else "."
    )
    return table


def _numbers(run: Run, label: str, output: OutputReport) -> Iterator[tuple[str, tuple[str, str]]]:
    for column in COLUMNS:
        if column not in ("verdict", "worst case"):
            yield column, output_number(run, label, output, column)


def _output_cell(run: Run, output: OutputReport, column: str, text: str, mark: str) -> Cell:
    if column == "verdict":
        return verdict(output.verdict)
    if column == "worst case":
        return Cell(NOT_MEASURED) if output.worst_case is None else name(output.worst_case)
    why: list[str | None] = []
    if text == NOT_MEASURED:
        metric = next((each.name for each in TABLE.values() if each.title == column), "")
        stage = run.errors.why_null.get(STAGES.get(column, ""))
        why = [output.why_null.get(metric) or stage or ("not compared in this stage" if column in STAGES else None)]
    return number(f"{text}{mark}", why=why, kind=_OF_MARK[mark])


def by_case(
    each: Named, asked: Sequence[str], held: frozenset[str] | None, refused: Mapping[str, str], room: int
) -> Table | None:
    """A line for each case, a column for each output; None where nothing was compared.

    asked: all cases.  held: those that limits are for; None: not known.  refused: why MNN did not run a case.
    """
    ordered = [(label, output) for label, output in worst_first(each.run) if output.by_case]
    shown = ordered[:MOST_OUTPUTS_BY_CASE]
    cases = list(dict.fromkeys([*asked, *(case for _, output in shown for case in output.by_case)]))
    if not shown:
        return None
    caption = f"SQNR in dB, of integers the share that differs: each case and output of {each.title}"
    table = Table(f"{each.id}-cases", caption, ["case", *(plain.name(label) for label, _ in shown)])
    most = max(room // (len(shown) + 1), 5)
    for case in cases[:most]:
        strained = held is not None and case not in held
        why = refused.get(case) or ("strained: not held against limits" if strained else "not run")
        row = [Cell(plain.name(case) + (" (strained)" if strained else ""), "name", head=True)]
        for _, output in shown:
            found = output.by_case.get(case)
            row.append(number(NOT_MEASURED, why=[why]) if found is None else _case_cell(output, found, strained))
        table.add(row)
    left = [f"{len(ordered) - len(shown)} more outputs"] if len(ordered) > len(shown) else []
    left += [f"{len(cases) - most} more cases"] if len(cases) > most else []
    if left:
        table.after = f"{plain.joined(left)}: in report.json, or `edgequant report RUN_DIR --csv FILE --by-case`. "
    return table


def _case_cell(output: OutputReport, found: CaseMetrics, strained: bool) -> Cell:
    metric = "mismatch" if output.kind == "int" else "sqnr_db"
    value = getattr(found, metric)
    text = "exact" if found.exact else plain.metric(metric, value)
    limit = next((each for each in output.limits if each.metric == metric), None)
    broken = False
    # Where the output keeps it all the same, what breaks it here is no more than arithmetic.
    if limit is not None and limit.verdict is Verdict.FAIL and value is not None and not strained:
        broken = value < limit.bound if limit.op == ">=" else value > limit.bound
    bad = found.problem is not None or found.nan > found.ref_nan or found.inf > found.ref_inf
    kind = "broken" if broken or bad else "" if strained else _shade(metric, value)
    why = [found.problem] if found.problem is not None else []
    if text == NOT_MEASURED and not why:
        why = [output.why_null.get(metric, "the reference is all zero, or nothing varies")]
    return number(f"{text}{BROKEN if broken else ''}", why=why, kind=kind)


def _shade(metric: str, value: float | None) -> str:
    if metric != "sqnr_db" or value is None:
        return ""
    return f"shade-{sum(value >= step for step in (20, 30, 40, 60))}"
