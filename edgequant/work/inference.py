"""Runs under QEMU, in the pack's Python: a model and a case, a mark before and behind each inference and each operator.

Arguments: the model, its inputs as .npz, MNN's memory mode and precision as numbers, inferences, and the file for the
names of operators ("" where they are not wanted).  Stands alone: MNN and NumPy only.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import MNN
import MNN.expr as expr
import MNN.nn as nn
import numpy as np

BEGIN, END = 1_000_000, 2_000_000


def mark(number: int) -> None:
    try:
        os.getpriority(77, number)  # no such kind: the plugin reads it, the kernel refuses it
    except OSError:
        return


def whole(model: str, arrays: dict[str, Any], config: dict[str, int], count: int) -> None:
    runtime = nn.create_runtime_manager((config,))
    net = nn.load_module_from_file(model, [], [], runtime_manager=runtime)
    order = net.get_info()["inputNames"]
    kinds = {"f": expr.float, "i": expr.int, "u": expr.uint8}
    for number in range(count):
        fed = [
            expr.const(arrays[name], list(arrays[name].shape), expr.NCHW, kinds[arrays[name].dtype.kind])
            for name in order
        ]
        mark(2 * number)
        for each in net.forward(fed):
            each.read()
        mark(2 * number + 1)


def by_operator(model: str, arrays: dict[str, Any], config: dict[str, int]) -> list[tuple[str, str]]:
    """Each operator of the third inference, which is warm."""
    net = MNN.Interpreter(model)
    session = net.createSession(config)
    for name, array in arrays.items():
        net.resizeTensor(net.getSessionInput(session, name), tuple(array.shape))
    net.resizeSession(session)
    for name, array in arrays.items():
        kind = MNN.Halide_Type_Float if array.dtype.kind == "f" else MNN.Halide_Type_Int
        host = MNN.Tensor(tuple(array.shape), kind, array.reshape(-1).tolist(), MNN.Tensor_DimensionType_Caffe)
        net.getSessionInput(session, name).copyFrom(host)
    told: list[tuple[str, str]] = []

    def begin(tensors: Any, operator: Any) -> bool:
        del tensors, operator
        mark(BEGIN + len(told))
        return True

    def end(tensors: Any, operator: Any) -> bool:
        mark(END + len(told))
        del tensors
        told.append((operator.getName(), operator.getType()))
        return True

    for _ in range(3):
        del told[:]
        net.runSessionWithCallBackInfo(session, begin, end)
    return told


if __name__ == "__main__":
    model, case, memory, precision, count, names = sys.argv[1:]
    arrays = dict(np.load(case))
    config = {"backend": 0, "numThread": 1, "memory": int(memory), "precision": int(precision)}
    whole(model, arrays, config, int(count))
    if names:
        with open(names, "w") as stream:
            json.dump(by_operator(model, arrays, config), stream)
