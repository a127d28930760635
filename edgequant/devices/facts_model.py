"""What is known of a device: every fact bounded, and either there or null with the reason."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_CORES = 4096

_Text = Annotated[str, Field(max_length=300)]
_Celsius = Annotated[float, Field(ge=-100, le=250, allow_inf_nan=False)]
_Core = Annotated[int, Field(ge=0, lt=MAX_CORES)]
_MHz = Annotated[int, Field(ge=1, le=100_000)]


class _Fact(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class Cluster(_Fact):
    """Cores of one kind.

    name: such as "Cortex-A76"; None where the CPU does not tell.  max_mhz: the highest frequency they can have;
    limit_mhz: the highest they may have now, below max_mhz where the system holds them back.  capacity: the kernel's
    measure of speed, 1024 for the fastest core.
    """

    cores: list[_Core] = Field(min_length=1, max_length=MAX_CORES)
    name: _Text | None = None
    max_mhz: _MHz | None = None
    limit_mhz: _MHz | None = None
    capacity: Annotated[int, Field(ge=0, le=100_000)] | None = None
    governor: _Text | None = None


class Thermal(_Fact):
    """One thermal zone and its temperature in degrees Celsius."""

    zone: _Text
    celsius: _Celsius


class Battery(_Fact):
    """level in percent, temperature in degrees Celsius, voltage in volts."""

    level: Annotated[int, Field(ge=0, le=100)] | None = None
    status: _Text | None = None
    celsius: _Celsius | None = None
    volts: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] | None = None


class DeviceFacts(_Fact):
    """Facts of a device.  A fact that is not known is None, and why_null has the reason under its name.

    arch: as the kernel names it.  abis: what programs there are, best first.  userland_bits: 32 or 64, of the programs
    that are installed.  cpu: the kinds of core in words.  cores: how many are there, sleeping ones included.
    max_mhz: of the fastest core.  features: those worth knowing for quantized inference, which every core has.
    ram_mb: MiB of all memory.  page_size: bytes.  work_dir: where models go, or would go; storage_mb, free_mb: of its
    file system, in MB (10^6 bytes).  governor: of the CPU frequency; all of them where cores differ.  uptime_s: since
    it was started, in seconds.
    selinux: "enforcing", "permissive" or "disabled".
    """

    model: _Text | None = None
    manufacturer: _Text | None = None
    soc: _Text | None = None
    os: _Text | None = None
    android: _Text | None = None
    sdk: Annotated[int, Field(ge=1, le=10_000)] | None = None
    build: _Text | None = None
    kernel: _Text | None = None
    hostname: _Text | None = None
    arch: _Text | None = None
    abis: list[_Text] | None = Field(default=None, max_length=20)
    userland_bits: Annotated[int, Field(ge=32, le=64)] | None = None
    cpu: _Text | None = None
    cores: Annotated[int, Field(ge=1, le=MAX_CORES)] | None = None
    clusters: list[Cluster] | None = Field(default=None, max_length=MAX_CORES)
    max_mhz: _MHz | None = None
    features: list[_Text] | None = Field(default=None, max_length=100)
    ram_mb: Annotated[int, Field(ge=1, le=1 << 40)] | None = None
    page_size: Annotated[int, Field(ge=512, le=1 << 30)] | None = None
    work_dir: Annotated[str, Field(max_length=5000)] | None = None
    storage_mb: Annotated[int, Field(ge=0, le=1 << 50)] | None = None
    free_mb: Annotated[int, Field(ge=0, le=1 << 50)] | None = None
    governor: Annotated[str, Field(max_length=2000)] | None = None
    thermal: list[Thermal] | None = Field(default=None, max_length=500)
    battery: Battery | None = None
    uptime_s: Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)] | None = None
    selinux: _Text | None = None
    why_null: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _each_with_its_reason(self) -> DeviceFacts:
        missing = {name for name in FACTS if getattr(self, name) is None} - self.why_null.keys()
        if missing:
            raise ValueError(f"no reason is given for {', '.join(sorted(missing))}")
        return self

    def without(self, why: str, *names: str) -> DeviceFacts:
        """The same with these facts null for one reason."""
        reasons = {**{key: text for key, text in self.why_null.items() if key.split(".")[0] not in names}}
        return self.model_copy(update={**dict.fromkeys(names), "why_null": reasons | dict.fromkeys(names, why)})

    def known(self, **facts: object) -> DeviceFacts:
        """The same with these facts known.  Raises ValueError where one is out of bounds."""
        reasons = {key: text for key, text in self.why_null.items() if key.split(".")[0] not in facts}
        return DeviceFacts.model_validate({**self.model_dump(), **facts, "why_null": reasons})


FACTS = tuple(name for name in DeviceFacts.model_fields if name != "why_null")


def unknown(why: str) -> DeviceFacts:
    """Nothing is known, for this reason."""
    return DeviceFacts(why_null=dict.fromkeys(FACTS, why[:500]))
