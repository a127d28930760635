"""Calibrated variants through the main job: what is tried, what comes of it, and what the report says it is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from edgequant.archive.types import Artifact
from edgequant.errors import InputError
from edgequant.findings import Finding
from edgequant.quantize.calibrate.findings import StaticLayer, partly
from edgequant.quantize.calibrate.why import Code
from edgequant.quantize.maker import Maker
from edgequant.report.model import Run
from edgequant.spec.variant import Variant
from tests.beds.models import ModelByName
from tests.cli.command import edgequant
from tests.jobs.support import check_file, check_numbers, codes, do
from tests.nightly import all_but
from tests.quantize.test_halves import product

CRASHES = ("SIGSEGV", "SIGBUS", "SIGABRT")
"""What becomes of it when MNN follows a wild pointer is not for MNN to choose."""


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """Calibration data of conv_cnn."""
    folder = tmp_path / "samples"
    folder.mkdir()
    random = np.random.default_rng(5)
    for number in range(8):
        np.savez(folder / f"{number}.npz", x=random.standard_normal((1, 3, 32, 32)).astype(np.float32))
    return folder


def finding(run: Run, code: str) -> Finding:
    (found,) = [each for each in run.findings if each.code == code]
    return found


def left_over(run_dir: Path) -> list[str]:
    """What a quantizer should have taken away: everything in models/ but the models."""
    return [path.name for path in (run_dir / "models").iterdir() if path.suffix != ".mnn"]


def test_every_method_on_a_plain_cnn(generated_model: ModelByName, samples: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    variants = ("kl", "ema", "admm", "static:8", "static:8,calib=minmax,asym", "static:8,calib=kl")
    report = do(generated_model("conv_cnn"), run_dir, *variants, calibration=str(samples), limits=("sqnr_db>=15",))
    assert [run.variant for run in report.runs] == list(variants)
    float_size = next((run_dir / "models").glob("float-*.mnn")).stat().st_size
    for run in report.runs:
        check_numbers(run_dir, run)
        assert run.error is None
        assert run.made_as == run.variant
        assert [step["outcome"] for step in run.steps] == ["made"]
        assert run.low_memory_engaged is None
        assert run.options["memory"] == "normal"
        assert run.verdict != "ERROR"
        assert not codes(run) & {"QUANTIZE_FELL_BACK", "CALIBRATION_RANDOM", "CALIBRATED_ON_CASES"}
        assert run.memory_mb is not None
        assert (run.memory_mb.model_file or 0) * 1e6 < 0.7 * float_size
        # It is another model than the float one, and the error is the quantization's.
        for name in run.outputs:
            assert 10 < (run.errors.quantization[name].sqnr_db or 0) < 80 < (run.errors.conversion[name].sqnr_db or 0)
    assert len({run.sha256 for run in report.runs}) == len(variants)
    assert not left_over(run_dir)
    # Its numbers are others than those of the table, and it says so.
    chosen = finding(report.runs[3], "CALIBRATOR_CHOSEN")
    assert "(SQNR of the worst output, mean of the samples): " in chosen.message
    said = report.runs[3].steps[0]["message"]
    assert "SQNR" in said
    assert "cases together" in said or any(f"in case '{case.name}'" in said for case in report.cases)


@pytest.mark.slow
def test_a_crash_is_climbed_over_and_told(real_model: ModelByName, tmp_path: Path) -> None:
    """MNN's EMA crashes on a model with a GRU: the way out is one of MNN's flags."""
    report = do(real_model("enc"), tmp_path / "run", "ema", "dynamic:8")
    ema, dynamic = report.runs
    assert ema.made_as == "ema with the RNN as one op"
    first, second = ema.steps
    assert (first["outcome"], first["code"]) == ("failed", "QUANTIZER_CRASHED")
    assert first["signal"] in CRASHES
    assert second["outcome"] == "made"
    assert first["signal"] in finding(ema, "QUANTIZE_FELL_BACK").message
    assert finding(ema, "CALIBRATION_RANDOM").severity == "warn"
    assert "RNN_LEFT_FLOAT" in codes(ema)
    assert dynamic.verdict == "PASS"
    assert dynamic.made_as == dynamic.variant
    check_numbers(tmp_path / "run", ema)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "variant"), all_but(("gru", "kl"), of=[("gru", "kl"), ("enc", "kl"), ("enc", "ema")]))
def test_a_crash_is_named_where_nothing_else_may_be_tried(
    name: str, variant: str, real_model: ModelByName, generated_model: ModelByName, tmp_path: Path
) -> None:
    model = generated_model(name) if name == "gru" else real_model(name)
    (alone,) = do(model, tmp_path / "run", variant, fallback=False).runs
    # Among others it is one run that failed.
    crashed, dynamic = do(model, tmp_path / "two", variant, "dynamic:8", fallback=False).runs
    assert dynamic.verdict == "PASS"
    for run in (alone, crashed):
        assert run.verdict == "FAIL"  # the model's own: no rerun changes it
        assert run.error is not None
        assert run.error.code == "QUANTIZER_CRASHED"
        assert run.error.evidence["signal"] in CRASHES
        assert run.error.evidence["signal"] in run.error.message
        assert Path(run.error.evidence["log"]).is_file()
    assert not left_over(tmp_path / "run")


def test_quantize_keeps_the_log_of_what_failed(generated_model: ModelByName, tmp_path: Path) -> None:
    """MNN's kl crashes on the loop that a GRU becomes."""
    words = ("--variant", "kl", "--no-fallback", "--threads", "1", "--run-dir", "run")
    done = edgequant("quantize", str(generated_model("gru")), "-o", "out.mnn", *words, cwd=tmp_path)
    assert done.code == 1
    assert "QUANTIZER_CRASHED  MNN's kl" in done.out
    assert "out.mnn was not written: QUANTIZER_CRASHED." in done.out
    assert not (tmp_path / "out.mnn").exists()
    (run,) = check_file(tmp_path / "run" / "report.json")["runs"]
    assert run["verdict"] == "FAIL"
    assert (tmp_path / run["error"]["evidence"]["log"]).is_file()
    assert f"    log {run['error']['evidence']['log']}" in done.out.splitlines()


