"""Run one model once on one device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgequant.archive.arrays import MemoryArrays
from edgequant.archive.types import Capture, Failure, Memory
from edgequant.blame import models_own
from edgequant.cases.case import Case
from edgequant.cases.generate import generate, pin
from edgequant.cases.load import load_cases, save_npz
from edgequant.cases.pictures import refuse_unused
from edgequant.cases.whole_numbers import checked
from edgequant.devices.facts_model import DeviceFacts
from edgequant.errors import InputError
from edgequant.files import disk_error
from edgequant.jobs.overwriting import refuse_overwriting
from edgequant.judge.latency import Latency, latency_of
from edgequant.lab.probes.latency import LatencyProbe
from edgequant.lab.session import DeviceOptions, open_session
from edgequant.lab.take import ModelFile, Probe, explained, take
from edgequant.models import ModelGraph, read_model
from edgequant.models.mnn.weights import read_weights
from edgequant.models.tables import row_limits
from edgequant.plan.request import Request
from edgequant.progress import Progress
from edgequant.runner.answers import Facts, Hello
from edgequant.spec import MemoryMode, RunOptions
from edgequant.spec.images import ImageOptions

_NO_RUN = "MNN cannot run this model: export it in another way (opset, fixed shapes), or use other sizes (--shape)."


@dataclass
class RunOnce:
    """What `run_once` brought back.

    Attributes:
        cases: the cases, in order.
        outputs: by case.
        latency: of one case; None where it was not timed.
        device: facts of the device it ran on.
    """

    hello: Hello
    facts: Facts
    threads: int
    cases: list[Case]
    outputs: dict[str, dict[str, np.ndarray]]
    capture: Capture
    latency: Latency | None
    device: DeviceFacts | None

    @property
    def memory_mode(self) -> MemoryMode | None:
        """MNN's memory mode it ran in."""
        return self.capture.memory_mode

    @property
    def first_ms(self) -> dict[str, float | None]:
        """Time of each case's inference, by case, in milliseconds."""
        return {each.case: each.ms for each in self.capture.cases}

    @property
    def peak(self) -> Memory:
        return self.capture.readings[-1]

    def __repr__(self) -> str:
        return f"<RunOnce: {len(self.cases)} case(s), outputs {', '.join(next(iter(self.outputs.values()), ()))}>"


def run(request: Request, progress: Progress | None = None, *, output: Path | None = None) -> RunOnce:
    """Run the request's model, a .mnn as it is, on its one device.  Judges nothing, writes nothing: `output` is where
    the outputs are to go, and refused before anything runs where that would overwrite what was given.

    Raises InputError, DeviceError (also where only one case cannot be run).
    """
    if len(request.devices) != 1:
        raise InputError("OPTION_INVALID", f"run takes one device, not {len(request.devices)}")
    refuse_unused(request.images, request.inputs)
    return run_once(
        request.model, request.devices[0], request.inputs, request.shapes, request.options, request.access,
        progress or Progress(), output=output, images=request.images, latency=request.latency,
    )  # fmt: skip


def run_once(
    model: Path,
    uri: str,
    inputs: Path | None,
    shapes: Mapping[str, tuple[int, ...]],
    options: RunOptions,
    device_options: DeviceOptions,
    progress: Progress,
    *,
    output: Path | None = None,
    images: ImageOptions | None = None,
    latency: bool = True,
) -> RunOnce:
    """Run a .mnn on one device with every case, then, with `latency`, time the middle one.  Judges nothing, writes
    nothing: `output` is where the outputs are to go, and refused before anything runs where that is the model or the
    inputs.

    Raises InputError, DeviceError (also where only one case cannot be run).
    """
    graph = read_model(model)
    if graph.format != "mnn":
        raise InputError(
            "MODEL_WRONG_FORMAT",
            f"{model}: run takes an MNN model, this is {graph.format}",
            hint=f"Make one first: edgequant quantize {model} -o model.mnn --variant dynamic:8",
        )
    if output is not None:
        refuse_overwriting(output, model, "the model", inputs)
        for file in graph.external_files:
            refuse_overwriting(output, file, "weights of the model")
    made = ModelFile(model, memory_of_file(graph, options), graph.sha256)
    specs = graph.inputs or ()
    cases = load_cases(inputs, specs, images) if inputs else generate(pin(specs, shapes), options.seed)[1:2]
    cases = checked(cases, row_limits(graph))
    with explained(), open_session(uri, device_options, options, log=None, progress=progress) as session:
        session.runner()
        session.own()
        arrays = MemoryArrays()
        probes: list[Probe] = [LatencyProbe(options)] if latency else []
        capture = take(session, made, cases, probes, arrays, trial="run", role="device")
        failure = capture.failure
        for each in capture.cases:
            if failure is None and each.refused is not None:
                failure = Failure(code=each.refused_code or "INFERENCE_FAILED", message=each.refused, where=uri)
        if failure is not None:
            if models_own(failure.code, host_too=session.device.is_host, evidence=failure.evidence):
                raise InputError(failure.code, failure.message, where=uri, hint=_NO_RUN, evidence=failure.evidence)
            raise failure.error()
        outputs = {
            each.case: {name: arrays.get(ref) for name, ref in (each.outputs or {}).items()} for each in capture.cases
        }
        runner = session.known_runner
        assert runner is not None, "it has just run a model"
        return RunOnce(
            runner.hello, runner.facts, runner.threads, cases, outputs, capture, latency_of(capture, options),
            session.facts,
        )  # fmt: skip


def memory_of_file(graph: ModelGraph, options: RunOptions) -> MemoryMode:
    """MNN's memory mode for a file that is run as it is.

    A static int8 file is judged in memory normal; low would quantize its other layers at run time."""
    static = graph.weights == "quantized" and any(layer.kept == "static" for layer in read_weights(graph.path))
    return options.memory or ("low" if graph.weights == "quantized" and not static else "normal")


def save_outputs(found: RunOnce, output: Path) -> None:
    """Write the outputs: OUT.npz for one case, a folder with CASE.npz for several.

    Raises InputError (OUTPUT_INVALID), EdgequantError (OUTPUT_UNWRITABLE).
    """
    try:
        if len(found.outputs) == 1 and not output.is_dir():
            save_npz(output, next(iter(found.outputs.values())))
            return
        if output.suffix == ".npz" and not output.is_dir():
            raise InputError("OUTPUT_INVALID", f"{output}: {len(found.outputs)} cases need a folder, not a file")
        output.mkdir(exist_ok=True)
        for case, arrays in found.outputs.items():
            save_npz(output / f"{case}.npz", arrays)
    except OSError as error:
        raise disk_error(output, error) from None
