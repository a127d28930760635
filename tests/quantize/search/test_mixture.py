"""Mixtures compute what the converter's own models compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgequant import zoo
from edgequant.errors import ToolError
from edgequant.models import read_model
from edgequant.models.mnn.weights import read_weights
from edgequant.quantize.by_recipe import make_recipe
from edgequant.quantize.convert import convert
from edgequant.quantize.encode import Form
from edgequant.quantize.recipe import Recipe
from edgequant.quantize.search.mixture import Mixture, assemble, open_mixture
from edgequant.quantize.search.trials import Bench, Signals
from edgequant.spec import Variant
from tests import generated
from tests.nightly import all_but
from tests.quantize.search.support import bench_of, float_model

MODELS = {"conv_cnn": generated.conv_cnn, "gru": generated.gru, "lstm": generated.lstm}


@pytest.fixture(params=all_but("conv_cnn", "gru", of=[*MODELS, "enc"]))
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return zoo.fetch("enc") if request.param == "enc" else MODELS[request.param](tmp_path / "model.onnx")


def ready(source: Path, folder: Path) -> tuple[Path, Bench, Signals, Mixture]:
    base = float_model(source, folder)
    bench = bench_of(source, folder)
    return base, bench, bench.reference(base), open_mixture(base, bench.folder)


def test_the_same_numbers_as_conversions(source: Path, tmp_path: Path) -> None:
    base, bench, signals, mixture = ready(source, tmp_path)
    for number, (text, form) in enumerate(
        {
            "weight:8": Form(8),
            "weight:5": Form(5),
            "weight:4,block=32": Form(4, 32),
            "weight:8,sym": Form(8, None, True),
        }.items()
    ):
        made = convert(base, Variant.parse(text), tmp_path / f"{number}.mnn", log_dir=tmp_path / "logs").path
        choice = {key: mixture.forms(key, [form])[0] for key in mixture.layers}
        for memory in ("normal", "low"):
            noise: list[np.ndarray] = []
            bench.mixtures(mixture, [choice], memory, signals, noise, halved=False)  # type: ignore[arg-type]
            real = bench.models([made], memory, signals)[0]  # type: ignore[arg-type]
            assert real.max() > 0
            assert np.array_equal(noise[0], real)
        assert abs(mixture.size(choice, halved=False) - made.stat().st_size) < 0.02 * made.stat().st_size + 4096


def test_layers_of_several_kinds_and_halves_as_a_recipe_makes_them(tmp_path: Path) -> None:
    source = zoo.fetch("enc")
    base, bench, signals, mixture = ready(source, tmp_path)
    keys = list(mixture.layers)
    choice = {key: (Form(8), Form(5), Form(4, 32), Form(16))[place % 4] for place, key in enumerate(keys)}
    choice = {key: mixture.forms(key, [form])[0] for key, form in choice.items()}
    rules = [
        {"name": name.replace("[", "[[]"), "subgraph": subgraph, "bits": form.bits}
        | ({"block": form.block} if form.block else {})
        for (subgraph, name), form in choice.items()
    ]
    recipe = Recipe.model_validate({"constants": "fp16", "rules": rules})
    made = make_recipe(base, recipe, tmp_path / "made.mnn", log_dir=tmp_path / "logs")
    assert made.runs == 2
    noise: list[np.ndarray] = []
    bench.mixtures(mixture, [choice], "low", signals, noise, halved=True)
    assert np.array_equal(noise[0], bench.models([made.file.path], "low", signals)[0])
    assert abs(mixture.size(choice, halved=True) - made.file.size) < 8192


def test_nothing_chosen_is_the_float_model_and_the_file_stays_readable(source: Path, tmp_path: Path) -> None:
    base, bench, signals, mixture = ready(source, tmp_path)
    noise: list[np.ndarray] = []
    bench.mixtures(mixture, [{}], "normal", signals, noise, halved=False)
    assert all(value > 100 for value in signals.sqnr_db(noise[0]).values())
    choice = {key: Form(6) for key in mixture.layers}
    mixture.add(choice.items())
    mixed = tmp_path / "mixed.mnn"
    with open(mixture.library, "rb") as library:
        mixed.write_bytes(assemble(base.read_bytes(), library, mixture.pieces(choice)))
    assert read_model(mixed).weights == "quantized"
    assert {(each.kept, each.bits) for each in read_weights(mixed)} == {("quantized", 6)}


def test_a_model_that_mnn_refuses_costs_no_other_its_result(tmp_path: Path) -> None:
    source = generated.conv_cnn(tmp_path / "model.onnx")
    _, bench, signals, mixture = ready(source, tmp_path)
    good = {key: Form(8) for key in mixture.layers}
    mixture.add(good.items())
    (slot, start, length, place), *rest = mixture.pieces(good)
    # The operator's table is said to be in the middle of nowhere.
    broken = [(slot, start, length, 0x40000000 + place), *rest]
    noise: list[np.ndarray] = []
    trials = [mixture.pieces(good), broken, mixture.pieces(good)]
    bench._trials(mixture.base, mixture.library, trials, "normal", signals, noise)
    assert np.isfinite(noise[0]).all()
    assert np.isinf(noise[1]).all()
    assert np.array_equal(noise[0], noise[2])


def test_models_that_hang_end_the_search(tmp_path: Path) -> None:
    source = generated.conv_cnn(tmp_path / "model.onnx")
    _, bench, signals, mixture = ready(source, tmp_path)
    bench.timeout = 1e-5  # less than loading takes
    noise: list[np.ndarray] = []
    choice = {key: Form(8) for key in mixture.layers}
    with pytest.raises(ToolError) as caught:
        bench._trials(mixture.base, mixture.library, [[]] * 9, "normal", signals, noise)
    assert caught.value.code in ("SEARCH_CRASHED", "SEARCH_TIMEOUT")
    bench.timeout = 240.0
    noise = []
    bench.mixtures(mixture, [choice], "normal", signals, noise, halved=False)
    assert np.isfinite(noise[0]).all()
