"""Which calibrator, and which layers stay out of int8: what is measured decides, and what is told was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgequant import zoo
from edgequant.errors import InputError
from edgequant.quantize.calibrate.methods import CALIBRATORS
from tests.nightly import all_but
from tests.quantize.calibrate.support import build, images, left_in, node, speech_like, static, three_layers, worst


@pytest.mark.nightly
def test_the_best_calibrator_is_no_worse_than_any(tmp_path: Path) -> None:
    source, samples = zoo.fetch("enc"), speech_like(2)
    made = static(source, samples, tmp_path, calib="best", sym=None)
    assert next(iter(made.tried)) == made.calib
    assert list(made.tried.values()) == sorted(made.tried.values(), reverse=True)
    assert {"minmax", "minmax,asym"} <= set(made.tried) <= {f"{c}{z}" for c in CALIBRATORS for z in ("", ",asym")}
    assert min(each.mean_db for each in made.fidelity.values()) == pytest.approx(made.tried[made.calib])
    for name in ("minmax", "kl,asym"):
        calib, _, zero = name.partition(",")
        alone = static(source, samples, tmp_path, calib=calib, sym=not zero)
        assert (alone.calib, alone.tried) == (name, {})
        reached = min(each.mean_db for each in alone.fidelity.values())
        assert reached == pytest.approx(made.tried[name])
        assert reached <= made.tried[made.calib]
    assert left_in(tmp_path) == {"static.mnn"}


@pytest.mark.parametrize("real", all_but(False, of=(False, True)), ids=("three layers", "a speech encoder"))
def test_a_target_is_reached_with_fewer_layers_and_the_answer_was_measured(real: bool, tmp_path: Path) -> None:
    source = zoo.fetch("enc") if real else three_layers(tmp_path / "m.onnx", "Exp")
    samples = speech_like(3) if real else images(4, channels=16)
    plain = static(source, samples, tmp_path, calib="minmax")
    aim = worst(plain) + 4
    made = static(source, samples, tmp_path, calib="minmax", target_db=aim)
    assert worst(made) >= aim
    kept = [each for each in made.layers if each.why and "most sensitive" in each.why]
    order = sorted(made.sensitivity.values())
    assert kept
    assert len(kept) < len(order)
    with pytest.raises(InputError) as caught:
        static(source, samples, tmp_path, calib="minmax", target_db=100)
    assert caught.value.code == "TARGET_NOT_REACHED"


def test_the_most_sensitive_layer_has_light_weights_and_computes_in_float(tmp_path: Path) -> None:
    source, samples = three_layers(tmp_path / "m.onnx", "Exp"), images(4, channels=16)
    plain = static(source, samples, tmp_path, calib="minmax")
    made = static(source, samples, tmp_path, calib="minmax", keep=1)
    assert worst(made) > worst(plain) + 6
    left = next(each for each in made.layers if each.how != "static")
    assert (left.how, left.why) == ("weight", "one of the 1 most sensitive layers")
    assert min(made.sensitivity, key=made.sensitivity.__getitem__).startswith("c2")
    named = static(source, samples, tmp_path, calib="minmax", skip=(left.name,))
    assert sorted(each.how for each in named.layers) == ["float", "static", "static"]  # who names it gets it in float


def test_a_layer_that_is_int8_only_beside_another_is_not_tried_alone(tmp_path: Path) -> None:
    """Behind a pool whose input another layer gives its scale.  keep= ended with NOTHING_STATIC on a classifier."""
    rng = np.random.default_rng(0)
    nodes = [
        node("Conv", ["x", "w1", "b"], ["h"]),
        node("GlobalAveragePool", ["h"], ["p"]),
        node("Conv", ["p", "w2", "b"], ["c"]),
        node("Sigmoid", ["c"], ["s"]),
        node("Mul", ["s", "h"], ["m"]),
        node("Conv", ["m", "w3", "b"], ["y"]),
    ]
    weights = {name: rng.standard_normal((8, 8, 1, 1)) for name in ("w1", "w2", "w3")} | {"b": np.full(8, 0.1)}
    source = build(tmp_path / "m.onnx", nodes, {"x": [1, 8, 16, 16]}, {"y": [1, 8, 16, 16]}, **weights)
    samples = [{"x": rng.standard_t(3, (1, 8, 16, 16)).astype(np.float32)} for _ in range(4)]
    assert [each.how for each in static(source, samples, tmp_path, calib="minmax").layers] == ["static"] * 3
    made = static(source, samples, tmp_path, calib="minmax", keep=1)
    assert sorted(np.isinf(list(made.sensitivity.values()))) == [False, False, True]
