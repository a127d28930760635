"""What a user would write without edgequant: MNN, its converter and ONNX Runtime called directly.

Each of these runs as a process of its own and imports nothing from edgequant:

    bare.py loop MODEL INPUTS.npz MEMORY THREADS      times bursts on demand: "WARMUP REPEAT SECONDS" per line of stdin
    bare.py mnn MODEL MEMORY THREADS WARMUP REPEAT SECONDS INPUTS.npz...    every case once, then times the middle one
    bare.py convert SOURCE OUT [FLAG...]              the converter of the MNN wheel
    bare.py ort MODEL INPUTS.npz...                   ONNX Runtime, every case once

Answers are lines that start with "BARE " (MNN prints lines of its own on stdout).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def answer(value: Any) -> None:
    print("BARE " + json.dumps(value), flush=True)


class Mnn:
    """A model loaded with MNN's module interface, the only one that runs models with subgraphs."""

    def __init__(self, path: str, memory: str, threads: int) -> None:
        import MNN.expr as expr
        import MNN.nn as nn

        self.expr = expr
        config = {
            "backend": 0,
            "numThread": threads,
            "memory": {"normal": 0, "high": 1, "low": 2}[memory],
            "precision": 0,
        }
        self.runtime = nn.create_runtime_manager((config,))
        self.net = nn.load_module_from_file(path, [], [], runtime_manager=self.runtime)
        self.names = self.net.get_info()["inputNames"]

    def inputs(self, path: str) -> list[Any]:
        with np.load(path) as arrays:
            return [
                self.expr.const(arrays[name], list(arrays[name].shape), self.expr.NCHW, self.expr.float)
                for name in self.names
            ]

    def run(self, inputs: list[Any]) -> list[np.ndarray]:
        return [output.read() for output in self.net.forward(inputs)]

    def time(self, inputs: list[Any], warmup: int, repeat: int, seconds: float) -> list[float]:
        for _ in range(warmup):
            self.run(inputs)
        samples: list[float] = []
        enough = time.perf_counter() + seconds
        while len(samples) < repeat or time.perf_counter() < enough:
            start = time.perf_counter_ns()
            for output in self.net.forward(inputs):
                output.read()
            samples.append((time.perf_counter_ns() - start) / 1e6)
        return samples


def loop(model: str, inputs: str, memory: str, threads: str) -> None:
    net = Mnn(model, memory, int(threads))
    case = net.inputs(inputs)
    answer("ready")
    for line in sys.stdin:
        warmup, repeat, seconds = line.split()
        answer(net.time(case, int(warmup), int(repeat), float(seconds)))


def mnn(model: str, memory: str, threads: str, warmup: str, repeat: str, seconds: str, *cases: str) -> None:
    start = time.perf_counter()
    net = Mnn(model, memory, int(threads))
    inputs = [net.inputs(case) for case in cases]
    loaded = time.perf_counter()
    for case in inputs:
        net.run(case)
    ran = time.perf_counter()
    if int(repeat):
        net.time(inputs[len(inputs) // 2], int(warmup), int(repeat), float(seconds))
    answer({"load": loaded - start, "run": ran - loaded, "time": time.perf_counter() - ran})


def convert(source: str, out: str, *flags: str) -> None:
    start = time.perf_counter()
    import _tools

    imported = time.perf_counter()
    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", source, "--MNNModel", out, *flags])
    answer({"load": imported - start, "run": time.perf_counter() - imported})


def ort(model: str, *cases: str) -> None:
    start = time.perf_counter()
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    loaded = time.perf_counter()
    for case in cases:
        with np.load(case) as arrays:
            session.run(None, {name: arrays[name] for name in arrays.files})
    answer({"load": loaded - start, "run": time.perf_counter() - loaded})


if __name__ == "__main__":
    COMMANDS: dict[str, Callable[..., None]] = {"loop": loop, "mnn": mnn, "convert": convert, "ort": ort}
    COMMANDS[sys.argv[1]](*sys.argv[2:])
