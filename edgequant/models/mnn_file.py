"""Reads .mnn files: a FlatBuffer whose root table is a Net, without a file identifier."""

from __future__ import annotations

from pathlib import Path

from edgequant.errors import InputError
from edgequant.models.flat import FlatFile, Table
from edgequant.models.model import (
    BrokenFileError,
    Data,
    OpInfo,
    Parsed,
    Weights,
    fixed_or_dynamic,
    unsupported_dtype,
)
from edgequant.models.op_names import MNN_OPS
from edgequant.tensors import TensorSpec

# Field numbers in schema order.
_NET_BIZ, _NET_EXTRA, _NET_OPS, _NET_OUTPUTS, _NET_TENSORS, _NET_SUBGRAPHS, _NET_FIELDS = 0, 2, 3, 4, 7, 10, 12
_OP_INPUTS, _OP_KIND, _OP_MAIN, _OP_NAME, _OP_OUTPUTS, _OP_TYPE, _OP_EXTERNAL = 0, 1, 2, 3, 4, 5, 7
_SUB_NAME, _SUB_TENSORS, _SUB_NODES = 0, 3, 4
_INPUT_DIMS, _INPUT_DTYPE, _INPUT_FORMAT = 0, 1, 2
_CONV_WEIGHT, _CONV_QUANT, _CONV_INT8, _CONV_EXTERNAL = 1, 3, 4, 6
_QUANT_BUFFER, _QUANT_TYPE = 0, 2
_WHILE_BODY = 1

_CONV_PARAMETERS = 9  # OpParameter numbers are one behind the schema's list, because 0 is "none"
_DTYPES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 9: "int64", 10: "bool", 17: "uint16",
    19: "float16",
}  # fmt: skip
_DTYPE_NAMES = {7: "string", 8: "complex64", 14: "bfloat16", 18: "complex128"}
_LAYOUTS = {0: "NCHW", 1: "NHWC", 2: "NCHW"}  # NC4HW4 is how MNN keeps NCHW, not something a user feeds
_INTEGER_RESULTS = {"ArgMax", "ArgMin", "Shape", "Rank", "Size", "Where", "Unique", "NonMaxSuppressionV2"}
_QUANTIZED_OPS = {"ConvInt8", "DepthwiseConvInt8", "EltwiseInt8", "FloatToInt8", "Int8ToFloat", "DynamicQuant"}
_RECURRENT = {"LSTM", "RNN", "RNNSequenceGRU", "LSTMBlockCell"}
_SIGMOID, _TANH = 29, 30


def looks_like_mnn(data: Data) -> bool:
    """Whether the root table is a plausible Net.  Says nothing about the rest of the file."""
    try:
        net = FlatFile(data).root()
        if not 4 <= net.fields <= _NET_FIELDS + 8 or not (net.has(_NET_OPS) and net.has(_NET_TENSORS)):
            return False
        first = next(net.tables(_NET_OPS), None)
        return first is not None and first.number(_OP_TYPE) in MNN_OPS
    except BrokenFileError as error:
        # The root sits in front and what it points to behind it, so a file that was cut keeps a sound root.
        return error.cut and _sound_root(data)


def _sound_root(data: Data) -> bool:
    try:
        net = FlatFile(data).root()
    except BrokenFileError:
        return False
    return 4 <= net.fields <= _NET_FIELDS + 8 and net.has(_NET_OPS) and net.has(_NET_TENSORS)


def read_mnn(data: Data, path: Path) -> Parsed:
    """Raises BrokenFileError, or InputError for an input element type or a missing weight file."""
    net = FlatFile(data).root()
    tensors = net.strings(_NET_TENSORS)
    outputs = net.strings(_NET_OUTPUTS)
    extra = net.table(_NET_EXTRA)
    reader = _Reader(path)
    main = list(net.tables(_NET_OPS))
    if not main:
        raise BrokenFileError("it has no operators")
    inputs = [reader.input(op, tensors) for op in main if op.number(_OP_TYPE) == _INPUT]
    reader.graph(main, tensors, None)
    # A rolled-out GRU is a While whose body has both gates' functions; a plain loop of the source seldom does.
    cells = set()
    has_subgraphs = False
    for subgraph in net.tables(_NET_SUBGRAPHS):
        has_subgraphs = True
        name = subgraph.string(_SUB_NAME) or ""
        if reader.graph(list(subgraph.tables(_SUB_NODES)), subgraph.strings(_SUB_TENSORS), name):
            cells.add(name)
    if not outputs:
        # Models converted from TensorFlow do not name them; MNN takes what nobody consumes, in this order.
        consumed = {tensor for op in reader.ops if op.subgraph is None for tensor in op.inputs}
        made = (tensor for op in reader.ops if op.subgraph is None and op.type != "Input" for tensor in op.outputs)
        outputs = [tensor for tensor in made if tensor not in consumed]
    recurrent = [op.name for op in reader.ops if op.type in _RECURRENT]
    recurrent += dict.fromkeys(body for body in reader.bodies if body in cells)
    return Parsed(
        inputs=tuple(inputs),
        outputs=tuple(TensorSpec(name, reader.results.get(name, "float32"), None) for name in outputs),
        ops=reader.ops,
        has_subgraphs=has_subgraphs,
        recurrent=recurrent,
        producer=f"MNN {extra.string(2) or 'of unknown version'}" if extra else None,
        external_files=reader.external_files(),
        weights=reader.weights,
        biz_code=net.string(_NET_BIZ),
    )


