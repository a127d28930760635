"""The numbers of a diagnosis: its table and its order, its evidence, what is tried next, and whom bounds excuse."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edgequant.archive.layers import ActivationFacts, Apart, Changed, Held, LayerCapture, Stats, Swap, Tap
from edgequant.judge.diagnosis import diagnose, rows_of
from edgequant.judge.layer_graph import Graph
from edgequant.judge.layers import badly, next_try, suspects
from tests.judge.captures import CHAIN, GUILTY, capture, cause, guilty, layer, stats, swap, tap


def test_the_table_has_each_layers_own_error_and_what_it_costs_alone() -> None:
    found = guilty({})
    rows = {row.layer: row for row in found.rows}
    assert list(rows) == ["second", "third", "first"], "the blamed one, then by what they cost alone"
    assert [rows[name].entire for name in ("first", "second", "third")] == pytest.approx([40, 11, 10])
    assert [rows[name].single for name in ("first", "second", "third")] == pytest.approx([40, 11, 35])
    assert [rows[name].blamed for name in ("first", "second", "third")] == [False, True, False]
    assert {(row.device, row.moved, row.type) for row in found.rows} == {(None, None, "Convolution")}


def test_of_a_device_the_table_is_in_the_order_of_what_the_device_strays() -> None:
    """What was found while quantizing is beside it, but does not order it."""
    taps = (tap("a", 20, 60, 62), tap("b", 30, 12, 50), tap("y", 25, math.inf, 40))
    shown = capture(stage="device", taps=taps)
    rows = rows_of(shown, Graph(shown), ())
    assert [row.layer for row in rows] == ["second", "first", "third"]
    assert [row.device for row in rows] == [pytest.approx(12), pytest.approx(60), math.inf]
    assert [row.moved for row in rows] == pytest.approx([50, 62, 40])


def test_a_layer_of_which_nothing_was_seen_is_in_no_table() -> None:
    found = diagnose(capture(taps=(tap("a"), tap("y", 10))), ("y",))
    assert {row.layer for row in found.rows} == {"first", "third"}
    nothing = tap("b", quantization=math.inf).model_copy(
        update={"quantization": Apart(n=1, signal=0, error=1, max_abs=1)}
    )
    found = diagnose(capture(taps=(tap("a"), nothing)), ("y",))
    assert next(row.entire for row in found.rows if row.layer == "second") == -math.inf, "expected is nothing at all"


def test_of_two_cases_the_worse_one_counts() -> None:
    taps = (tap("a", 30), tap("a", 50), tap("b", 60), tap("b", 22))
    rows = {row.layer: row.entire for row in diagnose(capture(taps=taps), ("y",)).rows}
    assert rows == {"first": pytest.approx(30), "second": pytest.approx(22)}


def test_where_tensors_that_were_asked_for_change_the_model_the_worst_case_is_told() -> None:
    def changed(output: str, db: float | None, where: Any = "there", case: str = "one") -> Changed:
        return Changed(where=where, case=case, output=output, tensors=("a", "b"), sqnr_db=db)

    (found,) = diagnose(
        capture(stage=None, changed=(changed("x", 30.0), changed("y", 12.34, "here", "two"), changed("z", None))),
        ("y",),
    ).findings
    assert (found.where, found.severity) == ("y", "info")
    assert found.evidence == {"tensors": ["a", "b"], "case": "two", "times": 3}
    assert "on this host, down to 12.3 dB:" in found.message
    (found,) = diagnose(capture(stage=None, changed=(changed("z", None),)), ("y",)).findings
    assert "on the device:" in found.message


def test_a_device_that_strays_too_is_told_with_how_much() -> None:
    taps = (tap("a", 40, 100, 100), tap("b", 11, 20, 50), tap("y", 10, 20, 50))
    (found,) = diagnose(capture(taps=taps, swaps=GUILTY), ("y",)).findings
    assert (found.code, found.where, found.severity) == ("DEVICE_LAYER_STRAYS", "second", "info")
    assert found.evidence["times"] == pytest.approx(1000)
    assert "it is 30 dB farther" in found.message


@pytest.mark.parametrize(("db", "own", "told"), [(8, 30, True), (8, 15, True), (8, 12, False)])
def test_a_layer_of_which_the_model_makes_much_is_called_sensitive(db: float, own: float, told: bool) -> None:
    """Four times (6 dB) what its own rounding is."""
    swaps = (*GUILTY[:3], swap("one", "second", db=db, holds=False), *GUILTY[4:])
    found = guilty({}, swaps=swaps, taps=(tap("a"), tap("b", own), tap("y", 10)))
    assert cause(found) == ("SENSITIVE_LAYER" if told else "CAUSE_UNKNOWN")
    assert found.cause is not None
    if told:
        assert found.cause.evidence == {
            "own": pytest.approx(10 ** (-own / 10)),
            "cost": pytest.approx(10 ** (-db / 10)),
        }
        assert f"({own:.1f} dB at its output)" in found.cause.message
        assert f"(to {db:.1f} dB at the model's output)" in found.cause.message
    few = guilty({"bits": 7}, swaps=swaps, taps=(tap("a"), tap("b", own), tap("y", 10)))
    assert cause(few) != "SENSITIVE_LAYER", "of fewer bits that is rounding as it has to be"


def test_a_layer_in_a_loop_is_named_with_its_loop() -> None:
    loop = layer("loop", "a", "b", type="While", bodies=("body",))
    inner = layer("cell", "i", "o", weights={}, subgraph="body")
    swaps = (
        GUILTY[0],
        GUILTY[1],
        swap("one", "body/cell", db=11, holds=False),
        swap("without", "body/cell", db=33, holds=True),
    )
    found = diagnose(capture(layers=(CHAIN[0], loop, CHAIN[2], inner), swaps=swaps), ("y",))
    assert found.cause is not None
    assert (found.cause.code, found.cause.where, found.cause.evidence) == (
        "RECURRENT_SENSITIVE", "body/cell", {"loop": "loop"},
    )  # fmt: skip


def test_groups_are_tried_where_no_layer_was_singled_out_the_dearest_first() -> None:
    def group(*names: str, db: float) -> Swap:
        return Swap(what="one", layers=names, outputs={"y": Held(sqnr_db=db)}, share=10 ** (-db / 10), holds=False)

    alone = swap("alone", db=10, holds=False)
    exchangeable = tuple(f"l{number}" for number in range(20))
    shown = capture(swaps=(alone, group("l0", "l1", db=20), group("l2", "l3", db=12)), exchangeable=exchangeable)
    assert next_try(shown) == ("l2", "l3")
    assert suspects(shown) == []
    many = capture(swaps=(alone, group(*exchangeable[:13], db=5)), exchangeable=exchangeable)
    assert next_try(many) is None, "a group of more than are ever tried"


def test_sets_grow_only_as_far_as_half_of_the_layers() -> None:
    ones = tuple(swap("one", f"l{number}", db=10 + number, holds=False) for number in range(6))
    alone = swap("alone", db=5, holds=False)
    tried = [swap("without", *(f"l{at}" for at in range(count)), db=6, holds=False) for count in (1, 2, 3)]
    assert next_try(capture(swaps=(alone, *ones))) == ("l0",)
    assert next_try(capture(swaps=(alone, *ones, tried[0]))) == ("l0", "l1")
    assert next_try(capture(swaps=(alone, *ones, *tried[:2]))) == ("l0", "l1", "l2")
    assert next_try(capture(swaps=(alone, *ones, *tried))) is None


@pytest.mark.parametrize(
    ("low", "high", "size"),
    [(-1.28, 1.27, 0.0), (-1.28, 1.27 * 1.3, 0.0), (-1.28, 1.27 * 2.6, math.log(2)), (-1.28 * 2.6, 0.1, math.log(2)),
     (-0.01, 1.27 / 32, math.log(2)), (-0.01, 1.27 / 15, 0.0)],
)  # fmt: skip
def test_how_badly_a_fixed_scale_fits(low: float, high: float, size: float) -> None:
    """0 between a sixteenth of what it reaches, and 1.3 times that."""
    layers = (layer("first", "x", "a", weights={}, scale=(0.01, 0)), *CHAIN[1:])
    shown = capture(
        layers=layers, taps=(tap("a", plain=stats(low, high)), tap("a", plain=stats(-0.5, 0.5) if size == 0 else None))
    )
    assert badly(Graph(shown), "a") == pytest.approx(size, abs=1e-6)
    assert badly(Graph(shown), "b") == 0.0, "no fixed scale"


def test_what_is_beyond_a_limit_comes_first_and_both_ends_are_looked_at() -> None:
    facts = (
        ActivationFacts(node="near", operator="Exp", tensor="x", high=88.0, right_high=87.0),
        ActivationFacts(
            node="beyond", operator="Exp", tensor="x", low=-10.0, right_low=-9.0, got_low="1", want_low="0"
        ),
    )
    shown = LayerCapture(variant="fp16", uri="ssh://board", memory="low", activations=facts,
                         taps=(Tap(case="one", tensor="x", plain=Stats(n=2, min=-9.5, max=44.5)),))  # fmt: skip
    beyond, near = diagnose(shown, ()).findings
    assert (beyond.where, beyond.severity) == ("beyond", "warn")
    told = {"tensor": "x", "case": "one", "input": -9.5, "wrong_from": -10.0, "right_to": -9.0}
    assert beyond.evidence == {**told, "margin": pytest.approx(10 / 9.5)}
    assert "is wrong from -10 on (1 instead of 0)" in beyond.message
    assert (near.where, near.severity, near.evidence["right_to"]) == ("near", "info", 87.0)
    assert near.evidence["margin"] == pytest.approx(88 / 44.5)


def test_at_twice_the_input_a_limit_is_near_and_beyond_that_it_is_not() -> None:
    facts = (ActivationFacts(node="n", operator="Exp", tensor="x", high=88.0, right_high=87.0),)

    def told(high: float) -> int:
        taps = (Tap(case="one", tensor="x", plain=Stats(n=2, min=0.0, max=high)),)
        return len(diagnose(LayerCapture(variant="fp16", uri="local:", taps=taps, activations=facts), ()).findings)

    assert [told(high) for high in (43.9, 44.0, 87.0)] == [0, 1, 1]
