"""One artifact for every way to make a file: what it says of itself, with a host of these tests' own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgequant.archive.types import Artifact, LayerCounts
from edgequant.errors import EdgequantError, InputError, RunnerError, ToolError
from edgequant.judge.sane import Sanity
from edgequant.models import read_model
from edgequant.quantize.calibration import CalibrationSet
from edgequant.quantize.maker import Maker
from edgequant.quantize.setup import Evaluator, MakeOptions, OnHost
from edgequant.quantize.work import as_graph, source_sha256
from edgequant.spec import Variant
from tests import generated

Check = Callable[[Artifact, Path], Sanity]


def sane(made: Artifact, work: Path) -> Sanity:
    assert made.path.is_file()
    assert work.is_dir()
    return Sanity(True, "it looks fine")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return generated.conv_cnn(tmp_path / "cnn.onnx")


def maker(source: Path, folder: Path, check: Check = sane, **options: object) -> Maker:
    """With random samples, all of which can be run."""
    (folder / "models").mkdir(parents=True)
    plain = Maker(read_model(source), folder, MakeOptions(**options))  # type: ignore[arg-type]
    return plain.knowing(host(source, check))


def host(source: Path, check: Check) -> OnHost:
    def nothing(samples: CalibrationSet) -> None:
        assert len(samples)

    def no_device() -> Evaluator:
        raise InputError("LATENCY_UNKNOWN", "there is none")

    inputs = read_model(source).inputs
    assert inputs is not None
    return OnHost(inputs, (), lambda case: {}, (), check, lambda: "digest", nothing, no_device)


def test_what_an_artifact_says(source: Path, tmp_path: Path) -> None:
    made = maker(source, tmp_path / "run").make(Variant.parse("static:8,calib=minmax"))
    assert made.asked == made.run_as == Variant.parse("static:8,calib=minmax")
    assert made.label is None
    assert made.source_sha256 == read_model(source).sha256
    assert (made.sha256, made.size) == (source_sha256(as_graph(made.path)), made.path.stat().st_size)
    assert made.path == tmp_path / "run" / "models" / f"static8-calib=minmax-{made.sha256[:16]}.mnn"
    assert made.facts.static
    assert made.facts.weights == "quantized"
    assert not made.facts.has_subgraphs
    # Three convolutions, and a Gemm of 10x176, which is so small that it is left in float.
    assert made.facts.counts == LayerCounts(layers=4, int8_layers=3, weights=122432, int8_weights=120672)
    assert made.quantized_layers > 0
    assert [(step["outcome"], step["message"]) for step in made.steps] == [("made", "it looks fine")]
    assert made.calibration is not None
    assert (made.calibration.samples, made.calibration.source) == (8, "random, seed 1000")
    assert sum(each.samples for each in made.calibration.shapes) == 8
    assert "CALIBRATION_RANDOM" in {finding.code for finding in made.findings}
    assert made.log is not None
    assert (tmp_path / "run" / "logs" / made.log).is_file()
    assert Artifact.model_validate_json(made.model_dump_json()) == made


def test_what_was_fallen_back_to_is_named(source: Path, tmp_path: Path) -> None:
    """The check refuses the first way, dies of the second, and takes the third."""
    asked: list[str] = []

    def picky(made: Artifact, work: Path) -> Sanity:
        asked.append(made.run_as.method)
        if len(asked) == 1:
            return Sanity(False, "it is noise")
        if len(asked) == 2:
            raise RunnerError("RUNNER_DIED", "it crashed")
        return sane(made, work)

    made = maker(source, tmp_path / "run", picky).make(Variant.parse("ema"))
    assert asked == ["ema", "static", "kl"]
    assert [step["outcome"] for step in made.steps] == ["insane", "failed", "made"]
    assert (made.asked.method, made.run_as.method, made.label) == ("ema", "kl", "kl")
    assert made.path.name.startswith("ema-made-as-kl")
    assert "QUANTIZE_FELL_BACK" in {finding.code for finding in made.findings}
    with pytest.raises(ToolError) as caught:
        maker(source, tmp_path / "alone", lambda made, work: Sanity(False, "it is noise"), fallback=False).make(
            Variant.parse("ema")
        )
    assert caught.value.code == "QUANTIZED_MODEL_INSANE"


def test_each_file_is_made_once(source: Path, tmp_path: Path) -> None:
    plain = Maker(read_model(source), tmp_path / "run")
    (tmp_path / "run" / "models").mkdir(parents=True)
    weight = plain.make(Variant.parse("weight:8"))
    all_of_it = plain.knowing(host(source, sane))
    assert all_of_it.has(Variant.parse("dynamic:8"))
    dynamic = all_of_it.make(Variant.parse("dynamic:8"))
    assert dynamic.path == weight.path
    assert (str(weight.run_as), str(dynamic.run_as)) == ("weight:8", "dynamic:8")
    assert len(list((tmp_path / "run" / "models").iterdir())) == 1


def test_samples_that_cannot_be_used_are_wrong_for_all(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    np.savez(folder / "0.npz", x=np.full((1, 3, 32, 32), np.nan, np.float32))
    bad = maker(source, tmp_path / "run", calibration=str(folder))
    with pytest.raises(InputError) as caught:
        bad.make(Variant.parse("static:8"))
    assert bad.unreadable is caught.value

    def refuse(samples: CalibrationSet) -> None:
        raise InputError("CALIBRATION_REFUSED", "too small")

    (tmp_path / "other" / "models").mkdir(parents=True)
    refusing = Maker(read_model(source), tmp_path / "other", host=replace(host(source, sane), refuse=refuse))
    assert refusing.unreadable is None
    with pytest.raises(InputError) as caught:
        refusing.make(Variant.parse("static:8"))
    assert refusing.unreadable is caught.value
    # An option that fits no layer is one variant's own.
    fine = maker(source, tmp_path / "third")
    with pytest.raises(InputError):
        fine.make(Variant.parse("static:8,skip=nowhere"))
    assert fine.unreadable is None


def test_begun_ahead_they_are_the_same_files(source: Path, tmp_path: Path) -> None:
    float_, weight, dynamic, static = map(Variant.parse, ("float", "weight:8", "dynamic:8", "static:8,calib=minmax"))
    ahead = maker(source, tmp_path / "ahead")
    ahead.begin([float_, weight, dynamic, static])
    plain = maker(source, tmp_path / "plain")
    for variant in (dynamic, float_, weight):
        assert not ahead.has(Variant.parse("fp16"))
        assert ahead.make(variant).sha256 == plain.make(variant).sha256
    assert not ahead.has(static), "it takes a runner"
    ahead.stop()


def test_what_was_begun_says_what_is_wrong_where_it_is_asked_for(source: Path, tmp_path: Path) -> None:
    ahead, plain = maker(source, tmp_path / "ahead"), maker(source, tmp_path / "plain")
    source.write_bytes(source.read_bytes()[:-200])
    ahead.begin([Variant.parse("float")])
    codes = []
    for each in (ahead, plain):
        with pytest.raises(EdgequantError) as caught:
            each.make(Variant.parse("float"))
        codes.append(caught.value.code)
    assert codes[0] == codes[1]
    ahead.stop()


def test_what_was_begun_and_is_not_wanted_is_ended(source: Path, tmp_path: Path) -> None:
    begun = maker(source, tmp_path / "run")
    begun.begin(map(Variant.parse, ("float", "weight:8", "weight:4", "fp16")))
    begun.stop()
    assert not [path for path in (tmp_path / "run" / "models").iterdir() if path.is_dir()], "no folder of a converter's"
