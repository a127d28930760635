"""ONNX Runtime in a process of its own, speaking the runner's protocol: an untrusted model never runs in edgequant's.

Started by `edgequant.reference.reference.OrtReference`.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import numpy as np

from edgequant.device_scripts import process, server, wire
from edgequant.device_scripts.server import Answer, Job, JobError


class OrtEngine:
    """The jobs `hello`, `load` and `run`, done by ONNX Runtime on the CPU in full precision."""

    def __init__(self) -> None:
        # ONNX Runtime keeps an event store in the user's cache and sends it off, unless this is set before it loads.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime

        self._ort = onnxruntime
        self._session: Any = None

    def job_hello(self, job: Job) -> Answer:
        return {
            "runner": "onnxruntime",
            "protocol": wire.PROTOCOL,
            "pid": os.getpid(),
            "python": sys.version.split()[0],
            "mnn": self._ort.__version__,
            "numpy": np.__version__,
        }, None

    def job_load(self, job: Job) -> Answer:
        options = self._ort.SessionOptions()
        options.log_severity_level = 3
        # Constant folding and the like only: the extended level replaces subgraphs by approximating kernels.
        options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        start = time.perf_counter()
        try:
            self._session = self._ort.InferenceSession(job.header["path"], options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001  (ONNX Runtime's own errors share no base class but Exception)
            raise JobError("MODEL_LOAD_FAILED", _first_line(error)) from None
        return {
            "handle": 1,
            "load_ms": (time.perf_counter() - start) * 1e3,
            "inputs": [],
            "outputs": [output.name for output in self._session.get_outputs()],
        }, None

    def job_run(self, job: Job) -> Answer:
        names = [output.name for output in self._session.get_outputs()]
        start = time.perf_counter()
        try:
            results = self._session.run(names, {name: np.array(array) for name, array in job.tensors.items()})
        except Exception as error:  # noqa: BLE001
            raise JobError("INFERENCE_FAILED", _first_line(error)) from None
        elapsed = (time.perf_counter() - start) * 1e3
        arrays = {}
        for name, result in zip(names, results, strict=True):
            if not isinstance(result, np.ndarray) or result.dtype.name not in wire.DTYPES:
                raise JobError("OUTPUT_UNSUPPORTED", f"output '{name}' is not a tensor of numbers")
            arrays[name] = result
        return {"ms": elapsed}, arrays


def _first_line(error: Exception) -> str:
    """The innermost reason: ONNX Runtime wraps it once for every branch or loop it is in."""
    text = (str(error).splitlines() or [type(error).__name__])[0]
    outer, status, reason = text.rpartition("Status Message: ")
    if status:
        node = outer.rpartition("Name:'")[2].partition("'")[0]
        text = f"{node}: {reason}"
    return text[:1000]


def main() -> int:
    """Serve edgequant on stdin and stdout until it closes the stream.  Returns the exit code."""
    wire_in, wire_out = process.take_stdio()
    process.die_with_host(wire_in, wire_out)
    engine = OrtEngine()
    stream = server.Stream(wire_in, wire_out)
    stream.write_raw(wire.PREAMBLE)
    return server.serve(engine, stream)
