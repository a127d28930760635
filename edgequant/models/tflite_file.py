"""Reads .tflite files: a FlatBuffer with the identifier TFL3."""

from __future__ import annotations

from pathlib import Path

from edgequant.models.flat import FlatFile, Table
from edgequant.models.model import BrokenFileError, Data, OpInfo, Parsed, Weights, fixed_or_dynamic, unsupported_dtype
from edgequant.models.op_names import TFLITE_OPS
from edgequant.tensors import TensorSpec

# Field numbers in schema order.
_MODEL_CODES, _MODEL_SUBGRAPHS, _MODEL_DESCRIPTION, _MODEL_BUFFERS = 1, 2, 3, 4
_CODE_OLD, _CODE_CUSTOM, _CODE_NEW = 0, 1, 3
_SUB_TENSORS, _SUB_INPUTS, _SUB_OUTPUTS, _SUB_OPS, _SUB_NAME = 0, 1, 2, 3, 4
_TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_BUFFER, _TENSOR_NAME, _TENSOR_QUANT, _TENSOR_SIGNATURE = 0, 1, 2, 3, 4, 7
_OP_CODE, _OP_INPUTS, _OP_OUTPUTS = 0, 1, 2
_QUANT_SCALE = 2

_DTYPES = (
    "float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16", "complex64", "int8", "float64",
    "complex128", "uint64", "resource", "variant", "uint32", "uint16", "int4", "bfloat16",
)  # fmt: skip
_UNUSABLE = {"string", "complex64", "complex128", "resource", "variant", "int4", "bfloat16"}
_QUANTIZED_DTYPES = {"int8", "uint8", "int16", "int4"}
_RECURRENT = {
    "LSTM", "RNN", "UNIDIRECTIONAL_SEQUENCE_RNN", "UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_RNN",
    "BIDIRECTIONAL_SEQUENCE_LSTM",
}  # fmt: skip


def read_tflite(data: Data, path: Path) -> Parsed:
    """Raises BrokenFileError, or InputError for an input or output element type."""
    model = FlatFile(data).root()
    codes = [_code(code) for code in model.tables(_MODEL_CODES)]
    # What is stored in each buffer is not read, only whether it is all there: weights end the file.
    filled = [buffer.count(0, 1) > 0 for buffer in model.tables(_MODEL_BUFFERS)]
    parsed = Parsed(inputs=(), outputs=(), ops=[], producer=model.string(_MODEL_DESCRIPTION) or None)
    count = 0
    stored: set[str] = set()
    for count, subgraph in enumerate(model.tables(_MODEL_SUBGRAPHS), 1):
        tensors = list(subgraph.tables(_SUB_TENSORS))
        names = [tensor.string(_TENSOR_NAME) or f"tensor_{index}" for index, tensor in enumerate(tensors)]
        label = None if count == 1 else subgraph.string(_SUB_NAME) or f"subgraph_{count - 1}"
        if count == 1:
            inputs = subgraph.numbers(_SUB_INPUTS)
            outputs = subgraph.numbers(_SUB_OUTPUTS)
            _names((*inputs, *outputs), names)
            parsed.inputs = tuple(_spec("input", tensors[i], names[i], path) for i in inputs if i >= 0)
            parsed.outputs = tuple(_spec("output", tensors[i], names[i], path) for i in outputs if i >= 0)
        stored.update(_stored(tensor, filled) for tensor in tensors)
        for op in subgraph.tables(_SUB_OPS):
            index = op.number(_OP_CODE, "I")
            if index >= len(codes):
                raise BrokenFileError("an operator has a code that does not exist")
            results = _names(op.numbers(_OP_OUTPUTS), names)
            name = results[0] if results else f"{codes[index]}_{len(parsed.ops)}"
            parsed.ops.append(OpInfo(name, codes[index], label, _names(op.numbers(_OP_INPUTS), names), results))
    if not count:
        raise BrokenFileError("it has no graph")
    parsed.has_subgraphs = count > 1
    parsed.recurrent = [op.name for op in parsed.ops if op.type in _RECURRENT]
    kinds: tuple[Weights, ...] = ("quantized", "fp16", "float")
    parsed.weights = next((kind for kind in kinds if kind in stored), None)
    return parsed


def _code(code: Table) -> str:
    # Numbers above 126 do not fit the older field, which then holds a placeholder.
    number = max(code.number(_CODE_OLD, "b"), code.number(_CODE_NEW))
    name = TFLITE_OPS.get(number, f"BUILTIN_{number}")
    custom = code.string(_CODE_CUSTOM)
    return f"CUSTOM:{custom}" if name == "CUSTOM" and custom else name


def _names(indexes: tuple[int, ...], names: list[str]) -> tuple[str, ...]:
    if any(index >= len(names) for index in indexes):
        raise BrokenFileError("an operator refers to a tensor that does not exist")
    return tuple(names[index] if index >= 0 else "" for index in indexes)


def _dtype(tensor: Table) -> str:
    number = tensor.number(_TENSOR_TYPE, "b")
    return _DTYPES[number] if 0 <= number < len(_DTYPES) else f"number {number}"


def _spec(kind: str, tensor: Table, name: str, path: Path) -> TensorSpec:
    dtype = _dtype(tensor)
    if dtype in _UNUSABLE or dtype not in _DTYPES:
        raise unsupported_dtype(kind, name, dtype, path)
    # shape_signature is only there if a size is dynamic; shape then holds 1 in its place.
    sizes = tensor.numbers(_TENSOR_SIGNATURE) or tensor.numbers(_TENSOR_SHAPE)
    return TensorSpec(name, dtype, fixed_or_dynamic(sizes), layout="NHWC" if len(sizes) == 4 else None)


def _stored(tensor: Table, filled: list[bool]) -> str:
    """How a tensor with contents is stored; "" for one that is computed or says nothing."""
    dtype = _dtype(tensor)
    quant = tensor.table(_TENSOR_QUANT)
    if dtype in _QUANTIZED_DTYPES and quant is not None and quant.count(_QUANT_SCALE, 4):
        return "quantized"
    buffer = tensor.number(_TENSOR_BUFFER, "I")
    if buffer < len(filled) and filled[buffer]:
        return {"float32": "float", "float16": "fp16"}.get(dtype, "")
    return ""
