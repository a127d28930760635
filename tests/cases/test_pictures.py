"""Pictures as cases: how options are written, what becomes of pixels, and what is refused or told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgequant.cases.images import ImageReader
from edgequant.cases.load import load_cases
from edgequant.cases.pictures import find_pictures, picture_findings, refuse_unused
from edgequant.findings import Finding
from edgequant.spec.images import ImageOptions
from edgequant.tensors import TensorSpec
from tests.cases.support import problem

X = (TensorSpec("x", "float32", (1, 3, 8, 6), layout="NCHW"),)
OPEN = (TensorSpec("x", "float32", (None, 3, None, None), layout="NCHW"),)
RED = Image.new("RGB", (12, 16), (200, 100, 0))


def read(path: Path, **options: object) -> np.ndarray:
    return ImageReader(X, ImageOptions(**options)).read(path)  # type: ignore[arg-type]


# ---- options as they are written


def test_options_in_one_text_and_in_several() -> None:
    whole = ImageOptions.parse("format=bgr mean=123.7,116.3,103.5 normal=.0171,1.75e-2,0.0174 size=224x112 layout=NHWC")
    assert whole == ImageOptions(
        format="BGR", mean=(123.7, 116.3, 103.5), normal=(0.0171, 0.0175, 0.0174), size=(224, 112), layout="NHWC"
    )
    parts = ["format=BGR layout=NHWC", "mean=123.7,116.3,103.5", "normal=0.0171,0.0175,0.0174", "size=224x112"]
    assert ImageOptions.parse(parts) == whole


def test_what_is_typed_comes_on_top_of_what_a_file_says() -> None:
    base = ImageOptions.model_validate({"mean": 127.5, "center_crop_h": 0.5, "size": "20x10"})
    found = ImageOptions.parse(["normal=0.5", "center_crop=0.9"], base)
    assert (found.mean, found.normal, found.size) == ((127.5,), (0.5,), (20, 10))
    assert (found.center_crop_h, found.center_crop_w) == (0.9, 0.9)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("std=0.229", "there is no key 'std'; did you mean normal"),
        ("formt=BGR", "did you mean format?"),
        ("width=224", "did you mean size=WIDTHxHEIGHT?"),
        ("zzz=1", "there is no key 'zzz'"),
        ("mean", "'mean' is not of the form KEY=VALUE"),
        ("", "it is empty"),
        ("mean=", "KEY=VALUE"),
        ("mean=nan", "'nan' is not a number"),
        ("mean=1,inf,2", "'inf' is not a number"),
        ("mean=1_0", "'1_0' is not a number"),
        ("mean=1e999", "must be a finite number"),
        ("mean=1e300", "not of pixels from 0 to 255"),
        ("mean=1,2", "mean has 2 numbers, RGB has 3 channels"),
        ("format=GRAY mean=1,2,3", "mean has 3 numbers, GRAY has 1 channels"),
        ("normal=0", "0 would make every pixel the same"),
        ("normal=1,0,1", "0 would make every pixel the same"),
        ("normal=-0.0", "0 would make every pixel the same"),
        ("size=0x5", "size: width and height"),
        ("size=99999x2", "size: width and height"),
        ("size=16384x16384", "size: width and height"),
        ("size=224", "write WIDTHxHEIGHT"),
        ("size=-1x5", "write WIDTHxHEIGHT"),
        ("format=XYZ", "format: must be 'RGB'"),
        ("layout=CHW", "layout: must be 'NCHW'"),
        ("center_crop=0", "greater than 0"),
        ("center_crop=1.5", "less than or equal to 1"),
        ("center_crop=0.5,0.5", "is not a number"),
        ("center_crop=0.9 center_crop_w=0.8", "give one of the two"),
        ("mean=1 mean=2", "'mean' is given twice"),
    ],
)
def test_options_that_cannot_be_used(text: str, says: str) -> None:
    error = problem(lambda: ImageOptions.parse(text))
    assert error.code == "IMAGE_OPTION_INVALID"
    assert says in error.message
    assert "mean=" in str(error.hint)


def test_options_for_pictures_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    np.savez(tmp_path / "a.npz", x=np.zeros(1))
    options = ImageOptions(mean=(1.0,))
    assert problem(lambda: refuse_unused(options, tmp_path / "a.npz", None)).code == "OPTION_UNUSED"
    refuse_unused(None, tmp_path / "a.npz")
    refuse_unused(options, tmp_path / "nowhere")  # that it is not there is the mistake, and told elsewhere
    RED.save(tmp_path / "p" / "a.png")
    refuse_unused(options, tmp_path / "a.npz", tmp_path / "p")
    refuse_unused(options, tmp_path)  # a folder of a folder of pictures: that is what is wrong with it


# ---- pixels


def test_pictures_are_cases_by_their_names(tmp_path: Path) -> None:
    for name in ("b.png", "a.bmp", "c.webp", "d.tif", "e.gif", "f.ppm", "g.JPEG"):
        RED.save(tmp_path / name, **({"lossless": True} if name == "c.webp" else {}))
    cases = load_cases(tmp_path, X, ImageOptions(format="BGR", mean=(10, 20, 30), normal=(1, 2, 0.5)))
    assert [case.name for case in cases] == list("abcdefg")
    for case in cases:
        array = case.inputs["x"]
        assert array.shape == (1, 3, 8, 6)
        wanted = [(0 - 10) * 1, (100 - 20) * 2, (200 - 30) * 0.5]
        assert array[0, :, 3, 3] == pytest.approx(wanted, abs=6 if case.name in "eg" else 1e-3)


def test_the_crop_is_of_the_middle_and_each_side_has_its_own(tmp_path: Path) -> None:
    pixels = np.zeros((16, 12, 3), np.uint8)
    pixels[4:12] = 250  # the middle half of the height
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png", center_crop_h=0.5).min() == 250
    assert read(tmp_path / "a.png", center_crop_w=0.5).min() == 0
    assert read(tmp_path / "a.png", center_crop_h=0.5, center_crop_w=0.1).min() == 250


def test_size_opens_a_model_that_takes_any(tmp_path: Path) -> None:
    RED.save(tmp_path / "a.png")
    error = problem(lambda: load_cases(tmp_path, OPEN))
    assert error.code == "IMAGE_SIZE_UNKNOWN"
    assert "--image size=WIDTHxHEIGHT" in str(error.hint)
    (case,) = load_cases(tmp_path, OPEN, ImageOptions(size=(7, 9)))
    assert case.inputs["x"].shape == (1, 3, 9, 7)
    error = problem(lambda: load_cases(tmp_path, X, ImageOptions(size=(8, 6))))
    assert error.code == "IMAGE_SIZE"
    assert "6 wide and 8 high" in error.message


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_every_kind_of_8_bit_picture_becomes_rgb(mode: str, tmp_path: Path) -> None:
    white = Image.new("RGB", (12, 16), (255, 255, 255)).convert(mode)
    white.save(tmp_path / "a.png")
    array = read(tmp_path / "a.png")
    assert array.shape == (1, 3, 8, 6)
    assert (array == 255).all()


def test_transparent_pixels_keep_the_colour_they_have(tmp_path: Path) -> None:
    Image.new("RGBA", (12, 16), (200, 100, 0, 0)).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png")[0, :, 0, 0].tolist() == [200, 100, 0]


def damaged(kind: str) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
        noise.save(path, kind)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return make


@pytest.mark.parametrize(
    ("name", "make", "code", "says"),
    [
        ("a.png", lambda path: path.touch(), "IMAGE_INVALID", "it is empty"),
        ("a.png", lambda path: path.write_text("hello"), "IMAGE_INVALID", "none of PNG"),
        ("a.png", damaged("PNG"), "IMAGE_INVALID", "a.png"),
        ("a.jpg", damaged("JPEG"), "IMAGE_INVALID", "truncated"),
        ("a.webp", damaged("WEBP"), "IMAGE_INVALID", "a.webp"),
        ("a.tif", damaged("TIFF"), "IMAGE_INVALID", "a.tif"),
        ("a.bmp", damaged("BMP"), "IMAGE_INVALID", "a.bmp"),
        ("a.gif", damaged("GIF"), "IMAGE_INVALID", "a.gif"),
        ("a.png", lambda path: Image.new("1", (9000, 9000)).save(path), "IMAGE_TOO_LARGE", "9000 x 9000"),
        ("a.png", lambda path: Image.new("1", (20000, 20000)).save(path), "IMAGE_TOO_LARGE", "more than"),
        ("a.png", lambda path: Image.fromarray(np.ones((9, 9), np.uint16)).save(path), "IMAGE_INVALID", "than 8 bits"),
        ("a.tif", lambda path: Image.fromarray(np.ones((9, 9), np.float32)).save(path), "IMAGE_INVALID", "than 8 bits"),
        ("a.gif", lambda path: RED.save(path, save_all=True, append_images=[RED.rotate(9)]), "IMAGE_INVALID",
         "2 pictures in one file"),
        ("a.tif", lambda path: RED.save(path, save_all=True, append_images=[RED]), "IMAGE_INVALID",
         "2 pictures in one file"),
    ],
)  # fmt: skip
def test_pictures_that_cannot_be_used_are_named(
    name: str, make: Callable[[Path], object], code: str, says: str, tmp_path: Path
) -> None:
    make(tmp_path / name)
    error = problem(lambda: load_cases(tmp_path, X))
    assert error.code == code
    assert name in error.message
    assert says in error.message


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: os.mkfifo(path), "not a file"),
        (lambda path: path.mkdir(), "not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a file"),
        (lambda path: path.symlink_to(path.name), "a link to nothing"),
    ],
)
def test_what_only_has_the_name_of_a_picture(make: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    RED.save(tmp_path / "a.png")
    make(tmp_path / "z.png")
    error = problem(lambda: load_cases(tmp_path, X))
    assert error.code == "INPUTS_FORMAT"
    assert says in error.message
    assert "z.png" in error.message


@pytest.mark.parametrize("spec", [
    (TensorSpec("a", "float32", (1, 3, 8, 6)), TensorSpec("b", "float32", (1,))),
    (TensorSpec("x", "float32", (1, 10)),),
    (TensorSpec("x", "float32", (8, 3, 8, 6)),),
])  # fmt: skip
def test_models_no_picture_fits_are_told_what_does(spec: tuple[TensorSpec, ...], tmp_path: Path) -> None:
    RED.save(tmp_path / "a.png")
    error = problem(lambda: load_cases(tmp_path, spec))
    assert error.code == "IMAGE_INPUT"
    assert "samples.py:FUNCTION" in str(error.hint)


# ---- which files count


def test_files_that_are_not_used_are_counted_by_kind(tmp_path: Path) -> None:
    RED.save(tmp_path / "a.png")
    for name in ("b.heic", "c.HEIC", "labels.csv", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(b"x")
    found = find_pictures(tmp_path)
    assert found is not None
    assert [file.name for file in found.left_out] == ["b.heic", "c.HEIC", "labels.csv"]
    told = {each.code: each for each in told_of(found.files, left_out=found.left_out)}
    assert told["CALIBRATION_LEFT_OUT"].message.startswith("3 files")
    assert "2 .heic, 1 .csv" in told["CALIBRATION_LEFT_OUT"].message
    assert told["CALIBRATION_LEFT_OUT"].severity == "warn"
    # A check with some of its cases is not what was asked for.
    assert "b.heic" in problem(lambda: load_cases(tmp_path, X)).message


def told_of(files: tuple[Path, ...], left_out: tuple[Path, ...] = (), **options: object) -> list[Finding]:
    reader = ImageReader(X, ImageOptions(**options))  # type: ignore[arg-type]
    return picture_findings(files, reader, prefix="CALIBRATION", left_out=left_out)


def test_only_pictures_of_kinds_that_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"x")
    for path in (tmp_path, tmp_path / "a.heic"):
        error = problem(lambda path=path: load_cases(path, X))  # type: ignore[misc]
        assert error.code == "INPUTS_FORMAT"
        assert "1 .heic" in error.message
        assert ".webp" in str(error.hint)


def test_pictures_one_level_lower(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    RED.save(tmp_path / "cats" / "a.png")
    assert "a folder with pictures" in problem(lambda: load_cases(tmp_path, X)).message


def test_two_pictures_of_one_name(tmp_path: Path) -> None:
    RED.save(tmp_path / "a.png")
    RED.save(tmp_path / "a.jpg")
    assert problem(lambda: load_cases(tmp_path, X)).code == "INPUTS_DUPLICATE"


def test_what_was_done_is_said(tmp_path: Path) -> None:
    RED.save(tmp_path / "a.png")
    (plain,) = told_of((tmp_path / "a.png",))
    assert (plain.code, plain.severity) == ("CALIBRATION_IMAGES", "info")
    assert "RGB, pixels from 0 to 255 as they are, no mean taken away, scaled to 6 x 8" in plain.message
    (changed,) = told_of((tmp_path / "a.png",), format="BGR", mean=(123, 116, 103), normal=(0.5,), center_crop_w=0.5)
    assert "BGR, (pixel - [123, 116, 103]) * 0.5" in changed.message
    assert "50 % of the width kept" in changed.message
    assert changed.severity == "info"
    assert changed.evidence["mean"] == [123, 116, 103]


def test_a_mean_of_pixels_up_to_1_is_told(tmp_path: Path) -> None:
    RED.save(tmp_path / "a.png")
    (found,) = told_of((tmp_path / "a.png",), mean=(0.485, 0.456, 0.406))
    assert found.severity == "warn"
    assert "255m" in str(found.remedy)


def test_a_turned_camera_is_told_and_not_undone(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((16, 12, 3), np.uint8)
    pixels[:8] = 255
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    RED.save(tmp_path / "b.jpg")
    array = read(tmp_path / "a.jpg")
    assert array[0, 0, 0].min() > 200 > 50 > array[0, 0, -1].max()
    codes = {each.code: each for each in told_of((tmp_path / "a.jpg", tmp_path / "b.jpg"))}
    assert codes["CALIBRATION_ORIENTATION"].evidence["files"] == ["a.jpg"]
