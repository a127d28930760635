"""Everything a user can write on the command line or in a file, parsed and checked in one place."""

from __future__ import annotations

import math
import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edgequant.errors import InputError

Method = Literal["float", "fp16", "weight", "dynamic"]
METHODS: tuple[str, ...] = ("float", "fp16", "weight", "dynamic")
MIN_MNN = (3, 0, 1)
"""Older MNN gives reshape and shape errors on quantized multi-input sequence models, so it is refused."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Variant(_Strict):
    """One way to quantize, written ``dynamic:8`` or ``dynamic:4,block=32,hqq``.

    Attributes:
        method: ``float`` (fp32 as it is), ``fp16`` (weights stored as half precision), ``weight`` (weights quantized,
            computed in float), ``dynamic`` (the same file as ``weight``, run with memory low, so that MNN quantizes
            activations while it runs).
        bits: weight bits, 2 to 8; None for float and fp16.
        block: weights share one scale per `block` input channels, a multiple of 16 (MNN ignores any other); None for
            one scale per output channel.
        hqq: choose scales by half-quadratic quantization (Badri and Shaji, 2023) instead of by the range.
        sym: weights without a zero point.  MNN's converter gives them one unless it is told not to, and so does a
            plain ``weight:8`` here; writing ``asym`` says the same aloud.
    """

    method: Method
    bits: int | None = Field(default=None, ge=2, le=8)
    block: int | None = Field(default=None, ge=16, le=65536, multiple_of=16)
    hqq: bool = False
    sym: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Variant:
        if self.method in ("float", "fp16"):
            if self.bits is not None or self.block is not None or self.hqq or self.sym:
                raise ValueError(f"{self.method} takes no bits and no options")
        elif self.bits is None:
            raise ValueError(f"{self.method} needs its bits, for example {self.method}:8")
        if self.hqq and self.sym:
            raise ValueError("hqq needs a zero point, which sym takes away")
        return self

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Read the written form.  Raises InputError (VARIANT_INVALID) naming what is wrong and what is possible."""
        head, *options = [part.strip() for part in text.strip().split(",")]
        method, _, bits = head.partition(":")
        fields: dict[str, object] = {"method": method}
        seen: set[str] = set()
        if method not in METHODS:
            raise _bad_variant(text, f"unknown method '{method}'")
        if bits or head.endswith(":"):
            if not re.fullmatch(r"[0-9]{1,2}", bits):
                raise _bad_variant(text, f"bits must be a whole number from 2 to 8, not '{bits}'")
            fields["bits"] = int(bits)
        for option in options:
            name, equals, value = option.partition("=")
            if name in seen:
                raise _bad_variant(text, f"'{name}' is given twice")
            seen.add(name)
            if name == "block" and re.fullmatch(r"[0-9]{1,6}", value):
                fields["block"] = int(value)
            elif name in ("hqq", "sym") and not equals:
                fields[name] = True
            elif name == "asym" and not equals and bits:
                continue  # what it is anyway
            else:
                raise _bad_variant(text, f"'{option}' is not an option")
        if {"sym", "asym"} <= seen:
            raise _bad_variant(text, "sym and asym contradict each other")
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise _bad_variant(text, first_problem(error)) from None

    def __str__(self) -> str:
        parts = [self.method if self.bits is None else f"{self.method}:{self.bits}"]
        if self.block is not None:
            parts.append(f"block={self.block}")
        parts += [name for name in ("hqq", "sym") if getattr(self, name)]
        return ",".join(parts)

    @property
    def file_key(self) -> str:
        """What decides the bytes of the file: ``weight:8`` and ``dynamic:8`` are the same file run differently."""
        return str(self).replace("dynamic", "weight", 1)

    @property
    def default_memory(self) -> MemoryMode:
        return "low" if self.method == "dynamic" else "normal"


def _bad_variant(text: str, why: str) -> InputError:
    return InputError(
        "VARIANT_INVALID",
        f"variant '{text}': {why}",
        hint="Possible: float, fp16, weight:N, dynamic:N with N from 2 to 8, then ,block=32 ,hqq or ,sym.",
    )


MemoryMode = Literal["low", "normal", "high"]
Precision = Literal["normal", "low", "high"]


