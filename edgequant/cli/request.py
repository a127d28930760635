"""From what was typed to a Request: paths, variants, limits and shapes parsed, nothing done yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from edgequant.errors import InputError
from edgequant.lab.session import DeviceOptions
from edgequant.plan.request import DEFAULT_VARIANT, Request
from edgequant.spec import Limit, RunOptions, Variant, parse_shape
from edgequant.spec.file import VerifySpec, load_spec
from edgequant.spec.images import ImageOptions


def make_request(
    *,
    model: str,
    devices: Sequence[str] | None = ("local:",),
    spec: str | None = None,
    variants: Sequence[str] | None = None,
    inputs: str | None = None,
    reference: str | None = None,
    shapes: Sequence[str] | None = None,
    limits: Sequence[str] | None = None,
    run_options: RunOptions,
    target: DeviceOptions | None = None,
    run_dir: str | None = None,
    latency: bool = True,
    calibration: str | None = None,
    no_fallback: bool = False,
    goals: Sequence[str] | None = None,
    budget: Literal["size", "latency"] = "size",
    images: Sequence[str] | None = None,
) -> Request:
    """What was typed, on top of what the spec says.

    Raises InputError for whatever cannot be understood, before anything has been done.
    """
    from edgequant.devices.registry import make_device

    written = VerifySpec() if spec is None else load_spec(Path(spec))
    devices = devices or written.devices
    if not devices:
        raise InputError(
            "DEVICE_MISSING",
            "which device?",
            hint="--device local: for this host, ssh://user@board for a board, adb:// for the phone attached, "
            "emulated:cortex-a76 for an ARM CPU without a device; `edgequant devices list` knows some.",
        )
    for uri in devices:
        make_device(uri)  # parses the URI; connects to nothing
    parsed = tuple(dict.fromkeys(Variant.parse(text) for text in variants or written.variants)) or (DEFAULT_VARIANT,)
    if calibration is not None and (not calibration.strip() or not any(variant.searched for variant in parsed)):
        raise InputError(
            "OPTION_INVALID",
            "--calibration: an empty path"
            if not calibration.strip()
            else f"--calibration: {', '.join(map(str, parsed))} is not made from calibration data",
            hint="kl, ema, admm and static:8 are: add --variant static:8, for example.",
        )
    # A spec's goals stand for its own variants; those typed instead may be others.
    aimed = goals or (written.goals and not variants)
    if (aimed or budget != "size") and not any(variant.method == "auto" for variant in parsed):
        raise InputError(
            "OPTION_UNUSED",
            f"{'--target' if goals else 'goals' if aimed else '--budget'}: only auto looks for a model that keeps it, "
            "and there is no --variant auto",
            hint="Add --variant auto; what any variant has to keep is a --limit.",
        )
    typed = {name: getattr(run_options, name) for name in run_options.model_fields_set}
    return Request(
        model=Path(model),
        devices=tuple(dict.fromkeys(devices)),
        variants=parsed,
        inputs=written.inputs if inputs is None else Path(inputs),
        shapes={**{name: tuple(sizes) for name, sizes in written.shapes.items()}, **parse_shapes(shapes)},
        # Of two limits for the same output and metric the later one wins, so what was typed comes last.
        limits=tuple(Limit.parse(text) for text in [*written.limits, *(limits or ())]),
        reference=written.reference if reference is None else Path(reference),
        options=written.options.model_copy(update=typed),
        target=target or DeviceOptions(),
        run_dir=None if run_dir is None else Path(run_dir),
        latency=latency,
        calibration=written.calibration if calibration is None else calibration,
        fallback=written.fallback and not no_fallback,
        goals=tuple(Limit.parse(text) for text in goals or written.goals),
        budget=budget,
        images=ImageOptions.parse(images, written.images) if images else written.images,
    )


def parse_shapes(texts: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """``NAME=1,3,48,160`` each.  Raises InputError (SHAPE_INVALID)."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts or ():
        name, shape = parse_shape(text)
        if shapes.setdefault(name, shape) != shape:
            raise InputError("SHAPE_INVALID", f"--shape: '{name}' is given twice, as {shapes[name]} and {shape}")
    return shapes
