"""A source model's own runtime in a process of its own, speaking the runner's protocol: an untrusted model never runs
in edgequant's.

Started by `edgequant.reference.runtime.RuntimeReference`.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgequant.device_scripts import process, rollout, server, wire
from edgequant.device_scripts.server import Answer, Job, JobError, Tensors
from edgequant.tensors import SHAPE

if TYPE_CHECKING:
    from edgequant.reference.lite_cut import LiteParts

_OPEN = (32, 256, 512, 1024, 4096, 16384)
"""Tried for open sizes of a TFLite file: pixels, frames, samples of sound."""


class Engine(ABC):
    """The jobs `hello`, `load` and `run`, done on the CPU in full precision."""

    version: str
    inner: Sequence[str] = ()
    """Tensors that are asked for in place of the outputs, where it can do that."""

    @abstractmethod
    def load(self, path: str) -> list[str]:
        """Make a model ready; returns the names of its outputs.  Raises JobError."""

    @abstractmethod
    def run(self, inputs: Tensors) -> dict[str, Any]:
        """The outputs by name.  May raise anything."""

    def job_hello(self, _job: Job) -> Answer:
        return {
            "runner": type(self).__name__,
            "protocol": wire.PROTOCOL,
            "pid": os.getpid(),
            "python": sys.version.split()[0],
            "mnn": self.version,
            "numpy": np.__version__,
        }, None

    def job_load(self, job: Job) -> Answer:
        start = time.perf_counter()
        self.inner = [str(name) for name in job.header.get("inner") or ()]
        outputs = self.load(job.header["path"])
        return {"handle": 1, "load_ms": (time.perf_counter() - start) * 1e3, "inputs": [], "outputs": outputs}, None

    def job_run(self, job: Job) -> Answer:
        start = time.perf_counter()
        arrays = self._ran(job.tensors)
        return {"ms": (time.perf_counter() - start) * 1e3}, arrays

    def job_rollout(self, job: Job) -> Answer:
        """Many steps, with outputs fed back into inputs: as the runner does it."""
        return rollout.roll(job, self._ran)

    def _ran(self, inputs: Tensors) -> dict[str, np.ndarray]:
        try:
            found = self.run({name: np.array(array) for name, array in inputs.items()})
        except Exception as error:  # noqa: BLE001  (native runtimes' errors share no base class but Exception)
            raise JobError("INFERENCE_FAILED", _first_line(error)) from None
        arrays = {}
        for name, result in found.items():
            # Some hand out a number where there are no dimensions.
            array = np.asarray(result) if isinstance(result, np.generic) else result
            if not isinstance(array, np.ndarray) or array.dtype.name not in wire.DTYPES:
                raise JobError("OUTPUT_UNSUPPORTED", f"output '{name}' is not a tensor of numbers")
            arrays[name] = array
        return arrays


class OrtEngine(Engine):
    """ONNX Runtime."""

    def __init__(self) -> None:
        # ONNX Runtime keeps an event store in the user's cache and sends it off, unless this is set before it loads.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime

        self._ort = onnxruntime
        self.version = onnxruntime.__version__
        self._session: Any = None

    def load(self, path: str) -> list[str]:
        options = self._ort.SessionOptions()
        options.log_severity_level = 3
        # Constant folding and the like only: the extended level replaces subgraphs by approximating kernels.
        options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        try:
            self._session = self._ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001  (ONNX Runtime's own errors share no base class but Exception)
            raise JobError("MODEL_LOAD_FAILED", _first_line(error)) from None
        return [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Tensors) -> dict[str, Any]:
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))


class OnnxEngine(Engine):
    """ONNX's reference evaluator: every operator of the standard in NumPy.  Slow, and for models that ONNX's own
    checker calls valid only."""

    def __init__(self) -> None:
        import onnx
        import onnx.reference

        self._onnx = onnx
        self.version = onnx.__version__
        self._evaluator: Any = None

    def load(self, path: str) -> list[str]:
        try:
            self._check(path)
        except Exception as error:  # noqa: BLE001
            raise JobError("MODEL_LOAD_FAILED", _first_line(error)) from None
        try:
            self._evaluator = self._onnx.reference.ReferenceEvaluator(path)
        except Exception as error:  # noqa: BLE001
            raise JobError("KERNEL_MISSING", _first_line(error)) from None
        return [str(name) for name in self._evaluator.output_names]

    def _check(self, path: str) -> None:
        """Raises what is wrong with a model.  Outputs whose sizes or types are left out are not: nobody needs them."""
        model = self._onnx.load(path, load_external_data=False)
        outputs = model.graph.output
        untyped = [each for each in outputs if not each.HasField("type")]  # inner tensors that are asked for
        for each in untyped:
            outputs.remove(each)
        unsized = [each for each in outputs if not each.type.tensor_type.HasField("shape")]
        for each in unsized:
            each.type.tensor_type.shape.SetInParent()
        self._onnx.checker.check_model(model if unsized or untyped else path)

    def run(self, inputs: Tensors) -> dict[str, Any]:
        return dict(zip(self._evaluator.output_names, self._evaluator.run(None, dict(inputs)), strict=True))


class LiteRtEngine(Engine):
    """LiteRT with its own kernels: the delegates it would take by default may compute in less than float32."""

    def __init__(self) -> None:
        from importlib import metadata

        from ai_edge_litert import interpreter

        self._litert = interpreter
        self.version = metadata.version("ai-edge-litert")
        self._model: Any = None

    keeps_all = False

    def load(self, path: str) -> list[str]:
        try:
            self._model = self._litert.Interpreter(
                model_path=path,
                experimental_preserve_all_tensors=self.keeps_all,
                num_threads=len(os.sched_getaffinity(0)),
                experimental_op_resolver_type=self._litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            self._allocate()
        except Exception as error:  # noqa: BLE001
            raise JobError("MODEL_LOAD_FAILED", _first_line(error)) from None
        return [_name(each) for each in self._model.get_output_details()]

    def _allocate(self) -> None:
        """A file has a 1 where a size is open, which a windowed model need not take: larger ones tell whether it runs.

        Raises what LiteRT says of the sizes in the file, where none of them helps.
        """
        try:
            self._model.allocate_tensors()
            return
        except RuntimeError as error:
            first = error
        details = self._model.get_input_details()
        wanted = [[int(size) for size in each["shape_signature"]] for each in details]
        for size in _OPEN if any(-1 in shape for shape in wanted) else ():
            for each, shape in zip(details, wanted, strict=True):
                # What is open in front of others is a batch.
                sizes = [(1 if not axis and len(shape) > 1 else size) if n == -1 else n for axis, n in enumerate(shape)]
                self._model.resize_tensor_input(each["index"], sizes)
            with contextlib.suppress(RuntimeError):
                self._model.allocate_tensors()
                return
        raise first

    def run(self, inputs: Tensors) -> dict[str, Any]:
        given = dict(inputs)
        details = self._model.get_input_details()
        for each in details:
            array = given[_name(each)]
            if tuple(each["shape"]) != array.shape:
                self._model.resize_tensor_input(each["index"], array.shape, strict=True)
        self._model.allocate_tensors()
        self._model.reset_all_variables()  # a case knows nothing of the one before
        for each in details:
            self._model.set_tensor(each["index"], given[_name(each)])
        self._model.invoke()
        return {_name(each): self._model.get_tensor(each["index"]) for each in self._model.get_output_details()}


class LiteRtInside(LiteRtEngine):
    """LiteRT that keeps every tensor of the main graph, and hands out those that are asked for, or its outputs; it
    cuts parts out of the file, too."""

    keeps_all = True

    def __init__(self) -> None:
        super().__init__()
        self._parts: LiteParts | None = None

    def job_cut(self, job: Job) -> Answer:
        """See `LiteParts.cut`; `source` and `out` are paths, and what becomes a constant comes along."""
        from edgequant.reference.lite_cut import LiteParts

        asked = job.header
        try:
            if self._parts is None or self._parts.path != Path(asked["source"]):
                self._parts = LiteParts(Path(asked["source"]))
            self._parts.cut(
                asked["nodes"], asked["inputs"], job.tensors, asked["outputs"], asked["changed"], Path(asked["out"])
            )
        except (ImportError, ValueError, TypeError, LookupError, AttributeError, struct.error) as error:
            raise JobError("CUT_IMPOSSIBLE", f"{type(error).__name__}: {_first_line(error)}") from None
        return {}, None

    def run(self, inputs: Tensors) -> dict[str, Any]:
        outputs = super().run(inputs)
        if not self.inner:
            return outputs
        places = {_name(each): each["index"] for each in self._model.get_tensor_details()}
        found = {}
        for name in self.inner:
            tensor = name.removesuffix(SHAPE)
            try:
                value = self._model.get_tensor(places[tensor])
            except (KeyError, ValueError):
                continue  # LiteRT has no such tensor, or folded it into another
            found[name] = np.array(value.shape, np.int64) if name != tensor else value
        return found


def _name(tensor: dict[str, Any]) -> str:
    """As `models.tflite_file` calls it."""
    return tensor["name"] or f"tensor_{tensor['index']}"


ENGINES: dict[str, type[Engine]] = {
    "onnxruntime": OrtEngine,
    "onnx": OnnxEngine,
    "litert": LiteRtEngine,
    "litert-inner": LiteRtInside,
}


def _first_line(error: Exception) -> str:
    """The innermost reason: ONNX Runtime wraps it once for every branch or loop it is in."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    outer, status, reason = text.rpartition("Status Message: ")
    if status:
        node = outer.rpartition("Name:'")[2].partition("'")[0]
        text = f"{node}: {reason}"
    return text[:1000]


def main(kind: str) -> int:
    """Serve edgequant on stdin and stdout until it closes the stream.  Returns the exit code."""
    wire_in, wire_out = process.take_stdio()
    process.die_with_host(wire_in, wire_out)
    engine = ENGINES[kind]()
    stream = server.Stream(wire_in, wire_out)
    stream.write_raw(wire.PREAMBLE)
    return server.serve(engine, stream)
