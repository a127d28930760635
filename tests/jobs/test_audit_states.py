"""Faults of static int8 layers, halves and states; what an audit says of those it cannot see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgequant.jobs.audit import audit
from edgequant.judge.verdict import Verdict
from edgequant.models.mnn.faults import faults, nothings, unreachable
from tests import generated
from tests.cli.command import edgequant
from tests.jobs.support import do


@pytest.fixture(scope="module")
def streaming(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rolled")
    report = do(generated.ONNX_MODELS["streaming"](folder / "m.onnx"), folder / "run", "dynamic:8", rollout=16)
    assert report.verdict in (Verdict.PASS, Verdict.MARGINAL)
    return folder / "run"


def test_a_state_that_is_not_fed_back_is_caught(streaming: Path) -> None:
    found = audit(streaming, count=6, nulls=1)
    lost = [each for each in found.tried if each.fault.kind in ("state not fed back", "states exchanged")]
    assert {each.fault.layer for each in lost} >= {"h", "cache_prev"}
    assert all(each.caught and each.counts for each in lost), lost
    # An audit without its own reason for each miss would be silent about what it cannot see.
    assert all(found.blind(each) for each in found.tried if each.counts and not each.caught)
    assert not found.states


def test_states_of_which_nothing_was_rolled_out_are_named(tmp_path: Path) -> None:
    do(generated.ONNX_MODELS["streaming"](tmp_path / "m.onnx"), tmp_path / "run", "dynamic:8")
    found = audit(tmp_path / "run", count=2, nulls=0)
    assert set(found.states) == {"h", "cache_prev"}
    told = edgequant("audit", str(tmp_path / "run"), "--faults", "2")
    assert "--rollout 100 shows faults of states" in told.out


@pytest.mark.nightly
def test_static_layers_and_activations_are_planted_into(tmp_path: Path) -> None:
    do(generated.ONNX_MODELS["conv_cnn"](tmp_path / "m.onnx"), tmp_path / "run", "static:8,calib=minmax")
    (path,) = (tmp_path / "run" / "models").glob("static*.mnn")
    assert unreachable(path) == []
    drawn = faults(path, 400, seed=0)
    kinds = {each.kind for each in drawn}
    assert {"range clipped (activation)", "scale of a channel", "bias lost", "bits of weights flipped"} <= kinds
    data = path.read_bytes()
    for fault in drawn[:40]:
        planted = fault.planted(data)
        assert len(planted) == len(data)
        assert planted != data, fault
    found = audit(tmp_path / "run", count=40, nulls=8)
    assert found.false_alarms == 0
    # A calibrator that is named leaves weights that can be held against the float model's.
    in_file = [each for each in found.tried if each.where == "file" and each.fault.kind == "weights of a channel 0"]
    assert in_file
    assert all(each.caught for each in in_file if each.counts)


def test_weights_kept_as_halves_are_planted_into(tmp_path: Path) -> None:
    do(generated.ONNX_MODELS["conv_cnn"](tmp_path / "m.onnx"), tmp_path / "run", "fp16")
    (path,) = (tmp_path / "run" / "models").glob("fp16*.mnn")
    assert unreachable(path) == []
    data = path.read_bytes()
    fault = next(each for each in faults(path, 400, seed=1) if each.kind == "weights of a channel 0")
    ((at, content),) = fault.edits
    before = np.frombuffer(data[at : at + len(content)], "<f2").astype(np.float32)
    assert np.abs(before).max() < 10  # they are halves, not the bytes of other numbers
    assert not np.frombuffer(content, "<f2").any()
    assert all(each.copied for each in nothings(path, 3, seed=0))


def test_a_spec_is_verified_and_audited(tmp_path: Path) -> None:
    generated.ONNX_MODELS["conv_cnn"](tmp_path / "m.onnx")
    spec = tmp_path / "spec.yaml"
    spec.write_text('devices: ["local:"]\nvariants: ["dynamic:8"]\nlatency: false\noptions: {threads: 1}\n')
    refused = edgequant("audit", str(spec))
    assert refused.code == 2
    assert "OPTION_INVALID" in refused.err
    model, folder = str(tmp_path / "m.onnx"), str(tmp_path / "run")
    done = edgequant("audit", str(spec), "--model", model, "--run-dir", folder, "--faults", "4", "--json")
    assert done.code == 0, done.err
    told = done.json
    assert told["run"] == folder
    assert told["planted"] == 4
    assert told["named"] == told["counted"] - told["caught"]
