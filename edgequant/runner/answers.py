"""What the runner may answer.  A device is not trusted: every answer is validated before anything uses it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MAX_SAMPLES = 1_000_000
"""Latencies of one timing: what the runner itself stops at."""

# A day: no inference is allowed that long, and sums of what is allowed stay finite.
# A clock that jumps backwards costs the timing, not the run: what is less than nothing is told by the judge.
Milliseconds = Annotated[float, Field(ge=-86_400_000, le=86_400_000, allow_inf_nan=False)]
_Kib = Annotated[int, Field(ge=0, le=1 << 40)]


def _storable(name: str) -> str:
    # Names become members of zip files and lines on a terminal.
    if "\0" in name or any("\ud800" <= character <= "\udfff" for character in name):
        raise ValueError("a name holds characters no file can")
    return name


_Name = Annotated[str, Field(max_length=4000), AfterValidator(_storable)]


class Answer(BaseModel):
    # A newer runner may say more than this host knows.
    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)


class MemoryKb(Answer):
    """Memory of the runner's process in KiB; None where the device could not tell.

    `pss` after an inference is at most 64 KiB of `rss` old: see device_scripts.process.Memory.
    """

    rss: _Kib | None = None
    rss_peak: _Kib | None = None
    stage_peak: _Kib | None = None
    pss: _Kib | None = None
    uss: _Kib | None = None
    swap: _Kib | None = None


class Hello(Answer):
    """Who answered: versions and MNN's first line (`banner`), which names the kernels it enables on this CPU."""

    runner: str = Field(max_length=100)
    protocol: int
    pid: int
    python: str = Field(max_length=100)
    mnn: str = Field(max_length=100)
    numpy: str = Field(max_length=100)
    banner: str = Field(default="", max_length=4000)


class Facts(Answer):
    """What only the runner's process knows of its machine; None for what it could not read.

    mnn_kernels: MNN's first line, such as {"i8sdot": True, "fp16": True, "i8mm": False}.  cores: all there are;
    usable_cores: those it may use.  page_size: bytes.
    """

    arch: str = Field(max_length=100)
    mnn_kernels: dict[Annotated[str, Field(max_length=100)], bool] = Field(default_factory=dict, max_length=50)
    cores: int | None = Field(default=None, ge=1, le=4096)
    usable_cores: int | None = Field(default=None, ge=1, le=4096)
    page_size: int | None = Field(default=None, ge=512, le=1 << 30)

    @property
    def of_device(self) -> dict[str, str | int]:
        """Those that hold for the device, by their names in DeviceFacts."""
        found = {"arch": self.arch, "cores": self.cores, "page_size": self.page_size}
        return {name: value for name, value in found.items() if value is not None}


class LockAnswer(Answer):
    """Who has the device; None: we do."""

    holder: str | None = Field(default=None, max_length=1000)


_Size = Annotated[int, Field(ge=-(1 << 63), lt=1 << 40), AfterValidator(lambda size: max(size, -1))]
# A model may say -3, which MNN repeats, and means open, as -1 does.


class ModelInput(Answer):
    """An input as MNN declares it; -1 in `shape` is dynamic."""

    name: _Name
    dtype: Literal["float32", "int32", "uint8", "int8"]
    shape: list[_Size] = Field(max_length=32)
    layout: Literal["NCHW", "NHWC"]


class LoadAnswer(Answer):
    """A model in the runner's memory: `load_ms` in milliseconds, memory before and after, SHA-256 of the file that was
    loaded (empty where it could not be read), MB that the device could still give out."""

    handle: int
    sha256: str = Field(default="", max_length=64)
    load_ms: Milliseconds
    mnn_model_version: str = Field(default="", max_length=100)
    inputs: list[ModelInput] = Field(max_length=100_000)
    outputs: list[_Name] = Field(max_length=100_000)
    memory_before: MemoryKb = MemoryKb()
    memory_after: MemoryKb = MemoryKb()
    free_mb: Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)] | None = None


class RunAnswer(Answer):
    """One inference: its time in milliseconds and the memory after it."""

    ms: Milliseconds
    memory: MemoryKb = MemoryKb()


_Number = Annotated[float, Field(allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0, le=1 << 40)]
_Share = Annotated[float, Field(ge=0, le=1)]


