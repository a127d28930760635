"""From what verify, bench and tasks report to the facts that rules are held against."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, median
from typing import Any, Protocol

from edgequant.compare.blocks import NEEDED, percentile
from edgequant.compare.table import TABLE as COMPARED
from edgequant.findings import Finding
from edgequant.judge.acceptance_types import Facts, TrialFacts, Value
from edgequant.judge.verdict import GOOD, Verdict
from edgequant.report.model import ErrorsByStage, OutputReport, Report, Run
from edgequant.spec.accept import TrialKey
from edgequant.spec.limits import DEVICE_METRIC, METRICS
from edgequant.spec.rule_metrics import FINDING, TABLE

_STAGES = ("conversion", "quantization", "device")
_STAGED = ("sqnr_db", "cosine", "max_abs", "mismatch")
_BENCHED = tuple(name for name, metric in TABLE.items() if metric.source == "bench")
_NEVER = 1e9
"""A step that no rollout comes to."""
_MEMORY = ("session", "rss_peak", "pss_peak", "model_file")


class Number(Protocol):
    """A number of bench, with its interval where it has one."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


class Setting(Protocol):
    """One file as bench measured it: `archive.acceptance.BenchSetting`."""

    @property
    def valid(self) -> bool: ...
    @property
    def why(self) -> Sequence[tuple[str, str]]: ...
    @property
    def borne(self) -> Sequence[str]: ...
    @property
    def numbers(self) -> Mapping[str, Any]: ...
    @property
    def blocks(self) -> Sequence[Sequence[float]]: ...
    @property
    def rounds(self) -> Sequence[int]: ...
    @property
    def findings(self) -> Sequence[str]: ...


def facts_of(
    run: Run, bench: Setting | None = None, tasks: Mapping[str, Value] | None = None, *, session: str = ""
) -> Facts:
    """The facts of one trial.

    Args:
        run: of verify's report.
        bench: how bench measured its file; None where it did not.
        tasks: by their metric's name.
        session: names the bench session, so that what was measured in one is compared block by block.
    """
    found: dict[str, Value] = {}
    for name, output in run.outputs.items():
        constant = any(each.code == "REFERENCE_CONSTANT" and each.where == name for each in run.findings)
        for metric in METRICS:
            if metric != DEVICE_METRIC and (value := _of_output(output, metric, constant)) is not None:
                found[f"{name}:{metric}"] = value
    found.update(_of_stages(run.errors))
    for name, drift in run.drift.items():
        steps = run.rollout_steps
        if drift.breaks_at is not None:
            found[f"{name}:drift.breaks_at"] = Value(drift.breaks_at, why=f"{drift.limit or 'a limit'}, {drift.stage}")
        elif steps is not None:
            # The first that breaks it is one that was not run, if there is one.
            none = f"none of {steps} steps breaks it"
            found[f"{name}:drift.breaks_at"] = Value(steps + 1, none, low=steps + 1, high=_NEVER)
    found.update(_of_run(run))
    found.update(_of_bench(bench, session))
    found.update(tasks or {})
    for code in _present(run, bench):
        found[f"{FINDING}{code}"] = Value(True)
    return found


def trial_facts(
    key: TrialKey,
    report: Report,
    run: Run,
    bench: Setting | None = None,
    tasks: Mapping[str, Value] | None = None,
    *,
    session: str = "",
    identity: Mapping[str, str] | None = None,
    folder: str = "",
) -> TrialFacts:
    """One attempt.

    Args:
        identity: what the report does not tell, such as the SHA-256 of the cases.
        folder: of the attempt, relative to that of the acceptance.
    """
    facts = dict(facts_of(run, bench, tasks, session=session))
    # What was found about the model is so of each of its trials.
    facts.update({f"{FINDING}{each.code}": Value(True) for each in report.findings})
    error = "" if run.error is None else f"{run.error.code}: {run.error.message}"
    return TrialFacts(
        key,
        run.verdict,
        facts,
        identity={**_identity(run), **(identity or {})},
        error=error,
        against=tuple(dict.fromkeys(_against(run))),
        doubts=tuple(dict.fromkeys(each.code for each in run.findings if each.severity == "error")),
        random_inputs=any(each.code == "RANDOM_INPUTS" for each in report.findings),
        folder=folder,
    )


def not_run(key: TrialKey, why: str, folder: str = "") -> TrialFacts:
    """An attempt that came to no report at all: ERROR."""
    return TrialFacts(key, Verdict.ERROR, {}, error=why, folder=folder)


def _of_output(output: OutputReport, metric: str, constant: bool) -> Value | None:
    """None where it has no such metric, or was judged in another way that is good."""
    if output.kind not in COMPARED[metric].kinds:
        return None
    number = getattr(output, metric)
    limit = next((each for each in output.limits if each.metric == metric), None)
    if number is None:
        return None if output.verdict in GOOD else Value(None, output.why_null.get(metric, "it was not measured"))
    if limit is None:
        return Value(number, excused="the reference is constant" if constant and metric == "cosine" else "")
    if limit.value is None:
        return Value(None, "it is not defined for this output")
    kept = limit.value >= limit.bound if limit.op == ">=" else limit.value <= limit.bound
    excused = not kept and limit.verdict in GOOD
    return Value(limit.value, excused="its error is that of arithmetic" if excused else "")


