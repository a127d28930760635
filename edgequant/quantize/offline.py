"""Offline int8 with MNN's own methods, kept in a child process and not believed.

MNN's quantizer (3.6.1) checks nothing, says success whatever happened, and crashes on many models.  Measured:

- KL and EMA crash on every model with a loop (a GRU or LSTM converted as usual); ADMM writes a model that does not
  run, or a poor one.  Converted with ``--useOriginRNNImpl`` all three work.
- EMA uses Winograd convolution unless it is told not to, and crashes on some models (PP-OCR recognition) with it.
- EMA writes a scale of NaN for a layer that is 0 in all samples, from which NaN can come out.
- EMA drops skip, clamp, weights and debug in silence.
- EMA's file does not say which tensors are the outputs, and gives their names to others; see `patch`.
- What it does with samples: see `sequence`.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edgequant.archive.types import Artifact
from edgequant.errors import EdgequantError, InputError, ToolError
from edgequant.findings import Finding
from edgequant.mnn_version import host_mnn_version, require_supported
from edgequant.models import ModelGraph, read_model
from edgequant.models.mnn.patch import outputs_of, restore_outputs
from edgequant.progress import counting
from edgequant.quantize.calibration import CalibrationSet
from edgequant.quantize.child import ChildResult, death, run_child, tools_argv
from edgequant.quantize.finish import count_layers, name_by_contents, sync_and_hash, unusable_scales
from edgequant.quantize.log import sections
from edgequant.quantize.offline_options import OR_DYNAMIC, OfflineOptions
from edgequant.quantize.sequence import plan_samples, write_sequence
from edgequant.quantize.work import output_work, refuse_quantized, room_left

_LAYERS = ("Convolution", "ConvolutionDepthwise", "Deconvolution")
"""What MNN's offline methods quantize; matrix products and gates are convolutions by then."""
_DEBUG = re.compile(r"^(.*) (input|output)_tensor_(\d+):\s+cos distance: (\S+), overflow ratio: (\S+)$", re.MULTILINE)
_BROKEN = re.compile(r"weight size error|Invalid net|not supported feature|Can not load model|quantize_bits must")
_PERCENT = re.compile(rb"\r[A-Za-z ]{1,40}: ([0-9]{1,3}\.[0-9]+) %")
_IN_DEBUG = re.compile(r"feature size error|computeDistance")
"""What it says when it is past quantizing and computes debug's numbers."""


@dataclass(frozen=True)
class LayerDebug:
    """What MNN says about one tensor of a layer, averaged over the samples.

    Attributes:
        name: the layer, by its name in the .mnn.
        tensor: such as ``output 0``.
        cosine: between the float and the quantized values, -1..1; None where MNN computed no number.
        overflow: share of the values at the end of the range, 0..1; None likewise.
    """

    name: str
    tensor: str
    cosine: float | None
    overflow: float | None


class Offline(NamedTuple):
    """A statically quantized .mnn that MNN has loaded once.

    Attributes:
        file: the .mnn; its findings include those of the calibration data.
        samples: names of the samples that were used, in MNN's order.
        layers: MNN's own numbers, worst cosine first; empty with ema, which gives none.
    """

    file: Artifact
    samples: tuple[str, ...]
    layers: tuple[LayerDebug, ...]


