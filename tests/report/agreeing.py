"""Whether a page says what its report says, and reports of every kind to try that on."""

from __future__ import annotations

import random
from typing import Any

from edgequant import plain
from edgequant.compare.table import TABLE
from edgequant.judge.latency import latency_summary
from edgequant.judge.verdict import Verdict, worst
from edgequant.report.model import Report, Run
from edgequant.report.tables import COLUMNS, METRIC_OF, STAGES, worst_first
from edgequant.report.words import LATENCY, MEMORY, OUTSIDE
from tests.report.pages import Reader

MARKS = "!~"


def number(run: Run, name: str, column: str) -> str:
    """What the page should have, from the report alone."""
    output = run.outputs[name]
    if column == "NaN/Inf":
        return f"{output.nan}/{output.inf}" if output.nan or output.inf else "0"
    if column in STAGES:
        entry = getattr(run.errors, STAGES[column]).get(name)
        if entry is None:
            return "-"
        if entry.exact or entry.problem:
            return "exact" if entry.exact else "broken"
        return plain.amount(entry.mismatch) if entry.mismatch is not None else plain.decibel(entry.sqnr_db)
    metric = METRIC_OF[column]
    return "exact" if metric == "sqnr_db" and output.exact else plain.metric(metric, getattr(output, metric))


def held_against(report: Report, found: Reader) -> None:
    """Every number of every table that has a place in the report; what is missing or not valid says why."""
    overview = found.rows("overview")
    assert [row["verdict"] for row in overview] == [run.verdict for run in report.runs]
    for place, run in enumerate(report.runs):
        ordered, row = worst_first(run), overview[place]
        if ordered:
            name, output = ordered[0]
            assert (row["worst output"], row["worst case"]) == (name, output.worst_case)
            assert row["worst dB"] == plain.decibel(output.sqnr_db)
        else:
            assert (row["worst output"], row["worst dB"]) == ("-", "-")
            assert found.why("overview", place, "worst output")
        assert row["p50 ms"] == found.rows("latency")[place]["p50"]
        _times(run, found, place)
        _memory(run, found, place)
        if ordered:
            _outputs(run, found, place)
        for head in ("file MB", "session MB", "p50 ms", "worst dB"):
            assert row[head] != "-" or found.why("overview", place, head)


def _times(run: Run, found: Reader, place: int) -> None:
    row, timed = found.rows("latency")[place], run.latency_ms
    if timed is None:
        assert row["valid"] == "not measured"
        assert found.why("latency", place, "valid") == found.why("overview", place, "p50 ms") != []
        return
    assert (row["valid"], row["n"], row["warm-up"]) == ("yes" if timed.valid else "no", str(timed.n), str(timed.warmup))
    against = [f"not valid: {each}" for each in timed.why_invalid]
    assert found.why("latency", place, "valid") == against
    for key, head in {**{key: key for key in LATENCY}, **OUTSIDE}.items():
        value = getattr(timed, key)
        assert row[head] == plain.milliseconds(value)
        if value is None:
            assert found.why("latency", place, head) == [timed.why_null[key]]
        elif key != "load":
            assert found.why("latency", place, head) == against
    if timed.p50 is not None:
        assert found.why("overview", place, "p50 ms") == against


def _memory(run: Run, found: Reader, place: int) -> None:
    row = found.rows("memory")[place]
    for key, head in MEMORY.items():
        value = None if run.memory_mb is None else getattr(run.memory_mb, key)
        assert row[head] == plain.megabytes(value).removesuffix(" MB")
        if value is None:
            assert found.why("memory", place, head)


def _outputs(run: Run, found: Reader, place: int) -> None:
    rows = found.rows(f"run-{place + 1}-outputs")
    assert [each["output"] for each in rows] == [name for name, _ in worst_first(run)]
    for each in rows:
        for column in set(COLUMNS) & set(each) - {"verdict", "worst case"}:
            assert each[column].rstrip(MARKS) == number(run, each["output"], column)
        assert each["verdict"] == run.outputs[each["output"]].verdict
    for each in found.rows(f"run-{place + 1}-cases") if f"run-{place + 1}-cases" in found.tables else []:
        for name in set(run.outputs) & set(each):
            said = run.outputs[name].by_case.get(each["case"].removesuffix(" (strained)"))
            if said is None:
                assert each[name] == "-"
                continue
            metric = "mismatch" if run.outputs[name].kind == "int" else "sqnr_db"
            shown = "exact" if said.exact else plain.metric(metric, getattr(said, metric))
            assert each[name].rstrip(MARKS) == shown


