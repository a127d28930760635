"""What the history keeps of a run: bounded, and without a trace of where it came from but its folder."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal

Kind = Literal["verify", "quantize", "bench", "accept", "unknown"]
DOCUMENTS = ("report.json", "bench.json", "acceptance.json")
"""What a folder is known by, one of them."""


@dataclass(frozen=True)
class Value:
    """One number: as `report.numbers.Number`."""

    output: str
    metric: str
    value: float
    why: str = ""


@dataclass(frozen=True)
class Trial:
    """One variant (of a bench: setting) on one device."""

    variant: str
    device: str
    verdict: str
    cpu: str = ""
    os: str = ""
    emulated: bool = False
    sha256: str = ""
    values: tuple[Value, ...] = ()
    findings: tuple[tuple[str, str], ...] = ()
    """Severity and code."""


@dataclass(frozen=True)
class Entry:
    """One document.

    Attributes:
        id: SHA-256 of the document's bytes.
        created: in UTC, to the second.
        model: file name; model_sha256 of it, "" where it is not told.
        folder: where it was found.
        plan: SHA-256 of its plan; a later report in the same folder and of the same plan takes its place.
    """

    id: str
    kind: Kind
    created: datetime
    edgequant: str
    mnn: str
    model: str
    model_sha256: str
    verdict: str
    folder: str
    plan: str = ""
    trials: tuple[Trial, ...] = ()
    findings: tuple[tuple[str, str], ...] = ()

    @property
    def short(self) -> str:
        return self.id[:12]

    @property
    def when(self) -> str:
        """As it is kept and sorted."""
        return self.created.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
