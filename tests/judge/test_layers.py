"""Which layer is blamed, and why: captures made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from edgequant.archive.layers import Changed, Held, Rerun, Sign, Swap, WeightFacts
from edgequant.archive.types import Failure
from edgequant.findings import Finding
from edgequant.judge.diagnosis import Diagnosis, diagnose
from edgequant.judge.layers import next_try, suspects
from tests.judge.captures import CHAIN, GUILTY, SOUND, capture, cause, guilty, layer, stats, swap, tap


def test_the_layer_is_blamed_where_the_error_comes_in_and_not_where_it_is_largest() -> None:
    found = guilty({})
    assert found.blame.layers == ("second",)
    assert found.blame.proof == "proven"
    assert "with all others in float they still break" in found.blame.how
    assert next(row.layer for row in found.rows) == "second"


def test_a_cure_alone_is_a_proof() -> None:
    found = diagnose(capture(swaps=(*GUILTY[:3], swap("one", "second", db=21, holds=True), *GUILTY[4:])), ("y",))
    assert found.blame.proof == "proven"
    assert "still" not in found.blame.how


def test_without_a_counter_proof_it_is_a_suspicion() -> None:
    found = diagnose(capture(why_no_proof="no counter-proof: unknown file"), ("y",))
    assert found.blame.layers == ("second",)
    assert found.blame.proof == "suspicion"


def test_an_error_of_many_layers_is_nobodys() -> None:
    swaps = (
        *GUILTY[:2], swap("one", "first", db=14, holds=True), swap("one", "second", db=13, holds=True),
        swap("one", "third", db=15, holds=True), swap("without", "second", db=12, holds=False),
    )  # fmt: skip
    found = diagnose(capture(swaps=swaps), ("y",))
    assert (found.blame.spread, found.blame.proof, cause(found)) == (True, "suspicion", "ERROR_SPREAD")
    few = tuple(each.model_copy(update={"weights": WeightFacts(**{**SOUND, "bits": 4})}) for each in CHAIN)
    assert cause(diagnose(capture(swaps=swaps, layers=few), ("y",))) == "BITS_TOO_FEW"


def test_a_swap_that_failed_says_nothing() -> None:
    failed = GUILTY[5].model_copy(update={"failure": Failure(code="RUNNER_DIED", message="it died")})
    found = diagnose(capture(swaps=(*GUILTY[:5], failed)), ("y",))
    assert "limits hold" not in found.blame.how


@pytest.mark.parametrize(
    ("weights", "code"),
    [
        ({"zero_channels": (3,)}, "ZERO_SCALE"),
        ({"bias_zero": True, "bias_gap": 1.0}, "BIAS_LOST"),
        ({"bias_gap": 0.5}, "BIAS_LOST"),
        ({"like": (2, 5), "excess": 900.0}, "WEIGHTS_MISPLACED"),
        ({"excess": 900.0, "gain": 3.0}, "WEIGHT_SCALE_WRONG"),
        ({"excess": 900.0}, "WEIGHT_ROUNDED_BADLY"),
        ({"one_scale": True, "range_ratio": 12.0}, "PER_TENSOR"),
        ({"peak": 20.0}, "OUTLIER_WEIGHT"),
        ({"bits": 4, "sqnr_db": 18.0}, "BITS_TOO_FEW"),
        ({}, "CAUSE_UNKNOWN"),
    ],
)
def test_causes_that_weights_tell(weights: dict[str, Any], code: str) -> None:
    assert cause(guilty(weights)) == code


def test_sound_weights_of_few_bits_with_hqq_are_not_called_wrong() -> None:
    assert cause(guilty({"bits": 4, "excess": 4.0, "gain": 0.97})) == "BITS_TOO_FEW"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"here": stats(0.5, 0.5)}, "STUCK_OUTPUT"),
        ({"plain": stats(-3.0, 3.0)}, "RANGE_CLIPPED"),
        ({"plain": stats(-0.01, 0.01)}, "RANGE_TOO_WIDE"),
        ({"plain": stats(-1.2, 1.2)}, "CAUSE_UNKNOWN"),
    ],
)
def test_causes_that_tensors_tell(more: dict[str, Any], code: str) -> None:
    layers = (CHAIN[0], layer("second", "a", "b", weights={}, scale=(1 / 127, 0.0)), CHAIN[2])
    taps = (tap("a"), tap("b", 11, **more), tap("y", 10))
    assert cause(diagnose(capture(layers=layers, taps=taps, swaps=GUILTY), ("y",))) == code


def test_a_scale_that_does_not_fit_belongs_to_the_layer_in_front() -> None:
    layers = (layer("first", "x", "a", weights={}, scale=(1 / 127, 0.0)), *CHAIN[1:])
    taps = (tap("a", plain=stats(-9.0, 9.0)), tap("b", 11), tap("y", 10))
    found = diagnose(capture(layers=layers, taps=taps, swaps=GUILTY), ("y",))
    assert (found.blame.layers[0], cause(found)) == ("first", "RANGE_CLIPPED")
    assert "with only 'second' in float the limits hold" in found.blame.how, "what was run, of two that are blamed"


def test_of_two_scales_that_do_not_fit_the_worse_one_is_meant() -> None:
    layers = (
        layer("first", "x", "a", weights={}, scale=(1 / 127, 0.0)),
        layer("second", "a", "b", weights={}, scale=(1 / 127, 0.0)),
        CHAIN[2],
    )
    for (a, b), name in {(0.01, 1.5): "first", (1.5, 9.0): "second"}.items():
        taps = (tap("a", plain=stats(-a, a)), tap("b", 11, plain=stats(-b, b)), tap("y", 10))
        found = diagnose(capture(layers=layers, taps=taps, swaps=GUILTY), ("y",))
        assert found.blame.layers[0] == name


def test_a_layer_whose_weights_are_wrong_is_not_excused_by_a_scale_in_front_of_it() -> None:
    layers = (layer("first", "x", "a", weights={}, scale=(1 / 127, 0.0)), *CHAIN[1:])
    wrong = layer("second", "a", "b", weights={"excess": 900.0})
    taps = (tap("a", plain=stats(-2.0, 2.0)), tap("b", 11), tap("y", 10))
    found = diagnose(capture(layers=(layers[0], wrong, layers[2]), taps=taps, swaps=GUILTY), ("y",))
    assert (found.blame.layers[0], cause(found)) == ("second", "WEIGHT_ROUNDED_BADLY")


def test_activations_are_told_from_weights_by_memory_normal() -> None:
    swaps = tuple(each.model_copy(update={"memory": "low"}) for each in GUILTY)
    more = swap("one", "second", db=40, holds=True)
    found = diagnose(capture(memory="low", swaps=(*swaps, more)), ("y",))
    assert cause(found) == "ACTIVATION_ROUNDING"
    taps = (tap("a", plain=stats(-40.0, 40.0)), tap("b", 11), tap("y", 10))
    assert cause(diagnose(capture(memory="low", taps=taps, swaps=(*swaps, more)), ("y",))) == "ACTIVATION_OUTLIER"


def test_moved_data_is_called_that() -> None:
    signs = {"b": (Sign(kind="lag", size=1.0, strength=90.0, where={"axis": 2, "shift": 1}),)}
    assert cause(guilty({}, signs=signs)) == "DATA_MOVED"


def test_a_nan_is_blamed_on_the_layer_that_bears_it_though_the_output_hides_it() -> None:
    taps = (tap("a"), tap("b", 11, here=stats(nan=3)), tap("y", 40))
    found = diagnose(capture(stage=None, taps=taps), ("y",))
    assert (found.blame.layers, found.blame.proof, cause(found)) == (("second",), "proven", "NAN_SWALLOWED")
    taps = (tap("a"), tap("b", 11, here=stats(nan=3)), tap("y", 40, here=stats(nan=1)))
    assert cause(diagnose(capture(taps=taps), ("y",))) == "NAN_BORN"


def test_a_nan_that_float_has_too_is_nobodys() -> None:
    both = tap("b", 40, plain=stats(nan=3), here=stats(nan=3))
    assert diagnose(capture(stage=None, taps=(tap("a"), both, tap("y"))), ("y",)).cause is None


# ---- device


def on_device(*decibels: float, precision: Any = "normal", **more: Any) -> Diagnosis:
    taps = tuple(tap(name, 40, db) for name, db in zip("aby", decibels, strict=True))
    return diagnose(capture(stage="device", taps=taps, precision=precision, **more), ("y",))


def test_right_inputs_and_a_wrong_output_are_the_proof_of_a_kernel() -> None:
    found = on_device(50, 20, 18)
    assert (found.blame.layers, found.blame.proof, cause(found)) == (("second",), "proven", "KERNEL_DIFFERS")


def test_rounding_on_a_device_is_nobodys() -> None:
    assert on_device(50, 46, 45).blame.layers == ()


def test_inputs_that_are_off_as_well_make_it_a_suspicion() -> None:
    assert on_device(44, 20, 18).blame.proof == "suspicion"


def test_where_asking_changed_the_device_it_is_a_suspicion_unless_a_rerun_proves_it() -> None:
    changed = (Changed(where="there", case="one", output="y", tensors=("a", "b"), sqnr_db=30.0),)
    assert on_device(50, 20, 18, changed=changed).blame.proof == "suspicion"
    plain = (changed[0].model_copy(update={"where": "plain"}),)
    assert on_device(50, 20, 18, changed=plain).blame.proof == "proven"
    normal = (Rerun(what="memory=normal", sqnr_db=90.0, before_db=18.0),)
    found = on_device(50, 20, 18, changed=changed, reruns=normal)
    assert (found.blame.proof, "memory normal" in found.blame.how) == ("proven", True)


def test_a_rerun_tells_what_the_device_gets_wrong() -> None:
    normal = (Rerun(what="memory=normal", sqnr_db=90.0, before_db=18.0),)
    assert cause(on_device(50, 20, 18, reruns=normal)) == "INT8_KERNEL_DIFFERS"
    half = (Rerun(what="precision=normal", sqnr_db=50.0, before_db=2.0),)
    assert cause(on_device(50, 20, 18, precision="low", reruns=half)) == "FP16_ROUNDING"
    worse = (Rerun(what="precision=normal", sqnr_db=3.0, before_db=2.0),)
    assert cause(on_device(50, 20, 18, precision="low", reruns=worse)) == "KERNEL_DIFFERS"


def test_what_half_precision_cannot_hold_is_called_overflow() -> None:
    taps = (tap("a", 40, 50), tap("b", 40, 20, plain=stats(-1e5, 1e5)), tap("y", 40, 18))
    found = diagnose(capture(stage="device", taps=taps, precision="low"), ("y",))
    assert cause(found) == "FP16_OVERFLOW"


def test_a_device_that_strays_too_is_said_where_quantizing_is_to_blame() -> None:
    taps = tuple(tap(name, 11, db) for name, db in zip("aby", (50, 35, 34), strict=True))
    found = diagnose(capture(taps=taps, swaps=GUILTY), ("y",))
    assert found.blame.layers == ("second",)
    assert [(each.code, each.where) for each in found.findings] == [("DEVICE_LAYER_STRAYS", "second")]
    quiet = diagnose(capture(taps=tuple(tap(name, 11, 49) for name in "aby"), swaps=GUILTY), ("y",))
    assert quiet.findings == ()


# ---- the rest


def test_nothing_that_breaks_blames_nobody() -> None:
    found = diagnose(capture(stage=None), ("y",))
    assert (found.stage, found.cause, found.blame.layers) == (None, None, ())


def test_taps_that_change_the_model_are_told() -> None:
    changed = (Changed(where="here", case="one", output="y", tensors=("a",), sqnr_db=30.0),)
    found = diagnose(capture(stage=None, changed=changed), ("y",))
    assert [each.code for each in found.findings] == ["TAPS_CHANGE_OUTPUTS"]


def test_what_is_tried_next_is_what_costs_the_outputs_most_that_still_break() -> None:
    two = {"y": Held(sqnr_db=10, holds=False), "z": Held(sqnr_db=30, holds=True)}
    alone = GUILTY[0].model_copy(update={"outputs": two})
    ones = []
    for name, (y, z) in {"first": (40, 9), "second": (12, 60), "third": (15, 60), "fourth": (70, 70)}.items():
        held = {"y": Held(sqnr_db=y), "z": Held(sqnr_db=z)}
        ones.append(Swap(what="one", layers=(name,), outputs=held, share=1.0, holds=True))
    found = capture(swaps=(alone, *ones))
    assert next_try(found) == ("second",)
    assert [name for name, _ in suspects(found, ["y"])] == ["second", "third", "first", "fourth"]
    tried = Swap(what="without", layers=("second",), outputs={"y": Held(sqnr_db=14, holds=False)})
    assert next_try(capture(swaps=(alone, *ones, tried))) == ("second", "third")
    cured = tried.model_copy(update={"holds": True})
    assert next_try(capture(swaps=(alone, *ones, cured))) is None


def test_weights_that_are_no_rounding_are_named_though_every_limit_is_kept() -> None:
    """There, layers in float mend nothing: the one that is named is not one that costs most."""
    named = Finding(
        code="QUANTIZATION_BEYOND_ROUNDING", severity="fail", where="second", message="m",
        evidence={"layers": [{"layer": "first", "subgraph": ""}]},
    )  # fmt: skip
    holding = tuple(each.model_copy(update={"holds": True}) for each in GUILTY)
    found = diagnose(capture(swaps=holding), ("y",), {"beyond_rounding": named, "failing": []})
    assert (found.blame.layers, found.blame.proof, found.cause) == (("first",), "proven", named)
    failing = diagnose(capture(swaps=GUILTY), ("y",), {"beyond_rounding": named, "failing": ["y"]})
    assert failing.blame.layers == ("second",), "where limits break, what mends them is to blame"
    drift = Finding(code="RECURRENT_DRIFT", severity="fail", where="y", message="m", evidence={"step": 3})
    story = diagnose(capture(swaps=holding), ("y",), {"over_steps": drift, "failing": []})
    assert (story.blame.layers, story.cause) == ((), drift)


def test_a_nan_is_hidden_only_where_the_last_tensors_that_were_seen_are_clean() -> None:
    """An output whose own tensor was not looked at says nothing of what it holds."""
    born = tap("a", 11, here=stats(nan=3))
    assert cause(diagnose(capture(taps=(born, tap("b", 11, here=stats(nan=3)))), ("y",))) == "NAN_BORN"
    assert cause(diagnose(capture(taps=(born, tap("b", 40))), ("y",))) == "NAN_SWALLOWED"
