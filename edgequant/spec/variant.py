"""One way to quantize a model, as users write it."""

from __future__ import annotations

import difflib
import re
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgequant.errors import InputError
from edgequant.problems import first_problem

Method = Literal["float", "fp16", "weight", "dynamic", "kl", "ema", "admm", "static", "recipe", "auto"]
METHODS: tuple[str, ...] = get_args(Method)
OFFLINE: tuple[str, ...] = ("kl", "ema", "admm")
"""MNN's own methods for static int8."""
MemoryMode = Literal["low", "normal", "high"]
Calib = Literal["minmax", "ema", "percentile", "kl", "mse", "admm"]

POSSIBLE = (
    "float, fp16, weight:N, dynamic:N (N from 2 to 8; then ,block=32 ,hqq or ,sym), kl, ema, admm (then "
    ",weights=admm ,clamp=N ,skip=OP ,samples=N), static:8 (then ,calib=minmax|ema|percentile|kl|mse|admm ,asym ,sym "
    ",equalize ,percent=99.9 ,rnn=float ,skip=OP ,keep=N ,samples=N), recipe:FILE, auto (with --target)"
)
_NUMBER = {"block": r"[0-9]{1,6}", "clamp": r"[0-9]{1,3}", "samples": r"[0-9]{1,6}", "keep": r"[0-9]{1,5}"}
_WORD = {"weights": ("max_abs", "admm"), "calib": get_args(Calib), "rnn": ("weight", "float")}
_FLAG = ("hqq", "sym", "asym", "equalize")
_EXAMPLE = {"block": 32, "clamp": 100, "samples": 32, "keep": 4}
_TAKES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("float", "fp16", "recipe", "auto"), ()),
    **dict.fromkeys(("weight", "dynamic"), ("block", "hqq", "sym", "asym")),
    **dict.fromkeys(OFFLINE, ("weights", "clamp", "skip", "samples")),
    "static": ("calib", "sym", "asym", "equalize", "percent", "rnn", "skip", "keep", "samples"),
}


_MOST_PATH = 4000


