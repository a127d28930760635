"""Make one model file, checked on this host."""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from edgequant.errors import EdgequantError, InputError
from edgequant.files import atomic_write, is_stream
from edgequant.jobs.overwriting import given_paths, refuse_overwriting, refuse_unwritable
from edgequant.jobs.verify import verify
from edgequant.judge.resembles import NOT_WRITTEN
from edgequant.models import read_model
from edgequant.plan.request import Request
from edgequant.progress import Progress
from edgequant.report.model import Report


class Quantized(NamedTuple):
    """What `quantize` came to.

    written: whether the file is at the output now.  kept: where the new model is instead, when it is sound but broke
    its limits and a file was at the output already.
    """

    report: Report
    run_dir: Path
    written: bool
    kept: Path | None = None


def quantize(request: Request, output: Path, progress: Progress | None = None) -> Quantized:
    """Make the request's one variant, check it on this host, and put it at `output`.

    The file is not written where it does not load, does not run, or computes something else altogether, by the rule of
    `judge.sane`; FILE_NOT_WRITTEN in the report says why.  The verdict says more than that; a file that is there
    already is replaced only by one that keeps its limits.

    Raises InputError, ToolError; EdgequantError (OUTPUT_UNWRITABLE, RUN_DIR_FULL).
    """
    refuse_unwritable(output)
    if output.is_dir():
        raise InputError("OUTPUT_INVALID", f"{output}: is a folder", hint="Name the file: -o quantized.mnn")
    if not output.parent.is_dir():
        hint = f"Make it first: mkdir -p {shlex.quote(str(output.parent))}"
        raise InputError("OUTPUT_INVALID", f"{output}: there is no folder {output.parent}", hint=hint)
    refuse_overwriting(output, request.model, "the source model", *given_paths(request))
    # Only now: reading a large model takes its time.
    for file in read_model(request.model).external_files if output.exists() else ():
        refuse_overwriting(output, file, "weights of the source model")
    report, folder = verify(replace(request, devices=("local:",), latency=False), progress, job="quantize")
    run = report.runs[0]
    refused = any(finding.code == NOT_WRITTEN for finding in run.findings)
    if run.error is not None or refused or run.file is None:
        return Quantized(report, folder.path, False)
    source = folder.models / run.file
    if os.path.lexists(output) and not is_stream(output) and report.verdict.exit_code != 0:
        return Quantized(report, folder.path, False, source)
    try:
        with open(source, "rb") as reader, atomic_write(output) as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
    except OSError as error:
        raise EdgequantError(
            "OUTPUT_UNWRITABLE",
            f"{output} cannot be written: {error.strerror or error}",
            hint=f"The finished model is at {source}.",
        ) from None
    return Quantized(report, folder.path, True)
