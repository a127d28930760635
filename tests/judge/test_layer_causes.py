"""Causes beyond what weights and ranges tell, and which layers are looked at: captures made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgequant.archive.layers import LayerCapture, Rerun, Sign, Swap
from edgequant.findings import Finding
from edgequant.jobs.diagnose_layers import reordered
from edgequant.judge.diagnosis import Diagnosis, diagnose
from edgequant.judge.layer_graph import Graph
from edgequant.judge.layer_search import FEW, MOST, next_group
from edgequant.judge.layers import next_try
from tests.judge.captures import CHAIN, GUILTY, capture, cause, guilty, layer, part, stats, swap, tap


def on_device(device: float = 20.0, **more: Any) -> Diagnosis:
    told: dict[str, Any] = {"taps": (tap("a", 40, 50), tap("b", 40, device), tap("y", 40, 18)), "stage": "device"}
    return diagnose(capture(**{**told, **more}), ("y",))


# ---- weights


@pytest.mark.parametrize(
    ("weights", "code"),
    [
        ({"excess": 900.0, "gain": 1.2, "slope": 1.0, "offset": 12.0, "left": 1.1}, "ZERO_POINT_WRONG"),
        ({"excess": 900.0, "gain": 1.2, "slope": 1.05, "offset": 12.0, "left": 1.1}, "WEIGHT_SCALE_WRONG"),
        ({"excess": 900.0, "gain": 1.2, "slope": 1.2, "offset": 0.0, "left": 600.0}, "WEIGHT_ROUNDED_BADLY"),
        ({"bad_channels": (4,)}, "WEIGHTS_NOT_FINITE"),
    ],
)
def test_what_a_line_through_the_float_weights_explains(weights: dict[str, Any], code: str) -> None:
    assert cause(guilty(weights)) == code


def test_weights_that_are_no_numbers_come_before_the_tensor_that_shows_it() -> None:
    taps = (tap("a"), tap("b", 11), tap("y", 40, here=stats(nan=3)))
    found = guilty({"bad_channels": (4,)}, taps=taps, stage=None)
    assert (found.stage, found.blame.layers, cause(found)) == ("quantization", ("second",), "WEIGHTS_NOT_FINITE")


def test_fewer_bits_than_the_other_layers_come_before_outliers() -> None:
    assert cause(guilty({"bits": 3, "peak": 20.0})) == "BITS_TOO_FEW"
    few = {"bits": 4, "peak": 20.0}
    layers = tuple(layer(name, a, b, weights=few) for name, a, b in zip(
        ("first", "second", "third"), ("x", "a", "b"), ("a", "b", "y"), strict=True
    ))  # fmt: skip
    assert cause(guilty(few, layers=layers)) == "OUTLIER_WEIGHT"


def test_a_bias_beyond_an_int32_sum_needs_a_fixed_input_scale() -> None:
    weights = {"kept": "static", "bias_steps": 1e9}
    more: dict[str, Any] = {"weights": weights, "scale": (1 / 127, 0.0)}
    second = layer("second", "a", "b", type="DepthwiseConvInt8", **more)
    first = layer("first", "x", "a", weights={}, scale=(0.01, 0.0))
    assert cause(guilty({}, layers=(first, second, CHAIN[2]))) == "BIAS_OVERFLOWED"
    assert cause(guilty({}, layers=(CHAIN[0], second, CHAIN[2]))) == "CAUSE_UNKNOWN"
    dense = layer("second", "a", "b", type="ConvInt8", **more)
    assert cause(guilty({}, layers=(first, dense, CHAIN[2]))) == "CAUSE_UNKNOWN"


# ---- tensors


def static(zero: float, low: float, high: float) -> str:
    layers = (CHAIN[0], layer("second", "a", "b", weights={}, scale=(0.01, zero)), CHAIN[2])
    taps = (tap("a"), tap("b", 11, plain=stats(low, high)), tap("y", 10))
    return cause(guilty({}, layers=layers, taps=taps))


def test_a_range_that_only_another_zero_point_would_hold() -> None:
    assert static(-28.0, 0.0, 2.5) == "ZERO_POINT_WRONG"
    assert static(-28.0, 0.0, 5.0) == "RANGE_CLIPPED"
    assert static(0.0, 0.0, 2.5) == "RANGE_CLIPPED"


def test_what_piles_up_at_an_end_saturates() -> None:
    full = {"here": stats(-1.0, 0.4, at_max=0.2), "plain": stats(-1.0, 1.0, at_max=0.001)}
    assert cause(guilty({}, taps=(tap("a"), tap("b", 11, **full), tap("y", 10)))) == "INT8_SATURATION"
    relu = {"here": stats(0.0, 1.0, at_min=0.5), "plain": stats(0.0, 1.0, at_min=0.5)}
    assert cause(guilty({}, taps=(tap("a"), tap("b", 11, **relu), tap("y", 10)))) == "CAUSE_UNKNOWN"


def test_inputs_that_calibrating_has_not_seen_are_no_layers_fault() -> None:
    layers = tuple(each.model_copy(update={"scale": (1 / 127, 0.0)}) for each in CHAIN)
    taps = tuple(tap(name, 11, plain=stats(-4.0, 4.0)) for name in "aby")
    found = diagnose(capture(layers=layers, taps=taps, swaps=GUILTY), ("y",))
    assert (found.blame.layers, found.blame.proof, cause(found)) == ((), "proven", "INPUT_UNLIKE_CALIBRATION")
    one = (tap("a"), tap("b", 11, plain=stats(-4.0, 4.0)), tap("y", 10))
    assert cause(diagnose(capture(layers=layers, taps=one, swaps=GUILTY), ("y",))) == "RANGE_CLIPPED"


def test_the_first_tensor_of_another_size_is_named_with_both_shapes() -> None:
    short, long = stats(n=751, shape=(1, 751)), stats(n=752, shape=(1, 752))
    taps = (tap("a"), tap("b", 11, plain=long, here=short), tap("y", 10, plain=long, here=short))
    found = diagnose(capture(taps=taps, swaps=GUILTY), ("y",))
    assert (found.blame.layers, found.blame.proof, cause(found)) == (("second",), "proven", "SHAPE_WRONG")
    assert found.cause is not None
    assert "1x751 in place of 1x752" in found.cause.message


def test_what_changes_when_the_same_comes_again_is_stale() -> None:
    taps = (tap("a"), tap("b", 40, 30, unsteady=("there",)), tap("y", 40, 30, unsteady=("there",)))
    found = diagnose(capture(stage=None, taps=taps), ("y",))
    assert (found.stage, found.blame.layers, cause(found)) == ("device", ("second",), "STALE_MEMORY")


def test_a_lost_channel_is_not_exchanged_with_a_dead_one() -> None:
    exchanged = Sign(kind="exchanged", size=1.0, strength=90.0, where={"axis": 1, "index": 7, "has": 3})
    stuck = Sign(kind="stuck", size=1.0, strength=90.0, where={"axis": 1, "index": 7, "value": 0.0})
    assert cause(guilty({}, signs={"b": (exchanged,)})) == "DATA_MOVED"
    assert cause(guilty({}, signs={"b": (stuck, exchanged)})) == "CAUSE_UNKNOWN"


def test_rows_in_another_order_are_neither_moved_nor_wrong() -> None:
    signs = {"b": (Sign(kind="order", size=1.0, strength=90.0, where={"axis": 1}),)}
    assert cause(guilty({}, signs=signs)) == "DATA_MOVED", "what has weights sorts nothing"
    sorting = (CHAIN[0], layer("second", "a", "b", type="TopKV2"), CHAIN[2])
    assert cause(on_device(layers=sorting, signs=signs)) == "ORDER_OF_EQUALS"


def test_another_order_is_told_from_a_shift_and_from_noise() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30, 4))
    swapped = rows[[1, 0, *range(2, 28), 29, 28]]
    found = reordered(rows, swapped)
    assert found is not None
    assert (found.kind, found.where) == ("order", {"axis": 0})
    assert reordered(rows, np.roll(rows, 1, axis=0)) is None
    assert reordered(rows, rows + 0.01 * rng.normal(size=rows.shape)) is None


def test_a_scale_that_does_not_fit_is_named_though_the_layers_beside_it_seem_to_cost_more() -> None:
    """The layer behind reads the same scale, so that no exchange of one layer mends it."""
    layers = (layer("first", "x", "a", weights={"kept": "static"}, scale=(0.001, 0.0)), *CHAIN[1:])
    swaps = (
        swap("alone", db=15, holds=False), swap("all", db=200, holds=True), swap("one", "first", db=16, holds=False),
        swap("one", "second", db=15, holds=False), swap("one", "third", db=14, holds=False),
        swap("without", "third", db=15, holds=False),
    )  # fmt: skip
    taps = (tap("x", 60), tap("a", 10), tap("b", 11), tap("y", 15))
    found = diagnose(capture(layers=layers, swaps=swaps, taps=taps), ("y",))
    assert (found.blame.layers, found.blame.proof, cause(found)) == (("first",), "suspicion", "RANGE_CLIPPED")
    early = (tap("x", 13), tap("a", 10), tap("b", 11), tap("y", 15))
    assert diagnose(capture(layers=layers, swaps=swaps, taps=early), ("y",)).blame.spread


# ---- devices


def test_another_mnn_is_named_with_both_versions() -> None:
    found = on_device(mnn={"here": "3.6.1", "there": "3.1.0"})
    assert (found.blame.layers, cause(found)) == (("second",), "OTHER_MNN")
    assert cause(on_device(mnn={"here": "3.6.1", "there": "3.6.1"})) == "KERNEL_DIFFERS"


def test_memory_low_that_has_no_effect_agrees_with_memory_normal() -> None:
    normal = Rerun(what="host memory=normal", sqnr_db=95.0, before_db=38.0)
    found = on_device(memory="low", reruns=(normal,))
    assert (found.blame.layers, found.blame.proof, cause(found)) == ((), "proven", "LOW_MEMORY_NOT_ENGAGED")
    other = normal.model_copy(update={"sqnr_db": 39.0})
    assert cause(on_device(memory="low", reruns=(other,))) == "KERNEL_DIFFERS"


@pytest.mark.parametrize(
    ("there", "here", "named"), [(1.0, 0.05, "first"), (1.0, 0.5, "second"), (0.05, 0.05, "second")]
)
def test_one_channel_that_is_wrong_is_of_the_layer_in_front_of_the_operator_that_makes_much_of_it(
    there: float, here: float, named: str
) -> None:
    """there, here: the part of the device's error, and of rounding's, that the worst of 20 channels has."""
    layers = (CHAIN[0], layer("second", "a", "b", type="Softmax"), CHAIN[2])
    device, moved = ({"axes": ((3, share, 20),)} for share in (there, here))
    wrong = tap("a", 40, 49).model_copy(update={"device": part(49, **device), "moved": part(50, **moved)})
    taps = (wrong, tap("b", 40, 12), tap("y", 40, 12))
    found = on_device(layers=layers, taps=taps)
    assert (found.blame.layers, found.blame.proof) == ((named,), "proven")
    assert on_device(taps=taps).blame.layers == ("second",), "what has weights can be wrong itself"


def test_an_operator_without_weights_in_which_this_hosts_error_jumps_is_this_hosts_fault() -> None:
    layers = (CHAIN[0], layer("second", "a", "b", type="Pooling"), CHAIN[2])
    taps = (tap("a", 45, 50), tap("b", 15, 15), tap("y", 15, 15))
    found = on_device(layers=layers, taps=taps)
    assert (cause(found), found.blame.layers) == ("HOST_KERNEL_DIFFERS", ("second",))
    assert "the host is then far from float MNN" in found.blame.how
    assert found.cause is not None
    assert "15.0 dB behind it, and at 45.0 dB in front of it" in found.cause.message
    steady = (tap("a", 45, 50), tap("b", 44, 15), tap("y", 44, 15))
    assert cause(on_device(layers=layers, taps=steady)) == "KERNEL_DIFFERS"


def test_large_numbers_that_cancel_in_half_precision() -> None:
    half = (Rerun(what="precision=normal", sqnr_db=60.0, before_db=12.0),)
    layers = (CHAIN[0], layer("second", "a", "b", type="BinaryOp"), CHAIN[2])
    taps = (tap("a", 40, 50, plain=stats(rms=400.0)), tap("b", 40, 12), tap("y", 40, 12))
    more: dict[str, Any] = {"layers": layers, "precision": "low", "reruns": half}
    assert cause(on_device(taps=taps, **more)) == "FP16_CANCELLATION"
    assert cause(on_device(**more)) == "FP16_ROUNDING"


def test_inf_of_numbers_that_half_precision_does_not_have_is_overflow_and_the_inf_is_told_too() -> None:
    large = tap("b", 40, there=stats(inf=9), plain=stats(-2e5, 2e5, rms=5e4), here=stats(-2e5, 2e5, rms=5e4))
    taps = (tap("a", 40, 50), large, tap("y", 40, there=stats(nan=100, min=None, max=None)))
    found = on_device(taps=taps, precision="low")
    assert (found.blame.layers, found.blame.proof, cause(found)) == (("second",), "proven", "FP16_OVERFLOW")
    assert [each.code for each in found.findings] == ["NAN_BORN"]
    assert cause(on_device(taps=taps)) == "NAN_BORN", "with precision normal it is something else"


def test_numbers_of_a_few_steps_of_half_precision_are_underflow_where_precision_normal_mends_it() -> None:
    taps = (tap("a", 40, 50), tap("b", 40, 12, plain=stats(-5e-7, 5e-7, rms=2e-7)), tap("y", 40, 12))
    for after, code in ((60.0, "FP16_UNDERFLOW"), (13.0, "KERNEL_DIFFERS")):
        rerun = (Rerun(what="precision=normal", sqnr_db=after, before_db=12.0),)
        assert cause(on_device(taps=taps, precision="low", reruns=rerun)) == code
        nothing = (taps[0], tap("b", 40, 12, plain=stats(-6e-8, 6e-8, rms=2e-8)), taps[2])
        found = on_device(taps=nothing, precision="low", reruns=rerun)
        assert cause(found) == "FP16_UNDERFLOW", "below the least step nothing is left, whatever else is wrong"


def test_noise_in_a_row_of_single_numbers_is_no_other_order() -> None:
    """Once both are sorted they are near to each other, whatever the noise is."""
    rng = np.random.default_rng(3)
    for level in (0.03, 0.1, 0.3, 1.0):
        numbers = rng.normal(size=(1, 1280))
        noisy = (numbers + level * rng.normal(size=numbers.shape)) / np.hypot(1, level)
        assert reordered(numbers, noisy) is None, level
        assert reordered(numbers, numbers[:, rng.permutation(1280)]) is not None


def test_a_state_that_is_lost_is_the_cause_and_the_drift_what_comes_of_it() -> None:
    told: dict[str, Any] = {"severity": "fail", "where": "h", "evidence": {"stage": "device", "step": 2}}
    state = Finding(code="STATE_ALTERED", message="step 2 comes out otherwise", **told)
    drift = Finding(code="RECURRENT_DRIFT", message="breaks in step 4", **told)
    more = {"findings": [drift, state], "over_steps": drift}
    assert cause(diagnose(capture(stage="device"), ("y",), more)) == "STATE_ALTERED"
    assert cause(diagnose(capture(stage="device"), ("y",), {**more, "findings": [drift]})) == "RECURRENT_DRIFT"
    single = diagnose(capture(stage="quantization", swaps=GUILTY), ("y",), {**more, "failing": ["y"]})
    assert cause(single) != "STATE_ALTERED", "what single inferences break comes first"


def test_a_state_that_a_rollout_found_wrong_is_the_cause() -> None:
    state = Finding(code="STATE_STALE", severity="fail", where="h", message="it comes out otherwise")
    found = diagnose(capture(stage="device"), ("y",), {"findings": [state]})
    assert (found.blame.layers, cause(found)) == (("h",), "STATE_STALE")
    assert diagnose(capture(stage=None), ("y",), {"findings": [state]}).cause is None


def test_a_layer_left_float_is_told_where_nobody_asked_for_it() -> None:
    left = layer("second", "a", "b", weights={"kept": "float", "bits": 32, "count": 5000})
    layers = (layer("first", "x", "a", weights={"count": 5000}), left, CHAIN[2])
    found = diagnose(capture(stage=None, layers=layers), ("y",))
    assert [(each.code, each.where, each.severity) for each in found.findings] == [
        ("LAYER_NOT_QUANTIZED", "second", "info")
    ]
    assert (found.stage, found.cause) == (None, None)
    for variant in ("recipe:r.json", "static:8,skip=second"):
        assert diagnose(capture(stage=None, layers=layers, variant=variant), ("y",)).findings == ()


# ---- which layers are looked at


def many(count: int, cost: dict[str, float], **more: Any) -> tuple[LayerCapture, list[tuple[str, ...]]]:
    """Look until enough is known, where layers cost what is given (power), and the limits hold below 0.1."""
    names = tuple(f"l{number}" for number in range(count))
    layers = tuple(layer(name, "x", name, weights={}) for name in names)
    total = sum(cost.values())
    swaps: list[Swap] = [swap("alone", db=-10 * np.log10(total), holds=False)]
    found = capture(layers=layers, taps=(), exchangeable=names, swaps=tuple(swaps), **more)
    groups: list[tuple[str, ...]] = []
    while True:
        while (group := next_group(found, Graph(found))) is not None:
            groups.append(group)
            share = sum(cost.get(name, 1e-9) for name in group)
            swaps.append(swap("one", *group, db=-10 * np.log10(share), holds=share < 0.1))
            found = found.model_copy(update={"swaps": tuple(swaps)})
        if (names_now := next_try(found)) is None:
            return found, groups
        rest = total - sum(cost.get(name, 0.0) for name in names_now)
        swaps.append(swap("without", *names_now, db=-10 * np.log10(max(rest, 1e-12)), holds=rest < 0.1))
        found = found.model_copy(update={"swaps": tuple(swaps)})


def test_one_guilty_layer_of_a_hundred_is_found_by_halves() -> None:
    found, groups = many(100, {"l37": 0.5})
    told = diagnose(found, ("y",))
    assert (told.blame.layers, told.blame.proof) == (("l37",), "proven")
    assert len(groups) <= 14


def test_two_guilty_layers_are_found_together() -> None:
    found, groups = many(100, {"l3": 0.5, "l90": 0.4})
    assert set(diagnose(found, ("y",)).blame.layers) == {"l3", "l90"}
    assert len(groups) <= 28


def test_an_error_of_all_layers_ends_the_search() -> None:
    found, groups = many(100, {f"l{number}": 0.02 for number in range(100)})
    assert len(groups) <= MOST
    told = diagnose(found, ("y",))
    assert told.blame.spread
    assert told.cause is not None
    assert "over all 100 layers" in told.cause.message


def test_few_layers_are_each_looked_at() -> None:
    _, groups = many(FEW, {"l3": 0.5})
    assert len(groups) == FEW


def test_a_suspicious_layer_is_looked_at_first_and_nothing_else_where_that_is_all() -> None:
    names = tuple(f"l{number}" for number in range(50))
    layers = tuple(layer(name, "x", name, weights={"excess": 900.0} if name == "l20" else {}) for name in names)
    found = capture(layers=layers, taps=(), exchangeable=names, swaps=(swap("alone", db=3, holds=False),))
    assert next_group(found, Graph(found)) == ("l20",)
    found = found.model_copy(update={"swaps": (*found.swaps, swap("one", "l20", db=3, holds=False))})
    assert next_group(found, Graph(found)) is None
    assert next_try(found) == ("l20",)
