"""What is known to go wrong with models like this one, before anything was run."""

from __future__ import annotations

import shlex
from collections import deque
from collections.abc import Iterable
from typing import Any

from edgequant.findings import Finding
from edgequant.models.misread import find_misread, misread_names
from edgequant.models.model import ModelGraph, OpInfo
from edgequant.tensors import TensorSpec

_SHOWN = 20  # names in one finding's evidence

_NONLINEAR = {
    "onnx": {"Sigmoid", "Tanh", "Relu", "Softmax", "Softplus", "HardSigmoid", "Clip", "LeakyRelu", "Elu", "Gelu"},
    "tflite": {"LOGISTIC", "TANH", "RELU", "RELU6", "SOFTMAX", "HARD_SWISH", "LEAKY_RELU", "ELU", "GELU"},
    "tf": {"Sigmoid", "Tanh", "Relu", "Relu6", "Softmax", "Softplus", "LeakyRelu", "Elu"},
    "mnn": {"ReLU", "ReLU6", "Sigmoid", "TanH", "Softmax"},
}
_RESHAPING = {
    "onnx": {"Reshape", "Squeeze", "Unsqueeze", "Transpose", "Flatten", "Identity"},
    "tflite": {"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE"},
    "tf": {"Reshape", "Squeeze", "ExpandDims", "Transpose", "Identity"},
    "mnn": {"Reshape", "Squeeze", "Unsqueeze", "Permute", "Flatten", "ConvertTensor", "Transpose", "Identity"},
}
_GEMM = {"onnx": {"Gemm", "MatMul"}, "tflite": {"FULLY_CONNECTED"}, "tf": {"MatMul"}, "mnn": {"InnerProduct"}}
_ATTENTION = {
    "Attention", "com.microsoft::Attention", "com.microsoft::MultiHeadAttention", "MultiHeadAttention", "FmhaV2",
    "Fmhca", "LinearAttention",
}  # fmt: skip
_BATCH = ("batch", "n", "b", "unk", "dynamicdimension")  # how exporters begin the symbol of a batch dimension
_CONTROL_FLOW = {
    "onnx": {"If", "Loop", "Scan"},
    "tflite": {"IF", "WHILE", "CALL_ONCE"},
    "tf": {"While", "StatelessWhile", "If", "StatelessIf", "Case", "Enter", "Switch", "Merge"},
    "mnn": {"If", "While"},
}
_QUANTIZED = {
    "onnx": {
        "QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger",
        "DynamicQuantizeLinear", "com.microsoft::MatMulNBits", "com.microsoft::QAttention", "com.microsoft::QGemm",
        "com.microsoft::DynamicQuantizeMatMul", "com.microsoft::MatMulIntegerToFloat",
    },
    "tflite": set(),  # told by the tensors: DEQUANTIZE also unpacks float16 weights
    "tf": {"QuantizedConv2D", "QuantizedMatMul", "QuantizeV2", "Dequantize"},
    "mnn": set(),
}  # fmt: skip


def find_risks(graph: ModelGraph) -> list[Finding]:
    """What is worth knowing about a model before it is quantized, most serious first."""
    misread = find_misread(graph)
    found = [
        _not_computed(graph),
        _already_quantized(graph),
        *misread,
        _reset_first(graph, misread_names(misread)),
        _leading_dynamic(graph),
        _nonlinear_behind_recurrent(graph),
        _recurrent(graph),
        _control_flow(graph),
        _gemm(graph),
        _dynamic(graph),
        _int64(graph),
    ]
    return [finding for finding in found if finding is not None]


def _evidence(names: Iterable[str], **more: Any) -> dict[str, Any]:
    known = list(names)
    return {"names": known[:_SHOWN], "count": len(known), **more}


def _of_type(graph: ModelGraph, types: set[str]) -> list[str]:
    return [op.name for op in graph.ops if op.type in types]


def _not_computed(graph: ModelGraph) -> Finding | None:
    """The MNN converter reports success for operators it cannot convert and leaves them out."""
    if graph.format != "mnn":
        return None
    made = {tensor for op in graph.ops if op.subgraph is None for tensor in op.outputs}
    names = [spec.name for spec in graph.outputs or () if spec.name not in made]
    if not names and graph.outputs:
        return None
    return Finding(
        code="OUTPUT_NOT_COMPUTED",
        severity="error",
        where=names[0] if names else graph.path.name,
        message="nothing in this .mnn computes its outputs: the converter has left operators out",
        evidence=_evidence(names),
        remedy="Read the converter's log for operators it does not support, and export the model without them.",
    )


def _already_quantized(graph: ModelGraph) -> Finding | None:
    names = _of_type(graph, _QUANTIZED[graph.format])
    if not names and graph.weights != "quantized":
        return None
    return Finding(
        code="SOURCE_ALREADY_QUANTIZED",
        severity="warn",
        where=graph.path.name,
        message="the model is quantized already: measured against it, errors it has already made do not show",
        evidence=_evidence(names, weights=graph.weights),
        remedy="Start from the float model; use this one as the model under test, not as the reference.",
    )


