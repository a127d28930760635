"""Source model in, .mnn out: MNN's converter, kept in a child process and not believed.

What the converter (3.6.1) does with its options, measured:

- ``--weightQuantBits`` outside 2 to 8 is clamped without a word.  All of 2 to 8 work and give different files.
- Weights get a zero point by default (its help says otherwise); 1 is said all the same, for versions that differ.
- ``--hqq`` is dropped, with a line in the log, where asymmetric is 0; before it existed it was dropped in silence.
- ``--weightQuantBlock`` that is not a multiple of 16 does nothing.  A layer whose input channels are no multiple of
  the block keeps one scale per output channel; the others get their blocks.
- ``--fp16`` cuts the last bits off where it could round; see `halves`.  So fp16 takes two runs of the converter: to
  float, and, with every number rounded to the nearest half, to fp16.  A model whose float weights do not fit into one
  file is cut all the same.
- ``--fp16`` wins over ``--weightQuantBits``.  Layers that are quantized or fp16 already are left as they are.
- What ONNX lets be left out it does not always know: see `models.onnx_defaults`, which writes it out in a copy.
- The same input gives the same bytes but for a random ``mnn_uuid``; here it is made from the contents, so that the
  same model has the same hash everywhere.
- It returns success after failed writes, and reads missing or short external weights as whatever memory holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgequant.archive.types import Artifact
from edgequant.errors import EdgequantError, InputError, ToolError
from edgequant.findings import Finding
from edgequant.mnn_version import host_mnn_version, require_supported
from edgequant.models import ModelGraph
from edgequant.models.mnn.weights import read_weights
from edgequant.models.unsupported import find_lacking
from edgequant.quantize.child import ChildResult, death, run_child, tools_argv
from edgequant.quantize.finish import count_layers, name_by_contents, sync_and_hash
from edgequant.quantize.halves import of_halves, round_to_halves
from edgequant.quantize.log import errors_in, last_words, limits_in, sections, unsupported_ops, warnings_in
from edgequant.quantize.operators import known_operators
from edgequant.quantize.readable import readable_source, written_out
from edgequant.quantize.work import as_graph, output_work, room_left
from edgequant.spec import Variant

FORMATS = {"onnx": "ONNX", "tflite": "TFLITE", "tf": "TF", "mnn": "MNN"}
_SPILL = ".__convert_external_data.bin"
"""Where the converter puts the float weights while it works, in its working directory."""
_TWO_GIB = 2**31
_SPARE = 2**24
"""Bytes that a model of one file may take beyond what its two files took."""


def converter_flags(variant: Variant) -> list[str]:
    """The converter's options for a variant.  ``weight`` and ``dynamic`` give the same file."""
    if variant.method == "float":
        return []
    if variant.method == "fp16":
        return ["--fp16"]
    flags = ["--weightQuantBits", str(variant.bits)]
    # With hqq nothing may be said about asymmetric: 0 would switch hqq off.
    flags += ["--hqq"] if variant.hqq else [f"--weightQuantAsymmetric={int(not variant.sym)}"]
    if variant.block is not None:
        flags += ["--weightQuantBlock", str(variant.block)]
    return flags


