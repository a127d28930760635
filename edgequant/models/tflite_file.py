"""Reads .tflite files: a FlatBuffer with the identifier TFL3."""

from __future__ import annotations

from pathlib import Path

from edgequant.models.flat import Field, FlatFile, Table
from edgequant.models.model import (
    Attribute,
    BrokenFileError,
    Data,
    OpInfo,
    Parsed,
    Weights,
    fixed_or_dynamic,
    unsupported_dtype,
)
from edgequant.tensors import TensorSpec

# Fields of TFLite's schema.fbs.
_MODEL_CODES, _MODEL_SUBGRAPHS, _MODEL_DESCRIPTION, _MODEL_BUFFERS = (
    Field(1, "[o]"), Field(2, "[o]"), Field(3, "s"), Field(4, "[o]"),
)  # fmt: skip
_CODE_OLD, _CODE_CUSTOM, _CODE_NEW = Field(0, "b"), Field(1, "s"), Field(3, "i")
_SUB_TENSORS, _SUB_INPUTS, _SUB_OUTPUTS = Field(0, "[o]"), Field(1, "[i]"), Field(2, "[i]")
_SUB_OPS, _SUB_NAME = Field(3, "[o]"), Field(4, "s")
_TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_BUFFER, _TENSOR_NAME = Field(0, "[i]"), Field(1, "b"), Field(2, "I"), Field(3, "s")
_TENSOR_QUANT, _TENSOR_SIGNATURE = Field(4, "o"), Field(7, "[i]")
_OP_CODE, _OP_INPUTS, _OP_OUTPUTS, _OP_OPTIONS = Field(0, "I"), Field(1, "[i]"), Field(2, "[i]"), Field(4, "o")
_OPTIONS = {
    "DEPTHWISE_CONV_2D": {"depth_multiplier": Field(3, "i")},
    "RESIZE_NEAREST_NEIGHBOR": {"align_corners": Field(0, "B"), "half_pixel_centers": Field(1, "B")},
    "MIRROR_PAD": {"mode": Field(0, "b")},
    "GATHER": {"axis": Field(0, "i")},
}
"""Of an operator's own options those that somebody asks for."""
_QUANT_SCALE = Field(2, "[f]")
_BUFFER_DATA = Field(0, "[B]")

_OP_NAMES = """
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP
    FLOOR FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC
    LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX
    SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD
    UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE
    UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX
    DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2 GREATER
    GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL
    NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT
    LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE
    RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2
    ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND
    HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY
    SEGMENT_SUM BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D
    IMAG REAL COMPLEX_ABS HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL
    CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL
    BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD
    UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR
    RIGHT_SHIFT
"""
_OPS = _OP_NAMES.split()
"""Builtin operators by number.  The StableHLO ones, which the MNN converter does not know, are left out."""

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
    filled = [buffer.count(_BUFFER_DATA) > 0 for buffer in model.tables(_MODEL_BUFFERS)]
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
        made: set[str] = set()
        for op in subgraph.tables(_SUB_OPS):
            index = op.number(_OP_CODE)
            if index >= len(codes):
                raise BrokenFileError("an operator has a code that does not exist")
            results = _names(op.numbers(_OP_OUTPUTS), names)
            name = results[0] if results else f"{codes[index]}_{len(parsed.ops)}"
            sources = _names(op.numbers(_OP_INPUTS), names)
            given: dict[str, Attribute] = {}
            if (wanted := _OPTIONS.get(codes[index])) and (options := op.table(_OP_OPTIONS)) is not None:
                given.update({key: options.number(place) for key, place in wanted.items()})
            parsed.ops.append(OpInfo(name, codes[index], label, sources, results, given))
            made.update(results)
        for tensor, name in zip(tensors, names, strict=True):
            buffer = tensor.number(_TENSOR_BUFFER)
            if buffer < len(filled) and filled[buffer] and count == 1:
                parsed.constants[name] = tensor.numbers(_TENSOR_SHAPE)
            parsed.computes_int8 |= name in made and _stored(tensor, filled) == "quantized"
    if not count:
        raise BrokenFileError("it has no graph")
    parsed.has_subgraphs = count > 1
    parsed.recurrent = [op.name for op in parsed.ops if op.type in _RECURRENT]
    kinds: tuple[Weights, ...] = ("quantized", "fp16", "float")
    parsed.weights = next((kind for kind in kinds if kind in stored), None)
    return parsed


def _code(code: Table) -> str:
    # Numbers above 126 do not fit the older field, which then holds a placeholder.
    number = max(code.number(_CODE_OLD), code.number(_CODE_NEW))
    name = _OPS[number] if 0 <= number < len(_OPS) else f"BUILTIN_{number}"
    custom = code.string(_CODE_CUSTOM)
    return f"CUSTOM:{custom}" if name == "CUSTOM" and custom else name


def _names(indexes: tuple[int, ...], names: list[str]) -> tuple[str, ...]:
    if any(index >= len(names) for index in indexes):
        raise BrokenFileError("an operator refers to a tensor that does not exist")
    return tuple(names[index] if index >= 0 else "" for index in indexes)


def _dtype(tensor: Table) -> str:
    number = tensor.number(_TENSOR_TYPE)
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
    if dtype in _QUANTIZED_DTYPES and quant is not None and quant.count(_QUANT_SCALE):
        return "quantized"
    buffer = tensor.number(_TENSOR_BUFFER)
    if buffer < len(filled) and filled[buffer]:
        return {"float32": "float", "float16": "fp16"}.get(dtype, "")
    return ""
