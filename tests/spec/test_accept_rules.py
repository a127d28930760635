"""The grammar of rules: what is read, what is refused, and the one way each is written."""

from __future__ import annotations

import random
import time
from fnmatch import fnmatchcase

import pytest

from edgequant.spec.limits import METRICS
from edgequant.spec.rule_metrics import TABLE, metric_of
from edgequant.spec.rules import Rule, fits, parse_rule
from tools.check_acceptance import parsed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sqnr_db>=25", "sqnr_db >= 25"),
        ("  sqnr_db >= 25.50 dB ", "sqnr_db >= 25.5"),
        ("lsnr:cosine >= 0.99", "lsnr:cosine >= 0.99"),
        ("x:0:sqnr_db >= 20", "x:0:sqnr_db >= 20"),
        ("task:sqnr_db >= 20", "task:sqnr_db >= 20"),  # an output called "task"
        ("a>=b:sqnr_db >= 20", "a>=b:sqnr_db >= 20"),
        ("mismatch <= 1 %", "mismatch <= 0.01"),
        ("latency_ms.p50 <= 12 ms", "latency_ms.p50 <= 12"),
        ("latency_ms.p50 <= 0.9 * float", "latency_ms.p50 <= 0.9 * float"),
        ("latency_ms.p50<=0.9*float+0.5ms", "latency_ms.p50 <= 0.9 * float + 0.5"),
        ("latency_ms.p50 <= baseline + 5 %", "latency_ms.p50 <= baseline + 5 %"),
        ("latency_ms.p50 <= baseline - 5%", "latency_ms.p50 <= baseline - 5 %"),
        ("sqnr_db >= baseline - 2 dB", "sqnr_db >= baseline - 2"),
        ("size_mb <= baseline", "size_mb <= baseline"),
        ("size_mb <= baseline + 0 %", "size_mb <= baseline + 0 %"),
        ("size_mb <= baseline + 33.3%", "size_mb <= baseline + 33.3 %"),
        ("conversion.sqnr_db >= 60", "conversion.sqnr_db >= 60"),
        ("y:drift.breaks_at >= 500", "y:drift.breaks_at >= 500"),
        ("low_memory_engaged == true", "low_memory_engaged == true"),
        ("mnn >= 3.0.1", "mnn >= 3.0.1"),
        ("finding:OUTPUT_STUCK == absent", "finding:OUTPUT_STUCK == absent"),
        ("task:cer <= 0.05", "task:cer <= 0.05"),
        ("task:cer.words <= baseline + 1 %", "task:cer.words <= baseline + 1 %"),
        ("sqnr_db >= -3e0", "sqnr_db >= -3"),
    ],
)
def test_a_rule_has_one_way_of_writing(text: str, shown: str) -> None:
    rule = Rule.model_validate(text)
    assert rule.text == shown
    # Read again, it is the same.
    assert Rule.model_validate({"rule": shown}) == rule