def _reset_first(graph: ModelGraph, misread: set[str]) -> Finding | None:
    """Not of those that stay wrong with linear_before_reset=1 for another reason."""
    names = [name for name in graph.reset_first if name not in misread]
    if not names:
        return None
    return Finding(
        code="GRU_RESET_FIRST",
        severity="warn",
        where=names[0],
        message=f"{len(names)} GRU layer(s) have linear_before_reset=0: the MNN converter (3.6.1) unrolls "
        "them as if it were 1, and the results are wrong",
        evidence=_evidence(names),
        remedy="Export the model with linear_before_reset=1 (in Keras reset_after=True).",
    )


def _leading_dynamic(graph: ModelGraph) -> Finding | None:
    """Only where the first dimension looks like a length; a batch of 1 is what nearly everybody means by N."""
    if graph.format != "onnx":
        return None
    names = []
    for spec in graph.inputs or ():
        if spec.shape and spec.shape[0] is None and len(spec.shape) <= 3:
            symbol = ((spec.dims and spec.dims[0]) or "").lower()
            if len(spec.shape) == 1 or (symbol and not symbol.startswith(_BATCH)):
                names.append(spec.name)
    if not names:
        return None
    return Finding(
        code="LEADING_DIMENSION_FIXED",
        severity="warn",
        where=names[0],
        message="the MNN converter writes a dynamic first dimension as 1: other sizes may fail, or give wrong results",
        evidence=_evidence(names),
        remedy="If that dimension is a length and not a batch, export the model with a fixed batch dimension of 1 in "
        "front of it, or check the float MNN model against the source at several sizes.",
    )


def activations_behind(graph: ModelGraph, layers: Iterable[str]) -> dict[str, str]:
    """Activations behind these layers, at most reshapes and one matrix product away: {activation: layer}."""
    sources = set(layers)
    consumers: dict[tuple[str | None, str], list[OpInfo]] = {}
    for op in graph.ops:
        for tensor in filter(None, op.inputs):
            consumers.setdefault((op.subgraph, tensor), []).append(op)
    # One search from all of the layers at once, so that its length does not depend on how many there are.
    waiting: deque[tuple[str | None, str, str, bool]] = deque()
    for op in graph.ops:
        if op.name in sources:
            waiting.extend((op.subgraph, tensor, op.name, False) for tensor in filter(None, op.outputs))
    seen = set()
    behind: dict[str, str] = {}
    reshaping, nonlinear = _RESHAPING[graph.format], _NONLINEAR[graph.format]
    gemm = _GEMM[graph.format] | {"Einsum"}
    bias = {"onnx": "Add", "tflite": "ADD", "tf": "BiasAdd", "mnn": ""}[graph.format]
    while waiting:
        subgraph, tensor, origin, through_gemm = waiting.popleft()
        if (subgraph, tensor, through_gemm) in seen:
            continue
        seen.add((subgraph, tensor, through_gemm))
        for op in consumers.get((subgraph, tensor), ()):
            if op.type in nonlinear:
                behind.setdefault(op.name, origin)
            elif op.type in reshaping or (through_gemm and op.type == bias):
                waiting.extend((subgraph, output, origin, through_gemm) for output in filter(None, op.outputs))
            elif op.type in gemm and not through_gemm:
                waiting.extend((subgraph, output, origin, True) for output in filter(None, op.outputs))
    return behind


def _nonlinear_behind_recurrent(graph: ModelGraph) -> Finding | None:
    behind = activations_behind(graph, graph.recurrent)
    if not behind:
        return None
    name, origin = next(iter(behind.items()))
    return Finding(
        code="NONLINEARITY_AFTER_RECURRENT",
        severity="warn",
        where=name,
        message=f"an activation behind the recurrent layer {origin}: MNN's activations turn NaN into plausible "
        "numbers, so one made there would not show in the outputs",
        evidence={"pairs": [[key, value] for key, value in list(behind.items())[:_SHOWN]], "count": len(behind)},
        remedy=f"`edgequant diagnose {shlex.quote(str(graph.path))} --device URI` looks at the tensors in front of it, "
        "and says NAN_SWALLOWED where one is born.  If so, ship a model that ends there and apply the activation "
        "yourself.",
    )


def _recurrent(graph: ModelGraph) -> Finding | None:
    if not graph.recurrent:
        return None
    return Finding(
        code="RECURRENT_LAYER",
        severity="info",
        where=graph.recurrent[0],
        message=f"{len(graph.recurrent)} recurrent layer(s): quantization errors add up over time, and MNN's "
        "offline methods (kl, ema, admm) are known to crash on the loops these are converted to",
        evidence=_evidence(graph.recurrent),
        remedy="Try dynamic:8, hold dynamic:8,block=32 against it, and judge with sequences as long as those in use "
        "(--inputs).",
    )


