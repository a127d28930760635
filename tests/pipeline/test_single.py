"""quantize and run never write over what they were given."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgequant.errors import InputError
from edgequant.graph import read_model
from edgequant.pipeline import single
from edgequant.pipeline.request import Request
from edgequant.pipeline.single import quantize, refuse_overwriting, run_once
from edgequant.pipeline.target import TargetOptions
from edgequant.progress import Progress
from edgequant.spec import Limit, RunOptions, Variant
from tests.beds.models import ModelByName


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "q.mnn").write_bytes(b"model")
    (tmp_path / "a.npz").write_bytes(b"case")
    (tmp_path / "cases").mkdir()
    (tmp_path / "cases" / "a.npz").write_bytes(b"case")
    (tmp_path / "mnn").mkdir()
    (tmp_path / "mnn" / "input.json").write_text("{}")
    (tmp_path / "link").symlink_to("cases")
    (tmp_path / "link.mnn").symlink_to("q.mnn")
    os.link(tmp_path / "q.mnn", tmp_path / "hard.mnn")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "b.npz").symlink_to("../b.npz")
    (tmp_path / "b.npz").touch()
    (tmp_path / "free").mkdir()
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize(
    ("output", "inputs"),
    [
        ("q.mnn", None),
        ("link.mnn", None),
        ("hard.mnn", None),
        ("cases/../q.mnn", None),
        ("pipe", None),
        ("a.npz", "a.npz"),
        ("cases", "cases"),
        ("cases/a.npz", "cases"),
        ("cases/new.npz", "cases"),
        ("link/new.npz", "cases"),
        ("cases", "link"),
        (".", "a.npz"),
        (".", "linked"),
        ("mnn/out.npz", "mnn/input.json"),
        ("mnn", "mnn"),
    ],
)
def test_what_was_given_is_never_the_output(place: Path, output: str, inputs: str | None) -> None:
    with pytest.raises(InputError) as caught:
        refuse_overwriting(place / output, place / "q.mnn", "the model", None if inputs is None else place / inputs)
    assert caught.value.code == "OUTPUT_INVALID"


@pytest.mark.parametrize(
    ("output", "inputs"),
    [("new.npz", "cases"), ("free", "cases"), ("free", "a.npz"), (".", "cases/b.npz"), ("b.npz", "a.npz"), ("x", None)],
)
def test_other_places_may_be(place: Path, output: str, inputs: str | None) -> None:
    refuse_overwriting(place / output, place / "q.mnn", "the model", None if inputs is None else place / inputs)


@pytest.mark.parametrize("output", ["model.mnn", "case.npz"])
def test_run_refuses_before_it_runs(
    generated_model: ModelByName, as_mnn: Callable[..., Path], tmp_path: Path, output: str
) -> None:
    model, case = tmp_path / "model.mnn", tmp_path / "case.npz"
    model.write_bytes(as_mnn(generated_model("conv_cnn")).read_bytes())
    np.savez(case, x=np.zeros((1, 3, 32, 32), np.float32))
    before = model.read_bytes(), case.read_bytes()
    with pytest.raises(InputError) as caught:
        run_once(
            model, "ssh://nobody.invalid", case, {}, RunOptions(), TargetOptions(), Progress(), output=tmp_path / output
        )
    assert caught.value.code == "OUTPUT_INVALID"
    assert (model.read_bytes(), case.read_bytes()) == before


def external(generated_model: ModelByName, folder: Path) -> Path:
    """A model that keeps its weights in a file of their own."""
    import onnx

    path = folder / "m.onnx"
    onnx.save_model(
        onnx.load(generated_model("conv_cnn")), path, save_as_external_data=True, location="w.data", size_threshold=0
    )
    assert read_model(path).external_files == (folder / "w.data",)
    return path


@pytest.mark.parametrize("output", ["m.onnx", "w.data", "case.npz", "ref.npz", "refs/x.mnn", "pipe"])
def test_quantize_refuses_before_it_works(
    generated_model: ModelByName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    model = external(generated_model, tmp_path)
    for name in ("case.npz", "ref.npz"):
        (tmp_path / name).write_bytes(b"given")
    (tmp_path / "refs").mkdir()
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(single, "verify", lambda *_: pytest.fail("it has begun"))
    reference = tmp_path / ("refs" if output.startswith("refs") else "ref.npz")
    with pytest.raises(InputError) as caught:
        quantize(
            Request(model, devices=("local:",), inputs=tmp_path / "case.npz", reference=reference),
            tmp_path / output,
            Progress(),
        )
    assert caught.value.code == "OUTPUT_INVALID"


def test_a_file_that_is_there_is_replaced_only_by_one_that_passes(generated_model: ModelByName, tmp_path: Path) -> None:
    out = tmp_path / "out.mnn"
    fails = Request(
        generated_model("argmax_ints"), devices=("local:",), variants=(Variant.parse("weight:2"),),
        limits=(Limit.parse("sqnr_db>=60"),),
        options=RunOptions(threads=1), run_dir=tmp_path / "run1",
    )  # fmt: skip
    out.write_bytes(b"good one")
    report, run_dir, written, kept = quantize(fails, out, Progress())
    assert report.verdict.exit_code == 1
    assert not written
    assert out.read_bytes() == b"good one"
    assert kept is not None
    assert kept.parent == run_dir / "models"
    assert read_model(kept).format == "mnn"


@pytest.mark.parametrize("as_folder", [False, True])
def test_calibration_data_is_never_overwritten(generated_model: ModelByName, tmp_path: Path, as_folder: bool) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    np.savez(samples / "0.npz", x=np.ones((1, 3, 32, 32), np.float32))
    before = (samples / "0.npz").read_bytes()
    request = Request(
        generated_model("conv_cnn"),
        variants=("static:8",),
        calibration=str(samples if as_folder else samples / "0.npz"),
        run_dir=tmp_path / "run",
    )
    with pytest.raises(InputError) as caught:
        quantize(request, samples / "0.npz", Progress())
    assert caught.value.code == "OUTPUT_INVALID"
    assert (samples / "0.npz").read_bytes() == before
