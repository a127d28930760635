"""The smaller jobs: make one checked model file; run one model once on one device."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgequant.archive.folder import RunDirectory, disk_error
from edgequant.archive.outputs import OutputStore
from edgequant.cases.case import Case
from edgequant.cases.generate import generate, pin
from edgequant.cases.load import load_cases, save_npz
from edgequant.devices.facts_model import DeviceFacts
from edgequant.errors import EdgequantError, InputError
from edgequant.files import atomic_write
from edgequant.findings import Finding
from edgequant.jobs.overwriting import given_paths, refuse_overwriting
from edgequant.jobs.prepare import feed
from edgequant.jobs.verify import verify
from edgequant.judge.latency import Latency, latency_summary
from edgequant.judge.sane import SANE_CASE_DB, SANE_SQNR_DB, Sanity, sanity
from edgequant.lab.measure import TIMING_MAX_SECONDS, TIMING_MIN_SECONDS, capture_folder, explained
from edgequant.lab.session import DeviceOptions, open_session
from edgequant.models import read_model
from edgequant.plan.request import Request
from edgequant.progress import Progress
from edgequant.quantize.weights import read_weights
from edgequant.report.model import Report
from edgequant.report.write import write
from edgequant.runner.answers import Facts, Hello, MemoryKb
from edgequant.spec import MemoryMode, RunOptions
from edgequant.spec.images import ImageOptions
from edgequant.tensors import TensorSpec


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
    if output.is_dir():
        raise InputError("OUTPUT_INVALID", f"{output}: is a folder", hint="Name the file: -o quantized.mnn")
    if not output.parent.is_dir():
        raise InputError("OUTPUT_INVALID", f"{output}: there is no folder {output.parent}")
    refuse_overwriting(output, request.model, "the source model", *given_paths(request))
    # Only now: reading a large model takes its time.
    for file in read_model(request.model).external_files if output.exists() else ():
        refuse_overwriting(output, file, "weights of the source model")
    report, run_dir = verify(replace(request, devices=("local:",), latency=False), progress)
    run = report.runs[0]
    found = _sanity(report, run_dir)
    if not found.ok and run.error is None:
        report = _told(report, run_dir, found)
    written = found.ok and run.file is not None
    if written:
        assert run.file is not None
        source = run_dir.models / run.file
        if os.path.lexists(output) and report.verdict.exit_code != 0:
            return Quantized(report, run_dir.path, False, source)
        try:
            with open(source, "rb") as reader, atomic_write(output) as writer:
                shutil.copyfileobj(reader, writer, 1 << 20)
        except OSError as error:
            raise EdgequantError(
                "OUTPUT_UNWRITABLE",
                f"{output} cannot be written: {error.strerror or error}",
                hint=f"The finished model is at {source}.",
            ) from None
    return Quantized(report, run_dir.path, written)


def _sanity(report: Report, run_dir: RunDirectory) -> Sanity:
    """Whether what the only run brought back, which lies in the run directory, resembles its reference."""
    (run,), cases = report.runs, [case.name for case in report.cases]
    if run.error is not None:
        return Sanity(False, run.error.message)
    references = OutputStore.kept(run_dir, "reference", cases)
    outputs = OutputStore.kept(run_dir, capture_folder(run.device.uri, run.variant), cases)
    return sanity((case, references.get(case) or {}, outputs.get(case)) for case in cases)


def _told(report: Report, run_dir: RunDirectory, found: Sanity) -> Report:
    """The report with the reason in it, also on disk."""
    (run,) = report.runs
    finding = Finding(
        code="FILE_NOT_WRITTEN",
        severity="fail",
        where=found.output,
        message=f"the file does not compute what the source computes: {found.why}",
        evidence={"case": found.case, "sqnr_db": found.sqnr_db},
        remedy=f"A file is written where each output has at least {SANE_CASE_DB:g} dB SQNR in each case and "
        f"{SANE_SQNR_DB:g} dB over all of them, is not stuck at one value and, where it holds whole numbers, differs "
        "in at most half of them.  Try dynamic:8 or fp16, and inputs like those the model is for.",
    )
    told = report.model_copy(update={"runs": [run.model_copy(update={"findings": [*run.findings, finding]})]})
    try:
        write(told, run_dir.report)
    except OSError as error:
        raise disk_error(run_dir.report, error) from None
    return told


@dataclass
class RunOnce:
    """What `run_once` brought back.

    Attributes:
        memory_mode: MNN's memory mode it ran in.
        cases: the cases, in order.
        outputs: by case.
        first_ms: time of each case's inference, by case, in milliseconds.
        latency: of one case; None where it was not timed.
        device: facts of the device it ran on.
    """

    hello: Hello
    facts: Facts
    memory_mode: MemoryMode
    threads: int
    cases: list[Case]
    outputs: dict[str, Mapping[str, np.ndarray]]
    first_ms: dict[str, float]
    load_ms: float
    before: MemoryKb
    loaded: MemoryKb
    peak: MemoryKb
    latency: Latency | None = None
    latency_case: str | None = None
    device: DeviceFacts | None = None


def run_once(
    model: Path,
    uri: str,
    inputs: Path | None,
    shapes: Mapping[str, tuple[int, ...]],
    options: RunOptions,
    target_options: DeviceOptions,
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
    # A static int8 file is judged in memory normal; low would quantize its other layers at run time.
    static = graph.weights == "quantized" and any(layer.kept == "static" for layer in read_weights(model))
    memory: MemoryMode = options.memory or ("low" if graph.weights == "quantized" and not static else "normal")
    with explained(), open_session(uri, target_options, options, log=None, progress=progress) as target:
        runner = target.runner()
        target.own()
        path, _ = target.push(model, graph.sha256)
        loaded = runner.load(path, memory)
        specs = tuple(
            TensorSpec(
                entry.name, entry.dtype, tuple(size if size > 0 else None for size in entry.shape), None, entry.layout
            )
            for entry in loaded.answer.inputs
        )
        random = generate(pin(specs, shapes), options.seed)[1:2] if inputs is None else []
        cases = load_cases(inputs, specs, images) if inputs is not None else random
        found = RunOnce(
            runner.hello, runner.facts, memory, runner.threads, cases, {}, {}, loaded.answer.load_ms,
            loaded.answer.memory_before, loaded.answer.memory_after, loaded.answer.memory_after, device=target.facts,
        )  # fmt: skip
        for case in cases:
            result = runner.run(loaded, feed(loaded, case))
            found.outputs[case.name], found.first_ms[case.name] = result.outputs, result.ms
            found.peak = result.memory
        if not latency:
            return found
        chosen = cases[len(cases) // 2]
        timing = runner.time(
            loaded,
            feed(loaded, chosen),
            warmup=options.warmup,
            repeat=options.repeat,
            min_seconds=TIMING_MIN_SECONDS,
            max_seconds=TIMING_MAX_SECONDS,
        )
        assert timing.end is not None
        found.peak = timing.end.memory
        short = (
            [] if timing.end.complete else [f"{len(timing.samples)} of {options.repeat} samples in the time there was"]
        )
        found.latency = latency_summary(
            timing.samples, timing.warmup, found.load_ms, found.first_ms[cases[0].name], why_invalid=short
        )
        found.latency_case = chosen.name
        return found


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
