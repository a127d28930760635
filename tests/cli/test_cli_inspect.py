"""inspect and report, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.beds.models import ModelByName
from tests.cli.command import edgequant, re_words

ONE = ("--threads", "1")


def test_inspect(real_model: ModelByName) -> None:
    done = edgequant("inspect", str(real_model("enc")), "--json")
    assert done.code == 0
    document = done.json
    assert document["schema"] == "edgequant.inspect/1"
    assert [entry["name"] for entry in document["inputs"]] == ["feat_erb", "feat_spec"]
    assert document["inputs"][0]["shape"] == [1, 1, None, 32]
    assert document["inputs"][0]["dims"][2] == "S"
    assert document["recurrent"] == ["/emb_gru/GRU"]
    assert document["recommended"] == document["advice"][0]["variant"] == "dynamic:8"
    assert [each["order"] for each in document["advice"]] == list(range(1, len(document["advice"]) + 1))
    assert document["ranges"] is None
    assert {"RECURRENT_LAYER", "NONLINEARITY_AFTER_RECURRENT"} <= {f["code"] for f in document["findings"]}
    text = edgequant("inspect", str(real_model("enc"))).out
    assert re_words("feat_erb float32 [1, 1, S, 32]", text)
    assert "Worth trying, in this order 1. --variant dynamic:8 " in " ".join(text.split())
    assert "--shape feat_erb=1,1,A,32" in " ".join(text.split())


def test_what_a_finding_speaks_of_is_named(real_model: ModelByName) -> None:
    model = str(real_model("ppocr_rec"))
    found = {finding["code"]: finding for finding in edgequant("inspect", model, "--json").json["findings"]}
    layers = [layer["layer"] for layer in found["WEIGHT_OUTLIERS"]["evidence"]["layers"]]
    assert len(layers) == found["WEIGHT_OUTLIERS"]["evidence"]["count"] == 10
    brief, whole = (edgequant("inspect", model, *more, COLUMNS="200").out for more in ((), ("-v",)))
    assert "(-v names them)" in brief
    assert "(-v names them)" not in whole
    assert all(f" {layer}: peak " in whole for layer in layers)
    assert not any(f" {layer}: peak " in brief for layer in layers)
    # What may be worse is no command, and says what cannot take it.
    assert "Hold block=32 against plain 8 bits" in brief
    assert "31 of 66 layers cannot take it" in brief


def test_layers_are_listed_by_the_names_that_recipes_take(generated_model: ModelByName, tmp_path: Path) -> None:
    model, float_file, out = str(generated_model("conv_cnn")), tmp_path / "float.mnn", tmp_path / "out.mnn"
    assert edgequant("inspect", model, "--json").json["layers"] == []  # only the converter gives them names
    assert edgequant("quantize", model, "-o", str(float_file), "--variant", "float", *ONE).code == 0
    layers = edgequant("inspect", str(float_file), "--json").json["layers"]
    assert len(layers) > 1
    assert {layer["kept"] for layer in layers} == {"float"}
    first = layers[0]["name"]
    brief, whole = (edgequant("inspect", str(float_file), *more).out for more in ((), ("-v",)))
    assert f"{len(layers)} layers with weights (-v lists them)" in brief
    assert first not in brief
    assert re_words(f"{first} {layers[0]['type']} float 32", whole)
    rules = [{"name": "*", "bits": 8}, {"name": first, "bits": 0}]
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"schema": "edgequant.recipe/1", "rules": rules}))
    assert edgequant("quantize", model, "-o", str(out), "--variant", f"recipe:{recipe}", *ONE).code in (0, 1)
    kept = {layer["name"]: layer["kept"] for layer in edgequant("inspect", str(out), "--json").json["layers"]}
    assert kept == {layer["name"]: "float" if layer["name"] == first else "quantized" for layer in layers}


def test_inspect_with_inputs(real_model: ModelByName, tmp_path: Path) -> None:
    """One sample of five is thirty times as loud: told, with the model run; and not where all are alike."""
    draw = np.random.default_rng(0)
    for loud in (1, 30):
        folder = tmp_path / f"loud-{loud}"
        folder.mkdir()
        for number in range(5):
            size = loud if number == 3 else 1
            arrays = {
                "feat_erb": size * draw.standard_normal((1, 1, 8 + number, 32)),
                "feat_spec": size * draw.standard_normal((1, 2, 8 + number, 96)),
            }
            np.savez(folder / f"{number}.npz", **{name: array.astype("f4") for name, array in arrays.items()})
        done = edgequant("inspect", str(real_model("enc")), "--inputs", str(folder), "--json", TMPDIR=str(tmp_path))
        assert done.code == 0, done.err
        document = done.json
        assert document["ranges"]["samples"] == 5
        assert document["ranges"]["tensors"] > 10
        found = {finding["code"]: finding for finding in document["findings"]}
        assert document["ranges"]["varies"] == ("ACTIVATION_RANGE_VARIES" in found) == (loud == 30)
    assert found["ACTIVATION_RANGE_VARIES"]["evidence"]["tensors"][0]["ratio"] > 8
    two = tmp_path / "two"
    two.mkdir()
    for number in range(2):
        (two / f"{number}.npz").write_bytes((tmp_path / "loud-1" / f"{number}.npz").read_bytes())
    done = edgequant("inspect", str(real_model("enc")), "--inputs", str(two), TMPDIR=str(tmp_path))
    assert "over 2 samples: too few to tell" in done.out
    assert not list(tmp_path.glob("edgequant-inspect-*"))


def test_inspect_with_inputs_that_do_not_fit(real_model: ModelByName, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", feat_erb=np.zeros((1, 1, 8, 32), "f4"))
    done = edgequant("inspect", str(real_model("enc")), "--inputs", str(tmp_path / "a.npz"), TMPDIR=str(tmp_path))
    assert done.code == 2
    assert "INPUT_MISSING" in done.err or "feat_spec" in done.err
    assert not list(tmp_path.glob("edgequant-inspect-*"))


def test_report_of_a_folder_and_of_a_file(generated_model: ModelByName, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    first = edgequant(
        "verify", str(generated_model("argmax_ints")), "--device", "local:", *ONE, "--limit", "scores:sqnr_db>=150",
        "--run-dir", str(run_dir),
    )  # fmt: skip
    again, file = edgequant("report", str(run_dir)), edgequant("report", str(run_dir / "report.json"))
    assert first.code == again.code == file.code == 1
    assert again.out == first.out == file.out
    (run_dir / "report.json").write_text((run_dir / "report.json").read_text()[:-20])
    broken = edgequant("report", str(run_dir), "--json")
    assert broken.code == 2
    assert broken.json["error"]["code"] == "REPORT_INVALID"
    document = {"schema": "edgequant.report/1", "verdict": "PASS", "runs": []}
    (run_dir / "report.json").write_text(json.dumps(document))
    assert edgequant("report", str(run_dir)).code == 2
