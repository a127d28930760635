#!/usr/bin/env python3
"""Stands in for a device's Python: starts the real runner, and changes its answers as $LIE says."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np

from edgequant.device_scripts import wire

LIE = os.environ["LIE"]


def main() -> None:
    real = subprocess.Popen([sys.executable, *sys.argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert real.stdin is not None
    assert real.stdout is not None
    answers = wire.FrameReader(real.stdout.read1)  # type: ignore[attr-defined]
    requests = wire.FrameReader(lambda limit: os.read(0, limit))
    answers.skip_to_preamble()
    os.write(1, wire.PREAMBLE)
    runs = 0
    while (request := requests.read_frame()) is not None:
        for piece in wire.encode(request.kind, request.header, request.tensors()):
            real.stdin.write(piece)
        real.stdin.flush()
        op = request.header["op"]
        runs += op == "run"
        while (frame := answers.read_frame()) is not None:
            header, tensors = frame.header, dict(frame.tensors())
            change(op, frame.kind, header, tensors, runs)
            for piece in wire.encode(frame.kind, header, tensors):
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            if frame.kind == wire.RESPONSE:
                break
        if op == "exit":
            break


def change(op: str, kind: int, header: wire.Header, tensors: dict[str, np.ndarray], runs: int) -> None:
    header.pop("tensors", None)
    answer = kind == wire.RESPONSE
    if LIE == "missing" and op == "run":
        tensors.popitem()
    elif LIE == "undeclared" and op == "run":
        tensors["stranger"] = np.zeros(3, np.float32)
    elif LIE == "noise" and op == "run":
        for name, array in tensors.items():
            tensors[name] = (array + np.float32(3)).astype(np.float32)
    elif LIE == "moody" and op == "run":
        for name, array in tensors.items():
            tensors[name] = array * np.float32(1 + 1e-6 * runs)
    elif LIE == "fast" and op == "time" and not answer and "samples" in header:
        header["samples"] = header["samples"][:2]
    elif LIE == "slow" and op == "time" and not answer and "samples" in header:
        header["samples"] = [1e6] * len(header["samples"])
    elif LIE == "absurd" and op == "time" and not answer and "samples" in header:
        header["samples"] = [1e308] * len(header["samples"])
    elif LIE == "flood" and op == "time" and not answer and "samples" in header:
        header["samples"] = [0.001] * 1_000_001
    elif LIE == "memory" and op == "session_memory" and answer:
        header["session_mb"] = 1e308
    elif LIE == "inputs" and op == "load" and answer:
        header["inputs"][0]["name"] = "nobody"
    elif LIE == "names" and op == "load" and answer:
        header["outputs"] = ["a\0b"]
    elif LIE == "dtype" and op == "load" and answer:
        header["inputs"][0]["dtype"] = "object"


main()
