"""A request as the archive keeps it, and back."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from edgequant.archive.types import Artifact, CaseFacts, HostFacts, Plan
from edgequant.lab.session import DeviceOptions
from edgequant.pack import WantedPack
from edgequant.plan.request import Request
from edgequant.spec import RunOptions
from edgequant.spec.images import ImageOptions
from edgequant.version import __version__


def plan_of(request: Request, mnn: str, job: Literal["verify", "quantize"] = "verify") -> Plan:
    """All of a request that has to be known later.  mnn: the version on this host."""
    reach = request.access
    return Plan(
        job=job,
        edgequant=__version__,
        host=HostFacts(arch=platform.machine(), mnn=mnn),
        model=str(request.model.absolute()),
        devices=request.devices,
        variants=request.variants,
        inputs=_absolute(request.inputs),
        reference=_absolute(request.reference),
        calibration=request.calibration,
        images=None if request.images is None else request.images.model_dump(mode="json"),
        shapes=request.shapes,
        limits=request.limits,
        decides=request.decides,
        goals=request.goals,
        budget=request.budget,
        fallback=request.fallback,
        latency=request.latency,
        diagnose=request.diagnose,
        rollout=request.rollout,
        feedback=request.feedback,
        options=request.options,
        convert_timeout=request.convert_timeout,
        reach={
            "work_dir": reach.work_dir,
            "python": reach.python,
            "accept_new_host_key": reach.accept_new_host_key,
            "runtime": reach.runtime,
            "mnn": reach.wanted.mnn,
            "pack": reach.wanted.pack,
            "wait": reach.wait,
        },
    )


def request_of(plan: Plan, run_dir: Path) -> Request:
    """The request that made a plan.  Raises InputError where a later version does not take it."""
    reach = dict(plan.reach)
    wanted = WantedPack(mnn=reach.pop("mnn", None), pack=reach.pop("pack", None))
    return Request(
        Path(plan.model),
        devices=plan.devices,
        variants=plan.variants,
        inputs=_path(plan.inputs),
        shapes=plan.shapes,
        limits=plan.limits,
        decides=dict(plan.decides),
        reference=_path(plan.reference),
        options=plan.options,
        access=DeviceOptions(**reach, wanted=wanted),
        run_dir=run_dir,
        latency=plan.latency,
        diagnose=plan.diagnose,
        rollout=plan.rollout,
        feedback=plan.feedback,
        convert_timeout=plan.convert_timeout,
        calibration=plan.calibration,
        fallback=plan.fallback,
        goals=plan.goals,
        budget=plan.budget,
        images=None if plan.images is None else ImageOptions.model_validate(plan.images),
    )


def trial_id(
    artifact: Artifact, uri: str, cases: Sequence[CaseFacts], options: RunOptions, probes: Sequence[str]
) -> str:
    """The name of a trial: SHA-256 of all that decides what it measures."""
    content = {
        "source": artifact.source_sha256,
        "artifact": artifact.sha256,
        "variant": str(artifact.asked),
        "device": uri,
        "cases": [[case.name, {name: ref.sha256 for name, ref in case.inputs.items()}] for case in cases],
        "options": options.model_dump(mode="json"),
        "probes": list(probes),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
