"""Models of the other formats, written byte by byte: neither TensorFlow nor a TFLite converter is needed."""

from __future__ import annotations

import struct
from pathlib import Path

import flatbuffers
import numpy as np


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def pb(number: int, value: int | bytes | str) -> bytes:
    """One protobuf field."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


_TF_TYPES = {"float32": 1, "int32": 3, "int64": 9, "string": 7}


def _tf_shape(sizes: tuple[int, ...] | None) -> bytes:
    if sizes is None:
        return pb(3, 1)
    return b"".join(pb(2, pb(1, size)) for size in sizes)


def _tf_node(name: str, kind: str, inputs: tuple[str, ...] = (), **attributes: bytes) -> bytes:
    body = pb(1, name) + pb(2, kind) + b"".join(pb(3, source) for source in inputs)
    for key, value in attributes.items():
        body += pb(5, pb(1, key) + pb(2, value))
    return pb(1, body)


def _tf_const(name: str, values: np.ndarray) -> bytes:
    number = _TF_TYPES[values.dtype.name]
    tensor = pb(1, number) + pb(2, _tf_shape(values.shape)) + pb(4, values.tobytes())
    return _tf_node(name, "Const", dtype=pb(6, number), value=pb(8, tensor))


def tf_frozen(path: Path, dtype: str = "float32", batch: int = 1) -> Path:
    """A frozen GraphDef: x [1,16] -> y [1,64] = Relu(x @ w + b), and best = ArgMax(y)."""
    rng = np.random.default_rng(0)
    real, flag = pb(6, 1), pb(5, 0)
    graph = (
        _tf_node("x", "Placeholder", dtype=pb(6, _TF_TYPES[dtype]), shape=pb(7, _tf_shape((batch, 16))))
        + _tf_const("w", (rng.standard_normal((16, 64)) / 4).astype(np.float32))
        + _tf_node("mm", "MatMul", ("x", "w"), T=real, transpose_a=flag, transpose_b=flag)
        + _tf_const("b", (rng.standard_normal(64) / 10).astype(np.float32))
        + _tf_node("biased", "BiasAdd", ("mm", "b"), T=real, data_format=pb(2, "NHWC"))
        + _tf_node("y", "Relu", ("biased",), T=real)
        + pb(4, pb(1, 1087))
    )
    path.write_bytes(graph)
    return path


TF_WEIGHTS = np.array([[1, 0.5, -2, 0], [0.25, 1, 0, 3], [-1, 2, 0.5, 1]], np.float32)


def tf_convolution(path: Path) -> Path:
    """A frozen GraphDef: x [1,6,5,3] -> y [1,6,5,4], a 1x1 convolution with TF_WEIGHTS, NHWC."""
    real = pb(6, 1)
    ones = pb(1, pb(3, b"\1\1\1\1"))
    path.write_bytes(
        _tf_node("x", "Placeholder", dtype=real, shape=pb(7, _tf_shape((1, 6, 5, 3))))
        + _tf_const("w", TF_WEIGHTS.reshape(1, 1, 3, 4))
        + _tf_node(
            "y", "Conv2D", ("x", "w"), T=real, strides=ones, dilations=ones, padding=pb(2, "VALID"),
            data_format=pb(2, "NHWC"),
        )
        + pb(4, pb(1, 1087))
    )  # fmt: skip
    return path


def tf_saved_model(path: Path) -> Path:
    """The beginning of a saved_model.pb: what people give instead of a frozen graph."""
    path.write_bytes(pb(1, 1) + pb(2, pb(1, pb(4, "serve")) + pb(2, b"\x0a\x00" * 200)))
    return path


def tflite(path: Path, *, quantized: bool = False, dtype: int = 0, sizes: tuple[int, ...] = (1, 8)) -> Path:
    """x -> y = RELU(x) in one subgraph.  -1 in ``sizes`` is dynamic; ``dtype`` is a TensorType number."""
    b = flatbuffers.Builder(512)

    def ints(values: tuple[int, ...]) -> int:
        b.StartVector(4, len(values), 4)
        for value in reversed(values):
            b.PrependInt32(value)
        return int(b.EndVector())

    def offsets(values: list[int]) -> int:
        b.StartVector(4, len(values), 4)
        for value in reversed(values):
            b.PrependUOffsetTRelative(value)
        return int(b.EndVector())

    def table(count: int, **slots: tuple[str, int]) -> int:
        b.StartObject(count)
        for slot, (kind, value) in slots.items():
            number = int(slot[1:])
            if kind == "offset":
                b.PrependUOffsetTRelativeSlot(number, value, 0)
            elif kind == "byte":
                b.PrependInt8Slot(number, value, -1)
            else:
                b.PrependUint32Slot(number, value, 1 << 31)
        return int(b.EndObject())

    def tensor(name: str) -> int:
        text = b.CreateString(name)
        shape = ints(tuple(max(1, size) for size in sizes))
        slots = {"f0": ("offset", shape), "f1": ("byte", dtype), "f2": ("uint", 0), "f3": ("offset", text)}
        if quantized:
            b.StartVector(4, 1, 4)
            b.PrependFloat32(0.1)
            scale = b.EndVector()
            slots["f4"] = ("offset", table(7, f2=("offset", scale)))
        if -1 in sizes:
            slots["f7"] = ("offset", ints(sizes))
        return table(9, **slots)

    tensors = offsets([tensor("x"), tensor("y")])
    operators = offsets([table(9, f0=("uint", 0), f1=("offset", ints((0,))), f2=("offset", ints((1,))))])
    first, last = ints((0,)), ints((1,))
    subgraph = table(5, f0=("offset", tensors), f1=("offset", first), f2=("offset", last), f3=("offset", operators))
    codes = offsets([table(4, f0=("byte", 19))])
    buffers = offsets([table(3)])
    about = b.CreateString("edgequant-tests")
    graphs = offsets([subgraph])
    model = table(
        8, f0=("uint", 3), f1=("offset", codes), f2=("offset", graphs), f3=("offset", about), f4=("offset", buffers)
    )
    b.Finish(model, file_identifier=b"TFL3")
    path.write_bytes(bytes(b.Output()))
    return path


def flat_bomb(path: Path, tables: int = 20_000) -> Path:
    """A .mnn whose operators all are one and the same table with one long vector: quadratic if read naively."""
    blob = bytearray(4)  # the root offset, set at the end

    def put(raw: bytes) -> int:
        position = len(blob)
        blob.extend(raw)
        return position

    def point(slot: int, target: int) -> None:
        struct.pack_into("<I", blob, slot, target - slot)

    net_fields = put(struct.pack("<12H", 24, 12, 0, 0, 0, 4, 0, 0, 0, 8, 0, 0))  # oplists, tensorName
    op_fields = put(struct.pack("<8H", 16, 12, 4, 0, 0, 0, 8, 0))  # inputIndexes, outputIndexes
    net = put(bytes(12))
    names = put(struct.pack("<III", 1, 4, 1) + b"t\0\0\0")
    ops = put(struct.pack("<I", tables) + bytes(4 * tables))
    op = put(bytes(12))
    vector = put(struct.pack("<I", tables) + bytes(4 * tables))
    struct.pack_into("<i", blob, net, net - net_fields)
    struct.pack_into("<i", blob, op, op - op_fields)
    point(0, net)
    point(net + 4, ops)
    point(net + 8, names)
    point(op + 4, vector)
    point(op + 8, vector)
    for index in range(tables):
        point(ops + 4 + 4 * index, op)
    path.write_bytes(bytes(blob))
    return path
