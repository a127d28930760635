"""Releases made by hand, and at random: specs, and what trials have brought."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from edgequant.judge.acceptance import AcceptanceJudgement, TrialFacts, Value, judge_acceptance
from edgequant.judge.verdict import Verdict
from edgequant.report.acceptance import Acceptance, acceptance_report
from edgequant.spec.accept import AcceptSpec, TrialKey

TODAY = date(2026, 11, 30)
LATER, GONE = "2027-01-31", "2026-11-29"
IDENTITY = {
    "cases": "c",
    "memory": "low",
    "precision": "normal",
    "cpu": "x",
    "threads": "4",
    "cores": "any",
    "device": "d",
}
KEY = TrialKey("m", "dynamic:8", "board")
FLOAT = TrialKey("m", "float", "board")


def spec_of(rules: Sequence[Any] = (), deviations: Sequence[Any] = (), **more: Any) -> AcceptSpec:
    """One model, one variant, one device unless `more` says otherwise."""
    written = {
        "name": "release", "models": {"m": {"path": "m.onnx", "inputs": "cases"}}, "variants": ["dynamic:8"],
        "devices": {"board": {"uri": "ssh://b", "tags": ["arm"]}}, "rules": list(rules),
        "deviations": list(deviations),
    }  # fmt: skip
    return AcceptSpec.model_validate({**written, **more})


def blocks(around: float, noise: float = 0.0, *, number: int = 7, seed: int = 0, session: str = "") -> Value:
    """A p50 with an interval: each block's own is `noise` (as a share) off."""
    draw = random.Random(seed)
    values = [around * (1 + draw.gauss(0, noise)) for _ in range(number)]
    middle = sum(values) / number
    return Value(middle, low=min(values), high=max(values), blocks=tuple(enumerate(values)), session=session)


def facts(key: TrialKey = KEY, verdict: Verdict = Verdict.PASS, **more: Any) -> TrialFacts:
    """One attempt.  facts: numbers or Values, by metric."""
    values = {name: each if isinstance(each, Value) else Value(each) for name, each in more.pop("facts", {}).items()}
    return TrialFacts(key, verdict, values, identity={**IDENTITY, **more.pop("identity", {})}, **more)


@dataclass
class Release:
    """All that a judgement takes."""

    spec: AcceptSpec
    attempts: dict[TrialKey, list[TrialFacts]] = field(default_factory=dict)
    baseline: Mapping[TrialKey, TrialFacts] | None = None

    def judge(self) -> AcceptanceJudgement:
        return judge_acceptance(
            self.spec.rules, self.spec.deviations, self.attempts, self.baseline, TODAY, aliases=self.spec.aliases(),
            tasks=self.spec.tasks, informative=self.spec.float_beside(), random_inputs=self.spec.random_inputs,
        )  # fmt: skip

    def report(self) -> Acceptance:
        return acceptance_report(
            self.spec, self.judge(), self.attempts, today=TODAY, baseline=self.baseline, baseline_path="runs/2.3",
            spec_path="gate.yaml", spec_sha256="ab" * 32,
        )  # fmt: skip


RULES = [
    "sqnr_db >= 25", "y:sqnr_db >= 15", "sqnr_db >= float - 20", "sqnr_db >= baseline - 2", "cosine >= 0.99",
    "latency_ms.p50 <= 12", "latency_ms.p50 <= 0.9 * float", "latency_ms.p50 <= baseline + 5 %", "size_mb <= 10",
    "size_mb <= baseline + 1", "size_mb <= 0.5 * float", "low_memory_engaged == true", "mnn >= 3.0.1",
    "finding:OUTPUT_STUCK == absent", "finding:STRANGE == present", "task:cer <= 0.05", "memory_mb.rss_peak <= 100",
    "y:drift.breaks_at >= 50", "conversion.sqnr_db >= 60", "independent_cases >= 8",
    "latency_ms.load <= baseline + 20 %",
]  # fmt: skip


