"""From what was typed to a Request: paths, variants, limits and shapes parsed, nothing done yet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgequant.errors import InputError
from edgequant.lab.session import DeviceOptions
from edgequant.pack import WantedPack
from edgequant.plan.request import Request
from edgequant.spec import Access
from edgequant.spec.file import VerifySpec, load_spec


def make_request(
    model: str, typed: Mapping[str, Any], *, spec: str | None = None, run_dir: str | None = None
) -> Request:
    """What was typed, by key as `groups.typed` has it, on top of what the spec says.

    Raises InputError for whatever cannot be understood, before anything has been done.
    """
    from edgequant.devices.registry import make_device

    written = VerifySpec() if spec is None else load_spec(Path(spec))
    wanted = written.with_typed(typed)
    if not wanted.devices:
        raise InputError(
            "DEVICE_MISSING",
            "which device?",
            hint="--device local: for this host, ssh://user@board for a board, adb:// for the phone attached, "
            "emulated:cortex-a76 for an ARM CPU without a device; `edgequant devices list` knows some.",
        )
    for uri in wanted.devices:
        make_device(uri)  # parses the URI; connects to nothing
    more = {"variants": tuple(dict.fromkeys(wanted.variants))} if wanted.variants else {}
    request = Request(
        model=Path(model),
        devices=tuple(dict.fromkeys(wanted.devices)),
        inputs=wanted.inputs,
        shapes={name: tuple(sizes) for name, sizes in wanted.shapes.items()},
        limits=wanted.limits,  # type: ignore[arg-type]  # Request parses them
        decides=dict(wanted.decides),
        reference=wanted.reference,
        options=wanted.options,
        access=_device_options(wanted.device_options),
        run_dir=None if run_dir is None else Path(run_dir),
        latency=wanted.latency,
        diagnose=wanted.diagnose,
        calibration=wanted.calibration,
        fallback=wanted.fallback,
        goals=wanted.goals,  # type: ignore[arg-type]
        budget=wanted.budget,
        images=wanted.images,
        rollout=wanted.rollout,
        feedback=tuple(wanted.feedback),
        **more,  # type: ignore[arg-type]
    )
    _refuse_unused(request, typed)
    return request


def device_options(typed: Mapping[str, Any]) -> DeviceOptions:
    """How a device is reached, of what was typed.  Raises InputError (OPTION_INVALID, PACK_UNKNOWN)."""
    return _device_options(VerifySpec().with_typed(typed).device_options)


def _device_options(access: Access) -> DeviceOptions:
    fields = access.model_dump()
    wanted = WantedPack(fields.pop("mnn"), fields.pop("pack"))
    if wanted.pack is not None:
        from edgequant.pack import find_pack

        find_pack(wanted.pack)  # before any device is bothered
    return DeviceOptions(**fields, wanted=wanted)


def _refuse_unused(request: Request, typed: Mapping[str, Any]) -> None:
    """Raise InputError (OPTION_INVALID, OPTION_UNUSED) for what was given for variants that are not there.  What stands
    in a spec stands there for the spec's variants; those typed instead may be others."""
    calibration, variants = typed.get("calibration"), request.variants
    if calibration is not None and (not calibration.strip() or not any(variant.searched for variant in variants)):
        raise InputError(
            "OPTION_INVALID",
            "--calibration: an empty path"
            if not calibration.strip()
            else f"--calibration: {', '.join(map(str, variants))} is not made from calibration data",
            hint="kl, ema, admm and static:8 are: add --variant static:8, for example.",
        )
    if any(variant.method == "auto" for variant in variants):
        return
    written = "variants" not in typed
    unused = {
        "--target": "goals" in typed,
        "goals": written and request.goals,
        "--budget": "budget" in typed,
        "budget": written and request.budget != "size",
    }
    for name in (name for name, given in unused.items() if given):
        raise InputError(
            "OPTION_UNUSED",
            f"{name}: only auto looks for a model that keeps it, and there is no --variant auto",
            hint="Add --variant auto; what any variant has to keep is a --limit.",
        )
