"""What a run leaves behind, as data: what was asked for, made and captured.

All of it is frozen, is written as JSON, and can be read back without the device, the runner, MNN or the source model.
Nothing here is judged.  Arrays are kept beside it, once each, named by their content.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field

from edgequant.archive.laboratory import OperatorsCapture, SustainCapture
from edgequant.archive.record import ArrayRef as ArrayRef
from edgequant.archive.record import Failure as Failure
from edgequant.archive.record import Name as _Name
from edgequant.archive.record import Record as Record
from edgequant.archive.record import Sha256
from edgequant.archive.rollout import Rollout, RolloutCapture, Setting
from edgequant.archive.rounding import LayerRounding as LayerRounding
from edgequant.archive.rounding import Moved as Moved
from edgequant.archive.rounding import Strayed as Strayed
from edgequant.archive.rounding import TensorScale as TensorScale
from edgequant.archive.timing import Memory as Memory
from edgequant.archive.timing import TimingCapture as TimingCapture
from edgequant.archive.witness import Witness
from edgequant.findings import Finding
from edgequant.spec import Decision, Limit, MemoryMode, RunOptions, Variant

Role = Literal["reference", "float-host", "variant-host", "device"]


def now() -> datetime:
    """The time to the second, in UTC."""
    return datetime.now(timezone.utc).replace(microsecond=0)


class HostFacts(Record):
    """This host, as far as verdicts need it: its CPU's architecture, and the MNN that models were made with."""

    arch: str
    mnn: str


class Plan(Record):
    """What a run was asked to do, with all that is needed to go on with it.

    Attributes:
        job: the command: "quantize" also says whether the file resembles its source.
        model, inputs, reference: absolute paths.
        devices, variants: each device runs each variant.
        limits, goals: as the user gave them, without the defaults.
        decides: what outputs decide, as the user says; over what the graph tells.
        reach: how devices are reached: the fields of `DeviceOptions` that JSON can hold.
    """

    schema_: Literal["edgequant.plan/1"] = Field(default="edgequant.plan/1", alias="schema")
    job: Literal["verify", "quantize"] = "verify"
    edgequant: str
    host: HostFacts
    created: AwareDatetime = Field(default_factory=now)
    model: str
    devices: tuple[str, ...]
    variants: tuple[Variant, ...]
    inputs: str | None = None
    reference: str | None = None
    calibration: str | None = None
    images: dict[str, Any] | None = None
    shapes: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    limits: tuple[Limit, ...] = ()
    decides: dict[_Name, Decision] = Field(default_factory=dict)
    goals: tuple[Limit, ...] = ()
    budget: Literal["size", "latency"] = "size"
    fallback: bool = True
    latency: bool = True
    diagnose: bool = False
    rollout: int | None = None
    feedback: tuple[str, ...] = ()
    options: RunOptions = Field(default_factory=RunOptions)
    convert_timeout: float = 900.0
    reach: dict[str, Any] = Field(default_factory=dict)

    model_config = ConfigDict(populate_by_name=True)


class TensorFacts(Record):
    """An input or output of the source; shape as in `TensorSpec`."""

    name: _Name
    dtype: str
    shape: tuple[int | None, ...] | None = None
    dims: tuple[str | None, ...] | None = None
    layout: str | None = None


class CaseFacts(Record):
    """A case: its inputs, which lie in cases/NAME.npz as well, and where they came from.  kind: as `Case.kind`."""

    name: _Name
    source: str
    generated: bool = False
    kind: Literal["usual", "size", "strain"] = "usual"
    inputs: dict[_Name, ArrayRef] = Field(default_factory=dict)


class ReferenceFacts(Record):
    """What the outputs are held against: see `report.model.ReferenceInfo`."""

    kind: str
    version: str | None = None
    why: str | None = None


