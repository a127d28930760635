"""Pictures as model inputs: decoded by Pillow (an optional package), preprocessed as the options say."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edgequant.cases.case import shape_text
from edgequant.errors import InputError
from edgequant.tensors import TensorSpec

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
CHANNELS = {"RGB": 3, "BGR": 3, "GRAY": 1, "RGBA": 4, "BGRA": 4}
MAX_PIXELS = 1 << 26
"""Larger pictures are refused before they are decoded: a small file may hold a picture of terabytes."""

_MODES = {"RGB": "RGB", "BGR": "RGB", "GRAY": "L", "RGBA": "RGBA", "BGRA": "RGBA"}
_FORMATS = ("PNG", "JPEG", "BMP")


class ImageOptions(BaseModel):
    """How a picture becomes a tensor: (pixel - mean) * normal for every channel, pixels from 0 to 255.

    The names and the formula are those of MNN's own quantization tool, so that a configuration can be carried over.

    Attributes:
        format: order of the channels.  mean and normal follow this order.
        mean, normal: one number for all channels, or one for each.  A PyTorch model trained with mean m and standard
            deviation s of values from 0 to 1 has mean = 255 m and normal = 1 / (255 s).
        size: (width, height) the picture is scaled to; None takes the model's, which must then be fixed.
        layout: None takes the model's.
        center_crop: share of width and height that is kept before scaling, 1 for all.

    The orientation that a camera may have noted in the file is not applied, as MNN's tool and most training code do
    not apply it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["RGB", "BGR", "GRAY", "RGBA", "BGRA"] = "RGB"
    mean: tuple[float, ...] = (0.0,)
    normal: tuple[float, ...] = (1.0,)
    size: tuple[int, int] | None = None
    layout: Literal["NCHW", "NHWC"] | None = None
    center_crop: float = Field(default=1.0, gt=0, le=1)

    @field_validator("mean", "normal")
    @classmethod
    def _finite(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values or not np.isfinite(values).all():
            raise ValueError("one finite number, or one for each channel")
        return values

    @field_validator("size")
    @classmethod
    def _sized(cls, size: tuple[int, int] | None) -> tuple[int, int] | None:
        if size is not None and not (size[0] > 0 and size[1] > 0 and size[0] * size[1] <= MAX_PIXELS):
            raise ValueError(f"width and height of at least 1, and at most {MAX_PIXELS} pixels")
        return size

    @model_validator(mode="after")
    def _channels(self) -> ImageOptions:
        for name in ("mean", "normal"):
            count = len(getattr(self, name))
            if count not in (1, CHANNELS[self.format]):
                raise ValueError(f"{name} has {count} numbers, {self.format} has {CHANNELS[self.format]} channels")
        return self


def pillow_available() -> bool:
    return importlib.util.find_spec("PIL") is not None


def is_image_file(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


class ImageReader:
    """Turns picture files into arrays for one input of a model.

    Raises InputError (from the constructor): PILLOW_MISSING, IMAGE_INPUT (the model has several inputs, or one that no
    picture fits), IMAGE_SIZE_UNKNOWN.
    """

    def __init__(self, inputs: Sequence[TensorSpec], options: ImageOptions) -> None:
        if not pillow_available():
            raise InputError(
                "PILLOW_MISSING", "pictures need the package Pillow", hint="Run: python -m pip install Pillow"
            )
        self._options = options
        self.spec = _only(inputs)
        channels = CHANNELS[options.format]
        shape = self.spec.shape
        if shape is not None and len(shape) != 4:
            raise InputError(
                "IMAGE_INPUT",
                f"input '{self.spec.name}' is {shape_text(self.spec)}, a picture has 4 dimensions",
                hint="Give .npz files, or a Python function that makes the inputs.",
            )
        self._layout = options.layout or self.spec.layout or _guessed_layout(shape, channels)
        sides = (None, None) if shape is None else shape[1:3] if self._layout == "NHWC" else shape[2:4]
        width, height = options.size or (sides[1], sides[0])
        if width is None or height is None:
            raise InputError(
                "IMAGE_SIZE_UNKNOWN",
                f"input '{self.spec.name}' is {shape_text(self.spec)}: it takes pictures of any size",
                hint="Say what they are scaled to: width and height.",
            )
        self._size = (width, height)

    def read(self, path: Path) -> np.ndarray:
        """The picture as [1, C, H, W] or [1, H, W, C], of the input's element type.

        Raises InputError: IMAGE_INVALID, IMAGE_TOO_LARGE.
        """
        options = self._options
        pixels = self._decoded(path)
        if options.format in ("BGR", "BGRA"):
            pixels = pixels[..., [2, 1, 0, *range(3, pixels.shape[-1])]]
        values = (pixels.astype(np.float32) - np.asarray(options.mean, np.float32)) * np.asarray(
            options.normal, np.float32
        )
        if self._layout == "NCHW":
            values = values.transpose(2, 0, 1)
        wanted = np.dtype(self.spec.dtype)
        if wanted.kind in "iu":
            limits = np.iinfo(wanted)
            values = np.clip(np.rint(values), limits.min, limits.max)
        return np.ascontiguousarray(values[None].astype(wanted))

    def _decoded(self, path: Path) -> np.ndarray:
        from PIL import Image

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound here is our own
                with Image.open(path, formats=_FORMATS) as picture:
                    if picture.width * picture.height > MAX_PIXELS:
                        raise InputError(
                            "IMAGE_TOO_LARGE", f"{path}: {picture.width} x {picture.height} is more than can be used"
                        )
                    picture.load()
                    keep = self._options.center_crop
                    width, height = picture.width * keep, picture.height * keep
                    left, top = (picture.width - width) / 2, (picture.height - height) / 2
                    scaled = picture.convert(_MODES[self._options.format]).resize(
                        self._size, Image.Resampling.BILINEAR, box=(left, top, left + width, top + height)
                    )
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001  (damaged pictures make Pillow raise a dozen unrelated classes)
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError("IMAGE_INVALID", f"{path}: not a usable picture ({why})") from None
        pixels = np.asarray(scaled)
        return pixels[..., None] if pixels.ndim == 2 else pixels


def _only(inputs: Sequence[TensorSpec]) -> TensorSpec:
    if len(inputs) != 1:
        raise InputError(
            "IMAGE_INPUT",
            f"the model has {len(inputs)} inputs ({', '.join(spec.name for spec in inputs)}); a picture makes only one",
            hint="Give .npz files, or a Python function that makes all inputs.",
        )
    return inputs[0]


def _guessed_layout(shape: Sequence[int | None] | None, channels: int) -> str:
    """Where the source does not say: the dimension with as many entries as the picture has channels; NCHW in doubt."""
    return "NHWC" if shape is not None and shape[3] == channels and shape[1] != channels else "NCHW"
