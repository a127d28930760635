"""What a report says becomes facts: the number a rule is held against, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edgequant.judge.acceptance import State, Value
from edgequant.judge.verdict import Verdict
from edgequant.report.facts import facts_of, not_run, trial_facts
from edgequant.report.model import Report, Run
from edgequant.report.read import load
from edgequant.spec.accept import TrialKey
from tests.judge.releases import KEY, Release, spec_of
from tests.recorded import unpacked
from tests.report.agreeing import any_report


@dataclass(frozen=True)
class Number:
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Setting:
    """As bench keeps it."""

    valid: bool = True
    why: tuple[tuple[str, str], ...] = ()
    borne: tuple[str, ...] = ()
    numbers: dict[str, Number] = field(default_factory=lambda: {"latency_ms.p50": Number(2.0, 1.9, 2.1)})
    blocks: tuple[tuple[float, ...], ...] = ((1.0, 2.0, 3.0), (2.0, 2.0, 8.0))
    rounds: tuple[int, ...] = (0, 2)
    findings: tuple[str, ...] = ("INT8_SLOWER",)


def run_of(verdict: Verdict = Verdict.PASS, **more: Any) -> Run:
    return Run.model_validate(
        {"device": {"uri": "local:", "mnn": "3.6.1"}, "variant": "fp16", "verdict": verdict, **more}
    )


def output(**more: Any) -> dict[str, Any]:
    return {"verdict": "PASS", "sqnr_db": 30.0, "cosine": 0.99, "cases": 1, **more}


def limit(metric: str, bound: float, value: float | None, verdict: str) -> dict[str, Any]:
    op = ">=" if metric in ("sqnr_db", "cosine") else "<="
    return {"metric": metric, "op": op, "bound": bound, "value": value, "verdict": verdict}


def test_how_much_of_the_file_is_in_8_bits() -> None:
    counts = {"layers": 4, "int8_layers": 3, "weights": 1000, "int8_weights": 990}
    found = facts_of(run_of(counts=counts))
    assert (found["int8_share.layers"].value, found["int8_share.weights"].value) == (0.75, 0.99)
    for nothing, why in ((None, "an earlier version made it"), (dict.fromkeys(counts, 0), "its file has no weights")):
        told = facts_of(run_of(counts=nothing))["int8_share.weights"]
        assert told.value is None
        assert why in told.why
    spec = spec_of(["int8_share.weights >= 0.99", "int8_share.layers >= 0.9"])
    run = run_of(counts=counts)
    report = Report.model_validate(
        {"verdict": "PASS", "edgequant": "1", "model": {"path": "m", "sha256": ""}, "runs": [run]}
    )
    attempts = {KEY: [trial_facts(KEY, report, run)]}
    states = {rule.rule: rule.state for rule in Release(spec, attempts).report().trials[0].rules}
    assert states["int8_share.weights >= 0.99"] is State.PASS
    assert states["int8_share.layers >= 0.9"] is State.FAIL


def test_what_bench_measured() -> None:
    found = facts_of(run_of(), Setting(borne=("LOAD",)), session="bench/a/attempt-1")
    p50 = found["latency_ms.p50"]
    assert (p50.value, p50.low, p50.high, p50.why) == (2.0, 1.9, 2.1, "LOAD allowed")
    assert p50.blocks == ((0, 2.0), (2, 2.0))
    assert p50.session == "bench/a/attempt-1"
    assert found["latency_ms.p90"].value is None
    assert found["finding:INT8_SLOWER"].value is True


def test_what_is_not_valid_is_no_number_and_says_why() -> None:
    found = facts_of(run_of(), Setting(valid=False, why=(("LOAD", "3 beside it"), ("TOO_SPREAD", "9 %"))))
    for name in ("latency_ms.p50", "latency_ms.load", "cpu_ms"):
        assert found[name] == Value(None, "not valid: LOAD: 3 beside it; TOO_SPREAD: 9 %")
    # Nor does verify's own timing take its place.
    assert facts_of(run_of())["latency_ms.p50"] == Value(None, "bench did not measure it")


def test_a_limit_that_the_trial_passes_is_kept_whatever_the_number() -> None:
    """Errors of arithmetic, and the cosine of a constant: so rule and trial agree."""
    y = output(sqnr_db=3.0, limits=[limit("sqnr_db", 25, 3.0, "PASS")])
    z = output(cosine=0.1)
    constant = {"code": "REFERENCE_CONSTANT", "severity": "info", "where": "z", "message": "a single value"}
    found = facts_of(run_of(outputs={"y": y, "z": z}, findings=[constant]))
    assert found["y:sqnr_db"] == Value(3.0, excused="its error is that of arithmetic")
    assert found["z:cosine"] == Value(0.1, excused="the reference is constant")
    assert found["y:cosine"] == Value(0.99)


def test_an_output_that_has_no_such_metric_is_left_out() -> None:
    labels = {"verdict": "PASS", "kind": "int", "mismatch": 0.0, "cases": 1}
    zero = {"verdict": "PASS", "max_abs": 0.0, "why_null": {"sqnr_db": "the reference is all zero"}, "cases": 1}
    found = facts_of(run_of(outputs={"y": output(), "labels": labels, "zero": zero}))
    assert [name for name in found if name.endswith(":sqnr_db")] == ["y:sqnr_db"]
    assert found["labels:mismatch"].value == 0.0
    broken = {**zero, "verdict": "FAIL"}
    found = facts_of(run_of(Verdict.FAIL, outputs={"zero": broken}))
    assert found["zero:sqnr_db"] == Value(None, "the reference is all zero")


def test_a_rollout() -> None:
    curve = {"octaves": [(1, 60.0)], "kind": "steady"}
    drift = {"y": {"curves": {"total": curve}, "limit": "sqnr_db>=25", "breaks_at": 7, "stage": "device"},
             "z": {"curves": {"total": curve}}}  # fmt: skip
    found = facts_of(run_of(rollout_steps=100, drift=drift))
    assert found["y:drift.breaks_at"] == Value(7, "sqnr_db>=25, device")
    assert found["z:drift.breaks_at"] == Value(101, "none of 100 steps breaks it", low=101, high=1e9)


def test_what_speaks_against_a_trial() -> None:
    evidence = {"metric": "sqnr_db", "op": ">=", "bound": 25.0, "value": 20.0}
    findings = [
        {"code": "LIMIT_EXCEEDED", "severity": "fail", "where": "y", "message": "m", "evidence": evidence},
        {"code": "KERNEL_FAULT", "severity": "fail", "message": "m"},
        {"code": "REFERENCE_NOT_FINITE", "severity": "error", "message": "m"},
        {"code": "RISK", "severity": "warn", "message": "m"},
    ]
    y = output(verdict="FAIL", sqnr_db=20.0, limits=[limit("sqnr_db", 25, 20.0, "FAIL")])
    run = run_of(Verdict.FAIL, outputs={"y": y}, findings=findings)
    report = Report.model_validate(
        {"verdict": "FAIL", "edgequant": "1", "model": {"path": "m", "sha256": ""}, "runs": [run]}
    )
    found = trial_facts(KEY, report, run, identity={"cases": "abc"}, folder="trials/a/attempt-1")
    assert found.against == ("limit:y:sqnr_db>=25", "finding:KERNEL_FAULT")
    assert found.doubts == ("REFERENCE_NOT_FINITE",)
    assert (found.identity["cases"], found.folder) == ("abc", "trials/a/attempt-1")
    known = [{"rule": "sqnr_db >= 25", "reason": "known", "expires": "2027-01-31"},
             {"finding": "KERNEL_FAULT", "reason": "known", "expires": "2027-01-31"}]  # fmt: skip
    judged = Release(spec_of(["sqnr_db >= 25"], known), {KEY: [found]}).judge()
    assert judged.state is State.INCONCLUSIVE  # the error that could not be judged is left
    assert judged.trials[0].rules[-1].state is State.ACCEPTED


def test_a_trial_that_was_not_run() -> None:
    assert not_run(KEY, "DEVICE_BUSY: busy").verdict is Verdict.ERROR
    failed = run_of(Verdict.FAIL, error={"code": "OP_UNSUPPORTED", "message": "no such operator"})
    report = Report.model_validate(
        {"verdict": "FAIL", "edgequant": "1", "model": {"path": "m", "sha256": ""}, "runs": [failed]}
    )
    found = trial_facts(KEY, report, failed)
    assert (found.error, found.against) == ("OP_UNSUPPORTED: no such operator", ("finding:OP_UNSUPPORTED",))
    judged = Release(spec_of(["sqnr_db >= 25"]), {KEY: [found]}).judge()
    assert [each.state for each in judged.trials[0].rules] == [State.FAIL, State.PASS, State.ERROR]


@pytest.mark.parametrize("name", ["cnn", "gru"])
def test_the_rules_of_a_real_run_agree_with_its_own_verdicts(name: str, tmp_path: Path) -> None:
    """Its own limits, written as rules: each comes to what the trial said of it."""
    report = load(unpacked(name, tmp_path) / "report.json")
    for run in report.runs:
        key = TrialKey("m", "dynamic:8", "board")
        rules = {
            f"{label}:{each.metric} {each.op} {each.bound:g}": each.verdict
            for label, output in run.outputs.items()
            for each in output.limits
        }
        spec = spec_of(list(rules), random_inputs="accepted")
        judged = Release(spec, {key: [trial_facts(key, report, run)]}).judge()
        own, *held = judged.trials[0].rules
        assert own.state.value == run.verdict.value
        for each, verdict in zip(held, rules.values(), strict=True):
            assert (each.state is State.FAIL) is (verdict is Verdict.FAIL)
            assert each.state in (State.PASS, State.FAIL)


@pytest.mark.parametrize("seed", range(60))
def test_every_value_that_is_missing_says_why(seed: int) -> None:
    report = any_report(seed)
    for run in report.runs:
        found = trial_facts(KEY, report, run)
        for name, value in found.facts.items():
            assert value.value is not None or value.why, name
        assert (run.verdict is Verdict.FAIL and not found.against) in (True, False)
