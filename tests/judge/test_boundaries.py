"""What is told of an operator's answers at its limits."""

from __future__ import annotations

import numpy as np
import pytest

from edgequant.judge.boundaries import Behaviour, behaviour
from edgequant.reference.activations import OPERATORS, VALUES, Operator, rows

BY_NAME = {each.name: each for each in OPERATORS}


def judged(operator: Operator, *, low: bool = False, spoil: dict[str, float] | None = None) -> Behaviour:
    """Of answers that are as exact as float32 (or, with `low`, fp16) can be, but for those of some labels."""
    table = rows() if operator.by_row else {f"{value:.8g}": np.repeat(value, 4) for value in VALUES}
    labels, inputs = list(table), np.stack(list(table.values()))
    expected, known = operator.expected(inputs)
    with np.errstate(all="ignore"):
        halves = operator.expected(inputs.astype(np.float16).astype(np.float32))[0] if low else None
        got = (expected if halves is None else halves.astype(np.float16)).astype(np.float32)
    for label, value in (spoil or {}).items():
        got[labels.index(label)] = value
    return behaviour(labels, inputs, expected, known, got, halves=halves)


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("low", [False, True])
def test_a_sound_kernel_is_not_blamed(name: str, low: bool) -> None:
    found = judged(BY_NAME[name], low=low)
    assert found.wrong == () or low, found.wrong[:3]
    assert not found.swallows_nan
    # What fp16 cannot hold is told, and nothing else.
    assert all(each.kind in ("infinite", "off", "not_infinite", "nan_made") for each in found.wrong)
    if not BY_NAME[name].by_row and not low:
        assert (found.low, found.high) == (-np.finfo(np.float32).max, np.finfo(np.float32).max)


@pytest.mark.parametrize(
    ("name", "label", "value", "kind"),
    [
        ("Sigmoid", "nan", 1.0, "nan_swallowed"),
        ("Relu", "-inf", np.nan, "nan_made"),
        ("Exp", "100", 6e37, "not_infinite"),
        ("HardSwish", "1e+10", np.inf, "infinite"),
        ("Softplus", "100", 87.0, "off"),
        ("Log", "-1", 0.0, "nan_swallowed"),
        ("Softmax", "one NaN", 0.0, "nan_swallowed"),
        ("LayerNormalization", "all 10000", np.nan, "nan_made"),
    ],
)
def test_each_kind_is_found(name: str, label: str, value: float, kind: str) -> None:
    found = judged(BY_NAME[name], spoil={label: value})
    (wrong,) = found.wrong
    assert (wrong.label, wrong.kind) == (label, kind)
    assert found.swallows_nan == (kind == "nan_swallowed")


def test_the_span_ends_at_the_first_wrong_answer_on_each_side() -> None:
    found = judged(BY_NAME["Tanh"], spoil={"104": 0.0, "-20": 0.0, "1000000": 0.0})
    assert (found.low, found.high) == (-18.0, 103.0)
    assert judged(BY_NAME["Tanh"], spoil={"1": 0.0}).low is None


def test_the_worst_error_is_that_of_ordinary_inputs() -> None:
    found = judged(BY_NAME["Relu"], spoil={"2": 2.001, "1000": 1000.5})
    assert found.wrong == ()
    assert found.worst == pytest.approx(0.0005, rel=1e-3)
    assert found.worst_at == "2"


def test_definitions_against_known_values() -> None:
    known = {"Gelu": 0.8413447461, "Softplus": 1.3132616875, "Selu": 1.0507010221, "HardSwish": 0.6666666667,
             "Erf": 0.8427007929, "Softsign": 0.5, "Gelu (tanh)": 0.8411919906}  # fmt: skip
    for name, value in known.items():
        assert BY_NAME[name].expected(np.ones(1, np.float32))[0][0] == pytest.approx(value, abs=1e-9)
