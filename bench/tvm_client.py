"""One inference over Apache TVM's RPC, as a process of its own; imports nothing from edgequant.  See rpc_overhead.

    tvm_client.py PORT [PORT...]        one connection to 127.0.0.1:PORT each

Lines of stdin are JSON: {"inputs": [SHAPE, ...], "outputs": [SHAPE, ...]} sets the float32 tensors;
{"connection": N, "mode": "kept" or "fresh", "count": N} does that many inferences.  Answers are lines that start with
"TVM ", with milliseconds per inference.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import tvm
from tvm import rpc


def answer(value: Any) -> None:
    print("TVM " + json.dumps(value), flush=True)


class Remote:
    """A connection, the function that does nothing, and tensors that are kept there."""

    def __init__(self, port: int) -> None:
        self.session = rpc.connect("127.0.0.1", port)
        self.device = self.session.cpu(0)
        # Native code of TVM's own, takes any arguments: nothing is left but the call.
        self.nothing = self.session.get_function("testing.nop")

    def shape(self, inputs: list[np.ndarray], outputs: list[np.ndarray]) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.kept_in = [tvm.runtime.empty(array.shape, "float32", self.device) for array in inputs]
        self.kept_out = [tvm.runtime.empty(array.shape, "float32", self.device) for array in outputs]

    def kept(self) -> list[np.ndarray]:
        for there, here in zip(self.kept_in, self.inputs, strict=True):
            there.copyfrom(here)
        self.nothing(*self.kept_in, *self.kept_out)
        return [there.numpy() for there in self.kept_out]

    def fresh(self) -> list[np.ndarray]:
        inputs = [tvm.runtime.tensor(here, self.device) for here in self.inputs]
        outputs = [tvm.runtime.empty(array.shape, "float32", self.device) for array in self.outputs]
        self.nothing(*inputs, *outputs)
        return [there.numpy() for there in outputs]


def main() -> None:
    remotes = [Remote(int(port)) for port in sys.argv[1:]]
    answer({"version": tvm.__version__})
    for line in sys.stdin:
        order = json.loads(line)
        if "inputs" in order:
            random = np.random.default_rng(0)
            made = [
                [random.standard_normal(shape).astype(np.float32) for shape in order[key]]
                for key in ("inputs", "outputs")
            ]
            for remote in remotes:
                remote.shape(*made)
            answer("ready")
            continue
        remote = remotes[order["connection"]]
        once = remote.kept if order["mode"] == "kept" else remote.fresh
        took = []
        for _ in range(order["count"]):
            start = time.perf_counter()
            got = once()
            took.append((time.perf_counter() - start) * 1e3)
            assert [array.shape for array in got] == [array.shape for array in remote.outputs]
        answer(took)


if __name__ == "__main__":
    main()
