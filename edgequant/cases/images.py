"""Pictures as model inputs: decoded by Pillow (an optional package), preprocessed as the options say."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgequant.cases.case import shape_text
from edgequant.errors import InputError
from edgequant.files import open_file
from edgequant.spec.images import CHANNELS, MAX_PIXELS, ImageOptions
from edgequant.tensors import TensorSpec

MAX_FILE_BYTES = 1 << 30
_MODES = {"RGB": "RGB", "BGR": "RGB", "GRAY": "L", "RGBA": "RGBA", "BGRA": "RGBA"}
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""Pillow's modes whose values are 0 to 255: of others (16 bits, float) `convert` would cut off what is above."""
_ORIENTATION = 0x0112
ELSE = (
    "Give .npz files; for calibration a Python function too, which makes every input of a sample: "
    "--calibration samples.py:FUNCTION"
)


def pillow_available() -> bool:
    return importlib.util.find_spec("PIL") is not None


class ImageReader:
    """Turns picture files into arrays for one input of a model.

    Raises InputError (from the constructor): PILLOW_MISSING, IMAGE_INPUT (the model has several inputs, or one that no
    picture fits), IMAGE_SIZE_UNKNOWN, IMAGE_SIZE.
    """

    def __init__(self, inputs: Sequence[TensorSpec], options: ImageOptions) -> None:
        if not pillow_available():
            raise InputError(
                "PILLOW_MISSING", "pictures need the package Pillow", hint="Run: python -m pip install Pillow"
            )
        self.options = options
        self.spec = _only(inputs)
        channels = CHANNELS[options.format]
        shape = self.spec.shape
        if shape is not None and len(shape) != 4:
            raise InputError(
                "IMAGE_INPUT",
                f"input '{self.spec.name}' is {shape_text(self.spec)}, a picture has 4 dimensions",
                hint=f"{ELSE}.",
            )
        self.layout = options.layout or self.spec.layout or _guessed_layout(shape, channels)
        if shape is not None and shape[0] not in (1, None):
            raise InputError(
                "IMAGE_INPUT",
                f"input '{self.spec.name}' is {shape_text(self.spec)}: {shape[0]} at once, a picture makes 1",
                hint=f"Export the model with a batch of 1 or an open one. {ELSE}.",
            )
        sides = (None, None) if shape is None else shape[1:3] if self.layout == "NHWC" else shape[2:4]
        width, height = options.size or (sides[1], sides[0])
        if width is None or height is None:
            raise InputError(
                "IMAGE_SIZE_UNKNOWN",
                f"input '{self.spec.name}' is {shape_text(self.spec)}: it takes pictures of any size",
                hint="Say what they are scaled to: --image size=WIDTHxHEIGHT.",
            )
        if options.size is not None and any(
            have not in (None, want) for have, want in zip(sides, (height, width), strict=True)
        ):
            raise InputError(
                "IMAGE_SIZE",
                f"size={width}x{height}: input '{self.spec.name}' is {shape_text(self.spec)}, "
                f"{sides[1] or 'any'} wide and {sides[0] or 'any'} high",
                hint="Leave size= out where the model has a fixed one. It is width x height.",
            )
        self.size = (width, height)

    def words(self) -> str:
        """What is done to a picture, for people."""
        width, height = self.size
        return f"{self.options.words()}, scaled to {width} x {height} whatever its proportions, as {self.layout}"

    def read(self, path: Path) -> np.ndarray:
        """The picture as [1, C, H, W] or [1, H, W, C], of the input's element type.

        Transparency is dropped unless the format has it; grey and palette pictures become what the format says.

        Raises InputError: IMAGE_INVALID, IMAGE_TOO_LARGE.
        """
        options = self.options
        pixels = self._decoded(path)
        if options.format in ("BGR", "BGRA"):
            pixels = pixels[..., [2, 1, 0, *range(3, pixels.shape[-1])]]
        values = (pixels.astype(np.float32) - np.asarray(options.mean, np.float32)) * np.asarray(
            options.normal, np.float32
        )
        if self.layout == "NCHW":
            values = values.transpose(2, 0, 1)
        wanted = np.dtype(self.spec.dtype)
        if wanted.kind in "iu":
            limits = np.iinfo(wanted)
            values = np.clip(np.rint(values), limits.min, limits.max)
        return np.ascontiguousarray(values[None].astype(wanted))

    def _decoded(self, path: Path) -> np.ndarray:
        from PIL import Image, UnidentifiedImageError

        try:
            with warnings.catch_warnings(), open_file(path) as stream:
                warnings.simplefilter("ignore")  # the bound of pixels is our own; what is damaged ends in an exception
                size = stream.seek(0, 2)
                if not size:
                    raise _invalid(path, "it is empty")
                if size > MAX_FILE_BYTES:
                    raise InputError("IMAGE_TOO_LARGE", f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB")
                stream.seek(0)
                with Image.open(stream, formats=_FORMATS) as picture:
                    if picture.width * picture.height > MAX_PIXELS:
                        raise InputError(
                            "IMAGE_TOO_LARGE", f"{path}: {picture.width} x {picture.height} is more than can be used"
                        )
                    _refuse_what_is_lost(path, picture)
                    picture.load()
                    share_w, share_h = self.options.center_crop_w, self.options.center_crop_h
                    width, height = picture.width * share_w, picture.height * share_h
                    left, top = (picture.width - width) / 2, (picture.height - height) / 2
                    scaled = picture.convert(_MODES[self.options.format]).resize(
                        self.size, Image.Resampling.BILINEAR, box=(left, top, left + width, top + height)
                    )
        except InputError:
            raise
        except UnidentifiedImageError:
            raise _invalid(path, f"none of {', '.join(_FORMATS)} by its content") from None
        except Image.DecompressionBombError:
            raise InputError("IMAGE_TOO_LARGE", f"{path}: it unpacks to more than {MAX_PIXELS} pixels") from None
        except Exception as error:  # noqa: BLE001  (damaged pictures make Pillow raise a dozen unrelated classes)
            why = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
            raise _invalid(path, why) from None
        pixels = np.asarray(scaled)
        return pixels[..., None] if pixels.ndim == 2 else pixels


def _refuse_what_is_lost(path: Path, picture: object) -> None:
    """Several pictures in one file: which was meant is not known.  More than 8 bits: nobody knows their range."""
    frames, mode = getattr(picture, "n_frames", 1), str(getattr(picture, "mode", ""))
    if frames > 1 and getattr(picture, "format", "") != "MPO":  # a camera's JPEG with smaller copies of itself
        raise _invalid(path, f"{frames} pictures in one file; save the one that is meant")
    if mode not in _EIGHT_BITS:
        raise _invalid(path, f"its values have more than 8 bits ({mode}); save it with 8, or give .npz files")


def turned(path: Path) -> bool:
    """Whether the camera noted that the picture has to be turned or mirrored to be seen as it was; False where it
    cannot be read."""
    from PIL import Image

    try:
        with warnings.catch_warnings(), open_file(path) as stream:
            warnings.simplefilter("ignore")
            with Image.open(stream, formats=_FORMATS) as picture:
                return picture.getexif().get(_ORIENTATION, 1) not in (0, 1)
    except Exception:  # noqa: BLE001  (a picture can be whole and what is noted of it damaged)
        return False


def _invalid(path: Path, why: str) -> InputError:
    return InputError("IMAGE_INVALID", f"{path}: not a usable picture ({why})")


def _only(inputs: Sequence[TensorSpec]) -> TensorSpec:
    if len(inputs) != 1:
        raise InputError(
            "IMAGE_INPUT",
            f"the model has {len(inputs)} inputs ({', '.join(spec.name for spec in inputs)}); a picture makes only one",
            hint=f"{ELSE}.",
        )
    return inputs[0]


def _guessed_layout(shape: Sequence[int | None] | None, channels: int) -> str:
    """Where the source does not say: the dimension with as many entries as the picture has channels; NCHW in doubt."""
    return "NHWC" if shape is not None and shape[3] == channels and shape[1] != channels else "NCHW"
