"""Models made by recipes, and what cannot be made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgequant import zoo
from edgequant.errors import EdgequantError
from edgequant.models.mnn.weights import read_weights
from edgequant.quantize.by_recipe import ByRecipe, make_recipe
from edgequant.quantize.calibrate.static import StaticOptions, make_static
from edgequant.quantize.convert import convert
from edgequant.quantize.halves import half_constants
from edgequant.quantize.recipe import Recipe, recipe_of
from edgequant.spec import Variant
from tests import generated
from tests.quantize.search.support import cases_of
from tests.quantize.test_encode import floats, stored


def recipe(*rules: dict[str, object], **more: object) -> Recipe:
    return Recipe.parse(json.dumps({"rules": rules, **more}))


def make(source: Path, wanted: Recipe, folder: Path, **more: object) -> ByRecipe:
    return make_recipe(source, wanted, folder / "made.mnn", log_dir=folder / "logs", **more)  # type: ignore[arg-type]


def kept(made: ByRecipe) -> dict[str, tuple[str, int, int | None, bool]]:
    return {each.name: (each.kept, each.bits, each.block, each.sym) for each in made.layers}


def test_inside_a_gru_too_and_every_way_at_once(tmp_path: Path) -> None:
    wanted = recipe(
        {"name": "*", "bits": 8},
        {"subgraph": "*gru*", "bits": 4, "block": 32, "hqq": True},
        {"regex": ".*df_conv0.*", "bits": 16},
        {"type": "ConvolutionDepthwise", "bits": 6, "sym": True},
    )
    made = make(zoo.fetch("enc"), wanted, tmp_path)
    assert made.runs == 4  # float, hqq, plain, half precision
    found = kept(made)
    assert found["Convolution24"] == ("quantized", 4, 32, False)
    assert found["Convolution250"] == ("quantized", 8, None, False)
    assert found["/erb_conv1/0/Conv_output_0"] == ("quantized", 6, None, True)
    assert found["/df_conv0/2/Conv_output_0"][:2] == ("fp16", 16)
    assert half_constants(made.file.path)
    assert {path.name for path in tmp_path.iterdir()} == {"made.mnn", "logs"}


def test_the_recipe_of_a_made_model_makes_it_again(tmp_path: Path) -> None:
    source = generated.gru(tmp_path / "gru.onnx")
    wanted = recipe({"name": "*", "bits": 8}, {"subgraph": "*", "type": "Convolution", "bits": 5, "sym": True})
    first = make(source, wanted, tmp_path)
    told = recipe_of(first.layers)
    again = make_recipe(source, Recipe.parse(told.text()), tmp_path / "again.mnn", log_dir=tmp_path / "logs")
    assert again.file.sha256 == first.file.sha256
    assert recipe_of(again.layers) == told


def test_one_rule_for_all_is_the_plain_variant(tmp_path: Path) -> None:
    source = generated.conv_cnn(tmp_path / "cnn.onnx")
    base = convert(source, Variant.parse("float"), tmp_path / "f.mnn", log_dir=tmp_path / "logs").path
    plain = convert(base, Variant.parse("weight:4,block=32"), tmp_path / "p.mnn", log_dir=tmp_path / "logs")
    made = make(base, recipe({"bits": 4, "block": 32}), tmp_path)
    assert made.file.sha256 == plain.sha256
    assert made.runs == 1


def test_halves_are_rounded_not_cut(tmp_path: Path) -> None:
    """The converter alone cuts: its weights come back off by up to a whole unit in the last place."""
    source = generated.conv_cnn(tmp_path / "cnn.onnx")
    base = convert(source, Variant.parse("float"), tmp_path / "f.mnn", log_dir=tmp_path / "logs").path
    made = make(base, recipe({"bits": 16}), tmp_path)
    assert all(each.kept == "fp16" for each in made.layers)
    found = stored(made.file.path)
    for key, (weights, _, _) in floats(base).items():
        assert np.array_equal(np.frombuffer(found[key][0], np.float16), weights.astype(np.float16))


def test_the_source_is_no_output(tmp_path: Path) -> None:
    """A recipe or static model written over its own source would be the last thing made from it."""
    source = generated.conv_cnn(tmp_path / "cnn.onnx")
    before = source.read_bytes()
    with pytest.raises(EdgequantError) as caught:
        make_recipe(source, recipe({"bits": 8}), source, log_dir=tmp_path / "logs")
    assert caught.value.code == "OUTPUT_IS_SOURCE"
    with pytest.raises(EdgequantError) as caught:
        make_static(source, cases_of(source), StaticOptions(), source, log_dir=tmp_path / "logs")
    assert caught.value.code == "OUTPUT_IS_SOURCE"
    assert source.read_bytes() == before


def test_static_and_dynamic_layers_in_one_model(tmp_path: Path) -> None:
    source = zoo.fetch("enc")
    wanted = recipe(
        {"name": "*", "bits": 0},
        {"name": "/erb_conv1/0/Conv_output_0", "bits": 8, "mode": "static"},
        {"subgraph": "*gru*", "bits": 4},
    )
    made = make(source, wanted, tmp_path, samples=cases_of(source))
    found = kept(made)
    assert found["/erb_conv1/0/Conv_output_0"][0] == "static"
    assert found["Convolution24"] == ("quantized", 4, None, False)
    assert found["Convolution250"][0] == "float"
    assert recipe_of(made.layers).resolve(made.layers)["", "/erb_conv1/0/Conv_output_0"].mode == "static"


@pytest.mark.parametrize("also", [True, False])
def test_layers_that_cannot_be_static_are_named_with_the_reason(tmp_path: Path, also: bool) -> None:
    source = zoo.fetch("enc")
    able = [{"name": "/erb_conv1/0/Conv_output_0", "bits": 8, "mode": "static"}] if also else []
    # What is in the loop of the GRU.
    wanted = recipe({"name": "*", "subgraph": "?*", "bits": 8, "mode": "static"}, *able)
    with pytest.raises(EdgequantError) as caught:
        make(source, wanted, tmp_path, samples=cases_of(source))
    assert caught.value.code == "RECIPE_NOT_STATIC"
    assert "cannot be static, first '" in str(caught.value)


@pytest.mark.parametrize(
    ("rules", "more", "code"),
    [
        ([{"name": "nothing_like_it", "bits": 8}], {}, "RECIPE_MATCHES_NOTHING"),
        ([{"name": "*", "bits": 0}, {"type": "ConvolutionDepthwise", "bits": 16}], {}, "RECIPE_HALF_AND_FLOAT"),
        ([{"type": "ConvolutionDepthwise", "bits": 8}], {"constants": "fp16"}, "RECIPE_HALF_AND_FLOAT"),
        (
            [{"name": "*", "bits": 8}, {"name": "/erb_conv2/*", "bits": 8, "mode": "static"}],
            {},
            "RECIPE_STATIC_MIX",
        ),
        (
            [{"name": "*", "bits": 8}, {"name": "/erb_conv2/*", "bits": 8, "mode": "static"}],
            {"constants": "fp16"},
            "RECIPE_STATIC_MIX",
        ),
        ([{"name": "/erb_conv2/*", "bits": 8, "mode": "static"}], {}, "RECIPE_NEEDS_SAMPLES"),
    ],
)
def test_what_cannot_be_made(
    tmp_path: Path, rules: list[dict[str, object]], more: dict[str, object], code: str
) -> None:
    with pytest.raises(EdgequantError) as caught:
        make(zoo.fetch("enc"), recipe(*rules, **more), tmp_path)
    assert caught.value.code == code
    assert caught.value.hint
    assert not (tmp_path / "made.mnn").exists()


def test_a_quantized_source_is_refused(tmp_path: Path) -> None:
    source = generated.conv_cnn(tmp_path / "cnn.onnx")
    done = convert(source, Variant.parse("weight:8"), tmp_path / "q.mnn", log_dir=tmp_path / "logs").path
    with pytest.raises(EdgequantError) as caught:
        make(done, recipe({"bits": 4}), tmp_path)
    assert caught.value.code == "ALREADY_QUANTIZED"
    assert read_weights(done)[0].bits == 8