def _of_stages(errors: ErrorsByStage) -> Iterator[tuple[str, Value]]:
    for stage in _STAGES:
        for name, entry in getattr(errors, stage).items():
            for metric in _STAGED:
                number = getattr(entry, metric)
                if number is not None or entry.problem is not None:
                    value = Value(number, "" if number is not None else entry.problem or "")
                    yield f"{name}:{stage}.{metric}", value
                    if (stage, metric) == ("device", "sqnr_db"):
                        yield f"{name}:{DEVICE_METRIC}", value


def _of_run(run: Run) -> Iterator[tuple[str, Value]]:
    memory = run.memory_mb
    for name in _MEMORY:
        number = None if memory is None else getattr(memory, name)
        why = (run.memory_why or "it was not measured") if memory is None else memory.why_null.get(name, "not measured")
        yield f"memory_mb.{name}", Value(number, "" if number is not None else why)
        if name == "model_file":
            yield "size_mb", Value(number, "" if number is not None else why)
    counts = run.counts
    for name in ("layers", "weights"):
        whole, int8 = (0, 0) if counts is None else (getattr(counts, name), getattr(counts, f"int8_{name}"))
        why = "an earlier version made it, and did not count" if counts is None else "its file has no weights"
        yield f"int8_share.{name}", Value(int8 / whole) if whole else Value(None, why)
    yield "independent_cases", Value(run.independent_cases)
    share = run.failing_share_95
    yield "failing_share_95", Value(share, "" if share is not None else "one failed, or there are no real cases")
    yield "mnn", Value(run.device.mnn, "" if run.device.mnn else "the device did not tell")
    engaged = run.low_memory_engaged
    unasked = "nothing is quantized while it runs: a rule for some variants alone has variant: 'dynamic:*'"
    yield "low_memory_engaged", Value(engaged, "" if engaged is not None else run.low_memory_why or unasked)


def _of_bench(bench: Setting | None, session: str) -> Iterator[tuple[str, Value]]:
    for name in _BENCHED:
        if bench is None:
            yield name, Value(None, "bench did not measure it", session=session)
            continue
        number = bench.numbers.get(name)
        if not bench.valid:
            told = "; ".join(f"{code}: {message}" for code, message in bench.why)
            yield name, Value(None, f"not valid: {told or 'no reason is told'}", session=session)
        elif number is None:
            yield name, Value(None, "too few samples for it", session=session)
        else:
            borne = f"{', '.join(bench.borne)} allowed" if bench.borne else ""
            blocks = tuple(_blocks(name, bench))
            yield name, Value(number.value, borne, number.low, number.high, blocks, session if blocks else "")


def _blocks(name: str, bench: Setting) -> Iterator[tuple[int, float]]:
    """(round, the same number of that block alone), of what is a number of samples."""
    kind = name.removeprefix("latency_ms.")
    for number, samples in zip(bench.rounds, bench.blocks, strict=False):
        if not samples:
            continue
        if kind == "p50":
            yield number, median(samples)
        elif kind == "mean":
            yield number, fmean(samples)
        elif kind in NEEDED and len(samples) >= NEEDED[kind]:
            yield number, percentile(sorted(samples), int(kind[1:]) / 100)


def _present(run: Run, bench: Setting | None) -> Iterator[str]:
    yield from (each.code for each in run.findings)
    if run.error is not None:
        yield run.error.code
    if run.diagnosis is not None and run.diagnosis.cause is not None:
        yield run.diagnosis.cause.code
    if bench is not None:
        yield from bench.findings


def _against(run: Run) -> Iterator[str]:
    """What speaks against a trial that FAILs."""
    if run.verdict is not Verdict.FAIL:
        return
    if run.error is not None:
        yield f"{FINDING}{run.error.code}"
    for each in run.findings:
        if each.severity == "fail":
            yield _limit(each) or f"{FINDING}{each.code}"


def _limit(finding: Finding) -> str | None:
    told = finding.evidence
    if finding.code != "LIMIT_EXCEEDED" or not isinstance(told.get("bound"), (int, float)):
        return None
    return f"limit:{finding.where}:{told.get('metric')}{told.get('op')}{told['bound']:g}"


def _identity(run: Run) -> dict[str, str]:
    device, options = run.device, run.options
    told: dict[str, object] = {name: options.get(name) for name in ("memory", "precision", "threads", "cores")}
    told["threads"] = device.facts.get("threads", told["threads"])
    told["cpu"] = " ".join(part for part in (device.arch, device.cpu) if part) + (
        " emulated" if device.emulated else ""
    )
    told["device"] = device.facts.get("serial") or device.uri
    return {name: "any" if value is None else str(value)[:200] for name, value in told.items()}
