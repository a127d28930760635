"""Reads .mnn files: a FlatBuffer whose root table is a Net, without a file identifier."""

from __future__ import annotations

from pathlib import Path

from edgequant.errors import InputError
from edgequant.models.flat import FlatFile, Table, fields
from edgequant.models.mnn.net import convolution, names, op_type
from edgequant.models.mnn.schema import (
    OP_TYPES,
    Blob,
    CastParam,
    Convolution2D,
    DataFormat,
    DataType,
    ExtraInfo,
    IDSTQuan,
    IDSTQuanType,
    Input,
    Net,
    Op,
    SubGraphProto,
    UnaryOp,
    UnaryOpOperation,
    WhileParam,
)
from edgequant.models.model import (
    BrokenFileError,
    Data,
    OpInfo,
    Parsed,
    Weights,
    fixed_or_dynamic,
    unsupported_dtype,
)
from edgequant.tensors import TensorSpec

_DTYPES: dict[int, str] = {
    DataType.DT_FLOAT: "float32", DataType.DT_DOUBLE: "float64", DataType.DT_INT32: "int32",
    DataType.DT_UINT8: "uint8", DataType.DT_INT16: "int16", DataType.DT_INT8: "int8", DataType.DT_INT64: "int64",
    DataType.DT_BOOL: "bool", DataType.DT_UINT16: "uint16", DataType.DT_HALF: "float16",
}  # fmt: skip
_DTYPE_NAMES = {each.value: each.name.removeprefix("DT_").lower() for each in DataType}
# NC4HW4 is how MNN keeps NCHW, not something a user feeds.
_LAYOUTS: dict[int, str] = {DataFormat.NCHW: "NCHW", DataFormat.NHWC: "NHWC", DataFormat.NC4HW4: "NCHW"}
_INTEGER_RESULTS = {"ArgMax", "ArgMin", "Shape", "Rank", "Size", "Where", "Unique", "NonMaxSuppressionV2"}
_QUANTIZED_OPS = {"ConvInt8", "DepthwiseConvInt8", "EltwiseInt8", "FloatToInt8", "Int8ToFloat", "DynamicQuant"}
_RECURRENT = {"LSTM", "RNN", "RNNSequenceGRU", "LSTMBlockCell"}


def looks_like_mnn(data: Data) -> bool:
    """Whether the root table is a plausible Net.  Says nothing about the rest of the file."""
    try:
        net = FlatFile(data).root()
        if not _like_a_net(net):
            return False
        first = next(net.tables(Net.oplists), None)
        return first is not None and first.number(Op.type) in OP_TYPES
    except BrokenFileError as error:
        # The root sits in front and what it points to behind it, so a file that was cut keeps a sound root.
        return error.cut and _sound_root(data)


def _sound_root(data: Data) -> bool:
    try:
        return _like_a_net(FlatFile(data).root())
    except BrokenFileError:
        return False


def _like_a_net(root: Table) -> bool:
    return 4 <= root.fields <= len(fields(Net)) + 8 and root.has(Net.oplists) and root.has(Net.tensor_name)


def read_mnn(data: Data, path: Path) -> Parsed:
    """Raises BrokenFileError, or InputError for an input element type or a missing weight file."""
    net = FlatFile(data).root()
    tensors = net.strings(Net.tensor_name)
    outputs = net.strings(Net.output_name)
    extra = net.table(Net.extra_info)
    reader = _Reader(path)
    main = list(net.tables(Net.oplists))
    if not main:
        raise BrokenFileError("it has no operators")
    inputs = [reader.input(op, tensors) for op in main if op_type(op) == "Input"]
    reader.graph(main, tensors, None)
    # A rolled-out GRU is a While whose body has both gates' functions; a plain loop of the source seldom does.
    cells = set()
    has_subgraphs = False
    for subgraph in net.tables(Net.subgraphs):
        has_subgraphs = True
        name = subgraph.string(SubGraphProto.name) or ""
        if reader.graph(list(subgraph.tables(SubGraphProto.nodes)), subgraph.strings(SubGraphProto.tensors), name):
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
        producer=f"MNN {extra.string(ExtraInfo.version) or 'of unknown version'}" if extra else None,
        external_files=reader.external_files(),
        weights=reader.weights,
        biz_code=net.string(Net.biz_code),
        constants=reader.constants,
        integers=reader.integers,
    )


