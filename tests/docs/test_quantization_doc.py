"""Every command line of docs/quantization.md, in its order, and every variant it names."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from bench.realistic import samples, text_line
from edgequant.models.mnn.weights import read_weights
from edgequant.quantize.recipe import Recipe
from edgequant.spec import Variant
from tests.beds.models import ModelByName
from tests.nightly import all_but

PAGE = Path(__file__).parents[2] / "docs" / "quantization.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    return [shlex.split(line, comments=True) for line in lines]


def takes_pixels(source: Path, out: Path) -> None:
    """The direction classifier as an export that takes pictures as they are: RGB, 0 to 255, of one size."""
    model = onnx.load(source)
    graph = model.graph
    (given,) = graph.input
    mean = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1) * 255
    deviation = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1) * 255
    graph.initializer.append(numpy_helper.from_array(mean, "pixel_mean"))
    graph.initializer.append(numpy_helper.from_array(deviation, "pixel_deviation"))
    graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0], np.int64), "rgb_to_bgr"))
    graph.node.insert(0, helper.make_node("Div", ["centred", "pixel_deviation"], [given.name], name="normalize"))
    graph.node.insert(0, helper.make_node("Sub", ["bgr", "pixel_mean"], ["centred"], name="centre"))
    graph.node.insert(0, helper.make_node("Gather", ["pixels", "rgb_to_bgr"], ["bgr"], name="swap", axis=1))
    taken = helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, [1, 3, 80, 160])
    del graph.input[:]
    graph.input.append(taken)
    onnx.save(model, out)


@pytest.fixture
def folder(real_model: ModelByName, tmp_path: Path) -> Path:
    """What the page's reader has: models, samples and cases for them, and pictures."""
    for name, source in (("model", "ppocr_cls"), ("enc", "enc")):
        (tmp_path / f"{name}.onnx").write_bytes(real_model(source).read_bytes())
    takes_pixels(tmp_path / "model.onnx", tmp_path / "pixels.onnx")
    for name, count, seed in (("samples", 8, 1), ("cases", 2, 1001)):
        (tmp_path / name).mkdir()
        for number, sample in enumerate(samples("ppocr_cls", count, seed)):
            np.savez(tmp_path / name / f"{number}.npz", **sample)  # type: ignore[arg-type]
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pixel-cases").mkdir()
    rng = np.random.default_rng(3)
    for number in range(8):
        text_line(rng).save(tmp_path / "pictures" / f"{number}.png")
    for number in range(2):
        pixels = np.asarray(text_line(rng).resize((160, 80)), np.float32).transpose(2, 0, 1)[None]
        np.savez(tmp_path / "pixel-cases" / f"{number}.npz", pixels=pixels)
    steps = tmp_path / "mnn-tests"
    for number, sample in enumerate(samples("ppocr_cls", 3, 2)):
        (steps / str(number)).mkdir(parents=True)
        described = {"inputs": [{"name": "x", "shape": list(sample["x"].shape)}], "outputs": []}
        (steps / str(number) / "input.json").write_text(json.dumps(described))
        np.savetxt(steps / str(number) / "x.txt", sample["x"].ravel())
    return tmp_path


# The long measurement, python -m bench.methods, has a test of its own in its quick form.
COMMANDS = [words for words in commands() if words[0] != "python"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("words", all_but(COMMANDS[0], of=COMMANDS), ids=lambda words: shlex.join(words)[:80])
def test_every_command_works(words: list[str], folder: Path) -> None:
    (function,) = blocks("python")
    (folder / "samples.py").write_text(function)
    (halves,) = [block for block in blocks("json") if "constants" in block]
    (folder / "halves.json").write_text(halves)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    assert words[0] == "edgequant"
    done = subprocess.run(
        [*words, "--threads", "1"],
        cwd=folder, env={**os.environ, "PATH": path, "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True, text=True, timeout=850,
    )  # fmt: skip
    told = f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    if "--no-fallback" in words:
        assert done.returncode == 1, told
        # Of the user's own model, not of one in between that is gone by now.
        assert "kl: QUANTIZER_CRASHED: enc.onnx: MNN's kl" in done.stderr.replace(f"{folder}/", ""), told
        assert "QUANTIZER_CRASHED  MNN's kl" in done.stdout, told
        assert "[edgequant]" not in done.stderr + done.stdout, told
        return
    # Static int8 may well break a limit, and says so; the command still has done its work.
    assert done.returncode in (0, 1), told
    assert "ERROR" not in done.stdout, told
    if "--calibration" in words:
        assert f"calibration data: {words[words.index('--calibration') + 1]}\n" in done.stderr, told
    else:  # the recipe: what it says of halves is in the file
        kept = Counter(layer.kept for layer in read_weights(folder / "mixed.mnn"))
        assert set(kept) == {"quantized", "fp16"}, kept
        depthwise = [each for each in read_weights(folder / "mixed.mnn") if each.type == "ConvolutionDepthwise"]
        assert kept["fp16"] == len(depthwise) > 5
        assert all(each.kept == "fp16" for each in depthwise)
    if "-o" in words:
        assert (folder / words[words.index("-o") + 1]).stat().st_size > 100_000, told
    assert "CALIBRATION_RANDOM" not in done.stdout, told
    assert "CALIBRATED_ON_CASES" not in done.stdout, told


def test_every_source_of_calibration_data_is_shown() -> None:
    sources = {words[words.index("--calibration") + 1] for words in COMMANDS if "--calibration" in words}
    assert sources == {"samples/", "pictures/", "mnn-tests/", "samples.py:lines"}
    assert any("--no-fallback" in words for words in COMMANDS)


def test_every_recipe_it_shows_can_be_read() -> None:
    recipes = [Recipe.parse(block) for block in blocks("json") if "edgequant.recipe/1" in block]
    assert [recipe.constants for recipe in recipes] == ["float", "fp16"]
    # What is said of keys is what there is.
    table = PAGE.read_text().partition("| key | means |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == ["schema", "memory", "constants", "bits"]


def test_every_variant_it_names_exists() -> None:
    named = re.findall(r"`((?:float|fp16|kl|ema|admm|(?:weight|dynamic|static):\d)(?:,[^`]*)?)`", PAGE.read_text())
    assert len(set(named)) > 8
    for text in set(named):
        assert str(Variant.parse(text)).startswith(text.partition(",")[0])