def test_a_bug_in_making_one_takes_no_other_with_it(
    generated_model: ModelByName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Maker.make

    def buggy(maker: Maker, variant: Variant) -> Artifact:
        return make(maker, variant if variant.method != "fp16" else 1 / 0)  # type: ignore[arg-type]

    monkeypatch.setattr(Maker, "make", buggy)
    half, dynamic = do(generated_model("conv_cnn"), tmp_path / "run", "fp16", "dynamic:8").runs
    assert half.verdict == "ERROR"
    assert half.error is not None
    assert half.error.code == "INTERNAL_ERROR"
    assert "ZeroDivisionError" in (tmp_path / "run" / "logs" / half.error.evidence["log"]).read_text()
    assert dynamic.verdict == "PASS"


def test_numbers_that_half_precision_cannot_hold_are_in_the_report(tmp_path: Path) -> None:
    source = product(tmp_path / "m.onnx", np.asarray([1e5] + [0.5] * 15), 1e-12)
    half, full, recipe = do(source, tmp_path / "run", "fp16", "float", f"recipe:{halving(tmp_path)}").runs
    assert finding(half, "HALF_OVERFLOW").severity == "warn"
    assert {"HALF_OVERFLOW", "HALF_UNDERFLOW"} <= codes(recipe)
    assert finding(half, "HALF_UNDERFLOW").where == "c"
    assert not {"HALF_OVERFLOW", "HALF_UNDERFLOW"} & codes(full)


def halving(folder: Path) -> Path:
    (folder / "r.json").write_text('{"rules": [{"name": "*", "bits": 16}], "memory": "normal"}')
    return folder / "r.json"


def test_a_device_limit_without_a_device_is_told(generated_model: ModelByName, tmp_path: Path) -> None:
    model, limit = generated_model("conv_cnn"), "device_sqnr_db>=70"
    (run,) = do(model, tmp_path / "run", "float", limits=(limit,)).runs
    assert finding(run, "DEVICE_LIMIT_UNUSED").severity == "warn"
    assert limit in finding(run, "DEVICE_LIMIT_UNUSED").message
    assert run.verdict == "PASS"
    (plain,) = do(model, tmp_path / "plain", "float", limits=("sqnr_db>=70",)).runs
    assert "DEVICE_LIMIT_UNUSED" not in codes(plain)


def test_random_cases_beside_real_calibration_are_a_warning(
    generated_model: ModelByName, samples: Path, tmp_path: Path
) -> None:
    model, variants = generated_model("conv_cnn"), ("static:8,calib=minmax", "dynamic:8")
    report = do(model, tmp_path / "run", *variants, calibration=str(samples))
    (found,) = [each for each in report.findings if each.code == "RANDOM_INPUTS"]
    assert found.severity == "warn"
    assert "static:8" in found.message
    assert "dynamic:8" not in found.message
    plain = do(model, tmp_path / "plain", *variants)
    assert [each.severity for each in plain.findings if each.code == "RANDOM_INPUTS"] == ["info"]


@pytest.mark.parametrize(
    ("static", "weight", "whole", "said"),
    [
        (44, 9, 1, "44 of 54 layers compute in int8; 9 have 8-bit weights but compute in float, 1 is float: these save "
         "no time, the float one no room either"),
        (1, 1, 2, "1 of 4 layers computes in int8; 1 has 8-bit weights but computes in float, 2 are float: these save "
         "no time, the float ones no room either"),
        (5, 1, 0, "5 of 6 layers compute in int8; 1 has 8-bit weights but computes in float: this saves no time"),
        (5, 0, 1, "5 of 6 layers compute in int8; 1 is float: this saves no time, and no room either"),
        (5, 0, 2, "5 of 7 layers compute in int8; 2 are float: these save no time, and no room either"),
    ],
)  # fmt: skip
def test_which_layers_are_what(static: int, weight: int, whole: int, said: str) -> None:
    hows = ["static"] * static + ["weight"] * weight + ["float"] * whole
    layers = [_layer(f"l{n}", how, None if how == "static" else "a reason") for n, how in enumerate(hows)]
    assert partly(layers) == said


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ("", ""),
        ("A", "; kept float: A"),
        ("ABCD", "; kept float: A, B, C and D"),
        ("ABCDEF", "; kept float: A, B, C, D and 2 more"),
    ],
)
def test_layers_that_were_kept_are_named(kept: str, said: str) -> None:
    layers = [
        _layer("s", "static", None),
        _layer("w", "weight", "inside a loop"),
        *(_layer(k, "weight", "whatever is said of it", "kept") for k in kept),
    ]
    assert partly(layers).endswith(f"no time{said}")


