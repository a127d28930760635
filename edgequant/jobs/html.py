"""The page of a run, with all that its folder holds, and the command that makes the run again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from edgequant.archive.open import Run, open_run
from edgequant.errors import InputError
from edgequant.plan.stored import request_of
from edgequant.plan.words import options_of
from edgequant.report.against import Against
from edgequant.report.diagnosis import DiagnosisReport
from edgequant.report.html import page
from edgequant.report.model import Report


def page_of(
    report: Report, where: Path, *, diagnoses: Sequence[DiagnosisReport] = (), against: Against | None = None
) -> str:
    """The report as one HTML document.

    Args:
        where: the folder of its run or a file in it; a report.json that lies in none is shown by itself.
        diagnoses: that were just made of the run; what earlier ones have left in the folder is shown anyway.
        against: what is different from an earlier report.
    """
    folder = where if where.is_dir() else where.parent
    if not (folder / "plan.json").is_file():
        return page(report, diagnoses=diagnoses, against=against)
    run = open_run(folder)
    return page(report, run, diagnoses=diagnoses, command=command_of(run), against=against)


def command_of(run: Run) -> str | None:
    """What would be typed for it; None where this version does not take its options.  Of `quantize` too it is a
    `verify`: that is what its report holds."""
    try:
        request = request_of(run.plan, run.path)
    except (InputError, TypeError, ValueError):
        return None
    words = ["edgequant", "verify", str(request.model)]
    words += [word for uri in request.devices for word in ("--device", uri)]
    words += [word for variant in request.variants for word in ("--variant", str(variant))]
    return shlex.join([*words, *options_of(request)])