def quantize_offline(
    float_model: Path,
    calibration: CalibrationSet,
    options: OfflineOptions,
    out: Path,
    *,
    log_dir: Path,
    timeout: float = 1800.0,
    memory_limit: int | None = None,
) -> Offline:
    """Quantize weights and activations of a float .mnn to int8 by one of MNN's methods.

    `out` appears, or is replaced, only when the new file is whole, MNN could load it, and it has the inputs and outputs
    of the float model.  That says nothing about its numbers: compare them.

    Args:
        float_model: a float .mnn; it is only read.
        calibration: samples for its inputs.
        out: the file to write; its directory must exist and allow new files.
        log_dir: directory for the quantizer's log.
        timeout: seconds for the quantizer and for loading the result.
        memory_limit: bytes the quantizer may allocate; see `run_child`.

    Raises:
        InputError: OFFLINE_SOURCE (not a float .mnn in one file), ALREADY_QUANTIZED, OPTION_UNUSED (ema knows none of
            skip, clamp and weights), SKIP_UNKNOWN, SKIP_NOT_A_LAYER, OUTPUT_NOT_WRITABLE, OUTPUT_IS_SOURCE,
            CALIBRATION_NAMES, CALIBRATION_CHANGED, LOG_NOT_WRITABLE, and what `read_model` raises.
        ToolError: QUANTIZER_CRASHED, QUANTIZER_TIMEOUT, QUANTIZER_OUT_OF_MEMORY, QUANTIZER_FAILED,
            QUANTIZER_NO_OUTPUT, QUANTIZER_BAD_OUTPUT, QUANTIZER_OUTPUT_LOST, QUANTIZER_NOTHING_DONE, DISK_FULL,
            MNN_MISSING, MNN_TOO_OLD, CHILD_NOT_STARTED, CHILD_LOST.
    """
    require_supported(host_mnn_version(), "this host")
    source, out = Path(float_model).absolute(), Path(out).absolute()
    graph = read_model(source)
    _check(graph, options, calibration)
    skip = skipped_layers(graph, options.skip)
    log = _free(log_dir, f"offline-{re.sub(r'[^A-Za-z0-9._]+', '_', out.stem)[:60]}-{options.method}")
    if options.samples is not None:
        calibration = calibration.only(range(min(options.samples, len(calibration))))
    job = _Job(graph, calibration, options, skip, log, timeout, memory_limit)
    with output_work(out, source) as work:
        return job.run(work, out)


def _free(folder: Path, name: str) -> Path:
    """A log of its own for each try: the last words of one that crashed must not be lost to the next."""
    path, number = folder / f"{name}.log", 1
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}.log"
    return path


def _check(graph: ModelGraph, options: OfflineOptions, calibration: CalibrationSet) -> None:
    where = str(graph.path)
    if graph.format != "mnn" or graph.external_files:
        raise InputError(
            "OFFLINE_SOURCE", "MNN's offline methods start from a float .mnn in one file", where=where,
            hint="Convert the model to float first.",
        )  # fmt: skip
    refuse_quantized(graph)
    unused = options.unused()
    if unused:
        raise InputError(
            "OPTION_UNUSED",
            f"MNN's {options.method} takes no {' and no '.join(unused)}: it would be ignored in silence",
            hint="Leave it out, or use kl, which takes it.",
        )
    names = [spec.name for spec in graph.inputs or ()]
    given = [spec.name for spec in calibration.inputs]
    if sorted(names) != sorted(given):
        raise InputError(
            "CALIBRATION_NAMES",
            f"the calibration data has the inputs {', '.join(given)}, the model {', '.join(names)}",
            where=where,
        )
    if not len(calibration):
        raise InputError("CALIBRATION_EMPTY", f"{calibration.source}: no sample in it")


def skipped_layers(graph: ModelGraph, skip: Sequence[str]) -> tuple[str, ...]:
    """Names of the layers to leave float, as MNN's quantizer knows them.

    A layer may also be named by its output, which is what many converters call it.

    Raises InputError: SKIP_UNKNOWN, SKIP_NOT_A_LAYER.
    """
    main = [op for op in graph.ops if op.subgraph is None]
    layers = [op for op in main if op.type in _LAYERS]
    by_name = {alias: op.name for op in layers for alias in (*op.outputs, op.name)}
    found = []
    for wanted in skip:
        if wanted in by_name:
            found.append(by_name[wanted])
            continue
        near = difflib.get_close_matches(wanted, by_name, 1)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        hint += f"Its layers are {', '.join(op.name for op in layers[:5])}{', ...' if len(layers) > 5 else ''}."
        other = next((op for op in graph.ops if wanted in (op.name, *op.outputs)), None)
        if other is None:
            raise InputError("SKIP_UNKNOWN", f"skip: the model has no operator '{wanted}'", hint=hint)
        raise InputError(
            "SKIP_NOT_A_LAYER",
            f"skip: '{wanted}' is a {other.type}{' inside a loop' if other.subgraph else ''}, which is not quantized",
            hint=hint,
        )
    return tuple(dict.fromkeys(found))