class Source(Record):
    """The source model and what it is run with.

    Attributes:
        inputs: what a case holds.
        cases: in order; empty where nothing got that far.
        kinds: output -> "float" or "int", of the outputs the reference has.
        decisions: output -> what it decides (`spec.decides.Decision`), of those that do, by the graph.
        declared: outputs of the model, as its file has them.
        float_sha256: of the float .mnn made from it.
        findings: what is to be known of the model and the cases.
        rollout: what is fed back, where that was asked for.
    """

    schema_: Literal["edgequant.source/1"] = Field(default="edgequant.source/1", alias="schema")
    path: str
    format: str
    sha256: Sha256
    size: int = Field(ge=0)
    inputs: tuple[TensorFacts, ...] = ()
    declared: tuple[TensorFacts, ...] = ()
    cases: tuple[CaseFacts, ...] = ()
    reference: ReferenceFacts | None = None
    kinds: dict[_Name, Literal["float", "int"]] = Field(default_factory=dict)
    decisions: dict[_Name, Decision] = Field(default_factory=dict)
    float_sha256: Sha256 | None = None
    findings: tuple[Finding, ...] = ()
    rollout: Rollout | None = None

    model_config = ConfigDict(populate_by_name=True)

    @property
    def held(self) -> frozenset[str]:
        """The cases whose outputs are held against limits: all but the strained ones."""
        return frozenset(case.name for case in self.cases if case.kind != "strain")


class Closing(Record):
    """How a run ended, as far as it has.

    seconds: per phase.  ended: every trial was tried.  source_now: SHA-256 of the source at the end, or the code of
    the error that reading it gave; None before the end.
    """

    seconds: dict[str, float] = Field(default_factory=dict)
    ended: bool = False
    source_now: str | None = None


# ---- what was made


class LayerCounts(Record):
    """Operators of a file that have weights (convolutions, and what MNN makes one: matrix products, gates of GRU and
    LSTM), and how many weights; int8: those that are kept in 8 bits or fewer, static ones as well.
    """

    layers: int = Field(ge=0)
    int8_layers: int = Field(ge=0)
    weights: int = Field(ge=0)
    int8_weights: int = Field(ge=0)


class FileFacts(Record):
    """What was read of an artifact's file: weights as `models.ModelGraph.weights`; has_subgraphs: MNN's Interpreter
    cannot run it; static_tensors, half_tiles, max_pools, tails, resizes: of its static int8 layers, as
    `models.mnn.static_int8.StaticLayers` has them; less: as of `models.mnn.compares.read_less`.
    """

    weights: str | None = None
    has_subgraphs: bool = False
    static_tensors: int = Field(default=0, ge=0)
    half_tiles: tuple[str, ...] = ()
    max_pools: tuple[str, ...] = ()
    tails: tuple[str, ...] = ()
    resizes: tuple[str, ...] = ()
    less: tuple[str, ...] = ()
    counts: LayerCounts | None = None

    @property
    def static(self) -> bool:
        """Whether anything in it is static int8."""
        return self.static_tensors > 0


class CalibrationShapes(Record):
    """Sizes by input, and how many samples have them."""

    samples: int = Field(ge=1)
    inputs: dict[str, tuple[int, ...]]


class CalibrationFacts(Record):
    """The samples an artifact was made from: see `report.model.CalibrationInfo`."""

    source: str
    samples: int = Field(ge=1)
    shapes: tuple[CalibrationShapes, ...] = ()
    images: str | None = None


class Artifact(Record):
    """One file made from a source for a variant, with how it came about.

    Attributes:
        path: of the .mnn; in an archive relative to its folder.
        sha256, size: of the file; size in bytes.
        source_sha256: of the model it was made from.
        asked: the variant as the user wrote it.
        run_as: what the file is: the same, or what another way to quantize came to.
        label: that in words; None where it is what was asked for.
        steps: what was tried, in order; empty where there was nothing to choose.
        quantized_layers, float_layers: convolutions and matrix products with quantized weights, and with others.
        warnings: what the converter said that the user should know, in plain words.
        findings: what the user should know of how it was made.
        log: file name of what the converter said, in the run's logs.
        seconds: wall-clock time it took.
        calibration: the samples it was made from; None where it needed none.
        facts: what was read of the file.
        rounding: of each layer whose weights could be held against the float model's; None where none was.
        scales: of the tensors that calibrating has given one; empty where MNN's own quantizer chose them.
        equalized: largest magnitude of each channel by tensor, by which these were equalized before; None where nobody
            has written down whether they were.
    """

    path: Path
    sha256: Sha256
    size: int = Field(ge=0)
    source_sha256: Sha256
    asked: Variant
    run_as: Variant
    label: str | None = None
    steps: tuple[dict[str, Any], ...] = ()
    quantized_layers: int = Field(default=0, ge=0)
    float_layers: int = Field(default=0, ge=0)
    warnings: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    log: str | None = None
    seconds: float = Field(default=0.0, ge=0)
    calibration: CalibrationFacts | None = None
    facts: FileFacts = FileFacts()
    rounding: tuple[LayerRounding, ...] | None = None
    scales: tuple[TensorScale, ...] = ()
    equalized: dict[_Name, tuple[float, ...]] | None = None


