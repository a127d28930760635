"""What a page takes from the folder of a run: what the report does not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from edgequant.archive.layers import LayerCapture
from edgequant.archive.open import Run as Archive
from edgequant.archive.types import Capture, Plan, Source
from edgequant.errors import EdgequantError
from edgequant.report.model import Run
from edgequant.spec import Variant

Record = TypeVar("Record")


class Kept:
    """The records of a folder; None for what is not there or cannot be read, and then `damaged` says so.

    Attributes:
        damaged: what could not be read, in words.
    """

    def __init__(self, archive: Archive | None) -> None:
        self._archive = archive
        self.damaged: list[str] = []

    @property
    def plan(self) -> Plan | None:
        return self._read(lambda archive: archive.plan)

    @property
    def source(self) -> Source | None:
        return self._read(lambda archive: archive.source)

    def capture(self, run: Run) -> Capture | None:
        return self._read(lambda archive: archive.on_device(run.device.uri, Variant.parse(run.variant)))

    def reference(self) -> Capture | None:
        return self._read(lambda archive: archive.reference)

    def layers(self, run: Run) -> LayerCapture | None:
        return self._read(lambda archive: archive.layers(run.device.uri, Variant.parse(run.variant)))

    def samples(self, run: Run) -> tuple[float, ...]:
        """Milliseconds, in order, of those the report's numbers are of."""
        capture = self.capture(run) if run.latency_ms is not None else None
        timing = capture.timings[0] if capture is not None and capture.timings else None
        return () if timing is None else timing.samples_ms

    def refused(self, run: Run) -> dict[str, str]:
        """Cases that were not run, and why."""
        capture = self.capture(run)
        return {} if capture is None else {case.case: case.refused for case in capture.cases if case.refused}

    def trials(self, runs: list[Run]) -> Iterator[tuple[Run, str]]:
        """Their ids."""
        for run in runs:
            if (capture := self.capture(run)) is not None:
                yield run, capture.trial

    def _read(self, what: Callable[[Archive], Record | None]) -> Record | None:
        if self._archive is None:
            return None
        try:
            return what(self._archive)
        except EdgequantError as error:
            if error.message not in self.damaged:
                self.damaged.append(error.message)
            return None
