"""The judgement of a run, while it goes on and at its end."""

from __future__ import annotations

from edgequant.archive.folder import RunFolder
from edgequant.archive.open import Run
from edgequant.files import disk_error
from edgequant.judge.run import check_limits, judge
from edgequant.judge.stages import Comparer
from edgequant.report.build import build_report
from edgequant.report.model import Report
from edgequant.report.write import write


class Reporter:
    """Judges what is in a folder so far, and writes the report of it."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._comparer = Comparer(folder.array_folder)

    def begin(self, archive: Run) -> None:
        """Once it is prepared: compare what is there already, as files are still being made.

        Raises InputError where a limit fits none of the outputs.
        """
        check_limits(archive, archive.plan)
        if archive.float_host is not None:
            self._comparer.between(archive.reference, archive.float_host, archive.source.kinds)

    def report(self) -> Report:
        """Raises EdgequantError (RUN_DIR_FULL, RUN_DIR_UNWRITABLE)."""
        archive = Run(self._folder.path)
        found = build_report(archive, judge(archive, comparer=self._comparer))
        try:
            write(found, self._folder.report)
        except OSError as error:
            raise disk_error(self._folder.report, error) from None
        return found
