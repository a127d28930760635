"""Timed inferences as data, with memory and what else was going on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgequant.archive.record import ArrayRef, Name, Record
from edgequant.archive.witness import Thread


class Memory(Record):
    """Of the runner's process, in KiB; None where the device could not tell.

    rss_peak: the kernel's highest mark since before the model was loaded; stage_peak: since the reading before this
    one.  uss: what no other process shares.
    """

    rss: int | None = Field(default=None, ge=0)
    rss_peak: int | None = Field(default=None, ge=0)
    stage_peak: int | None = Field(default=None, ge=0)
    pss: int | None = Field(default=None, ge=0)
    uss: int | None = Field(default=None, ge=0)
    swap: int | None = Field(default=None, ge=0)


class ConditionsCapture(Record):
    """What was going on at one moment of a timing: see device_scripts/conditions.py."""

    up: float
    wall: float
    own: float
    busy: float | None = None
    stolen: float | None = None
    waiting: float | None = None
    running: float | None = None
    quota: float | None = None
    switched: float | None = None
    cpus: int | None = None
    mhz: tuple[float, ...] | None = None
    mhz_most: tuple[float, ...] | None = None
    mhz_able: tuple[float, ...] | None = None
    cooled: float | None = None
    throttled: float | None = None
    celsius: float | None = None
    governor: str | None = None
    driver: str | None = None
    free_mb: float | None = None
    swapped_in: float | None = None
    battery: int | None = None
    charging: bool | None = None
    plugged: bool | None = None


class EnergyCapture(Record):
    """Joules that a sensor told, of all that hangs on it; or why none did."""

    joules: float | None = Field(default=None, ge=0)
    sensor: str | None = None
    readings: int = Field(default=0, ge=0)
    why: str | None = None


class GovernorCapture(Record):
    """A governor that was asked for; `set`: all cores have it.  was: what they had, and which.  why: it is not set."""

    asked: str
    set: bool
    was: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    why: str | None = None


class PhoneCapture(Record):
    """What Android's services say, by its shell; None where they do not.  screen: it is on.  power_save: battery saver.
    celsius: of the battery."""

    screen: bool | None = None
    power_save: bool | None = None
    battery: int | None = Field(default=None, ge=0, le=100)
    plugged: bool | None = None
    charging: bool | None = None
    celsius: float | None = None


class Readied(Record):
    """How a device was made ready for a block, before the model was loaded.

    cool_below: degrees Celsius that were waited for, `waited` seconds; by a thermometer, or else by known work.
    cooled: it came to that.  at: degrees then, where there is a thermometer.
    """

    governor: GovernorCapture | None = None
    phone: PhoneCapture | None = None
    cool_below: float | None = None
    waited: float = Field(default=0.0, ge=0)
    by: Literal["thermometer", "work"] | None = None
    cooled: bool | None = None
    at: float | None = None


class TimingCapture(Record):
    """Every sample of a timing, in milliseconds and in order.

    warmup: inferences run before and thrown away.  complete: as many as were wanted; None where it did not get to its
    end.  seconds: that this host waited for all of it, by its own clock.  outputs: of the last inference.
    looped: seconds of this host's clock from the end of the warm-up to the last sample.  apart_ms: of a few inferences
    after it, each by itself and on other numbers than any before it.  threads: what each had of the CPU meanwhile.
    Of a bench alone: cpu_ms: CPU time of all threads, of each sample.  steady: the warm-up came to rest.  work_ms:
    known work before the warm-up, behind it, and at the end.  conditions: at these moments, and in between.  energy: of
    the timed part.  readied: how the device was made ready for it.
    """

    case: Name
    samples_ms: tuple[float, ...] = ()
    warmup: int = Field(default=0, ge=0)
    complete: bool | None = None
    memory: Memory | None = None
    seconds: float | None = Field(default=None, ge=0)
    looped: float | None = Field(default=None, ge=0)
    apart_ms: tuple[float, ...] = ()
    outputs: dict[Name, ArrayRef] | None = None
    threads: tuple[Thread, ...] = ()
    cpu_ms: tuple[float, ...] = ()
    steady: bool | None = None
    work_ms: tuple[float, ...] = ()
    conditions: tuple[ConditionsCapture, ...] = ()
    energy: EnergyCapture | None = None
    readied: Readied | None = None
