"""Timed inferences as data, with memory and what else was going on."""

from __future__ import annotations

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
    mhz: tuple[float, ...] | None = None
    celsius: float | None = None
    governor: str | None = None
    free_mb: float | None = None
    swapped_in: float | None = None
    battery: int | None = None
    charging: bool | None = None


class TimingCapture(Record):
    """Every sample of a timing, in milliseconds and in order.

    warmup: inferences run before and thrown away.  complete: as many as were wanted; None where it did not get to its
    end.  seconds: that this host waited for all of it, by its own clock.  outputs: of the last inference.
    looped: seconds of this host's clock from the end of the warm-up to the last sample.  apart_ms: of a few inferences
    after it, each by itself and on other numbers than any before it.  threads: what each had of the CPU meanwhile.
    Of a bench alone: cpu_ms: CPU time of all threads, of each sample.  steady: the warm-up came to rest.  work_ms:
    known work before the warm-up, behind it, and at the end.  conditions: at these moments, and in between.
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