_INPUT = next(number for number, name in MNN_OPS.items() if name == "Input")
_WHILE = next(number for number, name in MNN_OPS.items() if name == "While")
_UNARY = next(number for number, name in MNN_OPS.items() if name == "UnaryOp")
_CAST = next(number for number, name in MNN_OPS.items() if name == "Cast")


def _names(indexes: tuple[int, ...], tensors: list[str]) -> tuple[str, ...]:
    if any(index >= len(tensors) for index in indexes):
        raise BrokenFileError("an operator refers to a tensor that does not exist")
    return tuple(tensors[index] if index >= 0 else "" for index in indexes)


class _Reader:
    """Collects over all graphs of one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ops: list[OpInfo] = []
        self.bodies: list[str] = []
        self.results: dict[str, str] = {}
        self.weights: Weights | None = None
        self._external: set[str] = set()

    def input(self, op: Table, tensors: list[str]) -> TensorSpec:
        outputs = _names(op.numbers(_OP_OUTPUTS), tensors)
        name = outputs[0] if outputs else op.string(_OP_NAME) or ""
        parameter = op.table(_OP_MAIN)
        if parameter is None:
            return TensorSpec(name, "float32", None)
        number = parameter.number(_INPUT_DTYPE, default=1)
        if number not in _DTYPES:
            raise unsupported_dtype("input", name, _DTYPE_NAMES.get(number, f"number {number}"), self.path)
        sizes = fixed_or_dynamic(parameter.numbers(_INPUT_DIMS))
        layout = _LAYOUTS.get(parameter.number(_INPUT_FORMAT, "b", 2))
        return TensorSpec(name, _DTYPES[number], sizes, layout=layout)

    def graph(self, nodes: list[Table], tensors: list[str], subgraph: str | None) -> bool:
        """Read one graph's operators.  True if it has both Sigmoid and TanH: the mark of an unrolled GRU or LSTM."""
        gates = set()
        for op in nodes:
            number = op.number(_OP_TYPE)
            kind = MNN_OPS.get(number, f"OP_{number}")
            outputs = _names(op.numbers(_OP_OUTPUTS), tensors)
            name = op.string(_OP_NAME) or (outputs[0] if outputs else f"{kind}_{len(self.ops)}")
            self.ops.append(OpInfo(name, kind, subgraph, _names(op.numbers(_OP_INPUTS), tensors), outputs))
            parameter = op.table(_OP_MAIN)
            if kind in _QUANTIZED_OPS:
                self.weights = "quantized"
            if kind in _INTEGER_RESULTS and subgraph is None:
                self.results.update(dict.fromkeys(outputs, "int32"))
            if parameter is None:
                continue
            if number == _WHILE:
                self.bodies.append(parameter.string(_WHILE_BODY) or "")
            elif number == _UNARY:
                gates.add(parameter.number(0))
            elif number == _CAST and subgraph is None:
                target = _DTYPES.get(parameter.number(1), "float32")
                self.results.update(dict.fromkeys(outputs, "int32" if target == "int64" else target))
            if op.number(_OP_KIND, "B") == _CONV_PARAMETERS:
                self._convolution(parameter, op)
        return {_SIGMOID, _TANH} <= gates

    def _convolution(self, parameter: Table, op: Table) -> None:
        external = parameter.count(_CONV_EXTERNAL, 8)
        if external:
            self._external.add(op.string(_OP_EXTERNAL) or "")
        quant = parameter.table(_CONV_QUANT)
        stored: Weights | None = None
        if quant is not None:
            kind = quant.number(_QUANT_TYPE)
            quant.count(_QUANT_BUFFER, 1)
            if kind:
                stored = "fp16" if kind == 3 else "quantized"
        if parameter.has(_CONV_INT8):
            stored = "quantized"
        if stored is None and (parameter.count(_CONV_WEIGHT, 4) or external):
            stored = "float"
        order = (None, "float", "fp16", "quantized")
        self.weights = max(self.weights, stored, key=order.index)

    def external_files(self) -> tuple[Path, ...]:
        found = []
        for name in sorted(self._external):
            # MNN itself ignores the stored name and looks for FILE.mnn.weight unless told otherwise.
            file = self.path.with_name(self.path.name + ".weight")
            if not file.is_file():
                raise InputError(
                    "MODEL_EXTERNAL_DATA_MISSING",
                    f"its weights are in {name or file.name}, which is not there",
                    hint=f"Put the weight file next to the model as {file.name}.",
                    where=str(self.path),
                )
            found.append(file)
        return tuple(dict.fromkeys(found))
