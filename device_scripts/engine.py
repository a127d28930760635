"""The jobs MNN does: load a model, run it, time it, and prove what it used."""

from __future__ import annotations

import gc
import hashlib
import os
import time
from typing import Any, Dict, List, Optional, Tuple

import MNN
import MNN.expr as F  # noqa: N812  (the name MNN's own documentation uses)
import MNN.nn as nn
import numpy as np

from . import RUNNER_VERSION, conditions, facts, laboratory, lock, model_file, rollout, system, tensor_stats, wire
from .laboratory import EVENT_SECONDS
from .process import Memory, own_arguments, reset_peak
from .server import Answer, Job, JobError, Tensors

# The values of MNN's BackendConfig enums.  They have to go in as integers: MNN ignores memory='low' without a word.
MEMORY = {"normal": 0, "high": 1, "low": 2}
PRECISION = {"normal": 0, "high": 1, "low": 2}
HINT_DYNAMIC_QUANT_OPTIONS = 5
HINT_CPU_CORE_IDS = 14

_FLOATS = ("float16", "float32", "float64")


def _declared() -> Dict[Any, Tuple[str, Any]]:
    """MNN's element types -> (NumPy name of what the memory holds, MNN dtype)."""
    pairs = [("float32", F.float), ("int32", F.int), ("uint8", F.uint8), ("int8", F.int8)]
    return {dtype: (name, dtype) for name, dtype in pairs}


class Loaded:
    """A model in memory, with what a job needs to know about it."""

    def __init__(self, path: str, options: Dict[str, Any], outputs: Optional[List[str]]) -> None:
        if outputs:
            _require_tensors(path, outputs)
        self.inner = bool(outputs)
        self.path = path
        self.options = options
        self.config = {
            "backend": 0,
            "numThread": options["threads"],
            "memory": MEMORY[options["memory"]],
            "precision": PRECISION[options["precision"]],
        }
        # The module keeps using the runtime manager, so it must live as long as the module.
        self.runtime = nn.create_runtime_manager((self.config,))
        if options.get("dynamic_quant_option") is not None:
            self.runtime.set_hint(HINT_DYNAMIC_QUANT_OPTIONS, options["dynamic_quant_option"])
        if options.get("cores"):
            self.runtime.set_hint(HINT_CPU_CORE_IDS, list(options["cores"]))
        try:
            self.module = nn.load_module_from_file(path, [], outputs or [], runtime_manager=self.runtime)
        except Exception as error:  # noqa: BLE001  (MNN raises bare Exception or SystemError)
            raise JobError("MODEL_LOAD_FAILED", "MNN cannot load the model (%s)" % error) from None
        if self.module is None:
            raise JobError("MODEL_LOAD_FAILED", "MNN cannot load the model")
        info = self.module.get_info()
        if not info:
            raise JobError("MODEL_LOAD_FAILED", "MNN loads the model but tells nothing about it")
        self.info = info
        self.input_names = list(info["inputNames"])
        self.output_names = list(outputs or info["outputNames"])
        # MNN's inner layout is turned into that of the format the model came from, as MNN's own tools do.
        self.order = F.NHWC if _channels_last(path) else F.NCHW
        declared = _declared()
        self.inputs = []
        for name, var in zip(self.input_names, info["inputs"]):
            if var.dtype not in declared:
                raise JobError("INPUT_DTYPE_UNSUPPORTED", "input %r has element type %s" % (name, var.dtype))
            self.inputs.append((name, declared[var.dtype], var.data_format, list(var.shape)))

    def arrays(self, tensors: Tensors) -> "Dict[str, Tuple[np.ndarray, bool]]":
        """The inputs in the model's order and its own element types, and whether their channels come last."""
        missing = [name for name in self.input_names if name not in tensors]
        extra = [name for name in tensors if name not in self.input_names]
        if missing or extra:
            raise JobError("INPUT_NAMES", "missing inputs %s, unknown inputs %s" % (missing, extra))
        return {
            # NC4HW4 is MNN's inner layout; such an input is given as NCHW and MNN rearranges it.
            name: (_converted(name, tensors[name], dtype), layout == F.NHWC)
            for name, (dtype, _), layout, _ in self.inputs
        }

    def feed(self, tensors: Tensors) -> List[Any]:
        """The same as MNN variables."""
        variables = []
        arrays = self.arrays(tensors)
        for name, (dtype, mnn_dtype), _, _ in self.inputs:
            array, channels_last = arrays[name]
            # MNN takes int8 only as bytes, and is slow with those: 30 ns each.
            data = array.tobytes() if dtype == "int8" else array
            variables.append(F.const(data, list(array.shape), F.NHWC if channels_last else F.NCHW, mnn_dtype))
        return variables

    def forward(self, variables: List[Any]) -> List[Any]:
        try:
            results = self.module.onForward(variables)
        except Exception as error:  # noqa: BLE001  (MNN raises bare Exception or SystemError)
            raise JobError("INFERENCE_FAILED", "MNN cannot run the model (%s)" % error) from None
        if not results or len(results) != len(self.output_names):
            raise JobError(
                "INFERENCE_FAILED",
                "MNN returned %d of %d outputs for inputs %s"
                % (len(results or []), len(self.output_names), [list(v.shape) for v in variables]),
            )
        return list(results)

    def read(self, results: List[Any]) -> Dict[str, np.ndarray]:
        """The outputs as NumPy arrays of their own memory."""
        return {name: self.array(name, var) for name, var in zip(self.output_names, results)}

    def array(self, name: str, var: Any) -> np.ndarray:
        """One of them."""
        try:
            if self.inner and 0 in var.shape:  # which read() takes for an error, as it is in an output
                return np.empty(var.shape, _declared()[var.dtype][0])
            if var.data_format == F.NC4HW4:
                var = F.convert(var, self.order)
            # read() hands out a view of MNN's memory that dies with the variable.
            return np.array(var.read(), copy=True)
        except Exception as error:  # noqa: BLE001  (MNN raises bare Exception or SystemError)
            raise JobError("INFERENCE_FAILED", "output %r cannot be read (%s)" % (name, error)) from None

    def timed(self, variables: List[Any]) -> Tuple[float, List[Any]]:
        """Milliseconds of one forward pass that ends with every output readable, and the outputs."""
        start = time.perf_counter_ns()
        results = self.forward(variables)
        try:
            for var in results:
                var.read()
        except Exception as error:  # noqa: BLE001  (MNN raises bare Exception or SystemError)
            raise JobError("INFERENCE_FAILED", "an output cannot be read (%s)" % error) from None
        return (time.perf_counter_ns() - start) / 1e6, results


