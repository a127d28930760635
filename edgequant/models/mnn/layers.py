"""The operators of a quantized .mnn beside those of the float one it was made from, by the names MNN's files give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgequant.models.mnn.net import op_type, open_net, tensor
from edgequant.models.mnn.schema import Net, Op, TensorDescribe, TensorQuantInfo, WhileParam
from edgequant.models.model import ModelGraph, OpInfo

CONSTANTS = frozenset({"Const", "TrainableParam", "Input"})
_SILENT = frozenset({"Shape", "Rank", "Size", "Reshape", "Squeeze", "Unsqueeze", "ExpandDims", "Flatten", "Identity"})
"""They compute nothing, or no float: a fault of theirs would be seen in what reads them."""
LOOPS = frozenset({"While", "If"})


@dataclass(frozen=True)
class Sides:
    """Both files.

    Attributes:
        ops: of the quantized one, constants left out, in file order; the main graph first.
        constants: tensors that do not depend on inputs.
        inputs: of the model.
        common: tensors of the main graph that both have, and that are worth a look, in the order they are computed.
        only_float, only_quantized: tensors of the main graph that one side alone has.
        scales: tensor -> (scale, zero point), of those that have a fixed one.
        bodies: loop or branch -> the graphs in it.
    """

    ops: tuple[OpInfo, ...]
    constants: frozenset[str]
    inputs: tuple[str, ...]
    common: tuple[str, ...]
    only_float: tuple[str, ...]
    only_quantized: tuple[str, ...]
    scales: dict[str, tuple[float, float]]
    bodies: dict[str, tuple[str, ...]]


def sides(made: ModelGraph, plain: ModelGraph) -> Sides:
    """Of the quantized .mnn and the float one.  Raises BrokenFileError, OSError."""
    theirs = {name for op in plain.ops if op.subgraph is None for name in op.outputs}
    constants = {name for op in made.ops if op.type in ("Const", "TrainableParam") for name in op.outputs}
    ours: dict[str, None] = {}
    looked: dict[str, None] = {}
    for op in made.ops:
        if op.subgraph is not None or op.type in CONSTANTS:
            continue
        live = [name for name in op.inputs if name and name not in constants]
        if not live and op.inputs:
            constants.update(op.outputs)  # computed of constants alone
            continue
        ours.update(dict.fromkeys(op.outputs))
        if op.type not in _SILENT:
            looked.update(dict.fromkeys(op.outputs))
    own = {name for op in made.ops if op.subgraph is None for name in op.outputs}
    return Sides(
        tuple(op for op in made.ops if op.type not in CONSTANTS and not set(op.outputs) <= constants),
        frozenset(constants),
        tuple(name for op in made.ops if op.type == "Input" and op.subgraph is None for name in op.outputs),
        tuple(name for name in looked if name in theirs),
        tuple(sorted(theirs - own)),
        tuple(name for name in ours if name not in theirs),
        *_of_file(made.path),
    )


def _of_file(path: Path) -> tuple[dict[str, tuple[float, float]], dict[str, tuple[str, ...]]]:
    with open_net(path) as net:
        tensors = net.strings(Net.tensor_name)
        scales = {
            tensor(each.number(TensorDescribe.index), tensors): (
                info.real(TensorQuantInfo.scale), info.real(TensorQuantInfo.zero),
            )
            for each in net.tables(Net.extra_tensor_describe)
            if (info := each.table(TensorDescribe.quant_info)) is not None
        }  # fmt: skip
        bodies = {}
        for op in net.tables(Net.oplists):
            parameter = op.table(Op.main)
            if parameter is not None and op_type(op) == "While":
                named = (parameter.string(WhileParam.cond_graph), parameter.string(WhileParam.body_graph))
                bodies[op.string(Op.name) or ""] = tuple(name for name in named if name)
    return scales, bodies
