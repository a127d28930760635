"""Which outputs of a user's own cannot be the reference of a model, found from captures alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from edgequant.archive.arrays import MemoryArrays
from edgequant.findings import Finding
from edgequant.jobs.reference_checks import reference_findings
from tests.judge.archives import capture, off

Outputs = Mapping[str, Mapping[str, np.ndarray]]

NOISE = np.random.default_rng(0).standard_normal((3, 500)).astype(np.float32)
TRUE = {name: {"y": NOISE[number]} for number, name in enumerate("abc")}


@pytest.fixture(scope="module")
def model(as_mnn: Callable[..., Path], generated_model: Callable[[str], Path]) -> Path:
    """A float model with long sums."""
    return as_mnn(generated_model("conv_cnn"))


def found(reference: Outputs, host: Outputs, model: Path) -> list[Finding]:
    arrays = MemoryArrays()
    return reference_findings(capture(arrays, reference), capture(arrays, host), arrays, model)


def near(cases: Outputs, db: float = 110) -> Outputs:
    return {case: {"y": off(outputs["y"], db)} for case, outputs in cases.items()}


def test_what_another_program_computed_is_taken(model: Path) -> None:
    assert found(TRUE, near(TRUE), model) == []
    assert found(TRUE, near(TRUE, 10), model) == []  # wrong, but no other case's


def test_the_same_in_every_bit(model: Path, tmp_path: Path) -> None:
    (finding,) = found(TRUE, TRUE, model)
    assert (finding.code, finding.severity) == ("REFERENCE_IS_MODELS_OWN", "error")
    assert found(TRUE, {**TRUE, "c": near(TRUE)["c"]}, model) == []
    whole = {case: {"y": np.rint(8 * outputs["y"])} for case, outputs in TRUE.items()}
    assert found(whole, whole, model) == []  # sums of small whole numbers come out the same everywhere
    few = {case: {"y": outputs["y"][:80]} for case, outputs in TRUE.items()}
    assert found(few, few, model) == []
    labels = {case: {"y": np.arange(500)} for case in TRUE}
    assert found(labels, labels, model) == []


def test_of_another_case(model: Path) -> None:
    exchanged = {"a": TRUE["b"], "b": TRUE["a"], "c": TRUE["c"]}
    (finding,) = found(exchanged, near(TRUE), model)
    assert (finding.code, finding.severity) == ("REFERENCE_OF_OTHER_CASE", "error")
    assert finding.evidence["pairs"] == [["a", "y", "b"], ["b", "y", "a"]]
    # Cases that are much alike: the own one is not the best, but as good as it can be.
    alike = {"a": {"y": NOISE[0]}, "b": {"y": off(NOISE[0], 60)}}
    assert found(alike, {"a": {"y": off(NOISE[0], 59)}, "b": {"y": NOISE[0] * (1 + 3e-4)}}, model) == []
