"""The judgement of a run, while it goes on and at its end."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edgequant.archive.folder import RunFolder
from edgequant.archive.open import Run
from edgequant.archive.types import Capture
from edgequant.background import Background
from edgequant.files import disk_error
from edgequant.judge.decisions import as_named
from edgequant.judge.residual import Residuals, Stage
from edgequant.judge.run import check_limits, judge
from edgequant.judge.stages import Comparer, only
from edgequant.report.build import build_report
from edgequant.report.model import Report
from edgequant.report.write import write


class Reporter:
    """Judges what is in a folder so far, and writes the report of it."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self.comparer = self._comparer = Comparer(folder.array_folder)
        """Knows what it has compared: whoever judges the same folder again hands it on."""
        self._comparing: Background[None] | None = None
        self._lock = threading.Lock()
        self._conversion_known = False
        Report.model_rebuild()  # now, while others work: else it is built when it is written, and all wait for it

    def begin(self, archive: Run, *, now: bool) -> None:
        """Once it is prepared.  now: compare what is there already, as files are still being made; else later.

        Raises InputError where a limit fits none of the outputs.
        """
        check_limits(archive, archive.plan)
        if now:
            self._after_those(lambda: self._compare_conversion(archive))

    def compare_meanwhile(self, archive: Run, got: Capture, *, here: bool) -> None:
        """Begin to compare what a variant computes while something else goes on that nobody times: the comparer knows
        it then where it is judged.  here: on this host."""

        def work() -> None:
            self._compare_conversion(archive)
            source, floats = archive.source, archive.float_host
            self._comparer.between(archive.reference, got, source.kinds)
            if here and floats is not None:
                self._comparer.between(only(floats, source.held), got, source.kinds)
            if here:
                self._look("quantization", archive, floats or archive.reference, got)

        self._after_those(work)

    def _compare_conversion(self, archive: Run) -> None:
        if not self._conversion_known and archive.float_host is not None:
            self._comparer.between(archive.reference, archive.float_host, archive.source.kinds)
            self._look("conversion", archive, archive.reference, archive.float_host)
        self._conversion_known = True

    def _look(self, stage: Stage, archive: Run, expected: Capture, got: Capture) -> None:
        source = as_named(archive.source, archive.plan.decides)
        Residuals(self._comparer, source).observed(stage, expected, got, source.kinds)

    def _after_those(self, work: Callable[[], None]) -> None:
        """Begin with it once all that was begun before is done."""
        with self._lock:
            before = self._comparing

            def call() -> None:
                if before is not None:
                    before.wait()
                work()

            self._comparing = Background(call)

    def wait(self) -> None:
        """Until nothing is compared any more: what went wrong there goes wrong again where it is judged."""
        with self._lock:
            comparing = self._comparing
        if comparing is not None:
            comparing.wait()

    def report(self) -> Report:
        """Raises EdgequantError (RUN_DIR_FULL, RUN_DIR_UNWRITABLE)."""
        self.wait()
        archive = Run(self._folder.path)
        found = build_report(archive, judge(archive, comparer=self._comparer))
        try:
            write(found, self._folder.report)
        except OSError as error:
            raise disk_error(self._folder.report, error) from None
        return found