class _Reader:
    """Collects over all graphs of one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ops: list[OpInfo] = []
        self.bodies: list[str] = []
        self.results: dict[str, str] = {}
        self.weights: Weights | None = None
        self.constants: dict[str, tuple[int, ...]] = {}
        self.integers: dict[str, int] = {}
        self._external: set[str] = set()

    def input(self, op: Table, tensors: list[str]) -> TensorSpec:
        outputs = names(op.numbers(Op.output_indexes), tensors)
        name = outputs[0] if outputs else op.string(Op.name) or ""
        parameter = op.table(Op.main)
        if parameter is None:
            return TensorSpec(name, "float32", None)
        number = parameter.number(Input.dtype)
        if number not in _DTYPES:
            raise unsupported_dtype("input", name, _DTYPE_NAMES.get(number, f"number {number}"), self.path)
        sizes = fixed_or_dynamic(parameter.numbers(Input.dims))
        layout = _LAYOUTS.get(parameter.number(Input.dformat))
        return TensorSpec(name, _DTYPES[number], sizes, layout=layout)

    def graph(self, nodes: list[Table], tensors: list[str], subgraph: str | None) -> bool:
        """Read one graph's operators.  True if it has both Sigmoid and TanH: the mark of an unrolled GRU or LSTM."""
        gates = set()
        for op in nodes:
            kind = op_type(op)
            outputs = names(op.numbers(Op.output_indexes), tensors)
            name = op.string(Op.name) or (outputs[0] if outputs else f"{kind}_{len(self.ops)}")
            self.ops.append(OpInfo(name, kind, subgraph, names(op.numbers(Op.input_indexes), tensors), outputs))
            parameter = op.table(Op.main)
            if kind in ("Const", "TrainableParam") and parameter is not None and subgraph is None:
                self.constants.update(dict.fromkeys(outputs, parameter.numbers(Blob.dims)))
                if parameter.count(Blob.int32s) == 1:
                    self.integers.update(dict.fromkeys(outputs, parameter.numbers(Blob.int32s)[0]))
            if kind in _QUANTIZED_OPS:
                self.weights = "quantized"
            if kind in _INTEGER_RESULTS and subgraph is None:
                self.results.update(dict.fromkeys(outputs, "int32"))
            if parameter is None:
                continue
            if kind == "While":
                self.bodies.append(parameter.string(WhileParam.body_graph) or "")
            elif kind == "UnaryOp":
                gates.add(parameter.number(UnaryOp.op_type))
            elif kind == "Cast" and subgraph is None:
                target = _DTYPES.get(parameter.number(CastParam.dst_t), "float32")
                self.results.update(dict.fromkeys(outputs, "int32" if target == "int64" else target))
            if (layer := convolution(op)) is not None:
                self._convolution(layer, op)
        return {UnaryOpOperation.SIGMOID, UnaryOpOperation.TANH} <= gates

    def _convolution(self, parameter: Table, op: Table) -> None:
        external = parameter.count(Convolution2D.external)
        if external:
            self._external.add(op.string(Op.external_path) or "")
        quant = parameter.table(Convolution2D.quan_parameter)
        stored: Weights | None = None
        if quant is not None:
            kind = quant.number(IDSTQuan.type)
            quant.count(IDSTQuan.buffer)
            if kind:
                stored = "fp16" if kind == IDSTQuanType.FP16 else "quantized"
        if parameter.has(Convolution2D.symmetric_quan):
            stored = "quantized"
        if stored is None and (parameter.count(Convolution2D.weight) or external):
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