def _sha256(path: str) -> str:
    """Of the file's bytes, or nothing where it cannot be read: whoever loads it says why."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as stream:
            for chunk in iter(lambda: stream.read(1 << 18), b""):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()


def _require_tensors(path: str, names: List[str]) -> None:
    """MNN 3.1 loads a model with an output that is not there, and dies when it is run."""
    try:
        unknown = sorted(set(names) - model_file.tensor_names(path))
    except (OSError, ValueError) as error:
        raise JobError("MODEL_LOAD_FAILED", "the model cannot be read (%s)" % error) from None
    if unknown:
        raise JobError("TENSOR_UNKNOWN", "the main graph has no tensors %s" % unknown[:20])


def _channels_last(path: str) -> bool:
    try:
        return model_file.channels_last(path)
    except (OSError, ValueError) as error:
        raise JobError("MODEL_LOAD_FAILED", "the model cannot be read (%s)" % error) from None


def _converted(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    """`array` as the element type the model declares; refuses to change a value."""
    wanted = np.dtype(dtype)
    if (array.dtype.name in _FLOATS) != (dtype in _FLOATS):
        raise JobError("INPUT_DTYPE", "input %r is %s, the model takes %s" % (name, array.dtype.name, dtype))
    if array.dtype == wanted:
        return np.ascontiguousarray(array).reshape(array.shape)
    if wanted.kind in "iu" and array.size:
        limits = np.iinfo(wanted)
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            raise JobError("INPUT_RANGE", "input %r holds %d to %d, outside of %s" % (name, low, high, dtype))
    with np.errstate(over="ignore"):
        result = np.asarray(array.astype(wanted))
    if wanted.kind == "f" and np.isfinite(array).sum() != np.isfinite(result).sum():
        raise JobError("INPUT_RANGE", "input %r holds values beyond %s" % (name, dtype))
    return result


class Engine(laboratory.Laboratory):
    """One device session: the models loaded in it and the jobs on them."""

    def __init__(self, banner: str, held: lock.Lock) -> None:
        self._banner = banner
        self._models = {}  # type: Dict[int, Loaded]
        self._next = 1
        self._lock = held
        self.restart_with = None  # type: Optional[List[bytes]]
        self._memory = Memory()
        self._all_cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None

    # ---- jobs

    def job_hello(self, job: Job) -> Answer:
        import platform

        return {
            "runner": RUNNER_VERSION,
            "protocol": wire.PROTOCOL,
            "pid": os.getpid(),
            "python": platform.python_version(),
            "mnn": MNN.version(),
            "numpy": np.__version__,
            "banner": self._banner[:4000],
        }, None

    def job_facts(self, job: Job) -> Answer:
        return {"facts": facts.read(self._banner)}, None

    def job_lock(self, job: Job) -> Answer:
        """Have the device alone: `holder` is null when we do, else who has it."""

        def waiting(holder: str) -> None:
            job.emit({"event": "waiting", "holder": holder})

        try:
            holder = self._lock.acquire(str(job.header["who"]), float(job.header["seconds"]), waiting)
        except lock.Unsupported as error:
            raise JobError("LOCK_UNSUPPORTED", "this system has no such lock (%s)" % error) from None
        return {"holder": holder}, None

    def job_restart(self, job: Job) -> Answer:
        """Be started anew once this is answered: what then comes on the stream is the preamble.  The lock is kept."""
        self._pin(None)  # the process would take with it what a model was bound to
        try:
            self.restart_with = own_arguments()
        except OSError as error:
            raise JobError("RESTART_UNSUPPORTED", "this system cannot start a program anew (%s)" % error) from None
        return {}, None

    def job_load(self, job: Job) -> Answer:
        options = job.header["options"]
        gc.collect()
        # What is hashed is what MNN opens next, by the same name; a link that is turned in between is beyond us.
        digest = _sha256(job.header["path"])
        reset_peak()
        before = self._memory.read(anew=True)
        self._pin(options.get("cores"))
        start = time.perf_counter_ns()
        model = Loaded(job.header["path"], options, job.header.get("outputs"))
        load_ms = (time.perf_counter_ns() - start) / 1e6
        handle, self._next = self._next, self._next + 1
        self._models[handle] = model
        return {
            "handle": handle,
            "sha256": digest,
            "load_ms": load_ms,
            "mnn_model_version": str(model.info.get("version", "")),
            "inputs": [
                {"name": name, "dtype": dtype, "shape": shape, "layout": "NHWC" if layout == F.NHWC else "NCHW"}
                for name, (dtype, _), layout, shape in model.inputs
            ],
            "outputs": model.output_names,
            "memory_before": before,
            "memory_after": self._memory.read(anew=True),
            "free_mb": conditions.free_mb(),
        }, None

    def job_unload(self, job: Job) -> Answer:
        self._models.pop(job.header["handle"], None)
        gc.collect()
        return {}, None

    def job_run(self, job: Job) -> Answer:
        model = self._model(job)
        variables = model.feed(job.tensors)
        start = time.perf_counter_ns()
        arrays = model.read(model.forward(variables))
        elapsed = (time.perf_counter_ns() - start) / 1e6
        return {"ms": elapsed, "memory": self._memory.read()}, arrays

    def job_taps(self, job: Job) -> Answer:
        """One inference of a model with inner tensors as outputs, reduced to numbers here.

        Tensors: inputs as "in:NAME", and what a tensor is to be held against as "want:NAME".  `whole` names those that
        are to go back as they are.
        """
        model, whole = self._model(job), set(job.header.get("whole", []))
        given = {name[3:]: array for name, array in job.tensors.items() if name.startswith("in:")}
        wanted = {name[5:]: array for name, array in job.tensors.items() if name.startswith("want:")}
        job.tensors = {}
        stats, apart, kept = {}, {}, {}
        results = model.forward(model.feed(given))
        # One at a time, and each dropped with what it was held against: a device has little memory.
        for place, name in enumerate(model.output_names):
            array, results[place] = model.array(name, results[place]), None
            want = wanted.pop(name, None)
            if array.dtype.kind == "f":
                stats[name] = tensor_stats.stats(array)
                if want is not None:
                    apart[name] = tensor_stats.apart(want, array)
            if name in whole:
                kept[name] = array
        return {"stats": stats, "apart": apart, "memory": self._memory.read()}, kept

    def job_rollout(self, job: Job) -> Answer:
        """Many steps, with outputs fed back into inputs: see `rollout.roll`."""
        model = self._model(job)
        return rollout.roll(job, lambda inputs: model.read(model.forward(model.feed(inputs))), EVENT_SECONDS)

    def job_time(self, job: Job) -> Answer:
        """Warm up, then time inferences one by one until both `repeat` and `min_seconds` are reached.

        A sample covers the forward pass and making every output readable.  `max_seconds` ends it earlier.  Samples go
        out as events about once a second, so that a death does not lose them.  The answer has the outputs of the last
        one: what was timed has to be what was asked for.
        """
        model = self._model(job)
        variables = model.feed(job.tensors)
        warmup, repeat = int(job.header["warmup"]), int(job.header["repeat"])
        limit = time.perf_counter() + float(job.header["max_seconds"])
        warmed = 0
        while warmed < warmup and time.perf_counter() < limit:
            model.read(model.forward(variables))
            warmed += 1
        job.emit({"event": "warm", "warmup": warmed})
        samples = []  # type: List[float]
        results = None  # type: Any
        sent = 0
        begin = last = time.perf_counter()
        enough = begin + float(job.header["min_seconds"])
        gc_was_on = gc.isenabled()
        gc.disable()  # a collection in the middle of a sample would be ours, not the model's
        try:
            while True:
                results = None  # what the last one made must not be held while the next is timed
                elapsed, results = model.timed(variables)
                samples.append(elapsed)
                now = time.perf_counter()
                if (len(samples) >= repeat and now >= enough) or now >= limit or len(samples) >= 1000000:
                    break
                if now - last >= EVENT_SECONDS:
                    job.emit({"event": "samples", "samples": samples[sent:]})
                    sent, last = len(samples), now
        finally:
            if gc_was_on:
                gc.enable()
        job.emit({"event": "samples", "samples": samples[sent:]})
        complete = len(samples) >= repeat
        memory = self._memory.read(anew=True)
        return {"warmup": warmed, "n": len(samples), "complete": complete, "memory": memory}, model.read(results)

    # ---- helpers

    def _usable(self) -> List[int]:
        return system.cpus() if self._all_cores is None else sorted(self._all_cores)

    def _model(self, job: Job) -> Loaded:
        model = self._models.get(job.header["handle"])
        if model is None:
            raise JobError("HANDLE_UNKNOWN", "no model is loaded under handle %r" % job.header["handle"])
        return model

    def _pin(self, cores: Optional[List[int]]) -> None:
        if self._all_cores is None:
            if cores:
                raise JobError("CORES_UNSUPPORTED", "this system cannot pin a process to cores")
            return
        wanted = set(cores) if cores else self._all_cores
        if not wanted <= self._all_cores:
            raise JobError("CORES_UNAVAILABLE", "cores %s: there are %s" % (sorted(wanted), sorted(self._all_cores)))
        try:
            os.sched_setaffinity(0, wanted)
        except OSError as error:
            raise JobError("CORES_UNAVAILABLE", "cores %s: %s" % (sorted(wanted), error.strerror)) from None
        if os.sched_getaffinity(0) != wanted:
            raise JobError("CORES_UNAVAILABLE", "cores %s: the system gave others" % sorted(wanted))
