"""What a check would have missed."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgequant.archive.open import open_run
from edgequant.errors import InputError
from edgequant.jobs.audit import audit
from edgequant.judge.verdict import Verdict
from tests import generated
from tests.cli.command import edgequant
from tests.jobs.support import do


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audited")
    report = do(generated.ONNX_MODELS["conv_cnn"](folder / "m.onnx"), folder / "run", "dynamic:8")
    assert report.verdict in (Verdict.PASS, Verdict.MARGINAL)
    return folder / "run"


def test_planted_faults_are_caught_and_sound_files_are_not(run_dir: Path) -> None:
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    found = audit(run_dir, count=22, nulls=8)
    assert found.false_alarms == 0
    assert (len(found.nulls), len(found.tried)) == (8, 22)
    # Where the device is this host, only limits can tell: what breaks one is caught, wherever it is planted.
    broken = [each for each in found.tried if each.sqnr_db is not None and each.sqnr_db < 20]
    assert broken
    assert all(each.caught for each in broken), [str(each.fault) for each in broken if not each.caught]
    for each in found.tried:
        assert each.died or each.cost_db is None or each.cost_db >= 0
    assert found.bound is None, "no case was the user's"
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before


@pytest.mark.nightly
@pytest.mark.arm64
def test_a_device_of_its_own_is_held_against_this_host(tmp_path: Path) -> None:
    model = generated.ONNX_MODELS["conv_cnn"](tmp_path / "m.onnx")
    do(model, tmp_path / "run", "dynamic:8", devices=("emulated:cortex-a53",))
    found = audit(tmp_path / "run", count=60)
    assert found.false_alarms == 0
    on_device = [each for each in found.tried if each.counts and each.where == "device"]
    missed = [str(each.fault) for each in on_device if not each.caught]
    assert len(on_device) >= 15
    assert len(missed) <= 0.05 * len(on_device), missed


def test_the_command(run_dir: Path) -> None:
    done = edgequant("audit", str(run_dir), "--faults", "4", "--json")
    assert done.code == 0
    told = done.json
    assert (told["schema"], told["planted"], told["false_alarms"]) == ("edgequant.audit/1", 4, 0)
    assert len(told["faults"]) == told["planted"] + told["null_runs"]
    assert f"of these it catches {told['caught']} of {told['counted']}" in done.err


def test_what_cannot_be_audited(run_dir: Path, tmp_path: Path) -> None:
    broken = do(
        generated.ONNX_MODELS["conv_cnn"](tmp_path / "m.onnx"), tmp_path / "bad", "dynamic:8", limits=("sqnr_db>=150",)
    )
    assert broken.verdict is Verdict.FAIL
    for folder, code in ((tmp_path / "bad", "AUDIT_NOTHING_PASSED"), (tmp_path / "none", "RUN_NOT_FOUND")):
        with pytest.raises(InputError) as caught:
            audit(folder, count=2)
        assert caught.value.code == code
    with pytest.raises(InputError) as caught:
        audit(run_dir, count=2, variant="fp16")
    assert caught.value.code == "OPTION_INVALID"
    assert "dynamic:8 PASS" in (caught.value.hint or ""), "what it has"


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    do(generated.ONNX_MODELS["conv_cnn"](tmp_path / "m.onnx"), tmp_path / "run", "dynamic:8")
    run = open_run(tmp_path / "run")
    making = run.making(run.plan.variants[0])
    assert making is not None
    assert making.artifact is not None
    (run.path / making.artifact.path).write_bytes(b"another")
    with pytest.raises(InputError) as caught:
        audit(tmp_path / "run", count=2)
    assert caught.value.code == "AUDIT_FILE_GONE"
