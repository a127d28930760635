"""Task metrics in their child process: what they get, and whatever becomes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgequant.archive.acceptance import TaskRecord
from edgequant.archive.open import open_run
from edgequant.files import sha256_of
from edgequant.jobs.tasks import Task, measure
from edgequant.spec import Variant
from tests.judge.archives import HOST, TRUE, Archive, all_off

FUNCTIONS = Path(__file__).with_name("metric_functions.py")
OFF = 0.25


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = Archive(tmp_path_factory.mktemp("task"), "dynamic:8")
    archive.tried(HOST, "dynamic:8", {case: {"y": outputs["y"] + OFF} for case, outputs in TRUE.items()})
    archive.close()
    return archive.folder.path


def measured(run: Path, tmp_path: Path, function: str, **more: Any) -> TaskRecord:
    name = function if ":" in function else f"{FUNCTIONS}:{function}"
    return measure(
        Task("t", name, **{"timeout": 30.0} | more), open_run(run), model="m", variant=Variant.parse("dynamic:8"),
        uri=HOST, device="host", attempt=1, log=tmp_path / "t.log", cwd=tmp_path,
    )  # fmt: skip


def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({case: outputs["y"].tolist() for case, outputs in TRUE.items()}))
    return path


def test_a_function_gets_outputs_and_labels_and_its_code_is_hashed(run: Path, tmp_path: Path) -> None:
    file = labels(tmp_path)
    found = measured(run, tmp_path, "error", labels=file)
    assert found.error is None
    assert found.values == {"": pytest.approx(OFF, rel=1e-6)}
    assert (found.cases, found.code_sha256, found.labels_sha256) == (2, sha256_of(FUNCTIONS), sha256_of(file))


def test_a_dict_is_several_numbers(run: Path, tmp_path: Path) -> None:
    found = measured(run, tmp_path, "several")
    assert found.values == {"worst": pytest.approx(OFF, rel=1e-6), "cases": 2.0}


def test_labels_may_be_arrays(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    folder.mkdir()
    for number, case in enumerate(TRUE):
        np.savez(folder / f"{case}.npz", mask=np.ones(number + 1, np.uint8))
    assert measured(run, tmp_path, "by_arrays", labels=folder).values == {"": 3.0}


def test_a_module_is_found_from_the_folder_of_the_spec(run: Path, tmp_path: Path) -> None:
    (tmp_path / "own_metric.py").write_text("def one(cases):\n    return 1\n")
    assert measured(run, tmp_path, "own_metric:one").values == {"": 1.0}


@pytest.mark.parametrize(
    ("function", "code", "words"),
    [
        ("nan", "TASK_FAILED", "returned nan"),
        ("raises", "TASK_FAILED", "metric_functions.py:3"),
        ("text", "TASK_FAILED", "returned a str, not a number"),
        ("nothing", "TASK_FAILED", "returned nothing"),
        ("many", "TASK_FAILED", "5000 numbers; at most 1000"),
        ("leaves", "TASK_FAILED", "ended the process before"),
        ("NOT_A_FUNCTION", "TASK_FAILED", "cannot be called"),
        ("there_is_none", "TASK_FAILED", "it has error, several"),
        ("no_such_module_anywhere:f", "TASK_FAILED", "there is no module"),
        ("dies", "TASK_CRASHED", "SIGABRT"),
        ("error", "TASK_FAILED", "NoneType"),
    ],
)
def test_what_goes_wrong_is_a_reason_and_no_number(
    run: Path, tmp_path: Path, function: str, code: str, words: str
) -> None:
    found = measured(run, tmp_path, function)
    assert found.values == {}
    assert found.error is not None
    assert (found.error.code, words in found.error.message) == (code, True), found.error.message


def test_an_output_that_is_not_there_is_told_with_the_users_own_line(run: Path, tmp_path: Path) -> None:
    found = measured(run, tmp_path, "asks").error
    assert found is not None
    assert "metric_functions.py:35, in asks: KeyError: " in found.message
    assert "task_worker" not in found.message


def test_time_memory_and_output_are_bounded(run: Path, tmp_path: Path) -> None:
    late = measured(run, tmp_path, "hangs", timeout=1.0)
    assert late.error is not None
    assert late.error.code == "TASK_TIMEOUT"
    large = measured(run, tmp_path, "eats", memory_mb=500.0)
    assert large.error is not None
    assert "emory" in large.error.message
    assert measured(run, tmp_path, "prints").values == {"": 1.0}
    assert (tmp_path / "t.log").stat().st_size < 2 << 20


def test_a_case_without_a_label_or_outputs_is_told(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text('{"a": 1}')
    found = measured(run, tmp_path, "error", labels=path)
    assert found.error is not None
    assert found.error.code == "LABELS_INVALID"
    path.write_text("[1]")
    found = measured(run, tmp_path, "error", labels=path)
    assert found.error is not None
    assert "case: label" in found.error.message
    archive = Archive(tmp_path / "refused", "dynamic:8")
    archive.tried(HOST, "dynamic:8", {**all_off(TRUE, 40), "b": "no"})
    archive.close()
    found = measured(archive.folder.path, tmp_path, "several")
    assert found.error is not None
    assert (found.error.code, "b" in found.error.message) == ("TASK_NO_OUTPUTS", True)