def any_report(seed: int) -> Report:
    """Of every kind there is: with and without outputs, times, memory, errors; valid and not."""
    draw = random.Random(seed)
    cases = [f"case{number}" for number in range(draw.randint(1, 4))]
    runs = [_run(draw, f"ssh://board{number}", cases) for number in range(draw.randint(1, 4))]
    verdict, model = worst(run.verdict for run in runs), {"path": "m.onnx", "sha256": "0" * 64}
    named = [{"name": case} for case in cases]
    return Report(verdict=verdict, edgequant="1", mnn="3.6.1", model=model, cases=named, runs=runs)


def _run(draw: random.Random, uri: str, cases: list[str]) -> Run:
    outputs = {f"out{number}": _output(draw, cases) for number in range(draw.randint(0, 4))}
    parts = worst(output["verdict"] for output in outputs.values()) if outputs else Verdict.ERROR
    given: dict[str, Any] = {"device": {"uri": uri}, "variant": draw.choice(["dynamic:8", "fp16"]), "outputs": outputs}
    given["verdict"] = parts
    if not outputs:
        given["error"] = {"code": "HOST_UNREACHABLE", "message": "it is not there"}
    stages = {stage: {name: _metrics(draw) for name in outputs if draw.random() < 0.8} for stage in STAGES.values()}
    allowed = ("sqnr_db", "cosine", "max_abs", "rel_max", "mismatch", "exact", "problem")
    given["errors"] = {
        stage: {name: {key: value for key, value in each.items() if key in allowed} for name, each in entries.items()}
        for stage, entries in stages.items()
    }
    if draw.random() < 0.7:
        samples = [draw.lognormvariate(draw.uniform(-4, 6), 0.2) for _ in range(draw.choice([0, 1, 5, 20, 150]))]
        against = draw.choice([(), (), ("throttled",), ("load 7", "clock jumps")])
        load = draw.choice([None, 12.5])
        given["latency_ms"] = latency_summary(samples, draw.randint(0, 3), load, 4.0, why_invalid=against)
    else:
        given["latency_why"] = "not asked for"
    if draw.random() < 0.8:
        known = {key: draw.choice([None, draw.uniform(0, 900)]) for key in MEMORY}
        why = {key: f"no {key}" for key, value in known.items() if value is None}
        given["memory_mb"] = {**known, "why_null": why}
    else:
        given["memory_why"] = "it was not run"
    return Run.model_validate(given)


def _output(draw: random.Random, cases: list[str]) -> dict[str, Any]:
    kind = draw.choice(["float", "float", "int"])
    limits = [
        {
            "metric": metric,
            "op": metric_of.better,
            "bound": 20.0,
            "value": 19.0,
            "verdict": draw.choice(list(Verdict)[:3]),
        }
        for metric, metric_of in TABLE.items()
        if draw.random() < 0.3
    ]
    judged = worst([draw.choice(list(Verdict)[:3]), *(limit["verdict"] for limit in limits)])
    by_case = {case: _metrics(draw, kind) for case in cases if draw.random() < 0.9}
    given = {**_metrics(draw, kind), "verdict": judged, "kind": kind, "cases": len(cases), "limits": limits}
    given.pop("problem")
    return given | {"worst_case": draw.choice(cases), "by_case": by_case, "why_null": dict.fromkeys(TABLE, "undefined")}


def _metrics(draw: random.Random, kind: str = "float") -> dict[str, Any]:
    exact = draw.random() < 0.1
    values: dict[str, Any] = {
        "sqnr_db": 200.0 if exact else draw.choice([None, draw.uniform(-30, 140)]),
        "cosine": 1 - 10 ** draw.uniform(-9, 0),
        "max_abs": 10 ** draw.uniform(-12, 12),
        "rel_max": 10 ** draw.uniform(-6, 2),
        "mismatch": draw.random() if kind == "int" else None,
        "exact": exact,
        "problem": draw.choice([None, None, None, "another shape"]),
    }
    if kind == "int":
        values["sqnr_db"] = None
    return values | {"nan": draw.choice([0, 0, 0, 3])} if kind == "float" else values
