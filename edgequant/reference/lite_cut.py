"""Cuts operators out of a TFLite file as a model of their own, with the schema that comes with LiteRT.

Only the process that LiteRT runs in uses this: it builds objects of whatever a file holds.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgequant.models.model import text

_BODIES = ("IF", "WHILE", "CALL_ONCE", "CALL", "STABLEHLO_COMPOSITE")
"""Operators that run other graphs of the file."""


class LiteParts:
    """A TFLite file in pieces.

    Raises ValueError where it cannot be cut: its weights are beside it, or an operator runs another of its graphs.
    """

    def __init__(self, path: Path) -> None:
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema

        self.path, self._schema, self._builder = path, schema, flatbuffers.Builder
        self._model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
        self._graph = self._model.subgraphs[0]
        numbers = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
        self._kinds = [
            numbers.get(max(code.builtinCode, code.deprecatedBuiltinCode), "") for code in self._model.operatorCodes
        ]

    def cut(
        self, places: Sequence[int], inputs: Mapping[str, Sequence[int]], fixed: Mapping[str, np.ndarray],
        outputs: Iterable[str], changed: Mapping[str, int], out: Path,
    ) -> None:  # fmt: skip
        """Write operators (places in the main graph, ascending) as a model.

        inputs: name -> sizes.  fixed: tensors that become constants.  changed: options of the last operator that are
        other ones.
        """
        model, graph = self._schema.ModelT(), self._schema.SubGraphT()
        model.version, model.description = self._model.version, "cut"
        model.buffers, model.operatorCodes, model.subgraphs = [self._schema.BufferT()], [], [graph]
        graph.tensors, graph.operators, graph.name = [], [], "main"
        numbers: dict[int, int] = {}
        codes: dict[int, int] = {}
        byname: dict[str, int] = {}

        def tensor(index: int) -> int:
            """Its number in the part, where it is put as soon as an operator has it."""
            if index < 0 or index in numbers:
                return numbers.get(index, -1)
            found = copy.copy(self._graph.tensors[index])
            name = self._name(index)
            if name in byname:
                raise ValueError(f"two tensors are called {name}")
            data = None
            if name in fixed:
                data = np.frombuffer(fixed[name].tobytes(), np.uint8)
            elif name in inputs:
                found.shape, found.shapeSignature, found.isVariable = list(inputs[name]), None, False
            elif (held := self._model.buffers[found.buffer]).offset or getattr(found, "externalBuffer", 0):
                raise ValueError(f"the contents of {name} are not in the file's own buffers")
            else:
                data = held.data
            found.buffer = 0
            if data is not None and len(data):
                buffer = self._schema.BufferT()
                buffer.data = data
                model.buffers.append(buffer)
                found.buffer = len(model.buffers) - 1
            graph.tensors.append(found)
            numbers[index] = byname[name] = len(graph.tensors) - 1
            return numbers[index]

        for place in places:
            op = copy.copy(self._graph.operators[place])
            if self._kinds[op.opcodeIndex] in _BODIES:
                raise ValueError(f"{self._kinds[op.opcodeIndex]} runs other graphs of the file")
            op.inputs = [tensor(int(each)) for each in _listed(op.inputs)]
            op.outputs = [tensor(int(each)) for each in _listed(op.outputs)]
            op.intermediates = [tensor(int(each)) for each in _listed(op.intermediates)] or None
            if op.opcodeIndex not in codes:
                codes[op.opcodeIndex] = len(codes)
                model.operatorCodes.append(self._model.operatorCodes[op.opcodeIndex])
            op.opcodeIndex = codes[op.opcodeIndex]
            if changed and place == places[-1]:
                op.builtinOptions = copy.copy(op.builtinOptions)
                for key, value in changed.items():
                    setattr(op.builtinOptions, _camel(key), value)
            graph.operators.append(op)
        graph.inputs = [byname[name] for name in inputs]
        graph.outputs = [byname[name] for name in outputs]
        builder = self._builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        out.write_bytes(builder.Output())

    def _name(self, index: int) -> str:
        """As `models.tflite_file` calls it."""
        name = self._graph.tensors[index].name
        return (text(name) if isinstance(name, bytes) else name) or f"tensor_{index}"


def _listed(numbers: Any) -> Sequence[int]:
    return () if numbers is None else numbers


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
