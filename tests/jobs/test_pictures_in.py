"""Pictures as calibration data and as cases, and functions, through the main job."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from edgequant.errors import InputError
from edgequant.report.console import render
from edgequant.spec import RunOptions
from edgequant.spec.images import ImageOptions
from tests.beds.models import ModelByName
from tests.jobs.support import codes, do

OPTIONS = ImageOptions(format="BGR", mean=(127.5,), normal=(1 / 127.5,))


def pictures(folder: Path, count: int, seed: int = 0) -> Path:
    folder.mkdir()
    random = np.random.default_rng(seed)
    for number in range(count):
        pixels = random.integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).resize((40, 50)).save(folder / f"p{number}.png")
    return folder


def as_arrays(pictures: Path, folder: Path) -> Path:
    """The same, made by hand."""
    folder.mkdir()
    for file in sorted(pictures.iterdir()):
        pixels = np.asarray(Image.open(file).resize((32, 32), Image.Resampling.BILINEAR), np.float32)[..., ::-1]
        np.savez(folder / f"{file.stem}.npz", x=((pixels - 127.5) / 127.5).transpose(2, 0, 1)[None])
    return folder


def test_pictures_calibrate_and_judge_as_the_arrays_they_become(generated_model: ModelByName, tmp_path: Path) -> None:
    model, limits = generated_model("conv_cnn"), ("sqnr_db>=10",)
    data, cases = pictures(tmp_path / "data", 8), pictures(tmp_path / "cases", 2, seed=1)
    report = do(
        model,
        tmp_path / "pictures",
        "static:8,calib=minmax",
        inputs=cases,
        calibration=str(data),
        images=OPTIONS,
        limits=limits,
    )
    by_hand = do(
        model, tmp_path / "arrays", "static:8,calib=minmax", inputs=as_arrays(cases, tmp_path / "c"),
        calibration=str(as_arrays(data, tmp_path / "d")), limits=limits,
    )  # fmt: skip
    (run,), (other,) = report.runs, by_hand.runs
    assert [case.name for case in report.cases] == ["p0", "p1"]
    for name, output in run.outputs.items():
        # Scales may differ in the last bit, where (pixel - mean) / s is not (pixel - mean) * (1 / s).
        assert output.sqnr_db == pytest.approx(other.outputs[name].sqnr_db, abs=3)
    assert run.calibration is not None
    assert run.calibration.source == str(data)
    assert run.calibration.samples == 8
    (shapes,) = run.calibration.shapes
    assert (shapes.samples, shapes.inputs) == (8, {"x": [1, 3, 32, 32]})
    assert run.calibration.images is not None
    assert "BGR, (pixel - 127.5)" in run.calibration.images
    assert not run.calibration.cases
    assert other.calibration is not None
    assert other.calibration.images is None
    assert "CALIBRATION_IMAGES" in codes(run)
    assert "INPUT_IMAGES" in {finding.code for finding in report.findings}
    assert report.options["images"]["mean"] == [127.5]
    shown = io.StringIO()
    render(report, Console(file=shown, width=200))
    assert f"calibrated 8: {data} (x [1, 3, 32, 32]); BGR, (pixel - 127.5)" in shown.getvalue()


def test_each_set_of_samples_is_named_with_its_variants(generated_model: ModelByName, tmp_path: Path) -> None:
    data = pictures(tmp_path / "data", 4)
    report = do(
        generated_model("conv_cnn"), tmp_path / "run", "static:8,calib=minmax",
        "static:8,calib=minmax,samples=2", "dynamic:8", inputs=data, images=OPTIONS,
    )  # fmt: skip
    whole, part, dynamic = report.runs
    assert whole.calibration is not None
    assert part.calibration is not None
    assert (whole.calibration.samples, part.calibration.samples) == (4, 2)
    assert whole.calibration.cases
    assert dynamic.calibration is None
    shown = io.StringIO()
    render(report, Console(file=shown, width=600))
    lines = [line for line in shown.getvalue().splitlines() if line.startswith("calibrated")]
    assert len(lines) == 2
    assert lines[0].endswith("the cases themselves; for static:8,calib=minmax")
    assert lines[1].endswith("for static:8,calib=minmax,samples=2")


def test_a_shape_that_is_pinned_is_what_pictures_are_scaled_to(real_model: ModelByName, tmp_path: Path) -> None:
    model, data = real_model("ppocr_cls"), pictures(tmp_path / "data", 2)
    with pytest.raises(InputError) as caught:
        do(model, tmp_path / "open", inputs=data)
    assert caught.value.code == "IMAGE_SIZE_UNKNOWN"
    report = do(model, tmp_path / "run", "float", inputs=data, shapes={"x": (1, 3, 80, 160)})
    assert report.cases[0].shapes == {"x": [1, 3, 80, 160]}
    sized = do(model, tmp_path / "sized", "float", inputs=data, images=ImageOptions(size=(160, 80)))
    assert sized.cases[0].shapes == {"x": [1, 3, 80, 160]}


def test_mistakes_with_pictures_are_found_before_anything_is_converted(
    generated_model: ModelByName, tmp_path: Path
) -> None:
    model, data = generated_model("conv_cnn"), pictures(tmp_path / "data", 2)
    for number, (code, more) in enumerate(
        [
            ("OPTION_UNUSED", {"images": OPTIONS}),
            ("CALIBRATION_NOT_FOUND", {"calibration": str(tmp_path / "nowhere")}),
            ("IMAGE_SIZE", {"calibration": str(data), "images": ImageOptions(size=(5, 5))}),
            ("OPTION_UNUSED", {"calibration": "module:function", "images": OPTIONS}),
        ]
    ):
        with pytest.raises(InputError) as caught:
            do(model, tmp_path / str(number), "static:8", **more)
        assert caught.value.code == code
        assert not list((tmp_path / str(number)).rglob("*.mnn"))


def test_the_commands_timeout_is_the_functions(generated_model: ModelByName, tmp_path: Path) -> None:
    (tmp_path / "calib.py").write_text(
        "import threading\n\n\ndef make():\n    threading.Event().wait()\n    yield {}\n"
    )
    (run,) = do(
        generated_model("conv_cnn"), tmp_path / "run", "static:8", calibration=f"{tmp_path}/calib.py:make",
        options=RunOptions(threads=1, timeout=8),
    ).runs  # fmt: skip
    assert run.verdict == "ERROR"
    assert run.error is not None
    assert run.error.code == "CALIBRATION_TIMEOUT"
    assert "within 8 s" in run.error.message
