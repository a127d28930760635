"""The schema as MNN itself has it: its converter makes a file out of JSON that calls each field by MNN's own name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edgequant.models.flat import Field, FlatFile, Table, fields
from edgequant.models.mnn import schema
from edgequant.models.mnn.schema import OP_TYPES, Net, Op
from edgequant.quantize.child import run_child, tools_argv


class Value(NamedTuple):
    """Of an enumeration: what MNN calls it, and its number."""

    name: str
    number: int


HALF, NHWC = Value("DT_HALF", 19), Value("NHWC", 1)
QUANT = {"scale": 0.5, "zero": 3.0, "min": -7.0, "max": 9.0, "type": Value("DT_INT8", 6)}
BLOB = {
    "dims": [2], "dataFormat": NHWC, "dataType": HALF, "uint8s": [200], "int8s": [-3, 4], "int32s": [1, -2, 3],
    "int64s": [2**40], "float32s": [0.25, 0.5], "strings": ["one", "two", "three"], "external": [7, 8],
}  # fmt: skip
DESCRIBED = {"blob": BLOB, "index": 1, "name": "t", "regions": [{"origin": 1}], "quantInfo": QUANT}
IDST = {
    "buffer": [1, 2, 3], "alpha": [0.5], "type": 4, "useInt32": True, "quantScale": 0.5, "scaleIn": 0.25,
    "scaleOut": 0.125, "aMaxOrBits": 4, "aMin": -8, "readType": 5, "has_scaleInt": True, "shapeInt32": True,
    "weightSize": 2**31 + 5, "index": [9, 8], "alphaFp16": [15360, 1, 2], "scaleStorage": Value("FP16", 1),
}  # fmt: skip
COMMON = {
    "padX": 21, "padY": 22, "kernelX": 23, "kernelY": 24, "strideX": 25, "strideY": 26, "dilateX": 27, "dilateY": 28,
    "padMode": Value("SAME", 2), "group": 29, "outputCount": 30, "inputCount": 31, "relu": True, "relu6": True,
    "pads": [1, 2], "outPads": [3, 4, 5], "hasOutputShape": True,
}  # fmt: skip
CONVOLUTION = {
    "common": COMMON, "weight": [1.5, 2.5], "bias": [3.5], "quanParameter": IDST, "symmetricQuan": {"nbits": 3},
    "sparseParameter": {"args": []}, "external": [1, 2, 3],
}  # fmt: skip
POOL = {
    "padX": 1, "padY": 2, "isGlobal": True, "kernelX": 3, "kernelY": 4, "strideX": 5, "strideY": 6,
    "type": Value("AVEPOOL", 1), "padType": Value("SAME", 2), "dataType": HALF, "ceilModel": False, "pads": [1, 2],
    "countType": Value("EXCLUDE_PADDING", 2),
}  # fmt: skip
WHILE = {
    "cond_graph": "c", "body_graph": "b", "aliases_inputs": [{"data": ["x"]}], "aliases_outputs": ["o"],
    "aliases_updates": [{"data": ["x"]}, {"data": []}],
}  # fmt: skip
PARAMETERS: dict[str, dict[str, Any]] = {
    "Convolution2D": CONVOLUTION,
    "Blob": BLOB,
    "Pool": POOL,
    "WhileParam": WHILE,
    "Input": {"dims": [4, 5], "dtype": HALF, "dformat": NHWC},
    "UnaryOp": {"opType": Value("SIGMOID", 29), "T": HALF, "tableInt8": [1]},
    "CastParam": {"srcT": HALF, "dstT": Value("DT_INT64", 9)},
}


def operator(kind: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "inputIndexes": [1], "main_type": kind, "main": parameters, "name": kind, "outputIndexes": [0, 1],
        "type": Value("Convolution", 12), "defaultDimentionFormat": Value("NC4HW4", 2), "externalPath": "w",
    }  # fmt: skip


def plain(content: Any) -> Any:
    if isinstance(content, Value):
        return content.name
    if isinstance(content, dict):
        return {key: plain(value) for key, value in content.items()}
    return [plain(value) for value in content] if isinstance(content, list) else content


def converter(folder: Path, *arguments: str) -> None:
    calls = [("mnnconvert", [*arguments, "--bizCode", "test"])]
    result = run_child(tools_argv(*calls), log=folder / "log", cwd=folder, timeout=60)
    assert result.ok, result.log_tail


def written(content: dict[str, Any], folder: Path) -> Table:
    """The root of the file that MNN makes out of JSON."""
    (folder / "m.json").write_text(json.dumps(plain(content)))
    converter(folder, "-f", "JSON", "--modelFile", "m.json", "--MNNModel", "m.mnn")
    return FlatFile((folder / "m.mnn").read_bytes()).root()


def check(table: Table | None, name: str, content: Mapping[str, Any]) -> None:
    """Every field of a table, and of the tables in it, reads as what was written."""
    assert table is not None
    layout = getattr(schema, name)
    places = {key: value for key, value in vars(layout).items() if isinstance(value, Field)}
    assert [field.number for field in places.values()] == list(range(len(places)))
    ours = {key.replace("_", ""): field for key, field in places.items()}
    theirs = {key.replace("_", "").lower(): value for key, value in content.items()}
    assert list(ours) == list(theirs)
    assert all(map(table.has, places.values()))
    for key, value in theirs.items():
        check_field(table, ours[key], f"{name}.{key}", value)


INNER = {
    "Net.extrainfo": "ExtraInfo", "TensorDescribe.blob": "Blob", "TensorDescribe.quantinfo": "TensorQuantInfo",
    "Convolution2D.common": "Convolution2DCommon", "Convolution2D.quanparameter": "IDSTQuan",
    "Net.oplists": "Op", "Net.extratensordescribe": "TensorDescribe", "Net.subgraphs": "SubGraphProto",
    "SubGraphProto.extratensordescribe": "TensorDescribe", "SubGraphProto.nodes": "Op",
}  # fmt: skip


def check_field(table: Table, field: Field, where: str, value: Any) -> None:
    if where == "Op.maintype":
        if value in schema.OpParameter.__members__:
            assert table.number(field) == schema.OpParameter[value], where
    elif where == "Op.main":
        check(table.table(field), table.string(Op.name) or "", value)
    elif field.kind == "o" and where in INNER:
        check(table.table(field), INNER[where], value)
    elif field.kind == "[o]" and where in INNER:
        for part, content in zip(table.tables(field), value, strict=True):
            check(part, INNER[where], content)
    elif field.kind in ("o", "[o]"):  # whose insides nothing here reads
        assert (len(list(table.tables(field))) == len(value)) if field.kind == "[o]" else table.table(field), where
    elif field.kind == "s":
        assert table.string(field) == value, where
    elif field.kind == "[s]":
        assert table.strings(field) == value, where
    elif field.kind == "f":
        assert table.real(field) == value, where
    elif field.kind.startswith("["):
        assert list(table.numbers(field)) == value, where
    else:
        assert table.number(field) == (value.number if isinstance(value, Value) else value), where


def test_every_field_is_where_mnn_puts_it(tmp_path: Path) -> None:
    ops = [operator(kind, parameters) for kind, parameters in PARAMETERS.items()]
    graph = {
        "name": "g", "inputs": [0], "outputs": [1, 0], "tensors": ["a", "b"], "nodes": ops[:1],
        "extraTensorDescribe": [DESCRIBED],
    }  # fmt: skip
    content = {
        "bizCode": "test", "extraTensorDescribe": [DESCRIBED],
        "extraInfo": {"buffer": [5], "name": "n", "version": "v"},
        "oplists": ops, "outputName": ["b"], "preferForwardType": Value("OPENCL", 3),
        "sourceType": Value("TFLITE", 2), "tensorName": ["a", "b"],
        "tensorNumber": 2, "usage": Value("INFERENCE_STATIC", 2), "subgraphs": [graph], "mnn_uuid": "u",
    }  # fmt: skip
    check(written(content, tmp_path), "Net", content)


def test_what_is_left_out_is_what_mnn_takes_it_for(tmp_path: Path) -> None:
    """A file of tables with nothing in them; MNN's converter then writes every number down."""
    kinds = {"Input": "Input", "Pooling": "Pool", "Convolution": "Convolution2D", "Const": "Blob"}
    contents: dict[str, Any] = {
        **{key: {} for key in kinds},
        "Input": {"dims": [1, 3, 8, 8]},
        "Convolution": {"common": {}, "quanParameter": {}},
    }
    places: dict[str, tuple[list[int], list[int]]] = {
        "Input": ([], [0]), "Pooling": ([0], [1]), "Convolution": ([1], [2]), "Const": ([], [3]),
    }  # fmt: skip
    ops = [
        {"inputIndexes": places[kind][0], "main_type": main, "main": contents[kind], "name": kind,
         "outputIndexes": places[kind][1], "type": kind}
        for kind, main in kinds.items()
    ]  # fmt: skip
    written({"oplists": ops, "tensorName": list("abcd"), "extraTensorDescribe": [{"quantInfo": {}}]}, tmp_path)
    converter(tmp_path, "-f", "MNN", "--modelFile", "m.mnn", "--MNNModel", "full.mnn")
    net = FlatFile((tmp_path / "full.mnn").read_bytes()).root()
    described = next(net.tables(Net.extra_tensor_describe))
    found: list[tuple[type, Table | None]] = [(Net, net)]
    found.append((schema.TensorQuantInfo, described.table(schema.TensorDescribe.quant_info)))
    for op in net.tables(Net.oplists):
        main = op.table(Op.main)
        found += [(Op, op), (getattr(schema, kinds[op.string(Op.name) or ""]), main)]
        if main is not None and op.string(Op.name) == "Convolution":
            found.append((schema.Convolution2DCommon, main.table(schema.Convolution2D.common)))
            found.append((schema.IDSTQuan, main.table(schema.Convolution2D.quan_parameter)))
    assert len(found) == 12
    own = (Op.type, Op.main_type)
    for layout, table in found:
        assert table is not None
        for field in (each for each in fields(layout) if each.inline and not (layout is Op and each in own)):
            assert table.has(field), (layout, field)
            value = table.real(field) if field.kind == "f" else table.number(field)
            assert value == field.default, (layout, field)


