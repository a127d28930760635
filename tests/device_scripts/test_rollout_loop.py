"""The loop of a rollout: what is fed, what is kept, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgequant.device_scripts import rollout
from edgequant.device_scripts.server import Job, JobError

F32 = np.float32


def rolled(steps: int, step: Any = None, *, seconds: float = 60, **tensors: np.ndarray) -> tuple[dict, dict]:
    """y = x + h, hN = y: a running sum."""
    given = {"frames/x": np.arange(3, dtype=F32)[:, None], "start/h": np.zeros(1, F32)} | tensors
    header = {"steps": steps, "feedback": {"h": "hN"}, "max_seconds": seconds}

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        total = inputs["x"] + inputs["h"]
        return {"y": total, "hN": total}

    return rollout.roll(Job(header, given, lambda _: None), step or run)


def test_what_a_step_gives_is_fed_into_the_next_and_frames_come_round() -> None:
    header, tensors = rolled(7)
    assert header["done"] == 7
    assert header["outputs"] == ["y", "hN"]
    assert header["kept"] == [[1, 2, 3, 4, 5, 6, 7]] * 2
    assert tensors["kept/0"].ravel().tolist() == np.cumsum([0, 1, 2, 0, 1, 2, 0]).tolist()
    assert tensors["stats/0"].shape == (7, rollout.STATS)
    assert tensors["stats/0"][6].tolist() == [6, 6, 6, 6, 0]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"steps": 1}, "REQUEST_INVALID"),
        ({"steps": 10_001}, "REQUEST_INVALID"),
        ({"steps": True}, "REQUEST_INVALID"),
        ({"max_seconds": float("inf")}, "REQUEST_INVALID"),
        ({"feedback": ["hN"]}, "REQUEST_INVALID"),
        ({"feedback": {}}, "REQUEST_INVALID"),
        ({"feedback": {"x": "hN", "h": "hN"}}, "REQUEST_INVALID"),
        ({"feedback": {"h": "nothing"}}, "FEEDBACK_MISSING"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(change: dict[str, Any], code: str) -> None:
    header = {"steps": 3, "feedback": {"h": "y"}, "max_seconds": 9.0} | change
    tensors = {"frames/x": np.zeros((1, 1), F32), "start/h": np.zeros(1, F32)}
    with pytest.raises(JobError) as error:
        rollout.roll(Job(header, tensors, lambda _: None), lambda inputs: {"y": inputs["h"]})
    assert error.value.code == code


def test_no_frames_and_other_tensors_are_refused() -> None:
    for tensors in ({"frames/x": np.zeros((0, 1), F32)}, {"frames/x": np.zeros((), F32)}, {"x": np.zeros(1, F32)}):
        with pytest.raises(JobError):
            rolled(3, **tensors)


def test_a_state_that_grows_and_an_output_that_changes_are_refused() -> None:
    def growing(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"hN": np.concatenate([inputs["h"], inputs["x"]])}

    with pytest.raises(JobError) as error:
        rolled(3, growing)
    assert error.value.code == "FEEDBACK_SHAPE"
    seen: list[int] = []

    def changing(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.append(1)
        return {"hN": inputs["h"], "y": np.zeros(len(seen), F32)}

    with pytest.raises(JobError) as error:
        rolled(3, changing)
    assert error.value.code == "ROLLOUT_SHAPE"


def test_it_ends_when_time_is_over() -> None:
    header, tensors = rolled(10_000, seconds=1e-6)
    assert header["done"] == 1
    assert len(tensors["kept/0"]) == len(tensors["stats/0"]) == 1


@pytest.mark.parametrize("count", [2, 3, 100, 10_000])
@pytest.mark.parametrize("elements", [0, 1, 64, 10_000, 10_000_000])
def test_what_is_kept_fits_and_has_the_first_the_last_and_what_was_fed_into_them(count: int, elements: int) -> None:
    kept = rollout.kept_steps(count, elements)
    assert kept == sorted(set(kept))
    assert {1, 2, count - 1, count} <= set(kept) <= set(range(1, count + 1))
    assert len(kept) <= max(rollout.FEWEST, rollout.KEPT_BYTES // (4 * max(1, elements)))
    if count * elements * 4 <= rollout.KEPT_BYTES:
        assert len(kept) == count


def test_statistics_leave_out_what_is_not_finite() -> None:
    assert rollout.stats_of(np.array([1, np.nan, -3, np.inf], F32)) == (-3, 1, -1, pytest.approx(5**0.5), 2)
    assert rollout.stats_of(np.array([np.nan], F32)) == (0, 0, 0, 0, 1)
    assert rollout.stats_of(np.array([True, False])) == (0, 1, 0.5, pytest.approx(0.5**0.5), 0)
