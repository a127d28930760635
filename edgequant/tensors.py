"""The few facts about a tensor that every room needs: its name, element type and shape."""

from __future__ import annotations

from dataclasses import dataclass

DTYPES = (
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool",
)  # fmt: skip
"""Element types by their NumPy names: the only ones that appear in reports, captures and on the wire."""
SHAPE = "::shape"
"""Behind a tensor's name: the name of its sizes, in a copy of a model that hands these out."""


@dataclass(frozen=True)
class TensorSpec:
    """A model's input or output.

    shape: one entry per dimension; an int is fixed, None is dynamic.  None instead of a tuple: rank unknown.
    dims: the symbolic name of each dynamic dimension where the source has one (ONNX dim_param), else None; two
        dimensions with the same symbol always have the same size.
    layout: "NCHW", "NHWC" or None where the source does not say.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    dims: tuple[str | None, ...] | None = None
    layout: str | None = None

    @property
    def dynamic(self) -> bool:
        return self.shape is None or any(size is None for size in self.shape)
