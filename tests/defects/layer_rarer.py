"""Causes that no change of one layer's bytes makes: a bias beyond int32, a loop that no eight bits are enough for, a
host whose kernel is wrong, a layer whose small error is made large, loud inputs that are not used, limits that no layer
alone breaks.  Each with its twin, in which nothing is planted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgequant.jobs.diagnose_layers import key_of
from edgequant.lab.session import Session
from edgequant.models.flat import Field
from edgequant.models.mnn.net import op_type, open_net
from edgequant.models.mnn.schema import Net, Op, Pool, UnaryOp, UnaryOpOperation
from edgequant.models.mnn.weights import Weights, read_weights
from edgequant.quantize.encode import Encoded, Form, encode
from tests import generated
from tests.defects import layer_devices as devices
from tests.defects.layer_edits import coded, planted, scaled
from tests.defects.layer_mechanisms import Found, bias_as, cancelling, expected, in_floats, layers_of
from tests.defects.layer_subjects import Subject, breaks, generated_subject, look, model_subject

_node, _value, _const = generated._node, generated._value, generated._const


# ---- a bias beyond int32


def depthwise(path: Path, factor: float, bias: float) -> Path:
    """x [1,4,8,8] -> y [1,4,8,8]; five channels of the depthwise convolution in it have weights of next to nothing."""
    rng = np.random.default_rng(0)
    nodes = [
        _node("Conv", ["x", "w1"], ["a"], name="first", kernel_shape=[1, 1]),
        _node("Conv", ["a", "w2", "b2"], ["b"], name="second", kernel_shape=[3, 3], group=16, pads=[1] * 4),
        _node("Conv", ["b", "w3"], ["y"], name="last", kernel_shape=[1, 1]),
    ]
    first = (0.01 * rng.normal(size=(16, 4, 1, 1))).astype(np.float32)
    second = (30 * rng.normal(size=(16, 1, 3, 3))).astype(np.float32)
    biases = (0.1 * rng.normal(size=16)).astype(np.float32)
    second[:5] *= np.float32(factor)
    biases[:5] = bias
    last = rng.normal(size=(4, 16, 1, 1)).astype(np.float32)
    weights = [_const("w1", first), _const("w2", second), _const("b2", biases), _const("w3", last)]
    image = [1, 4, 8, 8]
    return generated.save(path, nodes, [_value("x", image)], [_value("y", image)], weights)


def overflowed_biases(host: Session, work: Path, most: int) -> Iterator[Found]:
    """MNN 3.6.1 adds an int32 bias in depthwise convolutions of static files alone, in steps of the input's scale times
    the weights', which it takes for 1e-6 at least.  Files made here keep it within 2**29; this is what another tool
    writes, that takes such channels' scales from their weights."""
    for number, bias in enumerate((2.0, 4.0, 16.0)[: max(most, 2)]):
        one = model_subject(depthwise(work / f"dw{number}.onnx", 1e-9, bias), "static:8", work, host)
        layer = next(each for each in layers_of(one) if "epthwise" in each.type)
        made = work / f"dw{number}-planted.mnn"

        def own(rows: np.ndarray) -> None:
            rows[:5] = np.float32(1e-9)

        if not planted(one.made, layer, lambda data, op, each: scaled(data, op, each, own), made):
            continue
        if failing := breaks(one, made, host):
            _, found = look(one, made, host, work, failing)
            _, twin = look(one, one.made, host, work, breaks(one, one.made, host))
            kind = f"a bias of {bias:g} on weights of next to nothing"
            yield Found(one, "quantization", kind, (key_of(layer.key),), ("BIAS_OVERFLOWED",), found, twin)


# ---- a loop


def looping(path: Path, kind: str, radius: float) -> Path:
    """x [48,1,12], h (and c) [1,1,32] -> y [48,1,1,32] (as ONNX has it), hN (and cN): a GRU or LSTM whose state turns,
    and keeps so much of itself in each step; its gates are all but open, and its numbers small."""
    rng, hidden = np.random.default_rng(3), 32
    turn = np.linalg.qr(rng.normal(size=(hidden, hidden)))[0]
    # GRU: update, reset, new.  LSTM: input, output, forget, cell.  Beyond 6 a gate is open, below -6 shut.
    gates = {"GRU": (-6.0, 6.0, None), "LSTM": (6.0, 6.0, -6.0, None)}[kind]
    weights, recurrent, bias = [], [], []
    for gate in gates:
        moves = gate is None
        weights.append(rng.normal(size=(hidden, 12)) * (0.02 if moves else 0.05))
        recurrent.append(radius * turn if moves else rng.normal(size=(hidden, hidden)) * 0.05)
        bias.append(np.full(hidden, gate or 0.0))
    told = [*bias, *(np.zeros(hidden) for _ in gates)]
    more = {"linear_before_reset": 1} if kind == "GRU" else {}
    states = [_value(name, [1, 1, hidden]) for name in {"GRU": "h", "LSTM": "hc"}[kind]]
    reads = ["x", "w", "r", "b", "", *(each.name for each in states)]
    last = [_value(f"{each.name}N", [1, 1, hidden]) for each in states]
    node = _node(kind, reads, ["y", *(each.name for each in last)], name="loop", hidden_size=hidden, **more)
    held = [
        ("w", np.concatenate(weights)[None]),
        ("r", np.concatenate(recurrent)[None]),
        ("b", np.concatenate(told)[None]),
    ]
    constants = [_const(name, array.astype(np.float32)) for name, array in held]
    inputs, outputs = [_value("x", [48, 1, 12]), *states], [_value("y", [48, 1, 1, hidden]), *last]
    return generated.save(path, [node], inputs, outputs, constants)