def convert(
    source: Path | ModelGraph,
    variant: Variant,
    out: Path,
    *,
    log_dir: Path,
    timeout: float = 900.0,
    memory_limit: int | None = None,
    parameters: Mapping[str, object] | None = None,
    extra_flags: Sequence[str] = (),
    heap: int = 0,
    float_model: Artifact | None = None,
) -> Artifact:
    """Convert a model.  `out` appears, or is replaced, only when the new file is whole and MNN could load it.

    A float .mnn asked for as ``float`` is copied byte for byte.  For ``fp16`` every weight and constant is rounded to
    the nearest half.  ONNX external data is read from beside the source.
    Models that MNN would split (over 2000 MB of float weights) are converted in memory to get one file: that takes
    about three times their size in memory.

    Args:
        source: the model, or what was read of it already; it is only read.
        out: the file to write; its directory must exist and allow new files.
        log_dir: directory for the converter's log.
        timeout: seconds for each run of the converter and for loading its result.
        memory_limit: bytes the converter may allocate; see `run_child`.
        parameters: contents of the converter's compressionParamsFile (bits per layer, scales of our own).
        extra_flags: more options of the converter, such as ``--useOriginRNNImpl``.
        heap: the byte that memory is filled with before it is written; 0: as it comes.
        float_model: what this came to for ``float`` before, which is copied where it is what is asked for.

    Returns:
        the file as the converter made it; `Artifact.facts` are not read yet.

    Raises:
        InputError: OUTPUT_NOT_WRITABLE, OUTPUT_IS_SOURCE, MODEL_NOT_CONVERTIBLE, OP_UNSUPPORTED,
            MODEL_TOO_LARGE, ALREADY_QUANTIZED, LOG_NOT_WRITABLE, and what
            `edgequant.models.read_model` raises.
        ToolError: CONVERTER_CRASHED, CONVERTER_TIMEOUT, CONVERTER_OUT_OF_MEMORY, CONVERTER_FAILED,
            CONVERTER_NO_OUTPUT, CONVERTER_BAD_OUTPUT, PARAMETERS_REJECTED, DISK_FULL, MNN_MISSING, MNN_TOO_OLD,
            HQQ_UNSUPPORTED, CHILD_NOT_STARTED, CHILD_LOST.
    """
    version = host_mnn_version()
    require_supported(version, "this host")
    graph, out = as_graph(source), Path(out).absolute()
    _check(graph, variant)
    log = log_dir / f"{_log_name(out, variant)}.log"
    job = _Job(graph, variant, log, timeout, memory_limit, dict(parameters or {}), tuple(extra_flags), version, heap)
    with output_work(out, graph.path) as work:
        plain = variant.method == "float" and not parameters and not extra_flags
        if plain and float_model is not None and float_model.source_sha256 == graph.sha256:
            copy = work / "float.mnn"
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(float_model.path, copy)
                if sync_and_hash(copy) == float_model.sha256:
                    copy.replace(out)
                    return float_model.model_copy(update={"path": out})
        return job.run(work, out)


def _check(graph: ModelGraph, variant: Variant) -> None:
    where = str(graph.path)
    if graph.format == "onnx" and graph.path.stat().st_size >= _TWO_GIB:
        raise InputError(
            "MODEL_TOO_LARGE",
            "an ONNX file of 2 GiB or more cannot be read",
            hint="Save it with external data.",
            where=where,
        )
    if graph.format == "mnn":
        _check_mnn(graph, variant)


def _check_mnn(graph: ModelGraph, variant: Variant) -> None:
    where = str(graph.path)
    # MNN ignores the stored name and looks for this one.
    if graph.external_files or graph.path.with_name(graph.path.name + ".weight").exists():
        raise InputError(
            "MODEL_NOT_CONVERTIBLE",
            "its weights are in a second file, which the converter does not read",
            hint="Convert it again from the original model.",
            where=where,
        )
    done = ("quantized", "fp16") if variant.bits is not None else ("quantized",)
    if variant.method != "float" and graph.weights in done:
        raise InputError(
            "ALREADY_QUANTIZED",
            f"its weights are {graph.weights} already; MNN would leave them as they are and say nothing",
            hint="Start from the original model or a float .mnn.",
            where=where,
        )