def generated(seed: int) -> Release:
    """A release at random: several models, variants and devices, most things good, some of each kind broken."""
    draw = random.Random(seed)
    rules: list[Any] = []
    for text in draw.sample(RULES, draw.randint(2, len(RULES))):
        rule: dict[str, Any] = {"rule": text}
        if draw.random() < 0.2:
            rule["device"] = draw.choice(["board", "arm", "ssh://*", "*"])
        if draw.random() < 0.2:
            rule["required"] = False
        if draw.random() < 0.2 and not any(word in text for word in ("==", "mnn")):
            rule["margin"] = draw.choice([0.01, 1, 5])
        rules.append(rule)
    deviations: list[Any] = [
        {"rule": rule["rule"], "reason": "known <b>&", "expires": draw.choice([LATER, LATER, GONE])}
        for rule in rules
        if draw.random() < 0.15
    ]
    if draw.random() < 0.3:
        deviations.append({"finding": "STATIC_POOL", "reason": "known", "expires": draw.choice([LATER, GONE])})
    spec = spec_of(
        rules,
        deviations,
        name=draw.choice(["release", "r <b>&\x1b[31m|*_"]),
        models={f"m{number}": f"m{number}.onnx" for number in range(draw.randint(1, 3))},
        variants=draw.sample(["dynamic:8", "fp16", "static:8"], draw.randint(1, 3)),
        devices={"board": {"uri": "ssh://b", "tags": ["arm"]}, **({"host": "local:"} if draw.random() < 0.5 else {})},
        random_inputs=draw.choice(["inconclusive", "accepted"]),
        tasks={"cer": {"function": "a.py:f", "better": "lower"}},
    )
    health = draw.choice([0.0, 0.0, 0.02, 0.3])
    known = [*spec.trials(), *spec.float_beside()]
    tries = {key: draw.choice([1, 1, 1, 2, 3, 0 if health and draw.random() < 0.3 else 1]) for key in known}
    attempts = {key: [_attempt(key, draw, health) for _ in range(tries[key])] for key in known}
    baseline = {key: _attempt(key, draw, 0.02) for key in known if draw.random() < 0.9} if draw.random() < 0.7 else None
    return Release(spec, attempts, baseline)


def _attempt(key: TrialKey, draw: random.Random, health: float) -> TrialFacts:
    def bad() -> bool:
        return draw.random() < health

    if bad() and bad():
        verdict = draw.choice([Verdict.ERROR, Verdict.FAIL])
        against = ("finding:OP_UNSUPPORTED",) if verdict is Verdict.FAIL else ()
        return facts(key, verdict, error="DEVICE_BUSY: it is <busy>", against=against)
    session = draw.choice(["", "one"])
    sqnr = draw.gauss(30, 2) - (12 if bad() else 0)
    p50 = blocks(
        draw.gauss(20 if key.variant == "float" else 11, 0.2) + (4 if bad() else 0), 0.01, seed=draw.randrange(99),
        session=session,
    )  # fmt: skip
    values: dict[str, Any] = {
        "y:sqnr_db": sqnr, "lsnr:sqnr_db": draw.gauss(35, 2), "y:cosine": 0.98 if bad() else 0.9999,
        "x:0:cosine": Value(0.2, excused="the reference is constant") if draw.random() < 0.2 else 0.999,
        "latency_ms.p50": Value(None, "not valid: LOAD: 3 beside it") if bad() else p50,
        "latency_ms.load": Value(5.0, low=4.9, high=9.0 if bad() else 5.5),
        "size_mb": 12.5 if bad() or key.variant == "float" else 3.25,
        "low_memory_engaged": not bad(), "mnn": draw.choice(["3.0.0", "x"]) if bad() else "3.6.1",
        "task:cer": Value(None, "TASK_FAILED: <boom>") if bad() else 0.25 if bad() else 0.03,
        "memory_mb.rss_peak": 80.0,
        "y:drift.breaks_at": 7 if bad() else Value(101, "none of 100 steps breaks it", low=101, high=1e9),
        "y:conversion.sqnr_db": 20.0 if bad() else 120.0, "independent_cases": 0 if bad() else 20,
    }  # fmt: skip
    for name in list(values):
        if bad() and bad():
            del values[name]
    against: list[str] = []
    if sqnr < 25:
        against.append("limit:y:sqnr_db>=25")
    for code in ("OUTPUT_STUCK", "STATIC_POOL"):
        if bad():
            values[f"finding:{code}"] = True
            against.append(f"finding:{code}")
    if not bad():
        values["finding:STRANGE"] = True
    doubts = ("REFERENCE_NOT_FINITE",) if bad() else ()
    verdict = Verdict.FAIL if against else Verdict.INCONCLUSIVE if doubts else draw.choice(
        [Verdict.PASS, Verdict.PASS, Verdict.MARGINAL])  # fmt: skip
    return facts(
        key, verdict, facts=values, against=tuple(against), doubts=doubts, random_inputs=bad(),
        identity={"threads": "2" if bad() else "4"}, folder="trials/a/attempt-1",
    )  # fmt: skip
