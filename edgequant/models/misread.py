"""Operators that MNN's converter (3.6.1) takes for something else, and says nothing.

All of these were seen: converted, run, and held against ONNX Runtime or LiteRT, or read in the converter's sources,
where it passes an attribute over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from edgequant.findings import Finding
from edgequant.models.model import Attribute, ModelGraph, OpInfo
from edgequant.models.onnx_defaults import REDUCTIONS

CODE = "OPERATOR_MISREAD"
WIDE_CODE = "CONSTANT_BEYOND_INT32"
_SHOWN = 20
_RECURRENT_DEFAULT = {"GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_BINARY = {"Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"}
_CONVOLUTIONS = {"Conv", "ConvTranspose"}


@dataclass(frozen=True)
class _Rule:
    """of: operators.  attribute: the one it is about.  wrong: of its value.  what: MNN does instead.  remedy: what to
    do about it."""

    of: tuple[str, ...]
    attribute: str
    wrong: Callable[[Attribute], bool]
    what: str
    remedy: str


def _any(value: Attribute) -> bool:
    return bool(value)


def _words(*names: str) -> Callable[[Attribute], bool]:
    return lambda value: value in names


def _not_ones(value: Attribute) -> bool:
    return isinstance(value, tuple) and any(each != 1 for each in value)


_ONNX = (
    _Rule(("GridSample",), "mode", _words("bicubic", "cubic"), "it samples linearly", "Export it with mode linear."),
    _Rule(("GridSample",), "padding_mode", _words("reflection"), "it pads otherwise", "Take zeros or border."),
    _Rule(
        ("Resize",), "nearest_mode", _words("ceil", "round_prefer_ceil"), "it takes round_prefer_floor",
        "Export it with nearest_mode floor or round_prefer_floor.",
    ),
    _Rule(
        ("Resize",), "coordinate_transformation_mode", _words("tf_crop_and_resize", "half_pixel_symmetric"),
        "it knows neither", "Export it with half_pixel, asymmetric or align_corners.",
    ),
    _Rule(("Resize",), "antialias", _any, "it leaves that out", "Export it without antialias."),
    _Rule(
        ("MaxPool", "AveragePool", "LpPool"), "dilations", _not_ones, "it leaves them out",
        "Export it without dilations.",
    ),
    _Rule(
        ("Resize",), "axes", _any, "it takes the scales or sizes for those of the first axes",
        "Export it with scales or sizes for every axis.",
    ),
    _Rule(
        ("Mod",), "fmod", _any, "the remainder is another one where the signs differ",
        "Compute it with Div, Floor, Mul and Sub.",
    ),
    _Rule(
        ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"), "ignore_index", lambda value: value is not None,
        "it counts that class all the same", "Leave the loss out of what is shipped.",
    ),
    _Rule(
        ("Pad",), "mode", _words("wrap"), "it takes constant, reflect and edge alone", "Export it with another mode.",
    ),
    _Rule(("ArgMax", "ArgMin"), "select_last_index", _any, "it takes the first", "Export it without."),
    _Rule(
        ("ScatterND", "ScatterElements"), "reduction", _words("add", "mul", "max", "min"),
        "it puts the last value there, unless it is ScatterElements without an axis",
        "Compute the sum or product in another way.",
    ),
    _Rule(
        ("Unique",), "sorted", lambda value: value == 0, "it sorts them all the same", "Sort what comes out of it.",
    ),
    _Rule(("Unique",), "axis", lambda value: value is not None, "it leaves the axis out", "Export it without."),
    _Rule(("NonMaxSuppression",), "center_point_box", _any, "it takes corners", "Export it with corners."),
    _Rule(
        ("Conv", "ConvTranspose", "MaxPool", "AveragePool"), "auto_pad", _words("SAME_LOWER"),
        "it pads as SAME_UPPER does", "Export it with pads written out.",
    ),
)  # fmt: skip
_TFLITE = (
    _Rule(
        ("RESIZE_NEAREST_NEIGHBOR",), "half_pixel_centers", _any, "it resizes without them",
        "Convert the model by way of ONNX, or resize without half pixel centers.",
    ),
    _Rule(
        ("RESIZE_NEAREST_NEIGHBOR",), "align_corners", _any, "it resizes without that",
        "Convert the model by way of ONNX, or resize without aligned corners.",
    ),
)  # fmt: skip
_TF = tuple(
    _Rule(("ResizeNearestNeighbor",), each.attribute, each.wrong, each.what, each.remedy) for each in _TFLITE
)  # fmt: skip
_RULES = {"onnx": _ONNX, "tflite": _TFLITE, "tf": _TF, "mnn": ()}


def find_misread(graph: ModelGraph) -> list[Finding]:
    """One finding for each kind of operator and reason, and one for constants that int32 cannot hold."""
    found: dict[tuple[str, str, str], tuple[list[str], str]] = {}
    for op, attribute, what, remedy in _misread(graph):
        found.setdefault((op.type, attribute, what), ([], remedy))[0].append(op.name)
    findings = [
        Finding(
            code=CODE,
            severity="warn",
            where=names[0],
            message=f"{kind} with {attribute}: MNN's converter (3.6.1) does not do that: {what}",
            evidence={"operator": kind, "attribute": attribute, "names": names[:_SHOWN], "count": len(names)},
            remedy=remedy,
        )
        for (kind, attribute, what), (names, remedy) in found.items()
    ]
    return [*findings, *_wide(graph)]


def _misread(graph: ModelGraph) -> Iterator[tuple[OpInfo, str, str, str]]:
    """Operator, what it has, what MNN does instead, what to do."""
    rules = _RULES[graph.format]
    batched = any(spec.shape is None or spec.shape[:1] != (1,) for spec in graph.inputs or ())
    for op in graph.ops:
        for rule in rules:
            value = op.attributes.get(rule.attribute)
            if op.type in rule.of and value is not None and rule.wrong(value):
                yield op, f"{rule.attribute}={_text(value)}", rule.what, rule.remedy
        if graph.format == "onnx":
            yield from _recurrent(op)
            yield from _reduction(graph, op)
            yield from _three_dimensions(op, batched)
        elif graph.format == "tflite":
            yield from _tflite(graph, op)
    if graph.format == "onnx":
        yield from _constant_first(graph)
        yield from _one_dimension(graph)


def _recurrent(op: OpInfo) -> Iterator[tuple[OpInfo, str, str, str]]:
    given, default = op.attributes.get("activations"), _RECURRENT_DEFAULT.get(op.type)
    if default is None or not isinstance(given, tuple):
        return
    directions = max(len(given) // len(default), 1)
    if [str(each).lower() for each in given] != [each.lower() for each in default * directions]:
        yield (
            op, f"activations={_text(given)}", f"it computes with {' and '.join(default)}",
            f"Export the layer unrolled, or train it with {' and '.join(default)}.",
        )  # fmt: skip


def _reduction(graph: ModelGraph, op: OpInfo) -> Iterator[tuple[OpInfo, str, str, str]]:
    """Axes that are constant are written out for it, see `onnx_defaults`."""
    if op.type in REDUCTIONS and len(op.inputs) > 1 and op.inputs[1] and op.inputs[1] not in graph.constants:
        yield op, "axes that are computed", "it reduces all axes", "Export it with constant axes."


def _three_dimensions(op: OpInfo, batched: bool) -> Iterator[tuple[OpInfo, str, str, str]]:
    kernel, dilations, strides = (op.attributes.get(key) for key in ("kernel_shape", "dilations", "strides"))
    if batched and op.type in ("MaxPool", "AveragePool") and isinstance(kernel, tuple) and len(kernel) == 3:
        yield (
            op, "a kernel of three dimensions", "of a batch it pools the first right, and no other",
            "Run it with a batch of 1, or export the pool as two, of one and of two dimensions.",
        )  # fmt: skip
    plain = not isinstance(strides, tuple) or strides[0] == 1
    if plain and op.type == "Conv" and isinstance(dilations, tuple) and len(dilations) == 3 and dilations[0] != 1:
        yield (
            op, f"dilations={_text(dilations)}", "with a stride of 1 the first of three dimensions comes out wrong",
            "Export it without a dilation of the first dimension.",
        )  # fmt: skip


def _one_dimension(graph: ModelGraph) -> Iterator[tuple[OpInfo, str, str, str]]:
    """A convolution over a length is one over a picture to MNN, and stays one where it, or its Relu, comes last."""
    outputs = {spec.name for spec in graph.outputs or ()}
    flat: set[str] = set()
    for op in graph.ops:
        first = op.outputs[0] if op.outputs else ""
        weights = graph.constants.get(op.inputs[1], ()) if len(op.inputs) > 1 else ()
        conv = op.type in _CONVOLUTIONS and len(weights) == 3
        if conv or (op.type == "Relu" and flat.intersection(op.inputs)):
            flat.add(first)
            if first in outputs:
                yield (
                    op, "a kernel of one dimension, as the last operator", "the output gets a fourth dimension, of 1",
                    "Put a Transpose behind it, or expect that shape.",
                )  # fmt: skip


def _tflite(graph: ModelGraph, op: OpInfo) -> Iterator[tuple[OpInfo, str, str, str]]:
    sizes = graph.constants.get(op.inputs[1], ()) if len(op.inputs) > 1 else ()
    if op.type == "TRANSPOSE_CONV" and len(sizes) == 4 and sizes[0] != sizes[3]:
        yield (
            op, f"{sizes[3]} channels in and {sizes[0]} out", "it mixes the channels up",
            "Convert the model by way of ONNX; with as many channels out as in it is right.",
        )  # fmt: skip
    multiplier = op.attributes.get("depth_multiplier", 1)
    if op.type == "DEPTHWISE_CONV_2D" and isinstance(multiplier, int) and multiplier > 1 and sizes[3:] != (multiplier,):
        yield (
            op, f"depth_multiplier={multiplier}", "it reads memory that is not the weights",
            "Convert the model by way of ONNX.",
        )  # fmt: skip
    if op.type == "MIRROR_PAD":
        yield op, "a mirrored border", "it pads with zeros", "Convert the model by way of ONNX."


def _constant_first(graph: ModelGraph) -> Iterator[tuple[OpInfo, str, str, str]]:
    """A constant of sizes 1,1,1 in front of what comes from a convolution gets the convolution's layout."""
    behind: set[str] = set()
    for op in graph.ops:
        if op.subgraph is not None:
            continue
        if op.type in _BINARY and len(op.inputs) == 2:
            first, second = op.inputs
            if graph.constants.get(first) == (1, 1, 1) and second in behind:
                yield (
                    op, "a constant of sizes 1,1,1 as its first operand, behind a convolution",
                    "the result is another one",
                    "Make the constant a number without dimensions, or the second operand.",
                )  # fmt: skip
        if op.type in _CONVOLUTIONS or any(name in behind for name in op.inputs):
            behind.update(op.outputs)


def _wide(graph: ModelGraph) -> list[Finding]:
    names = graph.beyond_int32
    if not names:
        return []
    users = [op.name for op in graph.ops if any(name in op.inputs for name in names)]
    return [
        Finding(
            code=WIDE_CODE,
            severity="warn",
            where=names[0],
            message=f"{len(names)} constant(s) hold integers beyond int32, and MNN has no wider ones: what is computed "
            f"with them is wrong (in {', '.join(users[:5]) or 'no operator of the main graph'})",
            evidence={"names": list(names[:_SHOWN]), "count": len(names), "operators": users[:_SHOWN]},
            remedy="Compute that part outside of the model, or with numbers that int32 can hold.",
        )
    ]


def _text(value: Attribute) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def misread_names(findings: Iterable[Finding]) -> set[str]:
    """Names of the operators that are told of."""
    return {str(name) for each in findings if each.code == CODE for name in each.evidence.get("names", ())}