def read_debug(text: str) -> tuple[LayerDebug, ...]:
    """The per-layer numbers in what the quantizer wrote with debug on, worst cosine first."""

    def number(word: str) -> float | None:
        try:
            value = float(word)
        except ValueError:
            return None
        return value if math.isfinite(value) else None

    found = [
        LayerDebug(match[1].strip(), f"{match[2]} {match[3]}", number(match[4]), number(match[5]))
        for match in _DEBUG.finditer(text.replace("\r", "\n"))
    ]
    return tuple(sorted(found, key=lambda layer: (-2.0 if layer.cosine is None else layer.cosine, layer.name)))


def _no_debug(method: str, result: ChildResult) -> Finding:
    how = result.signal or f"exit status {result.exit_code}"
    return Finding(
        code="OFFLINE_NO_LAYER_NUMBERS",
        severity="info",
        message=f"MNN's {method} ended with {how} while it computed its numbers per layer; it was run again without",
        # A run folder may be moved: the log has a name there, and no place.
        evidence={**result.evidence(), "log": result.log.name},
    )


def _bad_scale(layer: str) -> Finding:
    return Finding(
        code="SCALE_NOT_FINITE",
        severity="warn",
        where=layer,
        message=f"layer '{layer}' was given a scale that is no number: it is 0 everywhere in all samples",
        remedy="Give samples that make it answer, or use kl, which copes. It can yield NaN on some devices.",
    )


def _show_percent(new: bytes, count: int, show: Callable[[int], None]) -> None:
    """MNN goes over all samples more than once, and writes a percentage of them each time."""
    said = _PERCENT.findall(new)
    if said:
        show(round(float(said[-1]) * count / 100))


