"""What is found where float MNN departs from its source: a node, the proof, the cause, and the smallest case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from edgequant.findings import Finding
from edgequant.jobs.conversion_likeness import Likeness
from edgequant.models.onnx_cut import Value, words

SHOWN = 20
"""Names in one list."""
Proof = Literal["alone", "with those before it", "its tensors", "none"]


class TensorFact(BaseModel):
    """A tensor of the source: its sizes there and in MNN, None where it was not seen; how far MNN is from it, measured
    in the whole model.  See `compare.metrics`."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    name: str
    shape: tuple[int, ...] | None = None
    mnn_shape: tuple[int, ...] | None = None
    sqnr_db: float | None = None
    rel_max: float | None = None
    mismatch: float | None = None
    what: str | None = None

    @classmethod
    def of(cls, name: str, seen: Likeness | None) -> TensorFact:
        if seen is None:
            return cls(name=name, what="conversion fused it away")
        return cls(
            name=name, shape=seen.shape, mnn_shape=seen.got, sqnr_db=seen.sqnr_db, rel_max=seen.rel_max,
            mismatch=seen.mismatch, what=seen.what,
        )  # fmt: skip


@dataclass(frozen=True)
class Reproduction:
    """The smallest part that shows it: its files, inputs, what the source's runtime makes of them, and MNN.

    The files last as long as the folder `first_departing` was given."""

    source: Path
    mnn: Path
    inputs: Mapping[str, np.ndarray]
    expected: Mapping[str, np.ndarray]
    got: Mapping[str, np.ndarray]


class Departure(BaseModel):
    """The first node of a source that float MNN computes otherwise.

    Attributes:
        node, operator, attributes: of the source.
        inputs, outputs: of the node, as measured in the whole model.
        proof: "alone": cut out and converted alone, fed with the source's tensors, it departs; "with those before it":
            the same, together with `context`; "its tensors": in the whole model its inputs are right and its output is
            not (a part of a TFLite source that cannot be cut out, or does not depart alone); "none": it is a
            suspicion.
        proven_by: in words.
        stretch: names of the nodes it cannot be told from, for conversion fused what lies between; itself included.
        context: names of the nodes without which it does not show.
        error: of the proof: output -> SQNR in dB, None where the error has no size.
        cause: a stable name, None where none is known.  why: a sentence.  cause_shown: the cause was seen, by
            computing what MNN does with the source's own runtime.
        remedy: what to do.
        unseen: what could not be looked at, and why not.
        passed_over: nodes before it with which a way that departs began, and which are right on their own.
        smallest: input of the part -> sizes that still show it.
        converter_runs: that the proof took.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True, defer_build=True)

    node: str
    operator: str
    attributes: dict[str, Value]
    inputs: tuple[TensorFact, ...]
    outputs: tuple[TensorFact, ...]
    case: str
    proof: Proof
    proven_by: str
    stretch: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    error: dict[str, float | None] = {}
    cause: str | None = None
    why: str | None = None
    cause_shown: bool = False
    remedy: str
    unseen: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    smallest: dict[str, tuple[int, ...]] = {}
    converter_runs: int = 0
    reference: str = ""

    _reproduction: Reproduction | None = None

    @property
    def reproduction(self) -> Reproduction | None:
        """For `export_case`; None where nothing is proven."""
        return self._reproduction

    @property
    def proven(self) -> bool:
        """Whether it is more than a suspicion."""
        return self.proof != "none"

    def finding(self) -> Finding:
        """It, as a finding of a report: under the name of its cause, where there is one."""
        return Finding(
            code=self.cause or "CONVERSION_ERROR",
            severity="fail" if self.proven else "warn",
            where=self.node,
            message=str(self),
            evidence=self.model_dump(mode="json"),
            remedy=self.remedy,
        )

    def __str__(self) -> str:
        given = "".join(f" {key}={words(value)}" for key, value in list(self.attributes.items())[:8])
        blame = ": MNN computes something else" if self.proof != "none" else " may be where MNN computes something else"
        stretch = f", in the stretch {' > '.join(self.stretch)}" if len(self.stretch) > 1 else ""
        why = f": {self.why}" if self.why else ""
        return f"{self.operator} {self.node}{given}{blame}{stretch}{why}"
