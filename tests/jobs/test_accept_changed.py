"""What is changed behind a release's back, while it runs or afterwards, is never taken for what was asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgequant.errors import InputError
from edgequant.jobs.accept import accept, resume
from edgequant.jobs.accept_judge import rejudge
from edgequant.jobs.accept_plan import planned
from edgequant.judge.acceptance import State
from edgequant.progress import Progress
from tests.beds.models import ModelByName
from tests.jobs.accept_specs import accepted, write_spec
from tools import check_acceptance

THREE = """
models: {m: {path: m.onnx, inputs: cases}}
variants: ["dynamic:8", {variant: "dynamic:8", name: again}, {variant: "dynamic:8", name: last}]
devices: {host: "local:"}
rules: ["size_mb <= 9"]
"""


class Replacing(Progress):
    """Behind the first part the model is another file, behind the second a case is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def say(self, text: str) -> None:
        if text.startswith("part 2 of"):
            replace_model(self.folder / "m.onnx")
        if text.startswith("part 3 of"):
            case = min((self.folder / "cases").glob("*.npz"))
            np.savez(case, **{name: array * 0.5 for name, array in np.load(case).items()})


def replace_model(path: Path) -> None:
    model = onnx.load(path)
    model.doc_string = "another"
    path.unlink()
    path.write_bytes(model.SerializeToString())


def test_a_model_or_a_case_that_is_replaced_while_it_runs(generated_model: ModelByName, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, THREE, model=generated_model("conv_cnn"))
    found, folder = accept(spec, run_dir=tmp_path / "run", progress=Replacing(tmp_path))
    told = {each.variant: (each.state, each.attempts[0].doubts) for each in found.trials}
    assert told == {
        "dynamic:8": (State.PASS, ()),
        "again": (State.INCONCLUSIVE, ("MODEL_CHANGED",)),
        "last": (State.INCONCLUSIVE, ("MODEL_CHANGED", "CASES_CHANGED")),
    }
    assert found.state is State.INCONCLUSIVE
    assert check_acceptance.check(folder.judgement) == []
    assert rejudge(folder.path).changes == ()
    # And it is not gone on with as if it were one.
    with pytest.raises(InputError) as changed:
        resume(folder.path)
    assert changed.value.code == "MODEL_CHANGED"


def test_what_a_release_was_held_against_stays_what_it_was(generated_model: ModelByName, tmp_path: Path) -> None:
    text = THREE.replace(', {variant: "dynamic:8", name: again}, {variant: "dynamic:8", name: last}', "")
    spec = write_spec(tmp_path, f"{text}baseline: old\n", model=generated_model("conv_cnn"))
    # A baseline that is none is told before anything is run.
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "acceptance.json").write_text('{"schema": "edgequant.acceptance/1"}')
    for broken in (lambda: accept(spec, run_dir=tmp_path / "run"), lambda: planned(spec)):
        with pytest.raises(InputError) as told:
            broken()
        assert told.value.code == "REPORT_INVALID"
    assert not (tmp_path / "run").exists()
    spec.write_text(spec.read_text().replace("baseline: old\n", ""))
    run = accepted(spec, tmp_path / "run")[1].path
    shutil.copy(run / "acceptance.json", tmp_path / "old")
    run = accepted(spec, tmp_path / "next", baseline=tmp_path / "old")[1].path
    # Another spec is held against the baseline that it names, or against none; never against the run itself.
    for baseline, code in (("next", "SPEC_INVALID"), ("gone", "RUN_NOT_FOUND"), ("old", None)):
        other = tmp_path / "other.yaml"
        other.write_text(f"{spec.read_text()}baseline: {baseline}\n")
        if code is None:
            assert rejudge(run, other).found.state is State.PASS
            continue
        with pytest.raises(InputError) as told:
            rejudge(run, other)
        assert told.value.code == code
    # What lies in the folder is what was asked for, and nothing that was written into it since.
    for name in ("baseline.json", "spec.yaml"):
        kept = (run / name).read_bytes()
        (run / name).write_bytes(kept.replace(b"size_mb", b"size_mb ", 1))
        for again in (rejudge, resume):
            with pytest.raises(InputError) as told:
                again(run)
            assert told.value.code == "RUN_INVALID"
            assert name in str(told.value)
        (run / name).write_bytes(kept)
    assert rejudge(run).changes == ()
