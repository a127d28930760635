"""Where MNN carries int8 beyond the layers it was told about, and where that goes wrong.

MNN (3.6.1) gives the scale of a tensor to its neighbours through operators that only move values (`_MOVES`) or nearly
so (`_CHANGES`), forwards and backwards, where those have none.  Two things follow, both measured and silent:

- Backwards through an average pool, the pool's input gets the scale of its output, which has a much smaller range: the
  input is clipped.  A classifier behind a global average pool came out at 1 dB.
- A model with loops or branches runs in segments, cut at those.  An int8 tensor made in one segment and used in a later
  one that has int8 layers too loses its scale on the way ("No quant info for Cast" in the log, nothing else) and is
  read as garbage.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from edgequant.models.model import OpInfo

_CUTS = frozenset({"While", "If", "Where", "Segment", "Unique", "NonMaxSuppressionV2", "MoE"})
_CHANGES = frozenset({"Pooling", "Pooling3D", "Interp", "CropAndResize", "ROIPooling"})
_MOVES = frozenset({
    "BatchToSpaceND", "BroadcastTo", "Concat", "ConvertTensor", "Crop", "DepthToSpace", "ExpandDims", "Flatten",
    "Gather", "GatherV2", "Identity", "Pack", "Padding", "Permute", "Raster", "ReLU", "ReLU6", "Reshape", "Reverse",
    "Slice", "SliceTf", "SpaceToBatchND", "SpaceToDepth", "Squeeze", "StridedSlice", "Tile", "Transpose", "Unpack",
    "Unsqueeze",
})  # fmt: skip
_PACKED = frozenset({
    "Convolution", "ConvolutionDepthwise", "ConvInt8", "DepthwiseConvInt8", "Deconvolution", "Pooling",
})  # fmt: skip
"""What puts out NC4HW4, whose size is a multiple of four.  Leaving it takes a ConvertTensor."""
_AS_IT_COMES = frozenset({"BinaryOp", "UnaryOp", "ReLU", "ReLU6", "PReLU", "Scale"})
"""What puts out NC4HW4 where an input is, and as many values as it takes in, or a multiple."""
_SAME_SIZE = frozenset({
    "ConvertTensor", "ExpandDims", "Flatten", "Identity", "Permute", "ReLU", "ReLU6", "Reshape", "Squeeze", "Transpose",
    "Unsqueeze",
})  # fmt: skip
"""What puts out as many values as it takes in."""


class Flow:
    """The main graph as MNN's int8 flows through it."""

    def __init__(self, ops: Sequence[OpInfo]) -> None:
        self._producer: dict[str, OpInfo] = {}
        self._consumers: dict[str, list[OpInfo]] = defaultdict(list)
        self._segment: dict[int, int] = {}
        segment = 0
        for op in ops:
            if op.subgraph is not None:
                continue
            segment += op.type in _CUTS
            self._segment[id(op)] = segment
            for name in op.outputs:
                self._producer[name] = op
            for name in op.inputs:
                self._consumers[name].append(op)
        self._ops = ops  # keeps the ids taken

    def crossing(self, tensor: str) -> str | None:
        """Name of an operator in a later segment that would get `tensor`, or what is made of it, as int8."""
        made = self._producer.get(tensor)
        if made is None:
            return None
        home, seen, waiting = self._segment[id(made)], {tensor}, [tensor]
        while waiting:
            for op in self._consumers[waiting.pop()]:
                # A loop itself takes int8 tensors as float, as long as there is nothing static inside of it; a change
                # of layout, as in front of every output, keeps the scale.
                if op.type not in _CUTS and op.type != "ConvertTensor" and self._segment[id(op)] != home:
                    return op.name
                if op.type in _MOVES or op.type in _CHANGES:
                    waiting += [name for name in op.outputs if name not in seen]
                    seen.update(op.outputs)
        return None

    def squeezed(self, tensor: str, described: Collection[str]) -> list[str]:
        """Inputs of range-changing operators that would inherit the scale of `tensor`.

        described: tensors with a scale of their own, which inherit nothing.
        """
        found, seen, waiting = [], {tensor}, [tensor]
        while waiting:
            op = self._producer.get(waiting.pop())
            if op is None or not (op.type in _MOVES or op.type in _CHANGES):
                continue
            for name in _values(op):
                if name not in seen and name not in described:
                    seen.add(name)
                    waiting.append(name)
                    found += [name] if op.type in _CHANGES else []
        return found

    def may_squeeze(self, tensor: str) -> list[str]:
        """What `squeezed` could ever answer for `tensor`: the tensors whose ranges have to be known."""
        return self.squeezed(tensor, ())

    def spread(self, described: Collection[str]) -> set[str]:
        """The tensors that may come to have a scale, forwards or backwards, where those of `described` have one."""
        seen, waiting = set(described), list(described)
        while waiting:
            tensor = waiting.pop()
            made = self._producer.get(tensor)
            for op in (*self._consumers[tensor], *([made] if made is not None else [])):
                values = (*_values(op), *op.outputs)
                if (op.type in _MOVES or op.type in _CHANGES) and tensor in values:
                    new = [name for name in values if name not in seen]
                    seen.update(new)
                    waiting += new
        return seen

    def nearest(self, tensor: str, described: Collection[str]) -> set[str]:
        """The tensors of `described` that `tensor` may have its scale from: itself, or those nearest to it."""
        seen, waiting = {tensor}, [tensor]
        while waiting:
            name = waiting.pop()
            if name in described:
                continue
            made = self._producer.get(name)
            for op in (*self._consumers[name], *([made] if made is not None else [])):
                values = (*_values(op), *op.outputs)
                if (op.type in _MOVES or op.type in _CHANGES) and name in values:
                    waiting += [each for each in values if each not in seen]
                    seen.update(values)
        return seen & set(described)

    def tails(self, described: Collection[str], whole: Collection[str]) -> list[tuple[str, tuple[str, ...]]]:
        """Name and inputs of each BinaryOp that would be int8 and whose size need not be a multiple of four.

        It is int8 where its output and all inputs have a scale, and its size is that of an input or a multiple of it.

        Args:
            described: tensors with a scale of their own.
            whole: tensors whose size is a multiple of four in any case.
        """
        int8 = self.spread(described)
        packed: set[str] = set()
        sized = set(whole)
        found = []
        for op in self._ops:
            if op.subgraph is not None:
                continue
            if op.type in _PACKED or (op.type in _AS_IT_COMES and not packed.isdisjoint(op.inputs)):
                packed.update(op.outputs)
            if op.type in _SAME_SIZE | _AS_IT_COMES and not sized.isdisjoint(op.inputs):
                sized.update(op.outputs)
            sure = not packed.isdisjoint(op.outputs) or not sized.isdisjoint(op.outputs)
            if op.type == "BinaryOp" and not sure and int8.issuperset((*op.inputs, *op.outputs)):
                found.append((op.name, op.inputs))
        return found


def _values(op: OpInfo) -> Sequence[str]:
    """Only the first input of an Interp or a Gather holds values; the others are sizes and indices."""
    return op.inputs if op.type in ("Concat", "Pack") else op.inputs[:1]
