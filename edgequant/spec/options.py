"""How a model is run, as users write it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edgequant.errors import InputError
from edgequant.problems import shown
from edgequant.spec.numbers import Count, Number, Switch
from edgequant.spec.variant import MemoryMode, Variant


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


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
    threads: Count | None = Field(default=None, ge=1, le=256)
    cores: tuple[Count, ...] | None = None
    dynamic_quant_option: Literal[0, 1, 2] | None = None
    timeout: Number = Field(default=300.0, gt=0, le=86400)
    warmup: Count = Field(default=3, ge=0, le=100_000)
    repeat: Count = Field(default=20, ge=1, le=1_000_000)
    seed: Count = Field(default=0, ge=0, lt=2**63)

    @field_validator("dynamic_quant_option", mode="before")
    @classmethod
    def _whole(cls, number: object) -> object:
        if isinstance(number, (bool, float)):  # which equal the numbers that are allowed
            raise ValueError(f"must be 0, 1 or 2, not {shown(number)}")
        return number

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

    def memory_for(self, variant: Variant) -> MemoryMode:
        """MNN's memory mode for a variant: what the user said, else what the variant means."""
        return self.memory or variant.default_memory


class Access(_Strict):
    """How a device is reached, and what runs there.

    Attributes:
        work_dir: private directory on the device; None for its default.
        accept_new_host_key: trust an SSH host that is seen for the first time, and remember its key.
        python: command on the device; None for its default.
        runtime: whose Python and MNN run there: the device's own (system), or those of a pack that is pushed.
        mnn: version of MNN in the pack; None for that of this host.
        pack: one that was built, by the beginning of its SHA-256.
        wait: seconds to wait where another edgequant is using the device.
    """

    work_dir: str | None = Field(default=None, max_length=4000)
    accept_new_host_key: Switch = False
    python: str | None = Field(default=None, max_length=4000)
    runtime: Literal["auto", "pack", "system"] = "auto"
    mnn: str | None = Field(default=None, max_length=100)
    pack: str | None = Field(default=None, max_length=4000)
    wait: Number = Field(default=600.0, ge=0, le=86400)

    @field_validator("work_dir")
    @classmethod
    def _work_dir(cls, path: str | None) -> str | None:
        if path is not None and (not path.startswith(("/", "~/")) or "\0" in path):
            raise ValueError(f"{path!r} must be an absolute path on the device, or one in ~/")
        return path

    @model_validator(mode="after")
    def _one_runtime(self) -> Access:
        own = "--python" if self.python is not None else "--runtime system" if self.runtime == "system" else None
        packed = "--mnn" if self.mnn is not None else "--pack" if self.pack is not None else None
        if self.mnn is not None and self.pack is not None:
            raise ValueError("--mnn and --pack contradict each other: a pack has its own MNN")
        if self.python is not None and self.runtime == "pack":
            raise ValueError("--python and --runtime pack contradict each other")
        if own and packed:
            raise ValueError(f"{packed} and {own} contradict each other")
        return self


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


def parse_shapes(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """``NAME=1,3,48,160`` each.  Raises InputError (SHAPE_INVALID)."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, shape = parse_shape(text)
        if shapes.setdefault(name, shape) != shape:
            raise InputError("SHAPE_INVALID", f"--shape: '{name}' is given twice, as {shapes[name]} and {shape}")
    return shapes
