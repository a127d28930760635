"""Weights that are not those of the float model, rounded as was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgequant.archive.rounding import TensorScale
from edgequant.archive.types import LayerRounding
from edgequant.judge.rounding import beyond_rounding
from edgequant.judge.verdict import Verdict
from edgequant.spec import Variant
from tests.judge.archives import HOST, Archive, artifact, codes, only

GOOD = {"layer": "conv", "kept": "quantized", "bits": 8, "scale": 1.0, "error": 0.5, "row": 3, "bias": 0.0}


def layer(**more: Any) -> LayerRounding:
    return LayerRounding(**GOOD | more)


@pytest.mark.parametrize(
    ("variant", "of_layer"),
    [
        ("dynamic:8", {}),
        ("weight:4,block=32,hqq", {"bits": 4, "block": 32, "error": 0.8, "scale": 1.0005}),
        ("weight:4,block=32", {"bits": 4}),  # no multiple of 32 channels
        ("weight:4,sym", {"bits": 4, "sym": True}),
        ("weight:8", {"kept": "float", "bits": 32, "error": 0.0}),  # of no size that MNN quantizes
        ("fp16", {"kept": "fp16", "bits": 16}),
        ("recipe:r.json", {"bits": 3, "sym": True}),
        ("static:8,calib=mse", {"kept": "static", "sym": True}),
        ("static:8", {"kept": "static", "sym": True, "scale": 0.2, "error": 117.0}),  # equalized
        ("static:8", {"kept": "quantized", "scale": 0.2, "error": 117.0}),  # the same, of a layer left to run time
        ("static:8,equalize", {"kept": "float", "error": 0.3}),
        ("static:8", {"kept": "static", "sym": True, "error": 0.7, "equalized": True}),
        ("kl", {"kept": "static", "sym": True, "scale": 0.9, "error": 2.0}),
    ],
)
def test_rounding_is_no_fault(variant: str, of_layer: dict[str, Any]) -> None:
    assert not beyond_rounding(artifact(variant, rounding=(layer(**of_layer),), float_layers=1)).findings


@pytest.mark.parametrize(
    ("variant", "of_layer", "told"),
    [
        ("dynamic:8", {"bits": 6}, "6 bits in place of 8"),
        ("dynamic:8", {"sym": True}, "no zero point"),
        ("weight:4", {"bits": 4, "block": 32}, "32 input channels"),
        ("fp16", {}, "8 bits in place of 16"),
        ("fp16", {"kept": "fp16", "bits": 16, "error": 0.8}, "off by 0.8 steps"),
        ("weight:2", {"bits": 2, "scale": 1.03}, "output channel 3 is 1.03 times"),
        ("weight:2", {"bits": 2, "scale": 0.97}, "0.97 times"),
        ("dynamic:8", {"error": 0.8}, "off by 0.8 steps"),
        ("dynamic:8,hqq", {"error": 2.0}, "off by 2 steps"),
        ("dynamic:8", {"bias": 0.01}, "bias is off by 1.00%"),
        ("dynamic:8", {"kept": "float", "bits": 32, "error": 0.0}, "float weights, in one layer more"),
        ("recipe:r.json", {"kept": "float", "bits": 32, "error": 1e6}, "float weights of output channel 3 are others"),
        ("static:8,calib=mse", {"kept": "static", "sym": True, "error": 2.0}, "off by 2 steps"),
        ("static:8", {"kept": "static", "sym": True, "error": 1.1, "equalized": True}, "off by 1.1 steps"),
        ("static:8", {"kept": "static", "sym": True, "error": 0.8, "equalized": False}, "off by 0.8 steps"),
        ("static:8", {"kept": "static", "scale": 1.03, "equalized": True}, "1.03 times"),
        ("static:8", {"kept": "float", "bits": 32, "error": 1e6, "equalized": False}, "float weights"),
    ],
)
def test_what_no_rounding_does_is_said(variant: str, of_layer: dict[str, Any], told: str) -> None:
    observed = beyond_rounding(artifact(variant, rounding=(layer(**of_layer),)))
    assert observed.verdict is Verdict.FAIL
    (finding,) = observed.findings
    assert (finding.code, finding.severity, finding.where) == ("QUANTIZATION_BEYOND_ROUNDING", "fail", "conv")
    assert told in finding.message
    assert finding.remedy


def test_a_recipe_has_forms_of_its_own_however_it_is_run() -> None:
    recipe, run_as = Variant.parse("recipe:r.json"), Variant.parse("dynamic:8")
    mixed = (layer(bits=3, sym=True), layer(bits=4, block=32, error=0.6), layer(kept="fp16", bits=16))
    assert not beyond_rounding(artifact("dynamic:8", rounding=mixed, asked=recipe, run_as=run_as)).findings
    wrong = artifact("dynamic:8", rounding=(layer(scale=1.1),), asked=recipe, run_as=run_as)
    assert beyond_rounding(wrong).verdict is Verdict.FAIL


def test_few_are_told_and_all_are_counted() -> None:
    layers = [layer(layer=f"l{number}", scale=1.1) for number in range(5)]
    (finding,) = beyond_rounding(artifact("dynamic:8", rounding=(*layers, layer()))).findings
    assert "5 of 6 layers" in finding.message
    assert "and 2 more" in finding.message
    assert "'l3'" not in finding.message
    assert len(finding.evidence["layers"]) == 5


def test_of_layers_that_were_not_read_nothing_is_claimed() -> None:
    assert not beyond_rounding(artifact("dynamic:8", rounding=())).findings
    assert not beyond_rounding(artifact("dynamic:8")).findings


def test_a_run_whose_outputs_keep_all_limits_is_fail_all_the_same(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "weight:8", devices=(HOST,))
    archive.made("weight:8", rounding=(layer(scale=1.03),))
    archive.on_device(HOST, "weight:8")
    trial = only(archive)
    assert trial.verdict is Verdict.FAIL
    assert codes(trial) == ["QUANTIZATION_BEYOND_ROUNDING"]


def scaled(*found: tuple[float, float] | None) -> list[TensorScale]:
    """Tensors of scale 0.1 and zero point 3, as they are in the file."""
    return [TensorScale(tensor=f"t{place}", scale=0.1, zero=3, found=each) for place, each in enumerate(found)]


@pytest.mark.parametrize("found", [None, (0.1, 3), (0.10005, 3)], ids=["not in the file", "the same", "a last bit"])
def test_scales_that_calibrating_gave(found: tuple[float, float] | None) -> None:
    made = artifact("static:8", scales=tuple(scaled(found)))
    assert beyond_rounding(made).findings == ()


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ((0.1, 4), "zero point 4 in place of 3"),
        ((0.11, 3), "a scale of 0.11 in place of 0.1"),
        ((0.0998, 3), "a scale of 0.0998 in place of 0.1"),
    ],
)
def test_scales_that_calibrating_did_not_give(found: tuple[float, float], told: str) -> None:
    observed = beyond_rounding(artifact("static:8", scales=tuple(scaled((0.1, 3), found))))
    (finding,) = observed.findings
    assert observed.verdict is Verdict.FAIL
    assert (finding.code, finding.where) == ("QUANTIZATION_BEYOND_ROUNDING", "t1")
    assert finding.message.startswith("1 of 2 tensors")
    assert finding.message.endswith(f"'t1': {told}")


def test_few_scales_are_told_and_all_are_counted() -> None:
    (finding,) = beyond_rounding(artifact("static:8", scales=tuple(scaled(*[(0.2, 3)] * 5)))).findings
    assert finding.message.startswith("5 of 5 tensors")
    assert finding.message.endswith("; and 2 more")
    assert len(finding.evidence["scales"]) == 5