def test_what_is_shown_is_what_is_judged() -> None:
    """Whatever numbers are written: the text of a rule says all of its bound."""
    draw, refused = random.Random(0), 0
    for _ in range(2000):
        number = f"{draw.lognormvariate(0, 4):.{draw.randint(0, 17)}f}"
        text = draw.choice([
            f"rel_max <= {number}", f"size_mb <= {number} * float + {number}", f"size_mb <= baseline - {number}",
            f"size_mb <= baseline + {number[:12]} %", f"max_abs <= {number}e-{draw.randint(0, 30)}",
        ])  # fmt: skip
        try:
            rule = Rule.model_validate(text)
        except ValueError:
            refused += 1
            continue
        assert Rule.model_validate(rule.text) == rule
        metric, output, op, bound = parsed(rule.text)
        assert (metric, output, op, bound[0]) == (rule.metric, rule.output, rule.op, rule.bound.of)
        of = rule.bound
        assert bound[1:] == ((of.value,) if of.of == "absolute" else (of.factor, of.add, of.percent)), text
    assert refused < 100


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sqnr_db <= 25", "'sqnr_db' is bounded with >="),
        ("sqnr >= 25", "unknown metric 'sqnr'; did you mean 'sqnr_db'?"),
        ("latency >= 25", "unknown metric 'latency'"),
        ("sqnr_db >= 0.9 * baseline", "'sqnr_db' cannot be multiplied: write 'baseline - 2'"),
        ("sqnr_db >= baseline - 5 %", "cannot be multiplied"),
        ("latency_ms.p50 <= 0.9 * float + 5 %", "two ways to say one thing"),
        ("latency_ms.p50 <= 0 * float", "the factor must be above 0"),
        ("latency_ms.p50 <= baseline - 100 %", "nothing can keep it"),
        ("latency_ms.p50 <= 12 s", "is in ms, not in s"),
        ("cosine >= 0.9 dB", "'cosine' has no unit"),
        ("cosine >= 1.5", "nothing can keep it: the best 'cosine' there is is 1"),
        ("mismatch <= 2", "everything keeps it"),
        ("mismatch <= 100 %", "everything keeps it"),
        ("cosine >= -1", "everything keeps it"),
        ("independent_cases >= 0", "everything keeps it"),
        ("size_mb <= -1", "nothing can keep it"),
        *[(f"{name} <= 0", f"nothing can keep it: the best '{name}' is above 0")
          for name in ("latency_ms.p50", "latency_ms.load", "cpu_ms", "size_mb", "memory_mb.rss_peak")],
        ("sqnr_db >= nan", "is not a bound"),
        ("sqnr_db >= 1e999", "finite"),
        ("sqnr_db >= 0_9", "is not a bound"),
        ("sqnr_db == 25", "is bounded with >="),
        ("mnn >= baseline", "is not a version"),
        ("mnn >= 3.x", "is not a version such as 3.0.1"),
        ("low_memory_engaged >= true", "is bounded with =="),
        ("low_memory_engaged == yes", "is not one of true, false"),
        ("finding:nan == absent", "unknown metric"),
        ("finding:NAN == 1", "is not one of present, absent"),
        ("y:size_mb <= 1", "'size_mb' is not of one output"),
        ("int8_share >= 0.5", "unknown metric"),
        ("drift.breaks_at >= baseline", "cannot be held against baseline"),
        ("", "not of the form"),
        ("sqnr_db", "not of the form"),
        ("sqnr_db >= ", "not of the form"),
        ("25 <= sqnr_db <= 30", "unknown metric"),
        ("sqnr_db >= 2" + "5" * 600, "not of the form"),
    ],
)  # fmt: skip
def test_what_is_no_rule_is_refused_with_its_reason(text: str, says: str) -> None:
    with pytest.raises(ValueError, match="rule '") as found:
        parse_rule(text)
    assert says in str(found.value)
    assert len(str(found.value)) < 600


def test_every_limit_of_verify_is_a_rule() -> None:
    for metric, op in METRICS.items():
        rule = Rule.model_validate(f"y:{metric} {op} 0.5")
        limit = rule.limit
        assert limit is not None
        assert (limit.output, limit.metric, limit.op, limit.value) == ("y", metric, op, 0.5)
    assert Rule.model_validate("sqnr_db >= baseline - 1").limit is None
    assert Rule.model_validate({"rule": "sqnr_db >= 1", "required": False}).limit is None
    assert Rule.model_validate("size_mb <= 1").limit is None


def test_every_metric_has_a_row_that_agrees_with_itself() -> None:
    for name, metric in TABLE.items():
        assert metric_of(name) is metric
        assert metric.says
        assert metric.kind != "number" or metric.better in (">=", "<=")
        assert metric.source != "bench" or metric.alike == "timing"


@pytest.mark.parametrize("pattern", ["*", "dynamic:*", "*:8", "d?namic:8", "a*b*c", "**", "", "x", "dynamic:8", "*8*"])
def test_globs_are_those_of_fnmatch(pattern: str) -> None:
    for name in ("dynamic:8", "dynamic:4,block=32", "abc", "aXbYc", "acb", "", "x"):
        assert fits(pattern, name) == fnmatchcase(name, pattern)


def test_a_hostile_glob_takes_no_time() -> None:
    start = time.monotonic()
    assert not fits("*a" * 200 + "b", "a" * 4000)
    assert time.monotonic() - start < 20