class Making(Record):
    """What became of one variant: its artifact, or why there is none."""

    variant: Variant
    artifact: Artifact | None = None
    failure: Failure | None = None


# ---- what was captured


class CaseCapture(Record):
    """One inference of one case: its outputs, or why MNN refused it (refused_code: how, where it was a death).

    outputs: of the model.  taps: of inner tensors that were asked for by name.  ms: wall-clock time in milliseconds.
    """

    case: _Name
    outputs: dict[_Name, ArrayRef] | None = None
    taps: dict[_Name, ArrayRef] = Field(default_factory=dict)
    ms: float | None = Field(default=None, ge=0)
    memory: Memory | None = None
    refused: str | None = None
    refused_code: str | None = None


class SessionCapture(Record):
    """What MNN says a session holds, in its MB (2^20 bytes), with memory as the trial has it and with memory normal."""

    mb: float | None = Field(default=None, ge=0)
    why: str | None = None
    normal_mb: float | None = Field(default=None, ge=0)


class DeviceCapture(Record):
    """What the device and its runner told of themselves, as the report shows it."""

    uri: str
    is_host: bool = False
    emulator: str | None = None
    arch: str | None = None
    cpu: str | None = None
    features: tuple[str, ...] = ()
    mnn: str | None = None
    cores: int | None = None
    ram_mb: float | None = None
    os: str | None = None
    facts: dict[str, Any] = Field(default_factory=dict)


class Capture(Record):
    """What one trial brought back.  Never judged while it is taken.

    Attributes:
        trial: its id.
        cases: one inference of each, in order.
        repeated: all of them once more, in another order (of older versions only one).
        normal: those that were run, with memory normal, where the trial itself ran with memory low; in older runs
            one of them, and only of devices.
        moved: each case some times more, with its inputs moved; of this host only, where there are other devices.  Of
            the reference: with activations rounded.
        timings: where it was timed.
        rollout, settings: where one was asked for.  witness: of devices that are not this host.
        sustained, operators: of `bench`, where they were asked for: captures of their own, without timings.
        load_ms: reading the model.  before, loaded: memory before and after that.
        pushed_bytes: of the model; runtime_bytes: of runner and pack; 0 where the device had them.
        failure: why it did not get to its end; what came before is here all the same.
    """

    schema_: Literal["edgequant.capture/1"] = Field(default="edgequant.capture/1", alias="schema")
    trial: str
    role: Role
    variant: str | None = None
    artifact_sha256: Sha256 | None = None
    device: DeviceCapture | None = None
    memory_mode: MemoryMode | None = None
    threads: int | None = None
    cases: tuple[CaseCapture, ...] = ()
    repeated: tuple[CaseCapture, ...] = ()
    normal: tuple[CaseCapture, ...] = ()
    moved: tuple[Moved, ...] = ()
    timings: tuple[TimingCapture, ...] = ()
    session: SessionCapture | None = None
    rollout: RolloutCapture | None = None
    settings: tuple[Setting, ...] = ()
    witness: Witness | None = None
    sustained: SustainCapture | None = None
    operators: OperatorsCapture | None = None
    load_ms: float | None = Field(default=None, ge=0)
    before: Memory = Memory()
    loaded: Memory = Memory()
    pushed_bytes: int | None = None
    runtime_bytes: int | None = None
    failure: Failure | None = None
    started: AwareDatetime = Field(default_factory=now)

    model_config = ConfigDict(populate_by_name=True)

    @property
    def readings(self) -> list[Memory]:
        """Of the process's memory, from the loaded model to the end of the timing; the last has the highest peak."""
        known = [self.loaded, *(case.memory for case in self.cases), *(timing.memory for timing in self.timings)]
        return [each for each in known if each is not None]
