"""What MNN computes, by a run of our own in a fresh process, without a line of the product.

python -m tests.onnx_backend.truth reads jobs, a line of JSON each, and answers each with a line.  A job names a model
(.mnn, or .onnx to be converted first), inputs.npz and expected.npz; the answer is "right", or why not.  Each job is run
twice, each time in a process of its own, forked from one that has MNN in memory, the second time with all memory filled
before it is used: what then differs is chance.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

RELATIVE, ABSOLUTE = 1e-3, 1e-4
_SECONDS, _MEMORY = 30, 4 << 30
_M_PERTURB = -6


def difference(expected: np.ndarray, got: np.ndarray) -> str:
    """Empty where they are the same within 1e-3 relative or 1e-4 absolute; whole numbers have to be equal, and no
    floats."""
    one, two = np.asarray(expected, np.float64).ravel(), np.asarray(got, np.float64).ravel()
    if expected.shape != got.shape:
        return f"shape {list(got.shape)}, not {list(expected.shape)}"
    if (expected.dtype.kind == "f") != (got.dtype.kind == "f"):
        return f"{got.dtype}, not {expected.dtype}"
    if expected.dtype.kind in "iub":
        close = one == two
    else:
        with np.errstate(invalid="ignore"):
            near = np.isfinite(one) & (np.abs(one - two) <= ABSOLUTE + RELATIVE * np.abs(one))
        close = near | (one == two)
        close |= np.isnan(one) & np.isnan(two)
    if close.all():
        return ""
    first = int(np.argmin(close))
    return f"{np.count_nonzero(~close)} of {close.size} differ, first {two[first]:g}, not {one[first]:g}"


def _run(job: dict[str, Any]) -> str:
    import MNN.expr as F  # noqa: N812
    import MNN.nn as nn

    model = job["model"]
    inputs, expected = (dict(np.load(job[key])) for key in ("inputs", "expected"))
    runtime = nn.create_runtime_manager(({"backend": 0, "numThread": 1, "memory": 0, "precision": 0},))
    module = nn.load_module_from_file(model, [], [], runtime_manager=runtime)
    info = module.get_info()
    variables = []
    for name, declared in zip(info["inputNames"], info["inputs"], strict=True):
        types = {F.float: np.float32, F.int: np.int32, F.uint8: np.uint8, F.int8: np.int8}
        array = np.asarray(inputs[name]).astype(types[declared.dtype])
        data = array.tobytes() if array.dtype == np.int8 else array
        variables.append(F.const(data, list(array.shape), F.NCHW, declared.dtype))
    found = dict(zip(info["outputNames"], module.onForward(variables), strict=True))
    for name, array in expected.items():
        if name not in found:
            return f"no output {name}"
        var = found[name]
        var = F.convert(var, F.NCHW) if var.data_format == F.NC4HW4 else var
        if said := difference(array, np.array(var.read(), copy=True).reshape(var.shape)):
            return f"{name}: {said}"
    return "right"


def _child(job: dict[str, Any], perturb: int, answer: int) -> None:
    signal.alarm(_SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).mallopt(_M_PERTURB, perturb)
    try:
        if job["model"].endswith(".onnx"):
            import _tools

            with tempfile.TemporaryDirectory() as work:
                os.chdir(work)
                call = ["t", "-f", "ONNX", "--modelFile", job["model"], "--MNNModel", "own.mnn", "--bizCode", "MNN"]
                _tools.mnnconvert(call)
                said = _run({**job, "model": "own.mnn"}) if Path("own.mnn").exists() else "not converted"
        else:
            said = _run(job)
    except BaseException as error:  # noqa: BLE001  (whatever it is, it is MNN's)
        said = f"{type(error).__name__}: {error}"
    os.write(answer, said[:2000].encode())
    os._exit(0)


def judged(job: dict[str, Any]) -> str:
    """ "right", or what is wrong."""
    said = []
    for perturb in (0, 165):
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            _child(job, perturb, theirs)
        os.close(theirs)
        with os.fdopen(ours, "rb") as stream:
            answer = stream.read().decode()
        _, status = os.waitpid(child, 0)
        said.append(answer or f"signal {os.WTERMSIG(status)}")
        if said[-1] != "right":
            break
    return said[-1]


def main() -> None:
    """Answer until there are no more jobs."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # MNN says things there
    import _tools  # noqa: F401
    import MNN.expr
    import MNN.nn  # noqa: F401

    for line in sys.stdin:
        print(json.dumps(judged(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
