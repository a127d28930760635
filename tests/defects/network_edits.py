"""Single operators of the networks of `networks.py` that compute something else, with the same tensors around them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Change = Callable[[onnx.ModelProto, onnx.NodeProto], None]


def _kind(other: str, **attributes: Any) -> Change:
    """Another operator in its place."""

    def change(_model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        node.op_type = other
        for name, value in attributes.items():
            node.attribute.append(helper.make_attribute(name, value))

    return change


def _attribute(name: str, value: Any) -> Change:
    def change(_model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        kept = [each for each in node.attribute if each.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return change


def _constant(place: int, edit: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Of an input that is an initializer and nobody else's."""

    def change(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        found = next(each for each in model.graph.initializer if each.name == node.input[place])
        changed = edit(numpy_helper.to_array(found).copy())
        found.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(changed), found.name))

    return change


def _inputs_exchanged(_model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    first, second = node.input[0], node.input[1]
    node.input[0], node.input[1] = second, first


OPERATORS: dict[str, dict[str, tuple[str, Change]]] = {
    "mobile": {
        "a residual is taken away": ("residual1", _kind("Sub")),
        "another activation": ("depth_act1", _kind("Relu")),
        "padded on one side": ("depth1", _attribute("pads", [2, 2, 0, 0])),
        "the largest in place of the mean": ("pool", _kind("GlobalMaxPool")),
        "dilated": ("depth2", lambda model, node: (_attribute("pads", [2] * 4)(model, node),
                                                   _attribute("dilations", [2, 2])(model, node), None)[2]),
    },
    "transformer": {
        "softmax along another axis": ("softmax", _attribute("axis", 2)),
        "a constant half as large again": ("scale", _constant(1, lambda value: value * np.float32(1.5))),
        "a larger epsilon": ("norm1", _attribute("epsilon", 0.3)),
        "a residual is taken away": ("residual1", _kind("Sub")),
        "another activation": ("bend", _kind("HardSigmoid", alpha=0.5)),
    },
    "two_inputs": {
        "joined in the other order": ("join", _inputs_exchanged),
        "another activation": ("video_relu", _kind("LeakyRelu", alpha=0.3)),
        "forget gate's bias 1 more": ("lstm", _constant(3, lambda bias: bias + np.float32(1))),
        "recurrent weights exchanged": ("lstm", _constant(2, lambda rows: np.roll(rows, 32, axis=1))),
    },
    "segmentation": {
        "corners in place of centres": ("up1", _attribute("coordinate_transformation_mode", "asymmetric")),
        "nearest in place of linear": ("up2", _attribute("mode", "nearest")),
        "joined in the other order": ("skip1", _inputs_exchanged),
        "a steeper leak": ("in_act", _attribute("alpha", 0.3)),
        "padded on one side": ("down1", _attribute("pads", [2, 2, 0, 0])),
    },
    "classifier": {
        "a table moved by a row": ("embed", _constant(0, lambda rows: np.roll(rows, 1, axis=0))),
        "the largest in place of the mean": ("pooled", _kind("ReduceMax")),
        "another activation": ("gate_sigmoid", _kind("HardSigmoid", alpha=0.2)),
        "a residual is taken away": ("residual", _kind("Sub")),
    },
}  # fmt: skip
"""Network -> what is planted -> the node, and how it is changed."""


def altered(source: Path, node: str, change: Change, out: Path) -> tuple[str, ...]:
    """Write the model with that node changed; returns the tensors the node makes."""
    model = onnx.load(str(source))
    found = next(each for each in model.graph.node if each.name == node)
    change(model, found)
    onnx.save(model, str(out))
    return tuple(found.output)


def _lite(path: Path, output: str, change: Callable[[Any, Any, Any], None], out: Path) -> None:
    """Of the operator that makes a tensor."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated

    schema: Any = schema_py_generated
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    graph = model.subgraphs[0]
    names = [each.name.decode() for each in graph.tensors]
    op = next(each for each in graph.operators if names[each.outputs[0]] == output)
    change(schema, model, op)
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    out.write_bytes(bytes(builder.Output()))


def _another(kind: str, options: str) -> Callable[[Any, Any, Any], None]:
    def change(schema: Any, model: Any, op: Any) -> None:
        code = model.operatorCodes[op.opcodeIndex]
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        op.builtinOptionsType = getattr(schema.BuiltinOptions, options)
        op.builtinOptions = getattr(schema, f"{options}T")()

    return change


def _option(name: str, value: Any) -> Callable[[Any, Any, Any], None]:
    return lambda _schema, _model, op: setattr(op.builtinOptions, name, value)


def _other_order(_schema: Any, _model: Any, op: Any) -> None:
    op.inputs = [op.inputs[1], op.inputs[0]]


LITE: dict[str, dict[str, tuple[str, Callable[[Any, Any, Any], None]]]] = {
    "lite_mobile": {
        "a residual is taken away": ("residual", _another("SUB", "SubOptions")),
        "no activation": ("depth", _option("fusedActivationFunction", 0)),
    },
    "lite_segmentation": {
        "corners in place of centres": ("up", _option("halfPixelCenters", False)),
        "joined in the other order": ("both", _other_order),
    },
}


def planted_operators(name: str) -> dict[str, tuple[str, Callable[[Path, Path], tuple[str, ...]]]]:
    """What is planted -> the node or tensor, and what writes it: (source, out) -> the tensors it makes."""
    found: dict[str, tuple[str, Callable[[Path, Path], tuple[str, ...]]]] = {}
    for what, (node, change) in OPERATORS.get(name, {}).items():
        found[what] = (node, lambda source, out, node=node, change=change: altered(source, node, change, out))  # type: ignore[misc]
    for what, (output, edit) in LITE.get(name, {}).items():

        def write(source: Path, out: Path, output: str = output, edit: Any = edit) -> tuple[str, ...]:
            _lite(source, output, edit, out)
            return (output,)

        found[what] = (output, write)
    return found