@dataclass(frozen=True)
class _Job:
    graph: ModelGraph
    variant: Variant
    log: Path
    timeout: float
    memory_limit: int | None
    parameters: dict[str, object]
    extra_flags: tuple[str, ...]
    version: str
    heap: int

    def run(self, work: Path, out: Path) -> Artifact:
        made = work / "out.mnn"
        source, written = readable_source(self.graph, work)
        rounded = self.variant.method == "fp16"
        plain_copy = self.graph.format == "mnn" and self.variant.method in ("float", "fp16") and not self.parameters
        plain_copy = plain_copy and not self.extra_flags
        if plain_copy:
            shutil.copyfile(self.graph.path, made)
            if sync_and_hash(made) != self.graph.sha256:
                raise ToolError("CONVERTER_BAD_OUTPUT", "the source changed while it was copied", where=self._where)
            result = self._child(work, [["-f", "MNN", "--modelFile", made.name, "--info"]])
        else:
            result = self._convert(work, source, in_memory=False, rounded=rounded)
            if result.ok and (spilled := work / "out.mnn.weight").exists():
                rounded = rounded and made.stat().st_size + spilled.stat().st_size < _TWO_GIB - _SPARE
                for name in ("out.mnn", "out.mnn.weight"):
                    (work / name).unlink(missing_ok=True)
                result = self._convert(work, source, in_memory=True, rounded=rounded)
        text = self._judged(result, made)
        findings: tuple[Finding, ...] = () if written is None else (written_out(written),)
        if rounded:
            of_halving, halving = self._halve(work, made)
            findings += of_halving
            result = replace(result, seconds=result.seconds + halving.seconds)
        elif self.variant.method == "fp16":
            findings += (_cut(),)
        room_left(work)
        warnings = warnings_in(text[0] if text else "")
        if not plain_copy or rounded:
            name_by_contents(made)
        quantized, plain = count_layers(made)
        if self.variant.bits is not None and quantized == 0:
            warnings.append("no layer has weights that could be quantized: the model stays float")
        if self.variant.method == "float" and quantized and not self.parameters and not self.extra_flags:
            warnings.append(f"{quantized} layers of the source are quantized already: this is no float reference")
        digest = sync_and_hash(made)
        size = made.stat().st_size
        made.replace(out)
        return Artifact(
            path=out,
            sha256=digest,
            size=size,
            source_sha256=self.graph.sha256,
            asked=self.variant,
            run_as=self.variant,
            quantized_layers=quantized,
            float_layers=plain,
            warnings=tuple(warnings),
            findings=findings,
            log=self.log.name,
            seconds=result.seconds,
        )

    @property
    def _where(self) -> str:
        return str(self.graph.path)

    def _convert(self, work: Path, source: str, *, in_memory: bool, rounded: bool) -> ChildResult:
        spill = work / _SPILL
        if in_memory:
            spill.mkdir(exist_ok=True)  # it cannot be opened for writing, so the weights stay in memory
        else:
            # A full disk would cut the spilled weights and so corrupt the model in silence.  A second name keeps
            # their space taken after the converter removes its own, so that `room_left` can tell.
            spill.touch()
            with contextlib.suppress(OSError):  # some file systems have no hard links
                os.link(spill, work / "spilled")
        call = ["-f", FORMATS[self.graph.format], "--modelFile", source, "--MNNModel", "out.mnn"]
        if self.graph.format != "mnn":
            call += ["--bizCode", "MNN"]  # a .mnn keeps its own
        # What is to be rounded stays float for now.
        call += [*([] if rounded else converter_flags(self.variant)), *self.extra_flags]
        if self.parameters:
            content = {"version": self.version, **self.parameters}
            (work / "parameters.json").write_text(json.dumps(content), encoding="utf-8")
            call += ["--compressionParamsFile", "parameters.json"]
        return self._child(work, [call, ["-f", "MNN", "--modelFile", "out.mnn", "--info"]])

    def _halve(self, work: Path, made: Path) -> tuple[tuple[Finding, ...], ChildResult]:
        """Round a float model that MNN could load, and have the converter halve what it cannot cut any more."""
        source = made.rename(work / "rounded.mnn")
        lost = round_to_halves(source, (layer for layer in read_weights(source) if layer.kept == "float"))
        job = replace(self, log=self.log.with_name(f"{self.log.stem}-halves.log"))
        call = ["-f", "MNN", "--modelFile", source.name, "--MNNModel", made.name, *converter_flags(self.variant)]
        result = job._child(work, [call, ["-f", "MNN", "--modelFile", made.name, "--info"]])
        job._judged(result, made)
        return of_halves(lost), result

    def _child(self, work: Path, calls: list[list[str]]) -> ChildResult:
        argv = tools_argv(*(("mnnconvert", call) for call in calls))
        env = {**os.environ, "MALLOC_PERTURB_": str(self.heap)} if self.heap else None
        return run_child(argv, log=self.log, timeout=self.timeout, memory_limit=self.memory_limit, cwd=work, env=env)

    def _judged(self, result: ChildResult, made: Path) -> list[str]:
        """What each call said.  Raises what is wrong; returns only when there is a file that MNN can load."""
        if result.log_error:
            raise ToolError("DISK_FULL", f"the log {str(self.log)!r} could not be written: {result.log_error}")
        text = sections(self.log.read_text(encoding="utf-8", errors="replace"))
        said = text[0] if made.exists() and text else "\n".join(text)
        # What it says of TFLite's operators stays in a buffer until it ends, behind what comes later.
        ops = unsupported_ops("".join(text))
        failed = not result.timed_out and not result.out_of_memory and not (result.ok and made.exists())
        if failed and (not ops or self.graph.format != "onnx"):
            # It may crash at such an operator, or end without a word; of others than ONNX it names the first alone.
            known = known_operators(self.graph.format)
            ops = list(dict.fromkeys([*ops, *(find_lacking(self.graph, known) if known else ())]))
        problem = self._rejection(said, ops, made) if not result.timed_out else None
        crash = death(
            result,
            doing="the converter" if len(text) < 2 else "loading the converted model",
            prefix="CONVERTER",
            timeout=self.timeout,
            memory_limit=self.memory_limit,
            where=self._where,
            hint="The model may be damaged, or use what this MNN cannot convert: try another export (opset, fixed "
            "shapes), or another MNN version.",
        )
        found = problem or crash
        if found is None and not (made.is_file() and made.stat().st_size):
            found = self._no_output(result, made)
        if found is None and (made.parent / "out.mnn.weight").exists():
            found = ToolError(
                "CONVERTER_BAD_OUTPUT",
                "the converter put the weights in a second file",
                where=self._where,
                hint="Leave --saveExternalData out: one file is what is pushed to devices.",
                evidence=result.evidence(),
            )
        if found is None and ("Load MNN from" in text[-1] or "Model Inputs:" not in text[-1]):
            found = ToolError(
                "CONVERTER_BAD_OUTPUT",
                "the converter said success, but MNN cannot load what it wrote",
                where=self._where,
                hint="Try another export or another MNN version.",
                evidence=result.evidence(),
            )
        if found is not None:
            room_left(made.parent)  # a full disk explains everything else
            raise found
        return text

    def _rejection(self, said: str, ops: list[str], made: Path) -> EdgequantError | None:
        evidence: dict[str, object] = {"log": str(self.log), "log_tail": said.splitlines()[-20:]}
        limits = limits_in(said)
        if ops:
            return InputError(
                "OP_UNSUPPORTED",
                f"MNN {self.version} cannot convert {', '.join(ops)}: {'; '.join(limits[:3])}"
                if limits
                else f"MNN {self.version} has no operator for {', '.join(ops)}",
                hint="Export the model without them, or upgrade MNN.",
                where=self._where,
                evidence={**evidence, "ops": ops},
            )
        if self.parameters and "json2protobuf" in said:
            return ToolError("PARAMETERS_REJECTED", "the converter rejected its parameter file", evidence=evidence)
        if self.variant.hqq and "Use HQQ to quant weight" not in said and "Converted Success!" in said:
            return ToolError(
                "HQQ_UNSUPPORTED",
                f"MNN {self.version} ignores hqq",
                hint="Upgrade it (pip install -U MNN), or leave hqq out.",
                evidence=evidence,
            )
        errors = errors_in(said)
        if errors and (not made.exists() or any(line.startswith("Can't open file") for line in errors)):
            return InputError(
                "MODEL_NOT_CONVERTIBLE",
                f"MNN's converter rejects the model: {(limits or errors)[0]}",
                hint="Check that the file is whole and of the format its name says.",
                where=self._where,
                evidence=evidence,
            )
        return None

    def _no_output(self, result: ChildResult, made: Path) -> EdgequantError:
        if made.exists() and self.graph.size > _TWO_GIB * 3 // 4:
            return InputError(
                "MODEL_TOO_LARGE",
                f"as {self.variant} it would be over 2 GiB, more than one .mnn file can hold",
                hint="Quantize it to fewer bits, or split the model.",
                where=self._where,
                evidence=result.evidence(),
            )
        words = last_words(self.log.read_text(encoding="utf-8", errors="replace"))
        return ToolError(
            "CONVERTER_NO_OUTPUT",
            f"the converter ended without a model; {f'it said: {words}' if words else 'it said nothing'}",
            where=self._where,
            hint="MNN cannot convert this model: try another export, or another MNN version.",
            evidence=result.evidence(),
        )


def _cut() -> Finding:
    return Finding(
        code="HALF_CUT",
        severity="warn",
        message="the float model is over 2 GiB, so its weights were cut to half precision by MNN's converter and not "
        "rounded: their error is up to twice what it could be",
        remedy="Use weight:8 or dynamic:8 with a block, or split the model.",
    )


def _log_name(out: Path, variant: Variant) -> str:
    # Two outputs of the same name in different directories must not share a log.
    tag = hashlib.sha256(os.fsencode(out)).hexdigest()[:8]
    return "-".join(re.sub(r"[^A-Za-z0-9._]+", "_", part)[:60] for part in ("convert", out.stem, str(variant), tag))
