"""How pictures become tensors, as users write it: on the command line, in a spec file, in Python."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edgequant.errors import InputError
from edgequant.problems import first_problem
from edgequant.spec.numbers import Count, Number

CHANNELS = {"RGB": 3, "BGR": 3, "GRAY": 1, "RGBA": 4, "BGRA": 4}
MAX_PIXELS = 1 << 26
"""Larger pictures are refused before they are decoded: a small file may hold a picture of terabytes."""
MAX_SIDE = 16384
HINT = (
    'For example: --image "format=BGR mean=123.7,116.3,103.5 normal=0.0171,0.0175,0.0174 size=224x224". Keys: format, '
    "mean, normal, size=WIDTHxHEIGHT, layout, center_crop, center_crop_h, center_crop_w."
)
_KEYS = ("format", "mean", "normal", "size", "layout", "center_crop", "center_crop_h", "center_crop_w")
_MEANT = {
    **dict.fromkeys(
        ("std", "stddev", "deviation", "scale"), "normal, which is multiplied: 1 / (255 s) for a deviation s of 0 to 1"
    ),
    **dict.fromkeys(("width", "height", "resize", "w", "h"), "size=WIDTHxHEIGHT"),
    **dict.fromkeys(("crop", "centre_crop", "centercrop"), "center_crop"),
    **dict.fromkeys(("channels", "order", "color", "colour", "mode"), "format"),
}
_MOST = 1e6
"""No number of a preprocessing is larger than this, in size or in one over it."""
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


class ImageOptions(BaseModel):
    """How a picture becomes a tensor: (pixel - mean) * normal for every channel, pixels from 0 to 255.

    The names and the formula are those of MNN's own quantization tool, so that a configuration can be carried over.

    Attributes:
        format: order of the channels.  mean and normal follow this order.
        mean, normal: one number for all channels, or one for each.  A PyTorch model trained with mean m and standard
            deviation s of values from 0 to 1 has mean = 255 m and normal = 1 / (255 s).
        size: (width, height) the picture is scaled to; None takes the model's, which must then be fixed.
        layout: None takes the model's.
        center_crop_h, center_crop_w: share of height and width that is kept before scaling, 1 for all; ``center_crop``
            sets both.

    The orientation that a camera may have noted in the file is not applied, as MNN's tool and most training code do
    not apply it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    format: Literal["RGB", "BGR", "GRAY", "RGBA", "BGRA"] = "RGB"
    mean: tuple[Number, ...] = Field(default=(0.0,), max_length=4)
    normal: tuple[Number, ...] = Field(default=(1.0,), max_length=4)
    size: tuple[Count, Count] | None = None
    layout: Literal["NCHW", "NHWC"] | None = None
    center_crop_h: Number = Field(default=1.0, gt=0, le=1)
    center_crop_w: Number = Field(default=1.0, gt=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        for key in data:
            if key not in _KEYS:
                raise ValueError(_no_key(str(key)[:100]))
        fields = dict(data)
        if "center_crop" in fields:
            crop = fields.pop("center_crop")
            for name in ("center_crop_h", "center_crop_w"):
                if name in fields:
                    raise ValueError(f"center_crop is both {name} and its other: give one of the two")
                fields[name] = crop
        return fields

    @field_validator("mean", "normal", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, (int, float)) and not isinstance(value, bool) else value

    @field_validator("mean", "normal")
    @classmethod
    def _sensible(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values or not all(math.isfinite(value) for value in values):
            raise ValueError("one finite number, or one for each channel")
        if any(abs(value) > _MOST for value in values):
            raise ValueError(f"{max(values, key=abs):g} is not of pixels from 0 to 255")
        return values

    @field_validator("normal")
    @classmethod
    def _not_zero(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if any(abs(value) < 1 / _MOST for value in values):
            raise ValueError("0 would make every pixel the same; it is multiplied, not divided by")
        return values

    @field_validator("size", mode="before")
    @classmethod
    def _written_size(cls, size: Any) -> Any:
        if isinstance(size, str):
            match = re.fullmatch(r"\s*([0-9]{1,7})\s*[xX]\s*([0-9]{1,7})\s*", size)
            if match is None:
                raise ValueError("write WIDTHxHEIGHT, such as 224x224")
            return int(match[1]), int(match[2])
        return size

    @field_validator("size")
    @classmethod
    def _sized(cls, size: tuple[int, int] | None) -> tuple[int, int] | None:
        if size is not None and not (min(size) > 0 and max(size) <= MAX_SIDE and size[0] * size[1] <= MAX_PIXELS):
            raise ValueError(f"width and height of 1 to {MAX_SIDE}, and at most {MAX_PIXELS} pixels")
        return size

    @model_validator(mode="after")
    def _channels(self) -> ImageOptions:
        for name in ("mean", "normal"):
            count = len(getattr(self, name))
            if count not in (1, CHANNELS[self.format]):
                raise ValueError(f"{name} has {count} numbers, {self.format} has {CHANNELS[self.format]} channels")
        return self

    @classmethod
    def parse(cls, texts: str | Sequence[str], base: ImageOptions | None = None) -> ImageOptions:
        """Read ``KEY=VALUE`` words, several in one text or one in each, on top of `base`.

        Raises InputError (IMAGE_OPTION_INVALID) naming the word and what is possible.
        """
        fields: dict[str, object] = {}
        for text in [texts] if isinstance(texts, str) else texts:
            words = text.split()
            if not words:
                raise _bad(text, "it is empty")
            for word in words:
                key, equals, value = word.partition("=")
                if not equals or not value:
                    raise _bad(text, f"'{word}' is not of the form KEY=VALUE" if key in _KEYS else _no_key(key[:100]))
                if key in fields:
                    raise _bad(text, f"'{key}' is given twice")
                fields[key] = _value(text, key, value)
        before = {} if base is None else base.model_dump(exclude_unset=True)
        if "center_crop" in fields:
            before = {key: value for key, value in before.items() if not key.startswith("center_crop")}
        try:
            return cls.model_validate({**before, **fields})
        except ValidationError as error:
            raise _bad(" ".join([texts] if isinstance(texts, str) else texts), first_problem(error)) from None

    def words(self) -> str:
        """What is done with the pixels, for people."""
        mean, normal = (_listed(numbers) for numbers in (self.mean, self.normal))
        done = "pixels from 0 to 255 as they are, no mean taken away"
        if any(self.mean) or set(self.normal) != {1.0}:
            done = f"(pixel - {mean}) * {normal} with pixels from 0 to 255"
        crop = [
            f"{share * 100:g} % of the {side} kept"
            for share, side in ((self.center_crop_h, "height"), (self.center_crop_w, "width"))
            if share != 1
        ]
        return ", ".join([self.format, done, *crop])


def _listed(numbers: tuple[float, ...]) -> str:
    return f"{numbers[0]:g}" if len(set(numbers)) == 1 else f"[{', '.join(f'{number:g}' for number in numbers)}]"


def _no_key(key: str) -> str:
    near = _MEANT.get(key.lower()) or next(iter(difflib.get_close_matches(key.lower(), _KEYS, 1)), None)
    return f"there is no key '{key}'" + (f"; did you mean {near}?" if near else "")


def _value(text: str, key: str, value: str) -> object:
    if key in ("mean", "normal") or key.startswith("center_crop"):
        parts = value.split(",")
        wrong = next((part for part in parts if not _NUMBER.fullmatch(part)), None)
        if wrong is not None or (len(parts) > 1 and key not in ("mean", "normal")):
            raise _bad(text, f"{key}: '{value if wrong is None else wrong}' is not a number")
        numbers = tuple(map(float, parts))
        return numbers if key in ("mean", "normal") else numbers[0]
    return value.upper() if key in ("format", "layout") else value


def _bad(text: str, why: str) -> InputError:
    return InputError("IMAGE_OPTION_INVALID", f"image options '{text}': {why}", hint=HINT)