@dataclass(frozen=True)
class _Job:
    graph: ModelGraph
    calibration: CalibrationSet
    options: OfflineOptions
    skip: tuple[str, ...]
    log: Path
    timeout: float
    memory_limit: int | None

    def run(self, work: Path, out: Path) -> Offline:
        made = work / "out.mnn"
        # A link, so that whatever characters are in the path, MNN sees none of them.
        (work / "source.mnn").symlink_to(self.graph.path)
        plan = plan_samples(self.options.method, self.calibration.facts)
        samples = work / "samples"
        samples.mkdir()
        write_sequence(samples, self.calibration, plan, transpose=self._transposed())
        findings = [*self.calibration.findings, *plan.findings]
        result, text = self._quantize(work, len(plan.order), debug=self.options.method != "ema")
        if not result.ok and not result.timed_out and any(_IN_DEBUG.search(part) for part in text):
            # The numbers of debug are extra; what it was asked for may still be done.
            findings.append(_no_debug(self.options.method, result))
            made.unlink(missing_ok=True)
            result, text = self._quantize(work, len(plan.order), debug=False)
        self._judge(result, text, made)
        restore_outputs(made, outputs_of(self.graph))
        name_by_contents(made)
        quantized, plain = count_layers(made)
        if quantized == 0:
            raise ToolError(
                "QUANTIZER_NOTHING_DONE",
                f"MNN's {self.options.method} left every layer float",
                where=str(self.graph.path),
                hint=OR_DYNAMIC,
                evidence=result.evidence(),
            )
        findings += [_bad_scale(name) for name in unusable_scales(made)]
        room_left(work)
        digest, size = sync_and_hash(made), made.stat().st_size
        made.replace(out)
        used = tuple(self.calibration.facts[index].name for index in plan.order)
        variant = self.options.variant()
        file = Artifact(
            path=out,
            sha256=digest,
            size=size,
            source_sha256=self.graph.sha256,
            asked=variant,
            run_as=variant,
            quantized_layers=quantized,
            float_layers=plain,
            findings=tuple(findings),
            log=self.log.name,
            seconds=result.seconds,
        )
        return Offline(file, used, read_debug(text[0]))

    def _quantize(self, work: Path, samples: int, *, debug: bool) -> tuple[ChildResult, list[str]]:
        config = {**self._config(samples), "debug": debug}
        (work / "config.json").write_text(json.dumps(config), encoding="utf-8")
        argv = tools_argv(
            ("mnnquant", ["source.mnn", "out.mnn", "config.json"]),
            ("mnnconvert", ["-f", "MNN", "--modelFile", "out.mnn", "--info"]),
        )
        count = len(self.calibration)
        with counting(f"MNN's {self.options.method}: samples", count) as show:
            result = run_child(
                argv, log=self.log, timeout=self.timeout, memory_limit=self.memory_limit, cwd=work,
                watch=lambda new: _show_percent(new, count, show),
            )  # fmt: skip
        return result, sections(self.log.read_text(encoding="utf-8", errors="replace"))

    def _transposed(self) -> list[str]:
        """Inputs that EMA takes for NCHW though they are NHWC, and turns round itself."""
        if self.options.method != "ema":
            return []
        return [
            spec.name
            for spec in self.graph.inputs or ()
            if spec.layout == "NHWC" and spec.shape is not None and len(spec.shape) == 4
        ]

    def _config(self, samples: int) -> dict[str, object]:
        options = self.options
        shapes = [{"name": name, "shape": list(shape)} for name, shape in self.calibration.facts[0].shapes]
        config: dict[str, object] = {
            "format": "RGB",
            "path": "samples",
            "used_sample_num": samples,
            "input_type": "sequence",
            "inputs": shapes,
            "batch_size": 1,
            "feature_quantize_method": options.method.upper(),
            "weight_quantize_method": options.weights.upper(),
            "winogradOpt": False,
        }
        if options.clamp is not None:
            config["feature_clamp_value"] = options.clamp
        if self.skip:
            config["skip_quant_op_names"] = list(self.skip)
        return config

    def _judge(self, result: ChildResult, text: list[str], made: Path) -> None:
        """Raise what is wrong; returns only when there is a file that MNN can load."""
        where, method = str(self.graph.path), self.options.method
        if result.log_error:
            raise ToolError("DISK_FULL", f"the log {str(self.log)!r} could not be written: {result.log_error}")
        found: EdgequantError | None = death(
            result,
            doing=f"MNN's {method} quantization" if len(text) < 2 else f"loading the model that {method} wrote",
            prefix="QUANTIZER",
            timeout=self.timeout,
            memory_limit=self.memory_limit,
            where=where,
            hint=OR_DYNAMIC,
        )
        said = text[0] if text else ""
        broken = _BROKEN.search(said)
        code, why = "", ""
        if not (made.is_file() and made.stat().st_size):
            code, why = "QUANTIZER_NO_OUTPUT", f"MNN's {method} ended without an error and without a model"
        elif broken is not None:
            code, why = "QUANTIZER_BAD_OUTPUT", f"MNN's {method} wrote a model all the same, but said: {broken[0]}"
        elif len(text) < 2 or "Load MNN from" in text[-1] or "Model Inputs:" not in text[-1]:
            code, why = "QUANTIZER_BAD_OUTPUT", f"MNN's {method} said success, but MNN cannot load what it wrote"
        if found is None and code:
            found = ToolError(code, why, where=where, hint=OR_DYNAMIC, evidence=result.evidence())
        if found is not None:
            room_left(made.parent)  # a full disk explains everything else
            raise found
