"""Every tensor of a source held against that of the same name in float MNN on this host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from edgequant.blame import TABLE
from edgequant.cases.case import Case
from edgequant.device_scripts import model_file
from edgequant.errors import RunnerError, as_input
from edgequant.jobs.conversion_likeness import Likeness, liken
from edgequant.jobs.conversion_trial import let_go
from edgequant.lab.session import Session
from edgequant.lab.take import feed
from edgequant.models.onnx_cut import Node
from edgequant.reference.inside import batches
from edgequant.tensors import TensorSpec

_MOST_REFUSED = 8
_OUTPUT_SQNR_DB, _OUTPUT_REL_MAX = 40.0, 0.02
"""The limits of a float model's output."""


class Source(Protocol):
    name: str

    def sizes(self, names: Iterable[str], case: Case) -> dict[str, tuple[int, ...]]: ...

    def values(self, names: Iterable[str], case: Case) -> dict[str, np.ndarray]: ...


@dataclass
class Survey:
    """seen: what is known of each tensor; unseen: why others are not."""

    seen: dict[str, Likeness]
    unseen: dict[str, str]


def survey_of(
    source: Source, nodes: Sequence[Node], outputs: Sequence[TensorSpec], mnn: Path, host: Session, case: Case,
    constant: Iterable[str] = (),
) -> Survey:  # fmt: skip
    """Each tensor of the source held against MNN's of the same name, in batches of bounded size."""
    known = known_tensors(mnn)
    final = {spec.name for spec in outputs}
    folded = set(constant) - final
    makes = [name for node in nodes for name in node.makes if name not in folded]
    unseen = {name: "conversion fused it away" for name in makes if name not in known}
    sizes = source.sizes([name for name in makes if name in known or name in final], case)
    seen: dict[str, Likeness] = {}
    refused = 0
    for batch in batches(sizes):
        values = source.values(batch, case)
        asked = [name for name in batch if name in known and name in values]
        got = tapped(host, mnn, asked, case) if refused < _MOST_REFUSED else {}
        for name in batch:
            if name not in values:
                unseen[name] = "the source's runtime does not hand it out"
            elif name in got or name in final:
                seen[name] = liken(values[name], got.get(name))
            elif refused < _MOST_REFUSED:
                refused += 1
                seen[name] = liken(values[name], None)
            else:
                unseen[name] = "MNN had refused others before it"
    return Survey(seen, unseen)


def wrong_outputs(survey: Survey, outputs: Sequence[TensorSpec]) -> set[str]:
    """The model's outputs that are not the source's, by the limits of a float model."""
    found = set[str]()
    for spec in outputs:
        each = survey.seen.get(spec.name)
        if each is None:
            continue
        small = (
            each.sqnr_db is not None and each.sqnr_db >= _OUTPUT_SQNR_DB and (each.rel_max or 0.0) <= _OUTPUT_REL_MAX
        )
        if each.kind == "arranged" or (each.departs and not (small and each.shape == each.got and not each.what)):
            found.add(spec.name)
    return found


def known_tensors(mnn: Path) -> set[str]:
    """Names of tensors that a float MNN model can be asked for."""
    return model_file.tensor_names(str(mnn))


def tapped(host: Session, mnn: Path, names: list[str], case: Case) -> dict[str, np.ndarray]:
    """Inner tensors of float MNN; those are left out that it cannot hand out."""
    if not names:
        return {}
    try:
        runner = host.living_runner()
        loaded = runner.load(str(mnn.resolve()), "normal", precision="normal", outputs=names)
    except RunnerError as error:
        return _halved(host, mnn, names, case, error)
    try:
        found = runner.run(loaded, feed(loaded, case.inputs)).outputs
    except RunnerError as error:
        if error.code == "INFERENCE_FAILED":
            let_go(host, runner, loaded)
        return _halved(host, mnn, names, case, error)
    let_go(host, runner, loaded)
    return found


def _halved(host: Session, mnn: Path, names: list[str], case: Case, error: RunnerError) -> dict[str, np.ndarray]:
    if TABLE.get(error.code) == "user":
        raise as_input(error, "MNN cannot take these inputs: give others.") from None
    if error.code not in ("INFERENCE_FAILED", "MODEL_LOAD_FAILED", "TENSOR_UNKNOWN"):
        host.drop_runner()
    if len(names) == 1:
        return {}
    middle = len(names) // 2
    return tapped(host, mnn, names[:middle], case) | tapped(host, mnn, names[middle:], case)