class RunOptions(_Strict):
    """How a model is run on a device.  None means: the tool's default for this model, variant or device.

    Attributes:
        memory: MNN's memory mode; None follows the variant (a dynamic variant means low).
        precision: MNN's precision mode.  low computes in fp16 (ARMv8.2) where the CPU has it.
        threads: number of threads; None is 4, or the number of cores where there are fewer.
        cores: CPU numbers the runner is pinned to; None for no pinning.
        dynamic_quant_option: MNN's DYNAMIC_QUANT_OPTIONS hint: 0 per channel, 1 per tensor, 2 per block.
        timeout: seconds one job on the device may take (load, one inference, one timing).
        warmup: inferences run and thrown away before timing.
        repeat: smallest number of timed inferences.
        seed: seed of every random number edgequant draws.
    """

    memory: MemoryMode | None = None
    precision: Precision = "normal"
    threads: int | None = Field(default=None, ge=1, le=256)
    cores: tuple[int, ...] | None = None
    dynamic_quant_option: Literal[0, 1, 2] | None = None
    timeout: float = Field(default=300.0, gt=0, le=86400)
    warmup: int = Field(default=3, ge=0, le=100_000)
    repeat: int = Field(default=20, ge=1, le=1_000_000)
    seed: int = Field(default=0, ge=0, lt=2**63)

    @field_validator("cores")
    @classmethod
    def _cores(cls, cores: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if cores is not None:
            if not cores:
                raise ValueError("an empty list of cores")
            if any(not 0 <= core < 4096 for core in cores):
                raise ValueError("a core is a number from 0 to 4095")
            if len(set(cores)) != len(cores):
                raise ValueError("a core is named twice")
        return cores


def parse_cores(text: str) -> tuple[int, ...]:
    """Read ``0,2,4-7``.  Raises InputError (CORES_INVALID)."""
    cores: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,4})(?:-([0-9]{1,4}))?\s*", part)
        if not match:
            raise InputError("CORES_INVALID", f"cores '{text}': '{part}' is not a core", hint="Write 4-7 or 0,2,4.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InputError("CORES_INVALID", f"cores '{text}': '{part}' runs backwards", hint="Write 4-7 or 0,2,4.")
        cores += range(first, last + 1)
    return tuple(cores)


METRICS: dict[str, str] = {
    "cosine": ">=",
    "sqnr_db": ">=",
    "max_abs": "<=",
    "rel_max": "<=",
    "mean_abs": "<=",
    "p99_abs": "<=",
    "mismatch": "<=",
    "device_sqnr_db": ">=",
}
"""Metrics a limit can name, each with the direction that is good."""

DEVICE_METRIC = "device_sqnr_db"
"""The one that holds a device against this host instead of against the reference."""

_BEST = {"cosine": 1.0, "sqnr_db": 200.0, DEVICE_METRIC: 200.0}
"""Of the metrics with a lower bound; the others cannot be below 0."""


class Limit(_Strict):
    """One condition on one metric, of one output or (output None) of every output.

    A bound in the metric's wrong direction (``cosine<=0.9``) would pass what is bad, so it is refused.
    """

    output: str | None = None
    metric: str
    op: Literal[">=", "<="]
    value: float

    @model_validator(mode="after")
    def _sane(self) -> Limit:
        if self.metric not in METRICS:
            raise ValueError(f"unknown metric '{self.metric}'; there are {', '.join(METRICS)}")
        if self.op != METRICS[self.metric]:
            raise ValueError(f"'{self.metric}' is bounded with {METRICS[self.metric]}")
        if not math.isfinite(self.value):
            raise ValueError("the bound must be a finite number")
        if self.value > _BEST[self.metric] if self.op == ">=" else self.value < 0:
            best = _BEST.get(self.metric, 0)
            raise ValueError(f"nothing can keep it: the best '{self.metric}' there is is {best:g}")
        return self

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read ``sqnr_db>=30`` or ``lsnr:cosine>=0.99``.  Raises InputError (LIMIT_INVALID)."""
        # The output may itself hold colons (TensorFlow's "x:0"), so it is everything before the last one.
        match = re.fullmatch(r"(?:(?P<output>.+):)?\s*(?P<metric>\w+)\s*(?P<op>>=|<=)\s*(?P<value>\S+)\s*", text)
        try:
            if not match:
                raise ValueError("not of the form [OUTPUT:]METRIC>=X or [OUTPUT:]METRIC<=X")
            # float() also reads 0_9 and the digits of other scripts, which nobody means.
            if not re.fullmatch(r"[-+.0-9eE]+|[-+]?(?:inf|nan)", match["value"]):
                raise ValueError(f"'{match['value']}' is not a number")
            return cls.model_validate({**match.groupdict(), "value": float(match["value"])})
        except ValidationError as error:
            why = first_problem(error)
        except ValueError as error:
            why = str(error)
        raise InputError(
            "LIMIT_INVALID", f"limit '{text}': {why}", hint="For example: sqnr_db>=30 or lsnr:cosine>=0.99."
        )

    def __str__(self) -> str:
        return f"{self.output + ':' if self.output else ''}{self.metric}{self.op}{self.value:g}"


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read ``NAME=1,3,48,160`` (``NAME=`` is a scalar).  Raises InputError (SHAPE_INVALID)."""
    name, equals, sizes = text.rpartition("=")
    if not equals or not name:
        raise InputError("SHAPE_INVALID", f"shape '{text}': not of the form NAME=1,3,48,160")
    if not sizes.strip():
        return name, ()
    parts = [part.strip() for part in sizes.split(",")]
    if any(not re.fullmatch(r"[0-9]{1,9}", part) or int(part) == 0 for part in parts):
        raise InputError("SHAPE_INVALID", f"shape '{text}': every size must be a whole number of at least 1")
    return name, tuple(int(part) for part in parts)


def first_problem(error: ValidationError) -> str:
    """The first thing pydantic found wrong, in one line for people."""
    problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    message = message.replace("Extra inputs are not permitted", "there is no such key")
    return f"{place}: {message}" if place else message
