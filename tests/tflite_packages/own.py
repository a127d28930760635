"""python -m tests.tflite_packages.own MODEL.tflite MODEL.mnn CASE.npz...: the least SQNR in dB of any output, without a
line of the product: LiteRT's and MNN's outputs for the same inputs."""

from __future__ import annotations

import os
import sys

import numpy as np


def litert(model: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs by name."""
    from ai_edge_litert import interpreter

    resolver = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    found = interpreter.Interpreter(model, experimental_op_resolver_type=resolver)
    for each in found.get_input_details():
        found.resize_tensor_input(each["index"], inputs[each["name"]].shape)
    found.allocate_tensors()
    for each in found.get_input_details():
        found.set_tensor(each["index"], inputs[each["name"]])
    found.invoke()
    return {each["name"]: found.get_tensor(each["index"]) for each in found.get_output_details()}


def mnn(model: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs by name, in TFLite's layout."""
    import MNN.expr as F  # noqa: N812
    import MNN.nn as nn

    runtime = nn.create_runtime_manager(({"backend": 0, "numThread": 1, "memory": 0, "precision": 0},))
    module = nn.load_module_from_file(model, [], [], runtime_manager=runtime)
    info = module.get_info()
    types = {F.float: np.float32, F.int: np.int32, F.uint8: np.uint8, F.int8: np.int8}
    variables = []
    for name, declared in zip(info["inputNames"], info["inputs"], strict=True):
        array = inputs[name].astype(types[declared.dtype])
        data = array.tobytes() if array.dtype == np.int8 else array
        variables.append(F.const(data, list(array.shape), F.NHWC, declared.dtype))
    outputs = {}
    for name, var in zip(info["outputNames"], module.onForward(variables), strict=True):
        plain = F.convert(var, F.NHWC) if var.data_format == F.NC4HW4 else var
        outputs[name] = np.array(plain.read(), copy=True)
    return outputs


def least(model: str, made: str, cases: list[str]) -> float:
    """SQNR in dB; -999 for another shape or what is not finite."""
    worst = 999.0
    for case in cases:
        inputs = dict(np.load(case))
        got = mnn(made, inputs)
        for name, array in litert(model, inputs).items():
            one, two = array.astype(np.float64), got[name].astype(np.float64)
            if one.shape != two.shape or not np.isfinite(two).all():
                return -999.0
            error = np.mean((one - two) ** 2)
            if error:
                worst = min(worst, 10 * np.log10(np.mean(one**2) / error) if one.any() else -999.0)
    return float(worst)


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # MNN says things there
    print(f"{least(sys.argv[1], sys.argv[2], sys.argv[3:]):.1f}", file=answers, flush=True)
