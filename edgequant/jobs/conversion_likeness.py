"""Whether a tensor of float MNN is the source's: the same, the same in another arrangement, or another one."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgequant.compare.metrics import compare
from edgequant.models.onnx_cut import Node

Kind = Literal["same", "arranged", "departs", "missing"]

INNER_SQNR_DB, INNER_REL_MAX = 50.0, 0.01
"""An inner tensor beyond these departs.  Float kernels that work differ by 75 dB and more, each on its own."""
_NOTHING = 1e-6
_MOST_MISMATCH = 0.001
_MOST_ARRANGED = 1 << 22  # elements
_SAMPLE = 4096


@dataclass(frozen=True)
class Likeness:
    """kind: "arranged" is the same numbers in other sizes or another order, "missing" was not computed.

    shape, got: sizes in the source and in MNN.  sqnr_db, rel_max, mismatch: see `compare.metrics`.  what: in words,
    where there is more to say than numbers do.
    """

    kind: Kind
    shape: tuple[int, ...] = ()
    got: tuple[int, ...] | None = None
    sqnr_db: float | None = None
    rel_max: float | None = None
    mismatch: float | None = None
    what: str | None = None

    @property
    def departs(self) -> bool:
        return self.kind in ("departs", "missing")


def liken(reference: np.ndarray, got: np.ndarray | None) -> Likeness:
    """How far a tensor of MNN is from the source's."""
    if got is None:
        return Likeness("missing", reference.shape, what="MNN does not compute it")
    if (reference.dtype.kind == "f") != (got.dtype.kind == "f"):
        got = got.astype(reference.dtype)
    if reference.shape == got.shape:
        found = _same_sizes(reference, got)
        return found if not found.departs else _arranged(reference, got) or found
    if reference.size != got.size:
        what = f"its sizes are {_sizes(got)}, not {_sizes(reference)}"
        return Likeness("departs", reference.shape, got.shape, what=what)
    flat = _same_sizes(reference.reshape(-1), got.reshape(-1))
    if not flat.departs:
        what = f"the same numbers, with sizes {_sizes(got)} in place of {_sizes(reference)}"
        return Likeness("arranged", reference.shape, got.shape, flat.sqnr_db, flat.rel_max, flat.mismatch, what)
    what = f"its sizes are {_sizes(got)}, not {_sizes(reference)}, and its numbers are others"
    found = Likeness("departs", reference.shape, got.shape, flat.sqnr_db, flat.rel_max, flat.mismatch, what)
    return _arranged(reference, got) or found


def same(reference: np.ndarray, got: np.ndarray | None) -> bool:
    """Whether `liken` calls it the same; without looking for what else it may be."""
    if got is None or reference.shape != got.shape:
        return False
    converted = got if (reference.dtype.kind == "f") == (got.dtype.kind == "f") else got.astype(reference.dtype)
    return not _same_sizes(reference, converted).departs


def _same_sizes(reference: np.ndarray, got: np.ndarray) -> Likeness:
    found = compare(reference, got)
    if found.kind == "int":
        wrong = (found.mismatch or 0.0) > _MOST_MISMATCH
    elif found.problem == "nonfinite" or found.swallowed:
        wrong = True
    elif found.reference_kind in ("zero", "empty") or found.sqnr_db is None:
        wrong = (found.max_abs or 0.0) > _NOTHING
    else:
        wrong = found.sqnr_db < INNER_SQNR_DB or (found.rel_max or 0.0) > INNER_REL_MAX
    what = None
    if found.swallowed or found.problem == "nonfinite":
        what = f"{found.nan} NaN and {found.inf} Inf, in the source {found.ref_nan} and {found.ref_inf}"
    return Likeness(
        "departs" if wrong else "same", reference.shape, got.shape, found.sqnr_db, found.rel_max, found.mismatch, what
    )


def _arranged(reference: np.ndarray, got: np.ndarray) -> Likeness | None:
    """The permutation of dimensions that explains the difference, if there is one."""
    if not 2 <= reference.ndim <= 5 or not 1 < reference.size <= _MOST_ARRANGED or np.ptp(reference) == 0:
        return None
    sample = got.reshape(-1)[:_SAMPLE]
    for order in itertools.permutations(range(reference.ndim)):
        moved = reference.transpose(order)
        if moved.flags.c_contiguous and moved.shape == reference.shape:
            continue
        flat = moved.reshape(-1)
        if _same_sizes(flat[:_SAMPLE], sample).departs or (found := _same_sizes(flat, got.reshape(-1))).departs:
            continue
        what = f"the same numbers, with the dimensions in the order {','.join(map(str, order))}"
        return Likeness("arranged", reference.shape, got.shape, found.sqnr_db, found.rel_max, found.mismatch, what)
    return None


def _sizes(array: np.ndarray) -> str:
    return ",".join(map(str, array.shape)) or "none"


@dataclass(frozen=True)
class Suspect:
    """A node with an output that departs, while nothing in front of it that could be seen does.

    place: of the node.  stretch: of all nodes between what was seen and its outputs, itself included.  outputs: those
    that depart.  unseen: tensors within the stretch.
    """

    place: int
    stretch: tuple[int, ...]
    outputs: tuple[str, ...]
    unseen: tuple[str, ...]


def suspects(nodes: Sequence[Node], seen: Mapping[str, Likeness], outputs: Collection[str]) -> list[Suspect]:
    """Where the way to an output that departs begins to depart, in the order of the nodes.

    seen: what is known of tensors; those that conversion has fused away are not in it.  outputs: of the model that
    depart.  What departs and is right again behind it has another name in MNN, and nobody is blamed for it.
    """
    maker = {name: place for place, node in enumerate(nodes) for name in node.makes}
    live = set(outputs)
    for node in reversed(nodes):
        if any(name in live for name in node.makes):
            live.update(name for name in node.reads if name in maker and (name not in seen or seen[name].departs))
    wrong = {name for name in live if name in outputs or (name in seen and seen[name].departs)}
    found = []
    for place, node in enumerate(nodes):
        departing = tuple(name for name in node.makes if name in wrong)
        if not departing:
            continue
        stretch, unseen, waiting, bad = {place}, list[str](), list(node.reads), False
        while waiting:
            name = waiting.pop()
            if name in wrong:
                bad = True
                break
            if name in maker and name not in seen and name not in unseen:
                unseen.append(name)
                stretch.add(maker[name])
                waiting += nodes[maker[name]].reads
        if not bad:
            found.append(Suspect(place, tuple(sorted(stretch)), departing, tuple(unseen)))
    return found
