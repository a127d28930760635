"""Gives the maker of files what it needs of a run: first the source, then all that takes a runner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgequant.archive.folder import RunFolder
from edgequant.archive.types import Artifact
from edgequant.cases.generate import pin
from edgequant.clock import Clock
from edgequant.compare.decibel import SQNR_CAP_DB
from edgequant.errors import InputError, RunnerError
from edgequant.jobs.prepare import Prepared
from edgequant.judge.limits import SQNR_MARGIN_DB, defaults_for, resolve_limits
from edgequant.lab.session import Session
from edgequant.lab.take import ModelFile, Place, each_case
from edgequant.models import ModelGraph
from edgequant.plan.request import Request
from edgequant.progress import Progress
from edgequant.quantize.cache import open_cache
from edgequant.quantize.maker import Maker
from edgequant.quantize.setup import MakeOptions, OnHost
from edgequant.spec import Limit

if TYPE_CHECKING:
    from edgequant.quantize.calibration import CalibrationSet


def open_maker(source: ModelGraph, request: Request, folder: RunFolder, progress: Progress, clock: Clock) -> Maker:
    """One that makes what takes no runner."""
    options = MakeOptions(
        timeout=request.convert_timeout,
        calibration=request.calibration,
        inputs=request.inputs,
        images=request.images,
        fallback=request.fallback,
        budget=request.budget,
        run=request.options,
    )
    return Maker(source, folder.path, options, progress=progress, clock=clock, cache=open_cache(progress))


def on_host(prepared: Prepared, request: Request, host: Session, *, device: Session | None, arm: bool) -> OnHost:
    """What takes a runner.

    Args:
        host: this host's.
        device: where the fastest model is searched for; None: none of the devices can be used.
        arm: one of the devices is an ARM CPU other than this host.
    """
    from edgequant.jobs.host_check import HostCheck
    from edgequant.jobs.on_device import OnDevice
    from edgequant.quantize.search.cache import digest

    def expected(case: str) -> Mapping[str, np.ndarray]:
        return prepared.expected.get(case) or {}

    options = request.options
    check = HostCheck(host, prepared.usual, expected, arm, request.fallback)
    return OnHost(
        inputs=pin(prepared.inputs, request.shapes),
        cases=prepared.usual,
        expected=expected,
        goals=_goals(prepared, request),
        check=check,
        checked_on=lambda: digest(check.key(), options.threads, options.dynamic_quant_option),
        refuse=lambda samples: _refuse_unrunnable(samples, host, prepared.float_model),
        evaluator=lambda: OnDevice(device, prepared, options),
    )


def _goals(prepared: Prepared, request: Request) -> tuple[Limit, ...]:
    """What every output has to keep: what was asked for, else its limit on sqnr_db and the margin of a clear PASS."""
    if request.goals or not any(variant.method == "auto" for variant in request.variants):
        return request.goals
    resolved = resolve_limits(prepared.kinds, defaults_for("auto"), request.limits)
    return tuple(
        limit.model_copy(update={"output": name, "value": min(limit.value + SQNR_MARGIN_DB, SQNR_CAP_DB)})
        for name, limits in resolved.items()
        for limit in limits
        if limit.metric == "sqnr_db"
    )


def _refuse_unrunnable(calibration: CalibrationSet, host: Session, float_model: Artifact) -> None:
    """A sample of each shape through the float model: what it cannot run is no quantizer's fault."""
    first = {facts.shapes: index for index, facts in reversed(list(enumerate(calibration.facts)))}
    place = Place.load(host, ModelFile(float_model.path, "normal", float_model.sha256, "normal"))
    waiting = [calibration.facts[index] for index in sorted(first.values())]
    try:
        for _, result in each_case(place, (calibration.read(index) for index in sorted(first.values()))):
            if isinstance(result, RunnerError):
                raise result
            waiting.pop(0)
        place.unload()
    except RunnerError as error:
        if error.code != "INFERENCE_FAILED":
            host.drop_runner()
        sizes = ", ".join(f"{name} {list(shape)}" for name, shape in waiting[0].shapes)
        raise InputError(
            "CALIBRATION_REFUSED",
            f"{calibration.source}: MNN cannot run the float model with sample '{waiting[0].name}' ({sizes}): "
            f"{error.message}",
            hint="Give samples of sizes the model takes; --shape pins those of random ones.",
        ) from None
