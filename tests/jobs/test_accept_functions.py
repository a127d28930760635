"""A function of a spec that cannot be called is told before anything is converted or run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgequant.errors import EdgequantError
from edgequant.jobs.accept_plan import planned
from edgequant.jobs.tasks import Task, look
from edgequant.quantize.task_worker import misfit
from tests.beds.models import ModelByName
from tests.jobs.accept_specs import FUNCTIONS, accepted, write_spec

MODULE = """
NUMBER = 3
def good(cases, scale=2.0): return 1.0
def any_(*args, **more): return 1.0
def none(): return 1.0
def two(cases, labels): return 1.0
def named(*, cases): return 1.0
def yields(cases): yield 1.0
async def later(cases): return 1.0
class Metric:
    def __call__(self, cases): return 1.0
    def part(self, cases): return 1.0
made = Metric()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own_functions.py").write_text(MODULE)
    return tmp_path


@pytest.fixture
def module(folder: Path) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec((folder / "own_functions.py").read_text(), names)
    return names


def test_what_can_be_called_is_taken(folder: Path, module: dict[str, Any]) -> None:
    for function in (module["good"], module["any_"], module["made"], module["made"].part, max):
        assert misfit(function) == ""
    look(Task("t", "own_functions:made.part"), folder)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("none", "takes (): too many positional arguments"),
        ("two", "missing a required argument: 'labels'"),
        ("named", "takes (*, cases)"),
        ("yields", "yields: it has to return a number"),
        ("later", "is async: it has to return a number"),
    ],
)
def test_what_does_not_take_the_cases(module: dict[str, Any], function: str, words: str) -> None:
    assert words in misfit(module[function])


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("own_functions:NUMBER", "cannot be called"),
        ("own_functions:missing", "there is no 'missing' in own_functions; it has good, any_"),
        ("none_there.py:f", "there is no file none_there.py"),
        ("own_functions:Metric.part", "missing a required argument: 'cases'"),
    ],
)
def test_what_cannot_is_told_with_the_tasks_name(folder: Path, function: str, words: str) -> None:
    with pytest.raises(EdgequantError) as caught:
        look(Task("cer", function), folder)
    assert caught.value.code == "TASK_FAILED"
    assert caught.value.message.startswith(f"tasks.cer: {function}: ")
    assert words in caught.value.message, caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("raise RuntimeError('no licence')", "TASK_FAILED", "RuntimeError: no licence"),
        ("import no_such_package", "TASK_FAILED", "no_such_package"),
        ("import os\nos.abort()", "TASK_CRASHED", "SIGABRT"),
        ("import time\ntime.sleep(600)", "TASK_TIMEOUT", "2 s"),
    ],
)
def test_a_module_that_cannot_be_imported(tmp_path: Path, text: str, code: str, words: str) -> None:
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(EdgequantError) as caught:
        look(Task("cer", "broken.py:f", timeout=2.0), tmp_path)
    assert caught.value.code == code
    assert "tasks.cer: " in caught.value.message
    assert words in caught.value.message, caught.value.message


def test_nothing_is_run_before(generated_model: ModelByName, tmp_path: Path) -> None:
    spec = write_spec(
        tmp_path,
        f"""
        models: {{m: {{path: m.onnx, inputs: cases}}}}
        variants: ["dynamic:8"]
        devices: {{host: "local:"}}
        tasks: {{t: {{function: "{FUNCTIONS}:there_is_none", better: lower}}}}
        rules: ["task:t <= 1"]
        """,
        model=generated_model("conv_cnn"),
    )
    for does in (planned, lambda path: accepted(path, tmp_path / "run")):
        with pytest.raises(EdgequantError) as caught:
            does(spec)
        assert "there is no 'there_is_none'" in caught.value.message
        assert caught.value.message.startswith("tasks.t: ")
    assert not (tmp_path / "run").exists()
