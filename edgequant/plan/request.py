"""What a run is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgequant.cases.rollout import MAX_STEPS, MIN_STEPS, parse_feedback
from edgequant.errors import InputError
from edgequant.lab.session import DeviceOptions
from edgequant.spec import Decision, Limit, RunOptions, Variant, decision
from edgequant.spec.images import ImageOptions

DEFAULT_VARIANT = Variant(method="dynamic", bits=8)


@dataclass(frozen=True)
class Request:
    """Everything `verify` needs to know.

    Attributes:
        model: source model: ONNX, TFLite, TensorFlow .pb, or .mnn.
        devices: device URIs, each with every variant.
        variants: what to make of the model.
        inputs: .npz file, folder of them, MNN test folder, or pictures; None for random cases.
        shapes: sizes pinned for random cases, by input name.
        limits: the user's limits, over the defaults.
        decides: output -> what it decides, over what the graph tells.
        reference: .npz file or folder with reference outputs; None to compute them.
        options: how models are run.
        access: how devices are reached.
        run_dir: where everything is kept; None for a new folder under ./edgequant-runs.
        latency: whether to time the model on the device.
        diagnose: whether what FAILs is looked into at once; `jobs.explain` does it.
        convert_timeout: seconds one conversion may take.
        calibration: samples for methods that need them: a path, or ``module:function``; None for `inputs`, or random.
        goals: of auto: what its model has to keep, on ``sqnr_db``; none: the limits on it, with their margin.
        budget: of auto: the smallest model, or the fastest on the first device.
        images: how pictures among `inputs` and `calibration` become tensors; None: as they are, RGB from 0 to 255.
        rollout: so many steps with outputs fed back into inputs; None for none, or 100 where there is `feedback`.
        feedback: ``OUT=IN`` of each output that is fed back; none: those that names and shapes tell.
        fallback: whether another way to quantize may be tried where the one that was asked for does not work.
    """

    model: Path
    devices: tuple[str, ...] = ("local:",)
    variants: tuple[Variant, ...] = (DEFAULT_VARIANT,)
    inputs: Path | None = None
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    limits: tuple[Limit, ...] = ()
    decides: dict[str, Decision] = field(default_factory=dict)
    reference: Path | None = None
    options: RunOptions = field(default_factory=RunOptions)
    access: DeviceOptions = field(default_factory=DeviceOptions)
    run_dir: Path | None = None
    latency: bool = True
    diagnose: bool = False
    convert_timeout: float = 900.0
    calibration: str | None = None
    fallback: bool = True
    goals: tuple[Limit, ...] = ()
    budget: Literal["size", "latency"] = "size"
    images: ImageOptions | None = None
    rollout: int | None = None
    feedback: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Take what a caller would naturally write: one device as a string, variants and limits in their written form.

        Raises InputError (DEVICE_MISSING, VARIANT_INVALID, LIMIT_INVALID, DECIDES_INVALID, IMAGE_OPTION_INVALID, ...).
        """

        def several(value: object) -> tuple[object, ...]:
            return (value,) if isinstance(value, (str, Variant, Limit)) else tuple(value)  # type: ignore[arg-type]

        variants = tuple(Variant.parse(v) if isinstance(v, str) else v for v in several(self.variants))
        limits = tuple(Limit.parse(v) if isinstance(v, str) else v for v in several(self.limits))
        goals = tuple(Limit.parse(v) if isinstance(v, str) else v for v in several(self.goals))
        devices = tuple(several(self.devices))
        if not devices or not variants:
            raise InputError("DEVICE_MISSING", "at least one device and one variant are needed")
        for name, value in (("devices", devices), ("variants", variants), ("limits", limits), ("goals", goals)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "feedback", tuple(several(self.feedback)))
        parse_feedback(self.feedback)
        if self.rollout is not None and not MIN_STEPS <= self.rollout <= MAX_STEPS:
            raise InputError("OPTION_INVALID", f"--rollout: {self.rollout} is not from {MIN_STEPS} to {MAX_STEPS}")
        for word in self.decides.values():
            decision(word)
        if isinstance(self.images, str):
            object.__setattr__(self, "images", ImageOptions.parse(self.images))
        if isinstance(self.calibration, Path):
            object.__setattr__(self, "calibration", str(self.calibration))
        for name in ("model", "inputs", "reference", "run_dir"):
            value = getattr(self, name)
            if isinstance(value, str):
                object.__setattr__(self, name, Path(value))