def test_operators_have_the_numbers_mnn_gives_them(tmp_path: Path) -> None:
    ops = [{"type": name, "name": name} for name in OP_TYPES.values()]
    net = written({"oplists": ops, "tensorName": ["a"]}, tmp_path)
    found = {op.string(Op.name): op.number(Op.type) for op in net.tables(Net.oplists)}
    later = {name for name, number in found.items() if number == -1}  # than the MNN that is installed
    assert {number: name for name, number in found.items() if name not in later} == {
        number: name for number, name in OP_TYPES.items() if name not in later
    }
    assert later <= {"FusedLinear", "GatedRMSNorm"}


@pytest.mark.parametrize(
    ("kind", "field", "values"),
    [
        ("Blob", "dataType", schema.DataType),
        ("Blob", "dataFormat", schema.DataFormat),
        ("Pool", "type", schema.PoolType),
        ("UnaryOp", "opType", schema.UnaryOpOperation),
    ],
)
def test_values_have_the_numbers_mnn_gives_them(kind: str, field: str, values: type[IntEnum], tmp_path: Path) -> None:
    ops = [{"main_type": kind, "main": {field: each.name}} for each in values]
    net = written({"oplists": ops, "tensorName": ["a"]}, tmp_path)
    place = next(value for name, value in vars(getattr(schema, kind)).items() if name.replace("_", "") == field.lower())
    mains = [op.table(Op.main) for op in net.tables(Net.oplists)]
    assert [main.number(place) for main in mains if main is not None] == [each.value for each in values]
