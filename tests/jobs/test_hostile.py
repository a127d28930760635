"""A device that lies, a model that changes, a reference that is silent: never a PASS, never a lost report."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from edgequant.cases.load import save_npz
from edgequant.jobs.verify import verify
from edgequant.lab.session import DeviceOptions
from edgequant.plan.request import Request
from edgequant.progress import Progress
from edgequant.report.model import Report
from edgequant.report.read import load
from edgequant.spec import RunOptions
from tests.beds.models import ModelByName
from tests.jobs.support import arrays as captured

HERE = Path(__file__).parent


@pytest.fixture
def liar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DeviceOptions:
    """A device whose Python changes what the real runner says."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={HERE.parents[1]} exec {sys.executable} {HERE}/lying_python.py "$@"\n')
    script.chmod(0o755)
    return DeviceOptions(python=str(script), work_dir=str(tmp_path / "work"))


def do(model: Path, folder: Path, access: DeviceOptions, *variants: str, **more: object) -> Report:
    options = RunOptions(threads=1, repeat=20, timeout=60)
    report, run_dir = verify(
        Request(model, ("local:",), variants or ("weight:8",), options=options, access=access, run_dir=folder, **more)  # type: ignore[arg-type]
    )
    assert load(run_dir.report).verdict == report.verdict
    return report


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        ("missing", "other outputs than the model has"),
        ("undeclared", "other outputs than the model has"),
        ("fast", "latencies"),
        ("absurd", "samples"),
        ("flood", "samples"),
        ("memory", "session_mb"),
        ("inputs", "inputs the model does not have"),
        ("names", "characters no file can"),
        ("dtype", "dtype"),
    ],
)
def test_nonsense_is_the_devices_error_and_no_verdict_on_the_model(
    generated_model: ModelByName,
    liar: DeviceOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lie: str,
    says: str,
) -> None:
    monkeypatch.setenv("LIE", lie)
    report = do(generated_model("conv_cnn"), tmp_path / "run", liar)
    (run,) = report.runs
    assert run.verdict == report.verdict == "ERROR"
    assert run.error is not None
    assert run.error.code == "RUNNER_PROTOCOL"
    assert says in run.error.message


def test_a_clock_that_jumps_costs_the_timing_and_nothing_else(
    generated_model: ModelByName, liar: DeviceOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIE", "slow")
    (run,) = do(generated_model("conv_cnn"), tmp_path / "run", liar).runs
    assert run.verdict == "PASS"
    assert run.latency_ms is not None
    assert not run.latency_ms.valid
    assert "its clock jumps" in run.latency_ms.why_invalid[0]


def test_what_is_wrong_on_the_device_only_is_told_apart(
    generated_model: ModelByName, liar: DeviceOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIE", "noise")
    (run,) = do(generated_model("conv_cnn"), tmp_path / "run", liar).runs
    assert run.verdict == "FAIL"
    found = {finding.code: finding for finding in run.findings}
    assert "DEVICE_DIFFERS" in found
    assert found["LIMIT_EXCEEDED"].remedy is None


def test_outputs_that_change_from_run_to_run_prove_nothing(
    generated_model: ModelByName, liar: DeviceOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIE", "moody")
    for run in do(generated_model("conv_cnn"), tmp_path / "run", liar, "weight:8", "dynamic:8").runs:
        assert run.verdict == "INCONCLUSIVE"
        assert "NOT_DETERMINISTIC" in {finding.code for finding in run.findings}


def test_a_model_that_changes_meanwhile_is_no_pass(generated_model: ModelByName, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    shutil.copy(generated_model("conv_cnn"), model)

    class Swap(Progress):
        def say(self, text: str) -> None:
            if text.startswith("running weight:8"):
                shutil.copy(generated_model("argmax_ints"), model)

    request = Request(model, ("local:",), ("weight:8",), run_dir=tmp_path / "run", latency=False)
    report, _ = verify(request, Swap())
    assert report.verdict == "ERROR"
    assert "MODEL_CHANGED" in {finding.code for finding in report.findings}


def test_an_output_left_out_of_one_reference_is_told(generated_model: ModelByName, tmp_path: Path) -> None:
    model = generated_model("many_outputs")
    _, run_dir = verify(Request(model, run_dir=tmp_path / "first", variants=("float",), latency=False))
    cases, references = run_dir.path / "cases", tmp_path / "references"
    references.mkdir()
    for name, outputs in captured(run_dir.path, "reference").items():
        save_npz(references / f"{name}.npz", outputs)
    some = sorted(references.glob("*.npz"))[0]
    with np.load(some) as held:
        arrays = {name: held[name] for name in held.files}
    left = sorted(arrays)[0]
    del arrays[left]
    save_npz(some, arrays)
    request = Request(
        model, run_dir=tmp_path / "second", variants=("float",), latency=False, inputs=cases, reference=references
    )
    report, _ = verify(request)
    (finding,) = [f for f in report.findings if f.code == "OUTPUTS_NOT_JUDGED"]
    assert f"{left} in {some.stem}" in finding.message
