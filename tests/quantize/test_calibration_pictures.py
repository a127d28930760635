"""Pictures as calibration data: how they become arrays, and what is told of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgequant.cases.load import save_npz
from edgequant.spec.images import ImageOptions
from edgequant.tensors import TensorSpec
from tests.quantize.support import BOTH, PICTURE, load, refused, sample


def pictures(path: Path, count: int = 3) -> Path:
    path.mkdir()
    for number in range(count):
        pixels = np.zeros((10, 12, 3), np.uint8)
        pixels[..., 0], pixels[..., 2] = 200, 10 * number
        Image.fromarray(pixels).save(path / f"{number}.{('png', 'jpg', 'bmp')[number % 3]}", quality=100)
    return path


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_pictures_are_scaled_and_normalized_in_the_order_asked_for(order: str, tmp_path: Path) -> None:
    options = ImageOptions(format=order, mean=(10, 20, 30), normal=(0.5, 1, 2))  # type: ignore[arg-type]
    found = load(pictures(tmp_path / "p"), tmp_path, (PICTURE,), images=options)
    array = found.read(0).inputs["x"]
    assert array.shape == (1, 3, 8, 6)
    red, blue = (0, 2) if order == "RGB" else (2, 0)
    wanted = np.zeros(3)
    wanted[red], wanted[blue] = 200, 0
    assert array[0, :, 4, 3] == pytest.approx((wanted - [10, 20, 30]) * [0.5, 1, 2])


def test_gray_pictures_in_nhwc_with_a_size_of_ones_own(tmp_path: Path) -> None:
    spec = TensorSpec("x", "uint8", (None, None, None, 1), layout="NHWC")
    data = pictures(tmp_path / "p")
    error = refused("IMAGE_SIZE_UNKNOWN", data, tmp_path, (spec,), images=ImageOptions(format="GRAY"))
    assert "x" in str(error)
    found = load(data, tmp_path, (spec,), images=ImageOptions(format="GRAY", size=(5, 4)))
    array = found.read(0).inputs["x"]
    assert array.shape == (1, 4, 5, 1)
    assert array.dtype == np.uint8
    assert array[0, 2, 2, 0] == round(200 * 0.299)


def test_pictures_that_cannot_be_used(tmp_path: Path) -> None:
    data = pictures(tmp_path / "p")
    assert "feat_erb" in str(refused("IMAGE_INPUT", data, tmp_path, BOTH))
    error = refused("CALIBRATION_SHAPE", data, tmp_path, (PICTURE,), images=ImageOptions(format="GRAY"))
    assert "0.png" in str(error)
    (data / "1.jpg").write_bytes((data / "1.jpg").read_bytes()[:200])
    assert "1.jpg" in str(refused("CALIBRATION_FILE", data, tmp_path, (PICTURE,)))
    save_npz(data / "s.npz", sample())
    refused("CALIBRATION_FORMAT", data, tmp_path, (PICTURE,))


def test_a_picture_that_unpacks_to_too_much_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    Image.new("1", (10_000, 10_000)).save(tmp_path / "p" / "bomb.png")
    assert "10000 x 10000" in str(refused("CALIBRATION_TOO_LARGE", tmp_path / "p", tmp_path, (PICTURE,)))


@pytest.mark.parametrize("bad", [{"mean": (1, 2)}, {"normal": ()}, {"size": (0, 3)}, {"mean": (float("nan"),)}])
def test_picture_options_are_checked(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        ImageOptions(**bad)  # type: ignore[arg-type]


def test_pictures_say_what_was_done_and_what_was_left_out(tmp_path: Path) -> None:
    data = pictures(tmp_path / "p")
    (data / "more.heic").write_bytes(b"x")
    found = load(data, tmp_path, (PICTURE,), images=ImageOptions(format="BGR", mean=(1, 2, 3)))
    assert [case.name for case in found] == ["0.png", "1.jpg", "2.bmp"]
    told = {each.code: each for each in found.findings}
    assert "3 pictures become input 'x': BGR, (pixel - [1, 2, 3]) * 1" in told["CALIBRATION_IMAGES"].message
    assert "1 .heic" in told["CALIBRATION_LEFT_OUT"].message
    assert found.images is not None
    assert found.images.startswith("BGR")
    (one,) = [f for f in load(data, tmp_path, (PICTURE,), samples=1).findings if f.code == "CALIBRATION_IMAGES"]
    assert one.message.startswith("1 picture becomes")


@pytest.mark.parametrize("kind", ["png", "npz"])
def test_more_files_than_can_be_used_are_refused_unless_some_are_asked_for(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "many"
    data.mkdir()
    arrays = {"x": np.ones((1, 3, 8, 6), np.float32)}
    for number in range(3):
        save_npz(data / f"{number}.npz", arrays) if kind == "npz" else Image.new("RGB", (6, 8)).save(
            data / f"{number}.png"
        )
    monkeypatch.setattr("edgequant.quantize.calibration.MAX_SAMPLES", 2)
    error = refused("CALIBRATION_TOO_LARGE", data, tmp_path, (PICTURE,))
    assert "samples=100" in str(error.hint)
    assert len(load(data, tmp_path, (PICTURE,), samples=2)) == 2