def loops(host: Session, work: Path, most: int) -> Iterator[Found]:
    """A state that is kept long makes much of what rounding its weights costs; one that fades does not."""
    for kind, variant in (("GRU", "weight:8"), ("LSTM", "weight:8"), ("GRU", "dynamic:8"), ("LSTM", "dynamic:8")):
        sound = model_subject(looping(work / f"{kind}-fades.onnx", kind, 0.3), variant, work, host)
        for radius in (0.97, 0.99)[: max(most, 2)]:
            one = model_subject(looping(work / f"{kind}-{radius}.onnx", kind, radius), variant, work, host)
            one = replace(one, floor=sound.floor)
            if not (failing := breaks(one, one.made, host)):
                continue
            _, found = look(one, one.made, host, work, failing)
            _, twin = look(sound, sound.made, host, work, breaks(sound, sound.made, host))
            inside = tuple(key_of(each.key) for each in read_weights(one.made) if each.subgraph)
            told = f"a {kind} that keeps {radius:g} of its state in each step"
            yield Found(one, "quantization", told, inside, ("RECURRENT_SENSITIVE",), found, twin)


# ---- this host's kernels


def mixed(path: Path) -> Path:
    """x [1,4,12,12] -> y [1,4,6,6]: convolutions with a Tanh, an average pool, a difference and a Sigmoid between."""
    rng = np.random.default_rng(5)
    nodes = [
        _node("Conv", ["x", "w1"], ["a"], name="first", kernel_shape=[3, 3], pads=[1] * 4),
        _node("Tanh", ["a"], ["t"], name="tanh"),
        _node("Conv", ["t", "w2"], ["b"], name="second", kernel_shape=[3, 3], pads=[1] * 4),
        _node("AveragePool", ["b"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        _node("Conv", ["p", "w3"], ["c"], name="third", kernel_shape=[3, 3], pads=[1] * 4),
        _node("Sub", ["p", "c"], ["d"], name="difference"),
        _node("Sigmoid", ["d"], ["s"], name="sigmoid"),
        _node("Conv", ["s", "w4"], ["y"], name="last", kernel_shape=[1, 1]),
    ]
    shapes = {"w1": (16, 4, 3, 3), "w2": (16, 16, 3, 3), "w3": (16, 16, 3, 3), "w4": (4, 16, 1, 1)}
    weights = [
        _const(name, (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32))
        for name, shape in shapes.items()
    ]
    return generated.save(path, nodes, [_value("x", [1, 4, 12, 12])], [_value("y", [1, 4, 6, 6])], weights)


_OTHERS: dict[str, tuple[Field, dict[int, int]]] = {
    "UnaryOp": (UnaryOp.op_type, {UnaryOpOperation.TANH: UnaryOpOperation.SIGMOID,
                                  UnaryOpOperation.SIGMOID: UnaryOpOperation.TANH}),
    "Pooling": (Pool.type, {1: 0}),
    "BinaryOp": (UnaryOp.op_type, {1: 0}),
}  # fmt: skip
"""What a kernel takes operators for: Tanh for Sigmoid and the other way, the mean for the largest, a difference for a
sum."""


def faulty_kernels(made: Path, out: Path) -> Iterator[str]:
    """Write the file once for each of its operators that can be another; the tensor it makes."""
    data = made.read_bytes()
    with open_net(made) as net:
        names = net.strings(Net.tensor_name)
        for op in net.tables(Net.oplists):
            if op_type(op) not in _OTHERS:
                continue
            field, others = _OTHERS[op_type(op)]
            parameter = op.table(Op.main)
            place = None if parameter is None else parameter.place(field)
            if parameter is None or place is None or parameter.number(field) not in others:
                continue
            changed = bytearray(data)
            changed[place] = others[parameter.number(field)]
            out.write_bytes(changed)
            yield names[op.numbers(Op.output_indexes)[0]]


def wrong_hosts(host: Session, far: Session, work: Path) -> Iterator[Found]:
    """Of a file of which this host computes one operator otherwise, while float MNN and the device are right."""
    source, out = mixed(work / "mixed.onnx"), work / "mixed-faulty.mnn"
    for variant in ("dynamic:8", "weight:8"):
        of = model_subject(source, variant, work, host)
        _, twin = look(of, of.made, host, work, [], device=devices.Device(far), stage="device")
        for tensor in faulty_kernels(of.made, out):
            here = devices.Device(host, file=out, spared=of.plain)
            capture, found = look(of, of.made, here, work, [], device=devices.Device(far), stage="device")  # type: ignore[arg-type]
            layer = next(each.key for each in capture.layers if tensor in each.outputs)
            kind = "an operator without weights that this host takes for another"
            yield Found(of, "device", kind, (layer,), ("HOST_KERNEL_DIFFERS",), found, twin)


# ---- a small error that becomes a large one, loud inputs, limits


def sensitive(host: Session, work: Path, most: int) -> Iterator[Found]:
    """A layer of which little is left behind a difference; the twin: of which much is."""
    for number, (amplitude, variant) in enumerate(
        [(3.0, "weight:8"), (10.0, "weight:8"), (3.0, "dynamic:8"), (10.0, "dynamic:8")][: max(2 * most, 4)]
    ):
        sound = model_subject(cancelling(work / f"apart-{number}.onnx", 0.1, number), variant, work, host)
        one = model_subject(cancelling(work / f"near-{number}.onnx", amplitude, number), variant, work, host)
        one = replace(one, floor=sound.floor)
        if not (failing := breaks(one, one.made, host)):
            continue
        _, found = look(one, one.made, host, work, failing)
        _, twin = look(sound, sound.made, host, work, breaks(sound, sound.made, host))
        layers = tuple(key_of(each.key) for each in layers_of(one)[:2])
        kind = f"a layer whose output nearly cancels, {variant}"
        yield Found(one, "quantization", kind, layers, ("SENSITIVE_LAYER", "ACTIVATION_ROUNDING"), found, twin)


def _even(weights: np.ndarray, layer: Weights) -> Encoded:
    """0 stays 0."""
    return encode(weights, layer.channels, layer.area, Form(8, sym=True))


def loud_inputs(of: Subject, host: Session, work: Path, most: int) -> Iterator[Found]:
    """Half of what a layer reads is so large that the others have a few steps left; the layer does not use it."""
    plain, first, made = work / "half-loud.mnn", work / "half-loud-1.mnn", work / "half-loud-made.mnn"
    layers = layers_of(of)
    for before, layer in list(itertools.pairwise(layers))[: max(most, 2)]:
        if before.channels != layer.per_channel or layer.area != 1:
            continue
        for times in (100.0, 300.0):

            def louder(bias: np.ndarray, times: float = times) -> None:
                bias[::2] = np.float32(times)

            def unread(rows: np.ndarray) -> None:
                rows[:, ::2] = 0

            in_floats(of.plain, before, lambda rows: None, louder, first)
            in_floats(first, layer, unread, None, plain)
            if not planted(of.made, before, bias_as(louder), made) or not coded(made, plain, layer, _even, made):
                continue
            one = expected(of, plain, made, host)
            if failing := breaks(one, made, host):
                _, found = look(one, made, host, work, failing)
                _, twin = look(of, of.made, host, work, breaks(of, of.made, host))
                kind = f"half of the inputs {times:g} times as large"
                yield Found(one, "quantization", kind, (key_of(layer.key),), ("ACTIVATION_ROUNDING",), found, twin)


def strict_limits(subjects: Sequence[Subject], host: Session, work: Path) -> Iterator[Found]:
    """Limits far above what these bits can do in any layer."""
    for of in subjects:
        one = replace(of, floor={name: least + 25 for name, least in of.floor.items()})
        if failing := breaks(one, one.made, host):
            _, found = look(one, one.made, host, work, failing)
            _, twin = look(of, of.made, host, work, breaks(of, of.made, host))
            yield Found(one, "quantization", "limits 22 dB above what it has", (), ("ERROR_SPREAD",), found, twin)


def planted_rarer(host: Session, far: Session, work: Path, most: int = 3) -> Iterator[Found]:
    yield from overflowed_biases(host, work, most)
    yield from loops(host, work, most)
    yield from wrong_hosts(host, far, work)
    yield from sensitive(host, work, most)
    conv, mlp = (generated_subject(kind, "dynamic:8", work, host) for kind in ("conv_cnn", "big_mlp"))
    yield from loud_inputs(mlp, host, work, most)
    yield from strict_limits([conv, mlp], host, work)
