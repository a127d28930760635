"""Defects that are planted into copies of recordings: a quarter of a second each."""

from __future__ import annotations

import functools
import re
import tempfile
from pathlib import Path

from edgequant.jobs.rejudge import judge
from tests.defects import planting
from tests.defects.defect import Defect
from tests.defects.outcome import Fits, Said
from tests.defects.outputs import FAULTS, Fault
from tests.defects.recordings import RECORDINGS, recorded

_NOT_RANDOM = re.compile(f"{Fits().unwanted.pattern}|NOT_DETERMINISTIC")  # type: ignore[union-attr]
_FITS = dict.fromkeys(("session", "int8 kernels"), Fits(unwanted=_NOT_RANDOM))
"""What comes from an earlier inference is no random operator, which NOT_DETERMINISTIC makes one look for."""


def _device(fault: Fault) -> str:
    """Each of a recording's devices in turn."""
    devices = RECORDINGS[fault.home].devices
    return devices[[each.name for each in FAULTS.values() if each.home == fault.home].index(fault.name) % len(devices)]


def _planted(fault: Fault) -> Said:
    with tempfile.TemporaryDirectory() as scratch:
        uri = _device(fault)
        folder = planting.copied(recorded(fault.home), Path(scratch) / "run", uri, fault.variant)
        changed = planting.plant(folder, uri, fault.variant, fault.effect)
        assert changed, f"{fault.name}: nothing came back otherwise than it was"
        return Said.by(judge(folder).report)


@functools.cache
def _healthy(home: str, uri: str, variant: str) -> Said:
    with tempfile.TemporaryDirectory() as scratch:
        return Said.by(judge(planting.copied(recorded(home), Path(scratch) / "run", uri, variant)).report)


def _of_outputs(fault: Fault) -> Defect:
    special = fault.name == "noise_each_time"
    return Defect(
        fault.name,
        fault.kind,
        fault.what,
        "archived",
        fault.home,
        RECORDINGS[fault.home].real,
        lambda: _planted(fault),
        lambda: _healthy(fault.home, _device(fault), fault.variant),
        Fits() if special else _FITS.get(fault.kind, Fits()),
    )


def defects() -> list[Defect]:
    return [_of_outputs(fault) for fault in FAULTS.values()]
