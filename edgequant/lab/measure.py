"""One variant on one device: load it, run every case, time it, and prove that low-memory mode was really used."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterator
from dataclasses import dataclass, field

import numpy as np

from edgequant.archive.folder import RunDirectory, safe_name
from edgequant.archive.outputs import Comparisons, Outputs, OutputStore
from edgequant.archive.types import Artifact
from edgequant.cases.case import Case
from edgequant.errors import DeviceError, EdgequantError, RunnerError, ToolError
from edgequant.findings import Finding
from edgequant.jobs.prepare import Prepared, feed
from edgequant.lab.session import Session
from edgequant.models import read_model
from edgequant.models.model import ModelGraph
from edgequant.runner.answers import MemoryKb
from edgequant.runner.client import Loaded, MnnRunner, TimeResult
from edgequant.spec import MemoryMode, RunOptions, Variant

TIMING_MIN_SECONDS = 0.5
"""At least this long is timed: on a fast model 20 samples would be over before the clock frequency settles."""
TIMING_MAX_SECONDS = 30.0

_HINTS = {
    "CORES_UNAVAILABLE": "Give --cores that this device has, or leave it out.",
    "CORES_UNSUPPORTED": "Leave --cores out.",
    "INFERENCE_FAILED": "MNN on this host runs this case: compare the MNN versions, or pin other sizes with --shape.",
    "MODEL_LOAD_FAILED": "MNN on this host made this file: install the same version there.",
    "OUT_OF_MEMORY": "Use smaller cases (--shape), or a smaller variant.",
}
"""What to do about a job that the runner refused; it does not know the command line."""


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Add what to do to errors of the runner that do not say it."""
    try:
        yield
    except EdgequantError as error:
        error.hint = error.hint or _HINTS.get(error.code)
        raise


@dataclass
class Capture:
    """What one variant on one device brought back; filled step by step, so that a death keeps what came before.

    Attributes:
        total: device against the reference, by output and case.
        missing: cases that this device could not run, though its runner lives -> why.
        error: why it could not be run to its end.
        first_ms, load_ms: the first inference, and loading, in milliseconds.
        low_memory_engaged: whether dynamic quantization took place; None where it was not asked for or is not known.
        pss_peak: largest PSS seen after an inference, KiB.
    """

    variant: Variant
    memory_mode: MemoryMode
    total: Comparisons = field(default_factory=Comparisons)
    missing: dict[str, str] = field(default_factory=dict)
    error: EdgequantError | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    timing: TimeResult | None = None
    timing_case: str | None = None
    before: MemoryKb = field(default_factory=MemoryKb)
    loaded: MemoryKb = field(default_factory=MemoryKb)
    peak: MemoryKb = field(default_factory=MemoryKb)
    pss_peak: int | None = None
    session_mb: float | None = None
    session_why: str | None = None
    low_memory_engaged: bool | None = None
    low_memory_why: str | None = None
    low_memory_evidence: dict[str, object] = field(default_factory=dict)
    deterministic: bool | None = None
    pushed_bytes: int | None = None
    findings: list[Finding] = field(default_factory=list)
    file_graph: ModelGraph | None = None

    def saw(self, memory: MemoryKb) -> None:
        self.peak = memory
        if memory.pss is not None:
            self.pss_peak = max(self.pss_peak or 0, memory.pss)


def capture_folder(uri: str, variant: Variant | str) -> str:
    return f"{safe_name(uri)}/{safe_name(str(variant))}"


def memory_mode(options: RunOptions, variant: Variant) -> MemoryMode:
    """MNN's memory mode for a variant: what the user said, else what the variant means."""
    return options.memory or variant.default_memory


def measure(
    target: Session,
    made: Artifact,
    prepared: Prepared,
    outputs: OutputStore,
    options: RunOptions,
    run_dir: RunDirectory,
    *,
    latency: bool,
    known_bad: Container[str] | None,
) -> Capture:
    """Do it.  Device and runner errors end up in `Capture.error`; only errors of this host's disk are raised.

    A case that MNN refuses while the runner lives counts as outputs that are missing (which is the model's failure)
    where it is in `known_bad`, the cases this host could not run either; elsewhere it is this device's error.  None:
    this device is the host.
    """
    model, variant = made, made.run_as
    capture = Capture(variant, memory_mode(options, variant))
    capture.file_graph = read_model(model.path)
    try:
        with explained():
            runner = target.living_runner()
            with prepared.clock.phase("model push"):
                path, capture.pushed_bytes = target.push(model.path, model.sha256)
            _run(runner, path, prepared, outputs, options, capture, latency=latency, known_bad=known_bad)
    except (DeviceError, ToolError) as error:
        capture.error = error
        # Whatever state it is in, the next variant gets a fresh one.
        target.drop_runner()
    finally:
        if capture.timing is not None:
            timing = {
                "case": capture.timing_case,
                "samples_ms": capture.timing.samples,
                "warmup": capture.timing.warmup,
            }
            run_dir.save_json(f"captures/{capture_folder(target.uri, made.asked)}", "timing", timing)
    return capture