class Variant(BaseModel):
    """One way to quantize, written ``dynamic:8``, ``dynamic:4,block=32,hqq``, ``ema`` or ``static:8,calib=mse``.

    Attributes:
        method: ``float`` (fp32 as it is), ``fp16`` (weights stored as half precision), ``weight`` (weights quantized,
            computed in float), ``dynamic`` (the same file as ``weight``, run with memory low, so that MNN quantizes
            activations while it runs), ``kl``, ``ema``, ``admm`` (MNN's own static int8, from calibration data),
            ``static`` (static int8 from scales of edgequant's own calibrators),
            ``recipe`` (what a file says of each layer), ``auto`` (a recipe that is searched for).
        bits: weight bits, 2 to 8; None where the method has none to choose.
        block: weights share one scale per `block` input channels, a multiple of 16 (MNN ignores any other); None for
            one scale per output channel.
        hqq: choose scales by half-quadratic quantization (Badri and Shaji, 2023) instead of by the range.
        sym: weights without a zero point.  MNN's converter gives them one unless it is told not to, and so does a
            plain ``weight:8`` here; writing ``asym`` says the same aloud.
        asym, sym: of static: activations with a zero point, or without.  With neither, both are tried where `calib` is
            None; else they have none.
        equalize: of static: the channels between two layers get the same range first, which changes no result.  Without
            it, both are tried where `calib` is None; else it is not done.
        weights: of MNN's methods: how the scales of weights are found; None for max_abs.
        clamp: of MNN's methods: activations are quantized to -clamp..clamp; None for 127.
        skip: layers that stay float, each written ``skip=NAME``.
        samples: so many calibration samples are used; None for all.
        calib: of static: how ranges become scales; None: whatever comes closest to float on the calibration samples.
        percent: of static,calib=percentile: what it keeps; None for 99.99.
        rnn: of static: what becomes of layers inside GRU and LSTM loops; None for weight (8-bit weights).
        keep: of static: so many of the most sensitive layers compute in float.
        file: of recipe: its path.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    method: Method
    bits: int | None = Field(default=None, ge=2, le=8)
    block: int | None = Field(default=None, ge=16, le=65536, multiple_of=16)
    hqq: bool = False
    sym: bool = False
    asym: bool = False
    equalize: bool = False
    weights: Literal["max_abs", "admm"] | None = None
    clamp: int | None = Field(default=None, ge=1, le=127)
    skip: tuple[str, ...] = Field(default=(), max_length=1000)
    samples: int | None = Field(default=None, ge=1, le=100_000)
    calib: Calib | None = None
    percent: float | None = Field(default=None, gt=50, le=100, allow_inf_nan=False)
    rnn: Literal["weight", "float"] | None = None
    keep: int | None = Field(default=None, ge=1, le=10_000)
    file: str | None = Field(default=None, min_length=1, max_length=_MOST_PATH)

    @model_validator(mode="after")
    def _consistent(self) -> Variant:
        takes = _TAKES[self.method]
        for name in ("block", "hqq", "sym", "asym", "equalize", "weights", "clamp", "skip", "samples", "calib",
                     "percent", "rnn", "keep"):  # fmt: skip
            if getattr(self, name) and name not in takes:
                raise ValueError(f"{self.method} takes no '{name}'")
        if self.method in ("weight", "dynamic", "static"):
            if self.bits is None:
                raise ValueError(f"{self.method} needs its bits, for example {self.method}:8")
            if self.method == "static" and self.bits != 8:
                raise ValueError("static int8 has 8 bits: static:8")
        elif self.bits is not None:
            raise ValueError(f"{self.method} takes no bits")
        if (self.file is None) == (self.method == "recipe"):
            raise ValueError(
                "recipe needs its file: recipe:FILE" if self.method == "recipe" else "no file belongs to it"
            )
        if self.hqq and self.sym:
            raise ValueError("hqq needs a zero point, which sym takes away")
        if self.percent is not None and self.calib != "percentile":
            raise ValueError("'percent' belongs to calib=percentile")
        return self

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Read the written form.  Raises InputError (VARIANT_INVALID) naming what is wrong and what is possible."""
        if text.strip().startswith("recipe:"):
            # A path may hold anything, commas too.
            file = text.strip().removeprefix("recipe:")
            if not file or "\0" in file:
                raise _bad(text, "recipe needs its file: recipe:FILE")
            if len(file) > _MOST_PATH:
                raise _bad(text, f"no path has more than {_MOST_PATH} characters")
            return cls(method="recipe", file=file)
        head, *options = [part.strip() for part in text.strip().split(",")]
        method, _, bits = head.partition(":")
        fields: dict[str, object] = {"method": method}
        if method not in METHODS:
            near = difflib.get_close_matches(method.lower(), METHODS, n=1)
            raise _bad(text, f"unknown method '{method}'" + (f"; did you mean '{near[0]}'?" if near else ""))
        if bits or head.endswith(":"):
            if not re.fullmatch(r"[0-9]{1,2}", bits):
                raise _bad(text, f"bits must be a whole number from 2 to 8, not '{bits}'")
            fields["bits"] = int(bits)
        skip: list[str] = []
        seen: set[str] = set()
        for option in options:
            name, equals, value = option.partition("=")
            if name in seen and name != "skip":
                raise _bad(text, f"'{name}' is given twice")
            seen.add(name)
            if name not in _TAKES[method]:
                raise _bad(text, _unknown(option, name, method))
            if name == "skip" and value:
                skip.append(value)
            elif name in _FLAG and not equals:
                fields[name] = True
            elif name == "percent" and re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", value):
                fields[name] = float(value)
            elif name in _NUMBER and re.fullmatch(_NUMBER[name], value):
                fields[name] = int(value)
            elif value in _WORD.get(name, ()):
                fields[name] = value
            else:
                raise _bad(text, _needs(option, name))
        if {"sym", "asym"} <= seen:
            raise _bad(text, "sym and asym contradict each other")
        # What it is anyway: weights have a zero point, static activations have none where a calibrator is named.
        if method != "static":
            fields.pop("asym", None)
        elif "calib" in fields:
            fields.pop("sym", None)
        try:
            return cls.model_validate({**fields, "skip": tuple(dict.fromkeys(skip))})
        except ValidationError as error:
            raise _bad(text, first_problem(error)) from None

    def __str__(self) -> str:
        if self.method == "recipe":
            return f"recipe:{self.file}"
        parts = [self.method if self.bits is None else f"{self.method}:{self.bits}"]
        for name in ("calib", "percent", "weights", "clamp", "block", "rnn", "keep", "samples"):
            value = getattr(self, name)
            if value is not None:
                parts.append(f"{name}={value:.10g}" if isinstance(value, float) else f"{name}={value}")
        parts += [name for name in _FLAG if getattr(self, name)]
        return ",".join([*parts, *(f"skip={name}" for name in self.skip)])

    @property
    def file_key(self) -> str:
        """What decides the bytes of the file: ``weight:8`` and ``dynamic:8`` are the same file run differently."""
        return str(self).replace("dynamic", "weight", 1) if self.method == "dynamic" else str(self)

    @property
    def default_memory(self) -> MemoryMode:
        return "low" if self.method == "dynamic" else "normal"

    @property
    def searched(self) -> bool:
        """Whether making it takes more than a call of the converter."""
        return self.calibrated or self.method in ("recipe", "auto")

    @property
    def calibrated(self) -> bool:
        """Whether it is made from calibration data."""
        return self.method in OFFLINE or self.method == "static"


def takes(variant: Variant, option: str) -> bool:
    """Whether its method has the option, and heeds it: MNN's ema ignores skip=."""
    return option in _TAKES[variant.method] and (variant.method, option) != ("ema", "skip")


def _unknown(option: str, name: str, method: str) -> str:
    if not name:
        return "an option is empty"
    near = difflib.get_close_matches(name.lower(), _TAKES[method], n=1)
    return f"'{option}' is not an option of {method}" + (f"; did you mean '{near[0]}'?" if near else "")


def _needs(option: str, name: str) -> str:
    """What an option that there is lacks, or has too much of."""
    given = f", not '{option.partition('=')[2]}'" if option.partition("=")[2] else ""
    if name in _FLAG:
        return f"{name} takes no value{given}"
    if name in _NUMBER:
        return f"{name} needs a whole number, such as {name}={_EXAMPLE[name]}{given}"
    if name in _WORD:
        return f"{name} needs one of {', '.join(_WORD[name])}{given}"
    if name == "percent":
        return f"percent needs a number above 50 and up to 100, such as percent=99.9{given}"
    return "skip needs the name of a layer: skip=NAME"


def _bad(text: str, why: str) -> InputError:
    return InputError("VARIANT_INVALID", f"variant '{text}': {why}", hint=f"Possible: {POSSIBLE}.")
