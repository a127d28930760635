"""Which limit holds for which output."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgequant.compare.table import Kind
from edgequant.errors import InputError
from edgequant.judge.limits import (
    METRICS_OF,
    default_limits,
    defaults_for,
    device_bands,
    meets,
    proves_a_fault,
    resolve_limits,
    within_margin,
)
from edgequant.spec import DEVICE_METRIC, METRICS, Limit, Precision

quick = settings(deadline=None, max_examples=60)
METHODS = ("float", "fp16", "weight", "dynamic", "kl", "ema", "admm")
OUTPUTS = {"a": "float", "x:0": "float", "ids": "int"}


def limits(*texts: str) -> list[Limit]:
    return [Limit.parse(text) for text in texts]


def resolved(*texts: str) -> dict[str, dict[str, float]]:
    found = resolve_limits(OUTPUTS, defaults_for("dynamic"), limits(*texts))
    return {name: {limit.metric: limit.value for limit in held} for name, held in found.items()}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_limits_no_single_metric_can_pass(method):
    assert {limit.metric for limit in default_limits(method, "float")} == {"cosine", "sqnr_db", "rel_max"}
    assert {limit.metric for limit in default_limits(method, "int")} == {"mismatch"}


def test_float_is_held_tighter_than_fp16_and_fp16_tighter_than_quantized():
    bounds = [{m.metric: m.value for m in default_limits(method, "float")} for method in ("float", "fp16", "dynamic")]
    for tight, loose in itertools.pairwise(bounds):
        assert tight["cosine"] > loose["cosine"]
        assert tight["sqnr_db"] > loose["sqnr_db"]
        assert tight["rel_max"] < loose["rel_max"]


def test_an_unknown_method_has_none():
    with pytest.raises(ValueError, match="int3"):
        default_limits("int3", "float")


def test_own_beats_general_beats_default():
    found = resolved("sqnr_db>=30", "x:0:sqnr_db>=25", "ids:mismatch<=0.5")
    assert found["a"] == {"cosine": 0.99, "sqnr_db": 30, "rel_max": 0.25}
    assert found["x:0"]["sqnr_db"] == 25
    assert found["ids"] == {"mismatch": 0.5}


def test_own_beats_general_in_any_order_and_of_two_the_later_wins():
    assert resolved("a:sqnr_db>=25", "sqnr_db>=30")["a"]["sqnr_db"] == 25
    assert resolved("sqnr_db>=30", "sqnr_db>=22")["a"]["sqnr_db"] == 22


def test_a_limit_on_an_output_that_is_not_there_lists_those_that_are():
    with pytest.raises(InputError) as caught:
        resolved("lsrn:cosine>=0.9")
    assert caught.value.code == "LIMIT_UNKNOWN_OUTPUT"
    assert "a, x:0, ids" in caught.value.hint


@pytest.mark.parametrize("text", ["ids:cosine>=0.9", "a:mismatch<=0.1"])
def test_a_metric_the_output_does_not_have_is_refused(text):
    with pytest.raises(InputError) as caught:
        resolved(text)
    assert caught.value.code == "LIMIT_UNDEFINED"


def test_a_general_limit_no_output_has_is_refused():
    with pytest.raises(InputError) as caught:
        resolve_limits({"a": "float"}, defaults_for("dynamic"), limits("mismatch<=0.1"))
    assert caught.value.code == "LIMIT_UNDEFINED"


def test_every_metric_belongs_to_a_kind():
    assert set(METRICS) == {metric for metrics in METRICS_OF.values() for metric in metrics}
    assert DEVICE_METRIC in METRICS_OF["float"]


def test_the_band_of_a_device() -> None:
    outputs: dict[str, Kind] = {"y": "float", "z": "float", "label": "int"}

    def bands(method: str, precision: Precision = "normal", *limits: str) -> dict[str, float]:
        found = device_bands(outputs, method, precision, [Limit.parse(text) for text in limits])
        assert all((limit.metric, limit.op) == (DEVICE_METRIC, ">=") for limit in found.values())
        return {name: limit.value for name, limit in found.items()}

    assert bands("float") == bands("weight", "high") == {"y": 60, "z": 60}
    assert bands("fp16", "low") == {"y": 30, "z": 30}
    assert bands("dynamic") == bands("dynamic", "low") == bands("kl") == {"y": 20, "z": 20}
    # What the user says wins, and of that the limit that names the output, whatever the order.
    said = [f"{DEVICE_METRIC}>=10", f"z:{DEVICE_METRIC}>=5", "sqnr_db>=40"]
    assert bands("float", "normal", *said) == bands("float", "normal", *reversed(said)) == {"y": 10, "z": 5}
    # It is no limit against the reference.
    against_reference = resolve_limits(outputs, defaults_for("float"), [Limit.parse(text) for text in said])
    assert not [limit for held in against_reference.values() for limit in held if limit.metric == DEVICE_METRIC]
    with pytest.raises(InputError) as caught:
        resolve_limits(outputs, defaults_for("float"), [Limit.parse(f"label:{DEVICE_METRIC}>=10")])
    assert caught.value.code == "LIMIT_UNDEFINED"


def test_what_static_int8_outside_its_band_proves() -> None:
    """A decision that tips is at -3 dB by rounding alone, and faulty kernels are anywhere from there on: no bound."""
    nothing = {"static": False, "explained": False, "asked": False}
    assert proves_a_fault(19.9, **nothing)
    assert not proves_a_fault(8.5, **{**nothing, "static": True})
    assert not proves_a_fault(-3.1, **{**nothing, "static": True})
    assert proves_a_fault(math.nan, **{**nothing, "static": True})
    assert proves_a_fault(15.0, **{**nothing, "static": True, "explained": True})
    assert proves_a_fault(15.0, **{**nothing, "static": True, "asked": True})


@pytest.mark.parametrize("text", ["cosine>=-1", "sqnr_db>=-999", "max_abs<=1e30"])
def test_nan_keeps_no_limit(text):
    assert not meets(Limit.parse(text), math.nan)


@quick
@given(st.sampled_from(sorted(METRICS)), st.floats(-10, 10), st.floats(-10, 10), st.floats(0, 10))
def test_better_is_never_judged_worse(metric, bound, value, better):
    bound = min(bound, 1.0) if METRICS[metric] == ">=" else abs(bound)
    limit = Limit(metric=metric, op=METRICS[metric], value=bound)
    better_value = value + better if limit.op == ">=" else value - better

    def grade(v: float) -> int:
        return 0 if not meets(limit, v) else 1 if within_margin(limit, v) else 2

    assert grade(better_value) >= grade(value)


@pytest.mark.parametrize(
    ("text", "value", "marginal"),
    [
        ("sqnr_db>=20", 20.0, True), ("sqnr_db>=20", 20.9, True), ("sqnr_db>=20", 21.0, False),
        ("cosine>=0.99", 0.9905, True), ("cosine>=0.99", 0.992, False), ("cosine>=1", 1.0, False),
        ("rel_max<=0.25", 0.24, True), ("rel_max<=0.25", 0.2, False),
        ("mismatch<=0", 0.0, False), ("max_abs<=0", 0.0, False),
    ],
)  # fmt: skip
def test_margins(text, value, marginal):
    limit = Limit.parse(text)
    assert meets(limit, value)
    assert within_margin(limit, value) is marginal


def test_a_limit_that_cannot_apply_is_told_in_full() -> None:
    outputs: dict[str, Kind] = {"y": "float", "label": "int"}
    metrics = "cosine, sqnr_db, max_abs, rel_max, mean_abs, p99_abs, device_sqnr_db"
    hint = f"Float outputs have {metrics}; integer and bool outputs have max_abs, mismatch."

    def refused(outputs: dict[str, Kind], text: str) -> InputError:
        with pytest.raises(InputError) as caught:
            resolve_limits(outputs, defaults_for("weight"), [Limit.parse(text)])
        return caught.value

    error = refused(outputs, "q:cosine>=0.5")
    assert (error.code, str(error)) == ("LIMIT_UNKNOWN_OUTPUT", "limit 'q:cosine>=0.5': there is no output 'q'")
    assert error.hint == "Outputs: y, label."
    assert error.evidence == {"limit": "q:cosine>=0.5", "outputs": ["y", "label"]}
    assert refused({}, "q:cosine>=0.5").hint == "Outputs: none."
    error = refused(outputs, "label:cosine>=0.5")
    said = "limit 'label:cosine>=0.5': cosine is not defined for int output 'label'"
    assert (error.code, str(error), error.hint) == ("LIMIT_UNDEFINED", said, hint)
    assert error.evidence == {"limit": "label:cosine>=0.5", "outputs": outputs}
    error = refused({"y": "float"}, "mismatch<=0.5")
    assert str(error) == "limit 'mismatch<=0.5': mismatch is not defined for any output"
    assert resolve_limits({}, defaults_for("weight"), [Limit.parse("mismatch<=0.5")]) == {}


def test_defaults_by_method_and_kind() -> None:
    def bounds(method: str, kind: Kind) -> list[tuple[str, str, float]]:
        return [(limit.metric, limit.op, limit.value) for limit in defaults_for(method)[kind]]

    for method, cosine, sqnr, rel, mismatch in (
        ("float", 0.9999, 40.0, 0.02, 0.001),
        ("fp16", 0.999, 30.0, 0.05, 0.001),
        ("weight", 0.99, 20.0, 0.25, 0.01),
        ("auto", 0.99, 20.0, 0.25, 0.01),
    ):
        assert bounds(method, "float") == [("cosine", ">=", cosine), ("sqnr_db", ">=", sqnr), ("rel_max", "<=", rel)]
        assert bounds(method, "int") == [("mismatch", "<=", mismatch)]
    with pytest.raises(ValueError, match=r"^no default limits for 'magic'; there are some for float, fp16, weight, "):
        default_limits("magic", "float")


@pytest.mark.parametrize(
    ("limit", "value", "marginal"),
    [
        ("sqnr_db>=20", 21.0, False),
        ("sqnr_db>=20", 20.99, True),
        ("cosine>=0.5", 0.55, False),
        ("cosine>=0.5", 0.549, True),
        ("cosine>=1", 1.0, False),
        ("rel_max<=0.5", 0.45, False),
        ("rel_max<=0.5", 0.451, True),
        ("max_abs<=0", 0.0, False),
        ("max_abs<=10", 0.5, False),
        ("max_abs<=10", 9.5, True),
        ("mismatch<=0.01", 0.0095, True),
    ],
)
def test_the_margin_to_the_last_digit(limit: str, value: float, marginal: bool) -> None:
    assert within_margin(Limit.parse(limit), value) is marginal
