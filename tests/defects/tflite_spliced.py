"""Faults of MNN's converter in the midst of real TFLite models: one operator of theirs becomes one that is misread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers


def nearest_in_the_midst(source: Path, out: Path) -> str | None:
    """The first bilinear resize becomes one to the nearest with half_pixel_centers; the tensor it makes.  None where
    there is none."""
    from ai_edge_litert import schema_py_generated as schema

    made: Any = schema
    model = made.ModelT.InitFromPackedBuf(source.read_bytes())
    graph = model.subgraphs[0]
    kinds = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    code = made.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = made.BuiltinOperator.RESIZE_NEAREST_NEIGHBOR
    code.version = 3
    for op in graph.operators:
        if kinds[op.opcodeIndex] == made.BuiltinOperator.RESIZE_BILINEAR:
            model.operatorCodes.append(code)
            op.opcodeIndex = len(model.operatorCodes) - 1
            op.builtinOptionsType = made.BuiltinOptions.ResizeNearestNeighborOptions
            op.builtinOptions = made.ResizeNearestNeighborOptionsT()
            op.builtinOptions.halfPixelCenters = True
            builder = flatbuffers.Builder(1024)
            builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
            out.write_bytes(bytes(builder.Output()))
            return str(graph.tensors[op.outputs[0]].name.decode())
    return None
