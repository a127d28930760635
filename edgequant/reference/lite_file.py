"""A TFLite source in pieces: what `models.onnx_cut.OnnxFile` is for ONNX, with LiteRT's own process as the scissors."""

from __future__ import annotations

from pathlib import Path

from edgequant.models import ModelGraph
from edgequant.models.onnx_cut import Cut, Node, with_constants
from edgequant.reference.inside import LiteInside


class LiteFile:
    """The main graph.  inside: of the same source."""

    suffix = ".tflite"

    def __init__(self, graph: ModelGraph, inside: LiteInside) -> None:
        self._inside = inside
        self.nodes = [
            Node(op.name, op.type, tuple(filter(None, op.inputs)), op.inputs, op.outputs, op.attributes, (0, 0))
            for op in graph.ops
            if op.subgraph is None
        ]
        self.maker = {name: place for place, node in enumerate(self.nodes) for name in node.makes}
        """Tensor -> place of the node that makes it."""
        self.constant = self._constants({spec.name for spec in graph.inputs or ()})
        """Tensors that no input has a part in: what is stored, is made of it, or is a state of an operator's own."""

    def _constants(self, inputs: set[str]) -> set[str]:
        found = {name for node in self.nodes for name in node.reads if name not in self.maker and name not in inputs}
        for node in self.nodes:
            if all(name in found for name in node.reads) and not node.kind.startswith(("RANDOM", "MULTINOMIAL")):
                found.update(node.makes)
        return found

    def cut(self, part: Cut, out: Path) -> None:
        """Write a part as a model of its own, with its weights in it.

        `Cut.inputs` have to have all their sizes; an attribute of `Cut.changed` that is left out becomes 0.
        Raises RunnerError.
        """
        self._inside.cut(
            {
                "nodes": with_constants(part, self.nodes, self.maker, self.constant),
                "inputs": {name: list(sizes) for name, (_, sizes) in part.inputs.items()},
                "outputs": list(part.outputs),
                "changed": {name: 0 if value is None else value for name, value in part.changed.items()},
                "out": str(out.resolve()),
            },
            part.fixed,
        )
