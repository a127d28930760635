"""Static int8 models: ranges measured on samples, scales by a calibrator, the model by MNN's converter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from edgequant.archive.types import Artifact, TensorScale
from edgequant.errors import InputError, ToolError
from edgequant.models import ModelGraph, read_model
from edgequant.models.mnn.scale_flow import Flow
from edgequant.quantize.calibrate.child import Runs
from edgequant.quantize.calibrate.equalize import equalized, find_joints, gather_channels
from edgequant.quantize.calibrate.findings import StaticLayer, of_static
from edgequant.quantize.calibrate.gather import CHUNK, Gathered, gather
from edgequant.quantize.calibrate.kernels import ANY, Kernels, sound
from edgequant.quantize.calibrate.layers import Layer, read_layers
from edgequant.quantize.calibrate.methods import Calib, calibrate
from edgequant.quantize.calibrate.mixed import Maker, best
from edgequant.quantize.calibrate.outputs import Fidelity, Outputs, run_outputs
from edgequant.quantize.calibrate.params import LayerPlan, check_names
from edgequant.quantize.calibrate.samples import spool
from edgequant.quantize.convert import convert
from edgequant.quantize.work import HOPELESS, as_graph, output_work, refuse_quantized
from edgequant.spec import Variant

_FLOAT = Variant(method="float")
PROBES = 8
"""Samples on which models are compared; ranges are measured on all."""
EQUALIZED = 4
"""Ways to choose scales that are tried with equalized channels too, where all are tried without."""


class StaticOptions(BaseModel):
    """How to make a static int8 model.

    Attributes:
        calib: how ranges become scales; see `methods`.  ``best``: each is tried, and the one taken whose worst output
            is closest to the float model, in the mean over the samples.
        sym: zero point 0 for activations; None: with ``best`` both are tried, else it is.  Weights are symmetric and
            per output channel in any case.
        equalize: channels between two layers get the same range first, see `equalize`; None: both are tried with
            ``best``, where there are such layers, else it is not done.
        percent: what `percentile` keeps.
        decay: of the moving average of `ema`.
        rnn: what becomes of layers that are not static (inside GRU and LSTM loops, deconvolutions, `keep`): 8-bit
            weights where MNN then computes in float, or float weights.
        skip: operators, or output tensors, that stay float, weights and all.
        keep: so many of the most sensitive layers compute in float.  Each layer's sensitivity is measured by making it
            alone int8: one conversion and one run per layer.
        target_db: as few of the most sensitive layers compute in float, beyond `keep`, as leave every output of every
            sample at least this SQNR against the float model, measured on the first calibration samples.
        kernels: ``sound``: what MNN's int8 kernels get wrong on some CPU stays float, or is pooled in float;
            ``any``: what was asked for is made, whatever MNN computes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    calib: Calib | Literal["best"] = "mse"
    sym: bool | None = True
    equalize: bool | None = False
    percent: float = Field(default=99.99, gt=50, le=100)
    decay: float = Field(default=0.9, ge=0, lt=1)
    rnn: Literal["weight", "float"] = "weight"
    skip: tuple[str, ...] = ()
    keep: int = Field(default=0, ge=0)
    target_db: float | None = Field(default=None, ge=0, le=100)
    kernels: Literal["sound", "any"] = "sound"


class StaticInt8(NamedTuple):
    """A static int8 .mnn that was run, and what was measured of it.

    Attributes:
        file: the .mnn; its findings say how the scales were chosen, and which layers are what.
        fidelity: of each output against the float MNN model, over the first calibration samples: these are the
            samples the scales were made from, so it says that the model works, not how good it is.
        calib: what became of the ranges, such as ``kl,asym,equalize``.
        tried: of ``best``: mean SQNR in dB of the worst output by calibrator, the best first; those that gave the same
            scales as one before are left out.
        sensitivity: worst SQNR in dB of any output in any sample with only one layer int8, by that layer's output
            tensor; empty unless `keep` or `target_db` was asked for.
    """

    file: Artifact
    layers: tuple[StaticLayer, ...]
    fidelity: Mapping[str, Fidelity]
    sensitivity: Mapping[str, float]
    samples: int
    calib: str
    tried: Mapping[str, float]


def make_static(
    source: Path | ModelGraph,
    samples: Iterable[Mapping[str, np.ndarray]],
    options: StaticOptions,
    out: Path,
    *,
    log_dir: Path,
    timeout: float = 900.0,
    memory_limit: int | None = None,
    chunk: int = CHUNK,
    float_model: Artifact | None = None,
) -> StaticInt8:
    """Make a static int8 model.  `out` appears, or is replaced, only when the model was made, loaded and run.

    Args:
        source: a float model in any format `edgequant.models.read_model` knows, or what was read of it already.
        samples: real inputs, arrays by input name; read once, one at a time, and kept on disk beside `out` meanwhile.
        timeout: seconds for each run over all samples and each conversion.
        memory_limit: bytes each child process may allocate.
        chunk: inner tensors held in memory at once.
        float_model: the source as float MNN, where it was made already.

    Raises:
        InputError: ALREADY_QUANTIZED, LAYER_UNKNOWN, NOTHING_STATIC, NOTHING_TO_EQUALIZE, TARGET_NOT_REACHED,
            CALIBRATION_...; and what
            `convert` raises.
        ToolError: CALIBRATION_..., STATIC_... (the model that was made crashes, hangs or computes NaN), and what
            `convert` raises.
    """
    graph, out = as_graph(source), Path(out).absolute()
    refuse_quantized(graph)
    with output_work(out, graph.path) as work:
        job = _Job(graph, options, work, log_dir, timeout, memory_limit, float_model)
        return job.run(samples, out, chunk)