class TensorStats(Answer):
    """What a tensor holds: see device_scripts/tensor_stats.py."""

    n: _Count
    nan: _Count = 0
    inf: _Count = 0
    zeros: _Count = 0
    min: _Number | None = None
    max: _Number | None = None
    mean: _Number | None = None
    mean_abs: _Number | None = None
    rms: _Number | None = None
    at_min: _Share = 0.0
    at_max: _Share = 0.0
    shape: list[_Count] | None = Field(default=None, max_length=32)


class TensorApart(Answer):
    """How far a tensor is from what was expected: see device_scripts/tensor_stats.py."""

    n: _Count
    signal: _Number
    error: _Number
    max_abs: _Number
    gain: _Number | None = None
    lost: _Count = 0
    axes: list[tuple[_Count, _Number, _Count]] = Field(default_factory=list, max_length=32)


class TapsAnswer(Answer):
    """Inner tensors of one inference; `apart` is None where the shapes differ."""

    stats: dict[_Name, TensorStats] = Field(max_length=100_000)
    apart: dict[_Name, TensorApart | None] = Field(default_factory=dict, max_length=100_000)
    memory: MemoryKb = MemoryKb()


class TimeAnswer(Answer):
    """The end of a timing; `complete` is false where the time limit came before the wanted number of samples."""

    warmup: int = Field(ge=0)
    n: int = Field(ge=0)
    complete: bool
    memory: MemoryKb = MemoryKb()


_Seconds = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
_Tally = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]


_Mhz = Annotated[list[Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]], Field(max_length=4096)]


class Conditions(Answer):
    """What may disturb a timing, at one moment: see device_scripts/conditions.py.  None: the device does not tell."""

    up: _Seconds
    wall: _Seconds
    own: _Tally
    busy: _Tally | None = None
    stolen: _Tally | None = None
    waiting: _Tally | None = None
    running: _Tally | None = None
    quota: _Tally | None = None
    switched: _Tally | None = None
    cpus: Annotated[int, Field(ge=1, le=4096)] | None = None
    mhz: _Mhz | None = None
    mhz_most: _Mhz | None = None
    mhz_able: _Mhz | None = None
    cooled: _Tally | None = None
    throttled: _Tally | None = None
    celsius: Annotated[float, Field(ge=-100, le=250, allow_inf_nan=False)] | None = None
    governor: str | None = Field(default=None, max_length=300)
    driver: str | None = Field(default=None, max_length=300)
    free_mb: _Tally | None = None
    swapped_in: _Tally | None = None
    battery: Annotated[int, Field(ge=0, le=100)] | None = None
    charging: bool | None = None
    plugged: bool | None = None


class Energy(Answer):
    """What a sensor told of a time, in joules; or why none did.  readings: it is of so many."""

    joules: Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)] | None = None
    sensor: str | None = Field(default=None, max_length=300)
    readings: int = Field(default=0, ge=0)
    why: str | None = Field(default=None, max_length=300)


class BenchAnswer(Answer):
    """The end of one block of a measurement; `steady`: the warm-up came to rest.  work_ms: known work, before the
    warm-up, behind it, and at the end.  conditions: at the same moments, and about once a second in between."""

    warmup: int = Field(ge=0)
    steady: bool
    n: int = Field(ge=0)
    complete: bool
    work_ms: list[Milliseconds] = Field(default_factory=list, max_length=10)
    conditions: list[Conditions] = Field(default_factory=list, max_length=4000)
    energy: Energy | None = None
    memory: MemoryKb = MemoryKb()


class SamplesEvent(Answer):
    """Latencies in milliseconds, one per inference, in order; and milliseconds of CPU time of the same."""

    samples: list[Milliseconds] = Field(default_factory=list, max_length=MAX_SAMPLES)
    cpu: list[Milliseconds] = Field(default_factory=list, max_length=MAX_SAMPLES)


class SessionMemory(Answer):
    """What MNN says a session of the model needs, in MB."""

    session_mb: float = Field(ge=0, le=1e9, allow_inf_nan=False)


class JobFailure(Answer):
    """A job the runner refused or could not do."""

    code: str = Field(max_length=100, pattern=r"^[A-Z][A-Z0-9_]*$")
    message: str = Field(max_length=4000)


class AnyAnswer(Answer):
    """The envelope of every answer."""

    id: int
    ok: bool
    error: JobFailure | None = None
