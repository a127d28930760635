"""A run that was killed goes on where it was: nothing that was finished is done again."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgequant.archive.folder import device_capture, host_capture
from edgequant.archive.open import open_run
from edgequant.errors import InputError
from edgequant.jobs.rejudge import judge
from edgequant.jobs.verify import resume
from tests.beds.models import ModelByName
from tests.jobs.support import check_file, check_folder, do
from tests.waiting import eventually

HALTING = Path(__file__).with_name("halting_cli.py")
VARIANTS = ("float", "dynamic:8")


@contextlib.contextmanager
def halted(moment: str, *arguments: str) -> Iterator[psutil.Process]:
    """A real edgequant process, of which something is suspended at `moment`; all of it is killed at the end."""
    process = psutil.Popen(
        [sys.executable, str(HALTING), moment, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    family: list[psutil.Process] = []

    def suspended() -> bool:
        family[:] = process.children(recursive=True)
        with contextlib.suppress(psutil.NoSuchProcess):
            return any(each.status() == psutil.STATUS_STOPPED for each in family)
        return False

    try:
        assert eventually(suspended), "it never came to that"
        yield process
    finally:
        process.kill()  # SIGKILL: it has no time for anything
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()


def times(run_dir: Path) -> dict[str, int]:
    """When each file was written, in nanoseconds."""
    found = (path for path in run_dir.rglob("*") if path.is_file())
    return {path.relative_to(run_dir).as_posix(): path.stat().st_mtime_ns for path in found}


def untimed(run_dir: Path) -> dict[str, Any]:
    """A report without what is another each time: times, memory, and what had to be pushed."""
    document = check_file(run_dir / "report.json")
    for key in ("created", "timing_s"):
        del document[key]
    for run in document["runs"]:
        del run["memory_mb"], run["options"]["pushed_bytes"], run["options"]["runtime_bytes"]
        for key in ("uptime_s", "free_mb"):
            del run["device"]["facts"][key]
    return document


@pytest.mark.slow
def test_killed_in_the_middle_of_the_second_trial(generated_model: ModelByName, cases: Path, tmp_path: Path) -> None:
    model, run_dir = generated_model("conv_cnn"), tmp_path / "run"
    words = [word for variant in VARIANTS for word in ("--variant", variant)]
    with halted(
        "running", "verify", str(model), "--device", "local:", *words, "--inputs", str(cases), "--threads", "1",
        "--no-latency", "--run-dir", str(run_dir),
    ):  # fmt: skip
        pass
    first = run_dir / "captures" / f"{device_capture('local:', 'float')}.json"
    second = run_dir / "captures" / f"{device_capture('local:', 'dynamic:8')}.json"
    assert first.exists()
    assert not second.exists()
    check_folder(run_dir)
    left = judge(run_dir)
    assert left.changes == ()
    assert left.report.verdict == "ERROR"
    assert [finding.code for finding in left.report.findings][-1] == "INTERRUPTED"
    before, started = times(run_dir), json.loads(first.read_text())["started"]

    report, folder = resume(run_dir)

    assert folder.path == run_dir
    assert [run.verdict for run in report.runs] == ["PASS", "PASS"]
    assert all(report.timing_s[name] >= seconds for name, seconds in left.report.timing_s.items())
    after = times(run_dir)
    written = {name for name, when in after.items() if before.get(name) != when}
    rewritten = {name for name in written & before.keys() if not name.startswith(("logs/", "models/float-"))}
    assert rewritten == {"closing.json", "journal.jsonl", "report.json"}
    assert not [name for name in written if name.startswith(("artifacts/", "cases/", "models/weight"))]
    assert json.loads(first.read_text())["started"] == started
    assert json.loads(second.read_text())["started"] >= started
    check_folder(run_dir)
    whole = tmp_path / "whole"
    do(model, whole, *VARIANTS, inputs=cases)
    assert untimed(run_dir) == untimed(whole)


@pytest.mark.slow
def test_what_is_missing_or_failed_is_done_again(generated_model: ModelByName, cases: Path, tmp_path: Path) -> None:
    """A model that is gone or was changed is made again, and what was captured of it is not."""
    run_dir = tmp_path / "run"
    do(generated_model("conv_cnn"), run_dir, *VARIANTS, inputs=cases)
    run = open_run(run_dir)
    (file,) = run_dir.glob("models/weight8-*.mnn")
    file.unlink()
    capture = run_dir / "captures" / f"{device_capture('local:', 'float')}.json"
    document = json.loads(capture.read_text())
    failure = {"code": "RUNNER_DIED", "message": "it died", "where": None, "hint": None, "evidence": {}}
    capture.write_text(json.dumps({**document, "failure": failure}))
    (run_dir / "captures" / f"{host_capture('float')}.json").unlink()  # a trial that failed leaves none
    before = times(run_dir)
    report, _ = resume(run_dir)
    assert [found.verdict for found in report.runs] == ["PASS", "PASS"]
    after = times(run_dir)
    other = f"captures/{device_capture('local:', 'dynamic:8')}.json"
    assert before[other] == after[other]
    assert file.exists()
    assert json.loads(capture.read_text())["failure"] is None
    assert open_run(run_dir).source == run.source
    check_folder(run_dir)


def test_of_another_source(generated_model: ModelByName, tmp_path: Path) -> None:
    model, run_dir = tmp_path / "model.onnx", tmp_path / "run"
    shutil.copy(generated_model("conv_cnn"), model)
    do(model, run_dir)
    shutil.copy(generated_model("gru"), model)
    before = times(run_dir)
    with pytest.raises(InputError) as caught:
        resume(run_dir)
    assert caught.value.code == "MODEL_CHANGED"
    assert times(run_dir) == before
    with pytest.raises(InputError) as caught:
        resume(tmp_path / "nowhere")
    assert caught.value.code == "RUN_NOT_FOUND"


def test_with_another_mnn_or_on_another_device(generated_model: ModelByName, cases: Path, tmp_path: Path) -> None:
    """What two of them computed is never one run's; what is kept stays as it is."""
    run_dir = tmp_path / "run"
    do(generated_model("conv_cnn"), run_dir, *VARIANTS, inputs=cases)
    kept = run_dir / "captures" / f"{device_capture('local:', 'float')}.json"
    gone = run_dir / "captures" / f"{device_capture('local:', 'dynamic:8')}.json"
    plan, captured = (run_dir / "plan.json").read_text(), kept.read_text()
    now = json.loads(plan)["host"]["mnn"]

    (run_dir / "plan.json").write_text(plan.replace(f'"{now}"', '"3.0.99"', 1))
    before = times(run_dir)
    with pytest.raises(InputError) as caught:
        resume(run_dir)
    assert caught.value.code == "MNN_CHANGED"
    assert "begun with MNN 3.0.99" in str(caught.value)
    assert times(run_dir) == before

    (run_dir / "plan.json").write_text(plan)
    document = json.loads(captured)
    for key, value in (("cpu", "Cortex-A53"), ("features", ["asimd"]), ("mnn", "3.0.99")):
        told = json.dumps({**document, "device": {**document["device"], key: value}})
        kept.write_text(told)
        gone.unlink()
        report, _ = resume(run_dir)
        runs = {run.variant: run for run in report.runs}
        assert runs["dynamic:8"].verdict == "ERROR"
        assert runs["dynamic:8"].error is not None
        assert runs["dynamic:8"].error.code == "DEVICE_CHANGED"
        assert key in runs["dynamic:8"].error.message
        assert kept.read_text() == told
    kept.write_text(captured)  # the right one again
    assert [run.verdict for run in resume(run_dir)[0].runs] == ["PASS", "PASS"]