@dataclass(frozen=True)
class _Start:
    """A float .mnn that scales are made for, with its layers and ranges; words: what the variant calls it; channels: by
    whose ranges it was equalized."""

    path: Path
    layers: list[Layer]
    gathered: Gathered
    words: tuple[str, ...] = ()
    channels: Mapping[str, np.ndarray] = field(default_factory=dict)


class _Common(NamedTuple):
    """What all ways to make a model of one source share."""

    flow: Flow
    runs: Runs
    reference: Outputs
    kernels: Kernels


@dataclass(frozen=True)
class _Job:
    graph: ModelGraph
    options: StaticOptions
    work: Path
    log_dir: Path
    timeout: float
    memory_limit: int | None
    float_model: Artifact | None

    def run(self, samples: Iterable[Mapping[str, np.ndarray]], out: Path, chunk: int) -> StaticInt8:
        model = self.convert(self.graph, self.work / "float.mnn").path
        layers = read_layers(model)
        check_names(self.options.skip, layers)
        graph = read_model(model)
        spooled = spool(samples, self.graph.inputs or graph.inputs or (), self.work / "samples")
        runs = Runs(spooled, self.work, self.log_dir, self.timeout, self.memory_limit)
        count = min(PROBES, spooled.count)
        reference = run_outputs(model, runs, "running the float model", count, prefix="CALIBRATION")
        kernels = sound(model, layers) if self.options.kernels == "sound" else ANY
        common = _Common(Flow(graph.ops), runs, reference, kernels)
        calib, maker, channels, tried = self._chosen(self._starts(model, graph, layers, common, chunk), common)
        kept, sensitivity = self._kept(maker)
        plans = maker.plans(set(self.options.skip), kept)
        converted = maker.model(plans, self.work / "static.mnn")
        found = maker.fidelity(converted, "the static int8 model")
        broken = [name for name, each in found.items() if not each.finite]
        if broken:
            raise ToolError(
                "STATIC_NOT_FINITE",
                f"the static int8 model computes NaN or Inf in output {', '.join(broken)}",
                hint="Keep layers float with skip, or take another calibrator.",
                where=str(self.graph.path),
            )
        converted.path.replace(out)
        listed = tuple(_listed(each) for each in plans)
        as_static = Variant(method="static", bits=8)
        file = converted.model_copy(
            update={
                "path": out,
                "source_sha256": self.graph.sha256,
                "asked": as_static,
                "run_as": as_static,
                "findings": of_static(listed, calib, tried),
                "scales": _scales(plans),
                "equalized": {name: tuple(each.astype(float).tolist()) for name, each in channels.items()},
            }
        )
        return StaticInt8(file, listed, found, sensitivity, spooled.count, calib, tried)

    def _chosen(
        self, starts: Iterator[_Start], common: _Common
    ) -> tuple[str, Maker, Mapping[str, np.ndarray], dict[str, float]]:
        """The way to choose scales that was asked for, or comes closest to float; the ranges its channels are
        equalized by; and what each that was tried has."""
        ways = [
            (calib, sym)
            for calib in (get_args(Calib) if self.options.calib == "best" else (self.options.calib,))
            for sym in self._zero_points()
        ]
        makers: dict[str, Maker] = {}
        channels: dict[str, Mapping[str, np.ndarray]] = {}
        tried: dict[str, float] = {}
        try:
            for start in starts:
                # What is worst without is not best with: equalized, only those that came closest are tried.
                some = [way for way in ways if _name(*way) in list(tried)[:EQUALIZED]] if tried else ways
                these = {_name(*way, *start.words): self._maker(start, *way, common) for way in some}
                makers |= these
                channels |= dict.fromkeys(these, start.channels)
                if len(ways) > 1 or tried:
                    tried |= best(these, set(self.options.skip))
        except (InputError, ToolError) as error:
            # Equalizing was only worth a try: the models without work.
            if not tried or error.code in HOPELESS:
                raise
        tried = dict(sorted(tried.items(), key=lambda each: -each[1]))
        calib = next(iter(tried or makers))
        return calib, makers[calib], channels[calib], tried

    def _maker(self, start: _Start, calib: Calib, sym: bool, common: _Common) -> Maker:
        gathered = start.gathered
        quantizers = {
            name: calibrate(each, calib, sym=sym, percent=self.options.percent)
            for name, each in gathered.histograms.items()
            if each.exponent is not None
        }
        # Their scale would be a guess, and what clips the first value that is not 0.
        silent = {name: "it is 0 in all samples" for name in gathered.histograms if name not in quantizers}

        def from_float(path: Path, content: Mapping[str, object]) -> Artifact:
            # From the float .mnn, whose names the scales have: a source with external weights is read once only.
            return self.convert(start.path, path, content)

        return Maker(
            from_float, start.layers, common.flow, quantizers, gathered.unreadable | silent, self.options.rnn,
            common.runs, common.reference, common.kernels,
        )  # fmt: skip

    def _kept(self, maker: Maker) -> tuple[list[str], dict[str, float]]:
        """Output tensors of the layers that compute in float, as `keep` and `target_db` ask; and each one's harm."""
        if not self.options.keep and self.options.target_db is None:
            return [], {}
        skipped = set(self.options.skip)
        sensitivity = maker.sensitivity(skipped)
        ranked = sorted(sensitivity, key=lambda name: (sensitivity[name], name))
        keep = min(self.options.keep, len(ranked))
        if self.options.target_db is not None:
            keep = maker.fewest(ranked, skipped, keep, self.options.target_db)
        if ranked and keep == len(ranked):
            raise InputError(
                "NOTHING_STATIC",
                f"all {len(ranked)} layers that can be int8 would stay float (keep={self.options.keep}"
                + (")" if self.options.target_db is None else f", target {self.options.target_db:g} dB)"),
                hint="Keep fewer, or use dynamic:8.",
                where=str(self.graph.path),
            )
        return ranked[:keep], sensitivity

    def _starts(
        self, model: Path, graph: ModelGraph, layers: list[Layer], common: _Common, chunk: int
    ) -> Iterator[_Start]:
        """The float model, a copy with equalized channels, or both."""
        tensors, runs = self._tensors(layers, common.flow), common.runs

        def gathered(path: Path) -> Gathered:
            return gather(path, tensors, runs, chunk=chunk, decay=self.options.decay)

        asked = self.options.equalize
        if not asked:
            yield _Start(model, layers, gathered(model))
        if asked is False or (asked is None and self.options.calib != "best"):
            return
        joints = find_joints(graph, layers)
        ranges, unreadable = gather_channels(model, [joint.tensor for joint in joints], runs, chunk=chunk)
        path = self.work / "equalized.mnn"
        if joints and equalized(model, joints, ranges, path):
            yield _Start(path, read_layers(path), gathered(path), ("equalize",), ranges)
        elif asked:
            why = "no layer's result goes to convolutions alone, without an activation other than ReLU in between"
            if joints:
                name = joints[0].tensor
                what = unreadable.get(name, "it is 0 in all samples, or its layer's weights would overflow")
                why = f"of {len(joints)} tensors none can be, such as '{name}': {what}"
            raise InputError(
                "NOTHING_TO_EQUALIZE",
                why,
                hint="Leave equalize out.",
                where=str(self.graph.path),
            )

    def _zero_points(self) -> tuple[bool, ...]:
        if self.options.sym is None:
            return (True, False) if self.options.calib == "best" else (True,)
        return (self.options.sym,)

    def _tensors(self, layers: list[Layer], flow: Flow) -> list[str]:
        """Tensors whose ranges are needed, in the order they are computed."""
        skip = set(self.options.skip)
        wanted = [each for each in layers if each.why_not is None and not {each.name, each.output} & skip]
        names = (name for each in wanted for name in (*flow.may_squeeze(each.input), each.input, each.output))
        return list(dict.fromkeys(names))

    def convert(self, source: Path | ModelGraph, out: Path, content: Mapping[str, object] | None = None) -> Artifact:
        return convert(
            source,
            _FLOAT,
            out,
            log_dir=self.log_dir,
            timeout=self.timeout,
            memory_limit=self.memory_limit,
            parameters=content,
            float_model=self.float_model,
        )


def _name(calib: Calib, sym: bool, *words: str) -> str:
    return ",".join([calib, *([] if sym else ["asym"]), *words])


def _listed(each: LayerPlan) -> StaticLayer:
    source, result = each.input, each.output
    return StaticLayer(
        each.layer.name,
        source.scale if source else None,
        result.scale if result else None,
        source.zero_point if source else None,
        result.zero_point if result else None,
        each.how,
        each.why and each.why.words,
        each.why and each.why.code,
    )


def _scales(plans: Iterable[LayerPlan]) -> tuple[TensorScale, ...]:
    """Of each tensor that is int8, once."""
    asked = {
        name: each
        for plan in plans
        for name, each in ((plan.layer.input, plan.input), (plan.layer.output, plan.output))
        if each is not None
    }
    return tuple(TensorScale(tensor=name, scale=each.scale, zero=each.zero_point) for name, each in asked.items())
