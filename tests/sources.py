"""Real models, what MNN makes of them and what it says about them; for tests and the bench."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgequant import zoo

FORMATS = {".onnx": "ONNX", ".tflite": "TFLITE", ".pb": "TF", ".mnn": "MNN"}
REAL = tuple(zoo.MODELS)

# Both run native code that may crash, hang or print: never in the test's own process.
_CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"
_INFO = """
import json, os, sys
out = os.dup(1); os.dup2(2, 1)
import MNN.nn as nn
info = nn.load_module_from_file(sys.argv[1], [], []).get_info()
found = {"version": info["version"], "bizCode": info["bizCode"], "outputs": list(info["outputNames"]), "inputs": [
    [name, str(var.dtype), list(var.shape), str(var.data_format)]
    for name, var in zip(info["inputNames"], info["inputs"])]}
os.write(out, json.dumps(found).encode())
"""


def real(name: str, cache_dir: Path | None = None) -> Path:
    """A real model's path; see edgequant.zoo.MODELS."""
    return zoo.fetch(name, cache_dir)


def convert(source: Path, target: Path, *flags: str) -> Path:
    """``source`` as an .mnn at ``target``; fails if the converter leaves no file."""
    form = FORMATS[source.suffix]
    command = [
        "-f",
        form,
        "--modelFile",
        str(source.resolve()),
        "--MNNModel",
        str(target.resolve()),
        "--bizCode",
        "edgequant",
        *flags,
    ]
    with tempfile.TemporaryDirectory() as folder:
        # The converter has a scratch file of a fixed name in the current directory: two at once would share it.
        done = subprocess.run(
            [sys.executable, "-c", _CONVERT, *command], capture_output=True, text=True, timeout=240, cwd=folder
        )
    assert target.is_file(), f"no {target.name}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
    return target


def mnn_info(path: Path) -> dict[str, Any]:
    """What MNN itself says: version, bizCode, outputs (names), inputs ([name, dtype, shape, format])."""
    done = subprocess.run([sys.executable, "-c", _INFO, str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found
