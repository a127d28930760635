"""TFLite sources whose weights are stored in half precision: MNN's converter writes them as float32."""

from __future__ import annotations

from pathlib import Path

from edgequant.quantize.by_recipe import make_recipe
from edgequant.quantize.recipe import Recipe
from tests import generated_tflite
from tests.jobs.support import do


def test_they_are_calibrated_as_float_ones_are(tmp_path: Path) -> None:
    """`inspect` names static:8 for them, and nothing in them is in the way of it: not ALREADY_QUANTIZED."""
    report = do(generated_tflite.half_conv(tmp_path / "m.tflite"), tmp_path / "run", "static:8", "float")
    static, plain = report.runs
    assert (plain.verdict, static.verdict) == ("PASS", "PASS")
    assert report.reference is not None
    assert report.reference.kind == "litert"
    assert (static.errors.quantization["y"].sqnr_db or 0) > 30
    assert static.file is not None


def test_a_recipe_takes_them_too(tmp_path: Path) -> None:
    source = generated_tflite.half_conv(tmp_path / "m.tflite")
    recipe = Recipe.parse('{"rules": [{"name": "*", "bits": 4}]}')
    made = make_recipe(source, recipe, tmp_path / "made.mnn", log_dir=tmp_path / "logs")
    assert [layer.bits for layer in made.layers] == [4]
