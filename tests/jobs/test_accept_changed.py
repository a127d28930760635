"""What is changed behind a release's back, while it runs or afterwards, is never taken for what was asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgequant.errors import InputError
from edgequant.jobs.accept import accept, resume
from edgequant.jobs.accept_judge import _changes, rejudge
from edgequant.jobs.accept_plan import planned
from edgequant.judge.acceptance import State
from edgequant.progress import Progress
from tests.beds.models import ModelByName
from tests.jobs.accept_specs import accepted, write_spec
from tests.judge.releases import KEY, Release, facts, spec_of
from tools import check_acceptance

THREE = """
models: {m: {path: m.onnx, inputs: cases}}
variants: ["dynamic:8", {variant: "dynamic:8", name: again}, {variant: "dynamic:8", name: last}]
devices: {host: "local:"}
rules: ["size_mb <= 9"]
"""


ONE = THREE.replace(', {variant: "dynamic:8", name: again}, {variant: "dynamic:8", name: last}', "")


class Editing(Progress):
    """The function becomes a kinder one before the second trial."""

    def __init__(self, function: Path) -> None:
        self.function = function

    def say(self, text: str) -> None:
        if text.startswith("task t: again"):
            self.function.write_text("def kind(cases):\n    return 1.0\n")


class Replacing(Progress):
    """The model becomes another file at one moment, a case at another."""

    def __init__(self, folder: Path, model: str, case: str = "never") -> None:
        self.folder = folder
        self.model = model
        self.case = case

    def say(self, text: str) -> None:
        if text.startswith(self.model):
            replace_model(self.folder / "m.onnx")
        if text.startswith(self.case):
            case = min((self.folder / "cases").glob("*.npz"))
            np.savez(case, **{name: array * 0.5 for name, array in np.load(case).items()})


def replace_model(path: Path) -> None:
    model = onnx.load(path)
    model.doc_string = "another"
    path.unlink()
    path.write_bytes(model.SerializeToString())


def test_a_model_or_a_case_that_is_replaced_while_it_runs(generated_model: ModelByName, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, THREE, model=generated_model("conv_cnn"))
    found, folder = accept(spec, run_dir=tmp_path / "run", progress=Replacing(tmp_path, "part 2 of", "part 3 of"))
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


def test_a_model_that_is_replaced_within_its_only_part(generated_model: ModelByName, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, ONE, model=generated_model("conv_cnn"))
    found, folder = accept(spec, run_dir=tmp_path / "run", progress=Replacing(tmp_path, "running dynamic:8"))
    assert (found.state, found.trials[0].attempts[0].doubts) == (State.INCONCLUSIVE, ("MODEL_CHANGED",))
    assert rejudge(folder.path).changes == ()


def test_a_function_that_is_edited_while_it_runs(generated_model: ModelByName, tmp_path: Path) -> None:
    task = 'tasks: {t: {function: "own.py:kind", better: higher}}\n'
    text = THREE.replace(', {variant: "dynamic:8", name: last}', "").replace("size_mb <= 9", "task:t >= 0.5")
    (tmp_path / "own.py").write_text("def kind(cases):\n    return 0.75\n")
    spec = write_spec(tmp_path, text + task, model=generated_model("conv_cnn"))
    found, folder = accept(spec, run_dir=tmp_path / "run", progress=Editing(tmp_path / "own.py"))
    assert {each.variant: each.state for each in found.trials} == {
        "dynamic:8": State.PASS, "again": State.INCONCLUSIVE,
    }  # fmt: skip
    assert check_acceptance.check(folder.judgement) == []
    # Nor are its numbers those of another function or another model.
    other = tmp_path / "other.yaml"
    for was, now, says in (
        ("own.py", "new.py", "tasks.t: it was measured with another function"),
        ("inputs: cases", "inputs: more", "models.m: it was measured with another inputs"),
        ("path: m.onnx", "path: n.onnx", "models.m: it was measured with another path"),
    ):
        other.write_text(spec.read_text().replace(was, now))
        with pytest.raises(InputError, match=says):
            rejudge(folder.path, other)
    # As written, in another place; or by another way to the same place.
    elsewhere = tmp_path / "elsewhere" / "gate.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(spec.read_text())
    other.write_text(spec.read_text().replace("path: m.onnx", f"path: {tmp_path / 'm.onnx'}"))
    assert rejudge(folder.path, elsewhere).changes == rejudge(folder.path, other).changes == ()


def test_gone_on_with_it_is_called_as_before(generated_model: ModelByName, tmp_path: Path) -> None:
    found, folder = accepted(write_spec(tmp_path, ONE, model=generated_model("conv_cnn")), tmp_path / "run")
    assert {found.name, rejudge(folder.path).found.name, resume(folder.path)[0].name} == {"gate"}


def test_what_a_release_was_held_against_stays_what_it_was(generated_model: ModelByName, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, f"{ONE}baseline: old\n", model=generated_model("conv_cnn"))
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


def test_one_rule_in_two_scopes_is_two_rules() -> None:
    spec = spec_of([{"rule": "size_mb <= 9", "device": "arm"}, {"rule": "size_mb <= 9", "model": "m"}])
    report = Release(spec, {KEY: [facts(facts={"size_mb": 3.0})]}).report()
    assert list(_changes(report, report)) == []