def _layer(name: str, how: str, why: str | None, code: Code | None = None) -> StaticLayer:
    return StaticLayer(name, None, None, None, None, how, why, code)


def test_kept_layers_of_a_model(generated_model: ModelByName, samples: Path, tmp_path: Path) -> None:
    model = generated_model("conv_cnn")
    (run,) = do(model, tmp_path / "run", "static:8,calib=minmax,keep=1", calibration=str(samples)).runs
    found = finding(run, "STATIC_PARTLY")
    assert found.where is None
    (kept,) = (name for name, why in found.evidence["layers"].items() if why.endswith("most sensitive layers"))
    assert found.message.endswith(f"; kept float: {kept}")


@pytest.mark.nightly
@pytest.mark.slow
def test_static_int8_of_a_gru(real_model: ModelByName, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    (run,) = do(real_model("enc"), run_dir, "static:8,calib=minmax", limits=("sqnr_db>=10",)).runs
    assert run.made_as == run.variant
    kinds = finding(run, "STATIC_PARTLY")
    assert any("weight" in text for text in kinds.evidence["layers"].values())
    counted = [int(number) for number in re.findall(r"\d+(?= of| has| have| is| are)", kinds.message)]
    assert sum(counted) == int(re.search(r"of (\d+) layers compute in int8", kinds.message)[1])  # type: ignore[index]
    assert sum(counted[1:]) == len(kinds.evidence["layers"])
    check_numbers(run_dir, run)
    assert not left_over(run_dir)


def test_what_falls_back_to_dynamic_is_run_as_such(generated_model: ModelByName, tmp_path: Path) -> None:
    """Nothing in this model can be quantized, so every way fails; and what is left proves nothing."""
    (run,) = do(generated_model("branches"), tmp_path / "run", "kl").runs
    assert (run.variant, run.made_as) == ("kl", "dynamic:8")
    assert run.options["memory"] == "low"
    assert run.low_memory_engaged is False
    assert run.verdict == "INCONCLUSIVE"
    assert [step["rung"] for step in run.steps][0::4] == ["kl", "dynamic:8"]
    assert run.steps[-1]["outcome"] == "made"
    assert all(step["message"] and step.get("next") for step in run.steps[:-1])
    assert "QUANTIZE_FELL_BACK" in codes(run)


def test_nothing_to_make_static(generated_model: ModelByName, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        do(generated_model("branches"), tmp_path / "run", "static:8")
    assert caught.value.code == "NOTHING_STATIC"
    assert "dynamic:8" in (caught.value.hint or "")


def test_calibrated_on_its_own_cases(generated_model: ModelByName, samples: Path, tmp_path: Path) -> None:
    (run,) = do(generated_model("conv_cnn"), tmp_path / "run", "static:8,calib=minmax", inputs=samples).runs
    assert finding(run, "CALIBRATED_ON_CASES").severity == "warn"
    assert "CALIBRATION_RANDOM" not in codes(run)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"y": np.zeros((1, 3, 32, 32), np.float32)}, "CALIBRATION_NAMES"),
        ({"x": np.zeros((1, 4, 32, 32), np.float32)}, "CALIBRATION_SHAPE"),
        ({"x": np.full((1, 3, 32, 32), np.nan, np.float32)}, "CALIBRATION_NAN"),
        ({"x": np.full((1, 3, 32, 32), np.inf, np.float32)}, "CALIBRATION_NAN"),
        (None, "CALIBRATION_EMPTY"),
    ],
)
def test_bad_calibration_data(
    generated_model: ModelByName, tmp_path: Path, change: dict[str, np.ndarray] | None, code: str
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    if change is not None:
        np.savez(folder / "0.npz", **change)
    for variant in ("static:8", "ema"):
        with pytest.raises(InputError) as caught:
            do(generated_model("conv_cnn"), tmp_path / variant.replace(":", ""), variant, calibration=str(folder))
        assert caught.value.code == code


def test_a_layer_that_is_not_there(generated_model: ModelByName, samples: Path, tmp_path: Path) -> None:
    for variant, code in (("static:8,skip=nowhere", "LAYER_UNKNOWN"), ("kl,skip=nowhere", "SKIP_UNKNOWN")):
        with pytest.raises(InputError) as caught:
            do(generated_model("conv_cnn"), tmp_path / code, variant, calibration=str(samples))
        assert caught.value.code == code
        assert "nowhere" in str(caught.value)


def test_what_was_asked_for_is_not_dropped_on_the_way(generated_model: ModelByName, tmp_path: Path) -> None:
    """dynamic:8 would quantize the layer that was to stay float, and nothing would say so."""
    (run,) = do(generated_model("gru"), tmp_path / "run", "kl,clamp=100").runs
    assert run.verdict == "FAIL"
    assert run.error is not None
    assert run.error.code == "QUANTIZE_NO_WAY_LEFT"
    assert any(step["outcome"] == "passed over" and "clamp" in step["message"] for step in run.steps)
    assert not any(step["outcome"] == "made" for step in run.steps)


def test_a_sample_the_model_cannot_run_is_named(generated_model: ModelByName, tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    # It fits what the model declares, and is too small for what it does.
    np.savez(folder / "small.npz", x=np.ones((1, 3, 1, 1), np.float32))
    with pytest.raises(InputError) as caught:
        do(generated_model("conv_cnn"), tmp_path / "run", "static:8", calibration=str(folder))
    assert caught.value.code in ("CALIBRATION_REFUSED", "CALIBRATION_SHAPE")
    assert "small" in str(caught.value)


def test_an_option_that_does_not_fit_fails_only_its_own_variant(
    generated_model: ModelByName, samples: Path, tmp_path: Path
) -> None:
    """It ended the command, and what had been made of the others was lost."""
    recipe = tmp_path / "nothing.json"
    recipe.write_text('{"schema": "edgequant.recipe/1", "rules": [{"name": "conv_99", "bits": 8}]}')
    wrong = {
        "kl,skip=nowhere": "SKIP_UNKNOWN",
        "static:8,calib=mse,skip=nowhere": "LAYER_UNKNOWN",
        f"recipe:{recipe}": "RECIPE_MATCHES_NOTHING",
    }
    fine = ("dynamic:8", "static:8,calib=mse")
    report = do(
        generated_model("conv_cnn"), tmp_path / "run", fine[0], *wrong, fine[1],
        calibration=str(samples), limits=("sqnr_db>=15",),
    )  # fmt: skip
    runs = {run.variant: run for run in report.runs}
    assert list(runs) == [fine[0], *wrong, fine[1]]
    for variant, code in wrong.items():
        assert runs[variant].verdict == "ERROR"
        error = runs[variant].error
        assert error is not None
        assert error.code == code
        assert not runs[variant].outputs
    for variant in fine:
        assert runs[variant].error is None
        assert runs[variant].verdict in ("PASS", "MARGINAL")
        check_numbers(tmp_path / "run", runs[variant])
    assert report.verdict == "ERROR"
    assert report.verdict.exit_code == 3


def test_nothing_to_equalize_fails_only_its_own_variant(generated_model: ModelByName, tmp_path: Path) -> None:
    words = ("--variant", "dynamic:8", "--variant", "static:8,calib=mse,equalize", "--no-latency", "--json")
    done = edgequant("verify", str(generated_model("big_mlp")), "--device", "local:", *words, cwd=tmp_path)
    assert done.code == 3, done
    fine, wrong = done.json["runs"]
    assert fine["error"] is None
    assert fine["outputs"]
    assert (wrong["verdict"], wrong["error"]["code"]) == ("ERROR", "NOTHING_TO_EQUALIZE")
    assert "static:8,calib=mse,equalize: NOTHING_TO_EQUALIZE" in done.err
    alone = edgequant("verify", str(generated_model("big_mlp")), "--device", "local:", *words[2:], cwd=tmp_path)
    assert alone.code == 2, alone
    assert len(alone.errors) == 1
    assert alone.errors[0].startswith("edgequant: NOTHING_TO_EQUALIZE")


def test_calibration_data_that_cannot_be_used_ends_it_for_all(generated_model: ModelByName, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    np.savez(folder / "0.npz", x=np.full((1, 3, 32, 32), np.nan, np.float32))
    for order in (("dynamic:8", "static:8"), ("static:8", "dynamic:8")):
        with pytest.raises(InputError) as caught:
            do(generated_model("conv_cnn"), tmp_path / order[0][:3], *order, calibration=str(folder))
        assert caught.value.code == "CALIBRATION_NAN"


@pytest.mark.nightly
@pytest.mark.slow
def test_the_log_of_a_crash_is_kept(real_model: ModelByName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEQUANT_NO_CACHE", "1")
    do(real_model("enc"), tmp_path / "run", "kl", limits=("sqnr_db>=0", "cosine>=0", "rel_max<=100"))
    logs = sorted(path.name for path in (tmp_path / "run" / "logs").glob("offline-*.log"))
    assert len(logs) == 2, logs
    (model,) = (tmp_path / "run" / "models").glob("kl-made-as-*.mnn")
    assert model.stat().st_size > 0
