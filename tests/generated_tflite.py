"""TFLite models of one operator, written with the schema that comes with LiteRT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest

schema: Any = pytest.importorskip("ai_edge_litert.schema_py_generated")
_NUMBERS = {"float32": 0, "int32": 2, "int64": 4, "int8": 9}
X = (1, 8, 10, 3)


def one_operator(
    path: Path,
    kind: str,
    options: Any = None,
    constants: Sequence[np.ndarray] = (),
    *,
    x: tuple[int, ...] = X,
    dtype: str = "float32",
    y: tuple[int, ...] = X,
    y_dtype: str | None = None,
    order: Sequence[int] | None = None,
    scale: float | None = None,
) -> Path:
    """x, then constants, through one operator to y.

    order: of the operator's inputs, x being 0; as given.  scale: of x and y, which are quantized then.
    """
    model = schema.ModelT()
    model.version = 3
    model.buffers = [schema.BufferT()]
    graph = schema.SubGraphT()
    graph.tensors = []

    def tensor(name: str, shape: Sequence[int], kind: str, data: np.ndarray | None = None) -> int:
        found = schema.TensorT()
        found.name, found.shape, found.type, found.buffer = name, list(shape), _NUMBERS[kind], 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            model.buffers.append(buffer)
            found.buffer = len(model.buffers) - 1
        elif scale is not None:
            found.quantization = schema.QuantizationParametersT()
            found.quantization.scale, found.quantization.zeroPoint = [scale], [0]
        graph.tensors.append(found)
        return len(graph.tensors) - 1

    inputs = [tensor("x", x, dtype)]
    inputs += [tensor(f"c{n}", array.shape, array.dtype.name, array) for n, array in enumerate(constants)]
    graph.inputs, graph.outputs = [0], [tensor("y", y, y_dtype or dtype)]
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, kind)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = 3 if kind == "RESIZE_NEAREST_NEIGHBOR" else 1
    model.operatorCodes = [code]
    op = schema.OperatorT()
    op.inputs, op.outputs = [inputs[n] for n in order] if order else inputs, graph.outputs
    if options is not None:
        name = type(options).__name__.removesuffix("T")
        op.builtinOptionsType, op.builtinOptions = getattr(schema.BuiltinOptions, name), options
    graph.operators = [op]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def options(name: str, **values: Any) -> Any:
    """An operator's options, such as ``Pool2DOptions``."""
    found = getattr(schema, f"{name}T")()
    for key, value in values.items():
        assert hasattr(found, key), key
        setattr(found, key, value)
    return found


def transpose_conv(path: Path, out: int = 5) -> Path:
    """1x1, from 3 channels to `out`."""
    weights = np.random.default_rng(0).standard_normal((out, 1, 1, X[3])).astype(np.float32)
    shape = np.array([*X[:3], out], np.int32)
    given = options("TransposeConvOptions", strideW=1, strideH=1)
    return one_operator(path, "TRANSPOSE_CONV", given, [shape, weights], y=(*X[:3], out), order=[1, 2, 0])


def resize_nearest(path: Path, **flags: bool) -> Path:
    given = options("ResizeNearestNeighborOptions", **flags)
    return one_operator(path, "RESIZE_NEAREST_NEIGHBOR", given, [np.array([12, 17], np.int32)], y=(1, 12, 17, 3))


def mirror_pad(path: Path) -> Path:
    around = np.array([[0, 0], [1, 1], [2, 2], [0, 0]], np.int32)
    return one_operator(path, "MIRROR_PAD", options("MirrorPadOptions", mode=0), [around], y=(1, 10, 14, 3))


def depthwise(path: Path, multiplier: int = 2) -> Path:
    weights = np.random.default_rng(0).standard_normal((1, 3, 3, 3 * multiplier)).astype(np.float32)
    given = options("DepthwiseConv2DOptions", strideW=1, strideH=1, depthMultiplier=multiplier)
    return one_operator(
        path, "DEPTHWISE_CONV_2D", given, [weights, np.zeros(3 * multiplier, np.float32)], y=(1, 8, 10, 3 * multiplier)
    )


def embedding(path: Path, rows: int = 6) -> Path:
    table = np.random.default_rng(0).standard_normal((rows, 4)).astype(np.float32)
    return one_operator(
        path, "GATHER", options("GatherOptions"), [table], x=(1, 5), dtype="int32", y=(1, 5, 4), y_dtype="float32",
        order=[1, 0],
    )  # fmt: skip


def half_conv(path: Path, out: int = 8) -> Path:
    """3x3, from 3 channels to `out`; weights and bias in float16, a DEQUANTIZE behind, as TensorFlow stores halves."""
    weights = np.random.default_rng(0).standard_normal((out, 3, 3, X[3])).astype(np.float32)
    given = options("Conv2DOptions", strideW=1, strideH=1, dilationWFactor=1, dilationHFactor=1)
    one_operator(path, "CONV_2D", given, [weights, np.ones(out, np.float32)], y=(*X[:3], out))
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    graph = model.subgraphs[0]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 3
    model.operatorCodes.append(code)
    for number in (1, 2):
        whole, half, op = graph.tensors[number], schema.TensorT(), schema.OperatorT()
        half.name, half.shape, half.type, half.buffer = (
            whole.name + b"_half",
            whole.shape,
            1,
            whole.buffer,
        )  # 1: float16
        buffer = model.buffers[half.buffer]
        buffer.data = np.frombuffer(np.asarray(buffer.data).tobytes(), np.float32).astype(np.float16).view(np.uint8)
        whole.buffer = 0
        graph.tensors.append(half)
        op.opcodeIndex, op.inputs, op.outputs = 1, [len(graph.tensors) - 1], [number]
        graph.operators.insert(0, op)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path
