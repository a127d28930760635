"""What the runner may answer.  A device is not trusted: every answer is validated before anything uses it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

_Ms = FiniteFloat


class _Answer(BaseModel):
    # A newer runner may say more than this host knows.
    model_config = ConfigDict(extra="ignore", frozen=True)


class MemoryKb(_Answer):
    """Memory of the runner's process in KiB; None where the device could not tell."""

    rss: int | None = Field(default=None, ge=0)
    rss_peak: int | None = Field(default=None, ge=0)
    pss: int | None = Field(default=None, ge=0)


class Hello(_Answer):
    """Who answered: versions and MNN's first line (`banner`), which names the kernels it enables on this CPU."""

    runner: str = Field(max_length=100)
    protocol: int
    pid: int
    python: str = Field(max_length=100)
    mnn: str = Field(max_length=100)
    numpy: str = Field(max_length=100)
    banner: str = Field(default="", max_length=4000)


class Facts(_Answer):
    """What the device is; None for what could not be read."""

    arch: str = Field(max_length=100)
    cpu: str | None = Field(default=None, max_length=500)
    features: list[str] | None = Field(default=None, max_length=200)
    mnn_kernels: dict[str, bool] = Field(default_factory=dict, max_length=50)
    cores: int | None = Field(default=None, ge=1, le=100_000)
    ram_mb: int | None = Field(default=None, ge=0)
    os: str | None = Field(default=None, max_length=500)
    kernel: str | None = Field(default=None, max_length=500)
    hostname: str | None = Field(default=None, max_length=500)
    model: str | None = Field(default=None, max_length=500)
    page_size: int | None = None
    governor: str | None = Field(default=None, max_length=100)


class ModelInput(_Answer):
    """An input as MNN declares it; -1 in `shape` is dynamic."""

    name: str
    dtype: str = Field(max_length=20)
    shape: list[int]
    layout: str = Field(max_length=10)


class LoadAnswer(_Answer):
    """A model in the runner's memory: `load_ms` in milliseconds, memory before and after."""

    handle: int
    load_ms: _Ms = Field(ge=0)
    mnn_model_version: str = Field(default="", max_length=100)
    inputs: list[ModelInput]
    outputs: list[str]
    memory_before: MemoryKb = MemoryKb()
    memory_after: MemoryKb = MemoryKb()


class RunAnswer(_Answer):
    """One inference: its time in milliseconds and the memory after it."""

    ms: _Ms = Field(ge=0)
    memory: MemoryKb = MemoryKb()


class TimeAnswer(_Answer):
    """The end of a timing; `complete` is false where the time limit came before the wanted number of samples."""

    warmup: int = Field(ge=0)
    n: int = Field(ge=0)
    complete: bool
    memory: MemoryKb = MemoryKb()


class SamplesEvent(_Answer):
    """Latencies in milliseconds, one per inference, in order."""

    samples: list[_Ms] = Field(default_factory=list, max_length=1_000_000)


class SessionMemory(_Answer):
    """What MNN says a session of the model needs, in MB."""

    session_mb: FiniteFloat = Field(ge=0)


class JobFailure(_Answer):
    """A job the runner refused or could not do."""

    code: str = Field(max_length=100, pattern=r"^[A-Z][A-Z0-9_]*$")
    message: str = Field(max_length=4000)


class AnyAnswer(_Answer):
    """The envelope of every answer."""

    id: int
    ok: bool
    error: JobFailure | None = None