def _run(
    runner: MnnRunner,
    path: str,
    prepared: Prepared,
    outputs: OutputStore,
    options: RunOptions,
    capture: Capture,
    *,
    latency: bool,
    known_bad: Container[str] | None,
) -> None:
    loaded = runner.load(path, capture.memory_mode)
    capture.load_ms = loaded.answer.load_ms
    capture.before, capture.loaded = loaded.answer.memory_before, loaded.answer.memory_after
    capture.saw(loaded.answer.memory_after)
    done: list[Case] = []
    for case in prepared.cases:
        expected = prepared.expected.get(case.name)
        assert expected is not None
        try:
            result = runner.run(loaded, feed(loaded, case))
        except RunnerError as error:
            if error.code != "INFERENCE_FAILED" or (known_bad is not None and case.name not in known_bad):
                raise
            capture.missing[case.name] = error.message
            capture.total.add(case.name, expected, None)
            continue
        if capture.first_ms is None:
            capture.first_ms = result.ms
        capture.saw(result.memory)
        outputs.put(case.name, result.outputs)
        capture.total.add(case.name, expected, result.outputs)
        done.append(case)
    if not done:
        return
    # The middle size, so that neither the smallest nor the largest case stands for all.
    chosen = done[len(done) // 2]
    if latency:
        with prepared.clock.phase("timing"):
            _time(runner, loaded, chosen, options, capture)
    _prove(runner, path, loaded, chosen, outputs, capture)
    runner.unload(loaded)


def _time(runner: MnnRunner, loaded: Loaded, case: Case, options: RunOptions, capture: Capture) -> None:
    capture.timing, capture.timing_case = TimeResult(), case.name
    runner.time(
        loaded,
        feed(loaded, case),
        warmup=options.warmup,
        repeat=options.repeat,
        min_seconds=TIMING_MIN_SECONDS,
        max_seconds=TIMING_MAX_SECONDS,
        into=capture.timing,
    )
    assert capture.timing.end is not None
    capture.saw(capture.timing.end.memory)


def _prove(runner: MnnRunner, path: str, loaded: Loaded, case: Case, outputs: OutputStore, capture: Capture) -> None:
    """Whether it computes the same twice; session memory; and whether memory low made a difference to memory normal."""
    assert capture.file_graph is not None
    inputs = feed(loaded, case)
    shapes = {name: tuple(array.shape) for name, array in inputs.items()}
    first = outputs.get(case.name)
    assert first is not None
    again = runner.run(loaded, inputs).outputs
    changed = differing(first, again)
    capture.deterministic = not changed
    if changed:
        capture.findings.append(_not_deterministic(case, changed))
    capture.session_mb, capture.session_why = _session(runner, loaded, shapes, capture.file_graph)
    if capture.memory_mode != "low":
        if capture.variant.method == "dynamic":
            capture.low_memory_engaged = False
            capture.low_memory_why = f"memory is '{capture.memory_mode}', dynamic quantization needs 'low'"
        return
    normal_model = runner.load(path, "normal")
    try:
        normal = runner.run(normal_model, inputs).outputs
        normal_mb, _ = _session(runner, normal_model, shapes, capture.file_graph)
    finally:
        runner.unload(normal_model)
    reached = differing(again, normal)
    fell = capture.session_mb is not None and normal_mb is not None and capture.session_mb < normal_mb
    capture.low_memory_evidence = {
        "case": case.name,
        "outputs_differ": bool(reached),
        "outputs_reached": reached,
        "deterministic": capture.deterministic,
        "session_mb_low": capture.session_mb,
        "session_mb_normal": normal_mb,
    }
    # Outputs that differ from run to run anyway prove nothing.
    capture.low_memory_engaged = fell or (bool(reached) and capture.deterministic)
    if capture.low_memory_engaged:
        capture.low_memory_why = "outputs differ from memory normal" if reached else "session memory fell"
        missed = [name for name in again if name not in reached]
        if missed and capture.deterministic and capture.variant.method == "dynamic":
            capture.findings.append(_not_reached(missed))
    elif not reached:
        capture.low_memory_why = _missing_condition(capture.file_graph)
    else:
        capture.low_memory_engaged = None
        capture.low_memory_why = "outputs change from run to run, so a difference to memory normal proves nothing"


def _not_deterministic(case: Case, changed: list[str]) -> Finding:
    return Finding(
        code="NOT_DETERMINISTIC",
        severity="error",
        where=changed[0],
        message=f"the same inputs (case '{case.name}') gave other outputs the second time: {', '.join(changed[:20])}",
        evidence={"outputs": changed[:1000]},
        remedy="A single run says nothing about such a model.  Look for random operators in it, try --threads 1, and "
        "suspect the device's memory if other models do the same.",
    )


def _not_reached(missed: list[str]) -> Finding:
    return Finding(
        code="LOW_MEMORY_PARTIAL",
        severity="warn",
        where=missed[0],
        message=f"{len(missed)} output(s) are the same in every bit with memory normal: nothing they are computed from "
        "was quantized at run time",
        evidence={"outputs": missed[:1000]},
        remedy="MNN has low-memory kernels for plain convolutions and matrix products only; these outputs are as with "
        "weight:N.",
    )


def _missing_condition(graph: ModelGraph) -> str:
    if graph.weights != "quantized":
        return "the file holds no quantized weights: none of its layers is of a kind or size MNN quantizes"
    return (
        "weights are quantized and memory is low, so this MNN was built without MNN_LOW_MEMORY, or it has no "
        "low-memory kernels for these ops on this CPU"
    )


def _session(
    runner: MnnRunner, loaded: Loaded, shapes: dict[str, tuple[int, ...]], graph: ModelGraph
) -> tuple[float | None, str | None]:
    if graph.has_subgraphs:
        return None, "the model has subgraphs: only MNN's Interpreter tells, and it cannot run them"
    try:
        return runner.session_memory(loaded, shapes), None
    except RunnerError as error:
        if error.code.startswith("RUNNER_"):
            raise
        return None, error.message


def differing(first: Outputs, second: Outputs) -> list[str]:
    """Names of the outputs that are not the same in every bit (a NaN is the same as itself), or that only one has."""
    return [
        name
        for name in {**first, **second}
        if name not in first
        or name not in second
        or first[name].shape != second[name].shape
        or np.ascontiguousarray(first[name]).tobytes() != np.ascontiguousarray(second[name]).tobytes()
    ]