def _control_flow(graph: ModelGraph) -> Finding | None:
    names = _of_type(graph, _CONTROL_FLOW[graph.format])
    if not names:
        return None
    return Finding(
        code="CONTROL_FLOW",
        severity="info",
        where=names[0],
        message=f"{len(names)} branch(es) or loop(s): only MNN's Module interface runs them, and tensors inside of "
        "them cannot be looked at",
        evidence=_evidence(names),
        remedy="Give inputs that take every branch; export without control flow to see inside of it.",
    )


def _gemm(graph: ModelGraph) -> Finding | None:
    if graph.format == "mnn":
        return None
    computed = _computed(graph)
    names = [op.name for op in graph.ops if op.type in _GEMM[graph.format] and _weights(op) not in computed]
    if not names:
        return None
    return Finding(
        code="GEMM_BECOMES_CONV",
        severity="info",
        where=names[0],
        message=f"{len(names)} matrix product(s) with constant weights: the MNN converter turns these into 1x1 "
        "convolutions where it can, so they are quantized and named as convolutions",
        evidence=_evidence(names),
        remedy="Look for them by their output tensor's name.",
    )


def _weights(op: OpInfo) -> tuple[str | None, str]:
    return op.subgraph, op.inputs[1] if len(op.inputs) > 1 else ""


def _computed(graph: ModelGraph) -> set[tuple[str | None, str]]:
    """Tensors that are not constant: what operators make from the inputs, and the inputs."""
    found: set[tuple[str | None, str]] = {(None, spec.name) for spec in graph.inputs or ()}
    for op in graph.ops:
        # Constants are also passed on by Identity (exporters share weights that way) and float16 by DEQUANTIZE.
        copies = op.type in ("Identity", "DEQUANTIZE") and op.inputs and (op.subgraph, op.inputs[0]) not in found
        if op.type not in ("Constant", "Const") and not copies:
            found.update((op.subgraph, output) for output in op.outputs)
    return found


def _dynamic(graph: ModelGraph) -> Finding | None:
    inputs = [spec for spec in graph.inputs or () if spec.dynamic]
    if not inputs:
        return None
    shapes = {spec.name: None if spec.shape is None else list(spec.shape) for spec in inputs[:_SHOWN]}
    letters: dict[object, str] = {}
    options = [_pinned(spec, letters) for spec in inputs[:_SHOWN]]
    return Finding(
        code="DYNAMIC_SHAPE",
        severity="info",
        where=inputs[0].name,
        message=f"{len(inputs)} input(s) have sizes that are only known when the model runs",
        evidence=_evidence((spec.name for spec in inputs), shapes=shapes, options=options),
        remedy=f"Pin them to the sizes in use, with a number for each letter: {' '.join(options)}; or give real inputs "
        "with --inputs.",
    )


def _pinned(spec: TensorSpec, letters: dict[object, str]) -> str:
    """The --shape option that pins it: batches to 1, other open sizes as A, B, ...; equal symbols are equal letters."""
    if spec.shape is None:
        return f"--shape {shlex.quote(spec.name + '=...')}"
    sizes = []
    for place, size in enumerate(spec.shape):
        symbol = spec.dims[place] if spec.dims is not None else None
        if size is not None:
            sizes.append(str(size))
        elif place == 0 and len(spec.shape) > 1 and (symbol is None or symbol.lower().startswith(_BATCH)):
            sizes.append("1")
        else:
            sizes.append(letters.setdefault(symbol or (spec.name, place), chr(ord("A") + len(letters) % 26)))
    return f"--shape {shlex.quote(spec.name + '=' + ','.join(sizes))}"


def has_attention(graph: ModelGraph) -> bool:
    """Whether it multiplies computed tensors with each other beside a softmax, or has an operator for that."""
    types = {op.type for op in graph.ops}
    if types & _ATTENTION:
        return True
    if not types & {"Softmax", "SOFTMAX"}:
        return False
    computed = _computed(graph)
    products = _GEMM[graph.format] | {"BatchMatMul", "MatMul", "BATCH_MATMUL", "BatchMatMulV2"}
    return any(
        op.type in products and len(op.inputs) > 1 and {(op.subgraph, name) for name in op.inputs[:2]} <= computed
        for op in graph.ops
    )


def _int64(graph: ModelGraph) -> Finding | None:
    names = [spec.name for spec in graph.inputs or () if spec.dtype == "int64"]
    if not names:
        return None
    return Finding(
        code="INT64_INPUT",
        severity="info",
        where=names[0],
        message="MNN has no int64 inputs: values are fed as int32, which is done for you",
        evidence=_evidence(names),
        remedy="Nothing to do unless values are beyond the range of int32.",
    )
