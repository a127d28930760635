"""Runs one .mnn once on one device."""

from __future__ import annotations

from pathlib import Path

from edgequant.cases.pictures import refuse_unused
from edgequant.errors import InputError
from edgequant.jobs.single import RunOnce, run_once
from edgequant.plan.request import Request
from edgequant.progress import Progress


def run(request: Request, progress: Progress | None = None, *, output: Path | None = None) -> RunOnce:
    """Run the request's model, a .mnn as it is, on its one device.  Judges nothing, writes nothing: `output` is where
    the outputs are to go, and refused before anything runs where that would overwrite what was given.

    Raises InputError, DeviceError (also where only one case cannot be run).
    """
    if len(request.devices) != 1:
        raise InputError("OPTION_INVALID", f"run takes one device, not {len(request.devices)}")
    refuse_unused(request.images, request.inputs)
    return run_once(
        request.model, request.devices[0], request.inputs, request.shapes, request.options, request.target,
        progress or Progress(), output=output, images=request.images, latency=request.latency,
    )  # fmt: skip
