"""Plants each, and asks what it is called."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

from edgequant.judge.disturbed import doubts, ranked
from tests.disturbances.plants import Change, Planted
from tests.disturbances.world import CPUS, world


@dataclass(frozen=True)
class Outcome:
    """said: the codes that a block is told with, worst first."""

    name: str
    wanted: str | None
    said: tuple[str, ...]

    @property
    def right(self) -> bool:
        """Named as it has to be; of a quiet one: not accused."""
        return self.wanted in self.said if self.wanted else not self.said


def outcome(planted: Planted, root: Path) -> Outcome:
    return Outcome(planted.name, planted.code, _said(planted.name, planted.plant, root))


def quiet_outcome(name: str, plant: Change, root: Path) -> Outcome:
    return Outcome(name, None, _said(name, plant, root))


def _said(name: str, plant: Change, root: Path) -> tuple[str, ...]:
    made = world(root, zlib.crc32(name.encode()))
    plant(made)
    timing = made.block()
    return tuple(doubt.code for doubt in ranked(doubts(timing, len(CPUS), made.fastest)))
