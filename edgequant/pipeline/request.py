"""What a run is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgequant.pipeline.target import TargetOptions
from edgequant.spec import Limit, RunOptions, Variant

DEFAULT_VARIANT = Variant(method="dynamic", bits=8)


@dataclass(frozen=True)
class Request:
    """Everything `verify` needs to know.

    Attributes:
        model: source model: ONNX, TFLite, TensorFlow .pb, or .mnn.
        devices: device URIs, each with every variant.
        variants: what to make of the model.
        inputs: .npz file, folder of them, or MNN test folder; None for random cases.
        shapes: sizes pinned for random cases, by input name.
        limits: the user's limits, over the defaults.
        reference: .npz file or folder with reference outputs; None to compute them.
        options: how models are run.
        target: how devices are reached.
        run_dir: where everything is kept; None for a new folder under ./edgequant-runs.
        latency: whether to time the model on the device.
        convert_timeout: seconds one conversion may take.
    """

    model: Path
    devices: tuple[str, ...] = ("local:",)
    variants: tuple[Variant, ...] = (DEFAULT_VARIANT,)
    inputs: Path | None = None
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    limits: tuple[Limit, ...] = ()
    reference: Path | None = None
    options: RunOptions = field(default_factory=RunOptions)
    target: TargetOptions = field(default_factory=TargetOptions)
    run_dir: Path | None = None
    latency: bool = True
    convert_timeout: float = 900.0
