"""Rollouts from end to end: source, float MNN, the quantized file here and on a device, side by side."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgequant.archive.open import open_run
from edgequant.cases.load import save_npz
from edgequant.errors import InputError
from edgequant.plan.request import Request
from tests import generated
from tests.defects import states
from tests.defects.recordings import A53
from tests.defects.stateful import FAULTS
from tests.jobs.support import do

ALL = [*FAULTS, *states.FILES]


def test_a_streaming_model_is_rolled_out_and_its_states_are_found(tmp_path: Path) -> None:
    """`do` has the run's folder checked anew as well."""
    report = do(generated.streaming(tmp_path / "m.onnx"), tmp_path / "run", "dynamic:8", rollout=40)
    (run,) = report.runs
    assert run.rollout_steps == 40
    assert set(run.drift) == {"y", "hN", "cache_next"}
    drawn = run.drift["y"].curves
    assert set(drawn) == {"total", "conversion", "quantization"}
    assert drawn["conversion"].octaves[-1][1] > 110
    assert 30 < drawn["quantization"].octaves[-1][1] < 60
    assert run.drift["cache_next"].curves["total"].kind == "exact"
    assert "FEEDBACK_FOUND" in [finding.code for finding in report.findings]
    kept = open_run(tmp_path / "run")
    assert kept.source.rollout is not None
    assert kept.source.rollout.feedback == {"cache_prev": "cache_next", "h": "hN"}
    assert not any(kept.arrays.get(ref).any() for ref in kept.source.rollout.start.values())
    capture = kept.on_device("local:", kept.plan.variants[0])
    assert capture is not None
    assert [each.kind for each in capture.settings] == ["threads", "model"]


def test_frames_are_the_users_cases_in_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.standard_normal((1, 24, 1)).astype(np.float32) for _ in range(3)]
    cache, hidden = np.full((1, 24, 3), 0.5, np.float32), np.full((1, 1, 32), 0.25, np.float32)
    (tmp_path / "inputs").mkdir()
    for number, frame in enumerate(frames):
        save_npz(tmp_path / "inputs" / f"c{number}.npz", {"frame": frame, "cache_prev": cache, "h": hidden})
    model = generated.streaming(tmp_path / "m.onnx")
    given = ("cache_next=cache_prev", "hN=h")
    report = do(model, tmp_path / "run", "float", inputs=tmp_path / "inputs", feedback=given, rollout=7)
    assert report.runs[0].rollout_steps == 7
    kept = open_run(tmp_path / "run")
    rollout = kept.source.rollout
    assert rollout is not None
    assert not rollout.found
    assert rollout.cases == ("c0", "c1", "c2")
    assert np.array_equal(kept.arrays.get(rollout.frames["frame"]), np.stack(frames))
    assert np.array_equal(kept.arrays.get(rollout.start["h"]), hidden)
    # The cache is handed on unchanged, so it says which frames came when.
    cached = kept.arrays.get(kept.reference.rollout.outputs["cache_next"].kept)  # type: ignore[union-attr]
    assert [np.array_equal(cached[step][0, :, 2], frames[step % 3][0, :, 0]) for step in range(7)] == [True] * 7


@pytest.mark.nightly
def test_what_cannot_be_fed_back_is_said_before_anything_is_judged(tmp_path: Path) -> None:
    model = generated.small_cnn(tmp_path / "m.onnx")
    with pytest.raises(InputError) as error:
        do(model, tmp_path / "run", "float", rollout=5)
    assert error.value.code == "FEEDBACK_NOT_FOUND"
    with pytest.raises(InputError) as error:
        do(model, tmp_path / "run2", "float", feedback=("y=x",))
    assert error.value.code == "FEEDBACK_SHAPE"


def test_a_request_that_makes_no_sense_is_refused() -> None:
    for wrong in ({"rollout": 10_001}, {"rollout": 1}, {"feedback": ("h",)}):
        with pytest.raises(InputError) as error:
            Request(Path("m.onnx"), **wrong)  # type: ignore[arg-type]
        assert error.value.code in ("OPTION_INVALID", "FEEDBACK_INVALID")


def test_a_state_that_decays_on_the_device_is_found() -> None:
    said = states.bench("streaming").run("state", "decayed_little")
    assert said.verdict == "FAIL"
    assert "STATE_ALTERED" in said.grave


@functools.cache
def _twin(home: str) -> bool:
    return states.bench(home).healthy.healthy


@pytest.mark.parametrize("name", ALL)
@pytest.mark.nightly
@pytest.mark.xdist_group("states")
def test_a_state_that_goes_wrong_is_found(name: str) -> None:
    if name == "healthy":
        assert all(_twin(home) for home in states.MODELS)
        return
    found = next(each for each in states.defects() if each.name == f"state_{name}").outcome()
    assert (found.result, found.false_alarm) == ("caught", False), found


@pytest.mark.nightly
@pytest.mark.arm64
def test_the_same_where_rounding_lies_between_device_and_host() -> None:
    there = replace(states.bench("lstm"), uri=A53)
    assert there.healthy.healthy, there.healthy
    assert "STATE_ALTERED" in there.run("state", "fp16").grave


@pytest.mark.nightly
@pytest.mark.parametrize("row", states.SOUND, ids=str)
def test_a_sound_rollout_is_blamed_for_nothing(row: tuple[str, str, int]) -> None:
    said = states.sound(*row)
    assert said.healthy, said
    assert not [code for code, _ in said.findings if states.ROLLED.search(code)]
