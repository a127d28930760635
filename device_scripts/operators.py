"""How long each operator takes, in a pass of its own.

Only MNN's Interpreter calls back around each operator (the module API does not), so the model is loaded a second time,
as it was the first; what the calls cost is in the time of the pass, and hardly in that of an operator.
"""

from __future__ import annotations

import time
from typing import Any, Dict, List, Tuple

import MNN
import numpy as np

from .server import JobError

HINT_DYNAMIC_QUANT_OPTIONS = 5
MOST = 20000
"""Operators."""
_TYPES = {
    "float32": MNN.Halide_Type_Float,
    "int32": MNN.Halide_Type_Int,
    "uint8": MNN.Halide_Type_Uint8,
    "int8": getattr(MNN, "Halide_Type_Int8", None),
}


class Pass:
    """A session with its inputs filled.

    config, options: as the model was loaded.  inputs: name -> array in the model's own type, whether channels are last.
    """

    def __init__(
        self, path: str, config: Dict[str, Any], options: Dict[str, Any], inputs: Dict[str, Tuple[np.ndarray, bool]]
    ) -> None:
        self._interpreter = MNN.Interpreter(path)
        if options.get("dynamic_quant_option") is not None:
            self._interpreter.setSessionHint(HINT_DYNAMIC_QUANT_OPTIONS, options["dynamic_quant_option"])
        self._session = self._interpreter.createSession(dict(config))
        if self._session is None:
            raise JobError("SESSION_FAILED", "MNN's Interpreter cannot make a session")
        tensors = {name: self._interpreter.getSessionInput(self._session, name) for name in inputs}
        for name, (array, _) in inputs.items():
            if _TYPES.get(array.dtype.name) is None:
                raise JobError("INPUT_DTYPE_UNSUPPORTED", "input %r is %s" % (name, array.dtype.name))
            self._interpreter.resizeTensor(tensors[name], tuple(array.shape))
        self._interpreter.resizeSession(self._session)
        for name, (array, channels_last) in inputs.items():
            order = MNN.Tensor_DimensionType_Tensorflow if channels_last else MNN.Tensor_DimensionType_Caffe
            tensors[name].copyFrom(MNN.Tensor(tuple(array.shape), _TYPES[array.dtype.name], array, order))

    def plain(self) -> float:
        """Milliseconds of one inference in which nobody is called."""
        start = time.perf_counter_ns()
        self._interpreter.runSession(self._session)
        return (time.perf_counter_ns() - start) / 1e6

    def watched(self) -> Tuple[float, List[Tuple[str, str, float]], List[float]]:
        """Milliseconds of one inference with the calls; of each operator its name, type and MFLOPs; and its ms."""
        told: List[Tuple[str, str, float]] = []
        times: List[float] = []
        begun = [0]

        def before(_tensors: Any, _info: Any) -> bool:
            begun[0] = time.perf_counter_ns()
            return True

        def after(_tensors: Any, info: Any) -> bool:
            end = time.perf_counter_ns()
            times.append((end - begun[0]) / 1e6)
            told.append((info.getName()[:500], info.getType()[:100], float(info.getFlops())))
            return True

        start = time.perf_counter_ns()
        self._interpreter.runSessionWithCallBackInfo(self._session, before, after)
        return (time.perf_counter_ns() - start) / 1e6, told, times


def measure(one: Pass, runs: int, seconds: float) -> Dict[str, Any]:
    """Plain and watched inferences in turn, at least so many and so long: the operators in order, each with the median
    of its times, and the medians of the two kinds of inference."""
    one.plain()
    one.watched()
    plain: List[float] = []
    watched: List[float] = []
    all_times: List[List[float]] = []
    told: List[Tuple[str, str, float]] = []
    end = time.perf_counter() + seconds
    while len(plain) < runs or (time.perf_counter() < end and len(plain) < 10000):
        plain.append(one.plain())
        whole, now, times = one.watched()
        if told and [each[:2] for each in now] != [each[:2] for each in told]:
            raise JobError("INFERENCE_FAILED", "it runs other operators each time")
        told = now
        watched.append(whole)
        all_times.append(times)
    if not told or len(told) > MOST:
        raise JobError("INFERENCE_FAILED", "MNN told of %d operators" % len(told))
    medians = np.median(np.array(all_times), axis=0)
    return {
        "runs": len(plain),
        "plain_ms": float(np.median(plain)),
        "watched_ms": float(np.median(watched)),
        "operators": [
            {"name": name, "type": kind, "mflops": flops if 0 <= flops < 1e12 else 0.0, "ms": float(ms)}
            for (name, kind, flops), ms in zip(told, medians)
        ],
    }
