"""Drift, judged from rollouts made by hand: a small recurrent net in NumPy in place of MNN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from edgequant.archive.arrays import MemoryArrays
from edgequant.archive.record import Failure
from edgequant.archive.rollout import Replay, Rolled, Rollout, RolloutCapture
from edgequant.archive.types import Capture
from edgequant.device_scripts import rollout as loop
from edgequant.judge import curve as curves
from edgequant.judge.drift import Bounds, Sides, drift
from edgequant.judge.limits import default_limits
from edgequant.judge.stages import Comparer
from edgequant.judge.types import Observed
from edgequant.judge.verdict import Verdict
from edgequant.lab.probes.rollout import take_rollout
from edgequant.runner.rolling import Asked, RolledOutput, RollResult
from tests.defects.stateful import FAULTS

STEPS, WIDTH = 100, 16
RNG = np.random.default_rng(0)
WEIGHTS = (0.9 * np.linalg.qr(RNG.standard_normal((WIDTH, WIDTH)))[0]).astype(np.float32)
FRAMES = RNG.standard_normal((50, 1, WIDTH)).astype(np.float32)
KINDS = {"y": "float", "hN": "float"}
ARRAYS = MemoryArrays()
ASKED = Rollout(
    steps=STEPS,
    feedback={"h": "hN"},
    start={"h": ARRAYS.put(np.zeros((1, WIDTH), np.float32))},
    frames={"x": ARRAYS.put(FRAMES)},
)
State = np.ndarray


@dataclass
class Net:
    """What runs a model.  noise: of its weights; between: what its loop does to the state between two steps."""

    noise: float = 0.0
    seed: int = 1
    gain: float = 1.0
    step: Callable[[State, State], State] | None = None
    fault: str = "healthy"
    weights: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rough = np.random.default_rng(self.seed).standard_normal(WEIGHTS.shape) * np.abs(WEIGHTS).mean()
        self.weights = (self.gain * (WEIGHTS + self.noise * rough)).astype(np.float32)

    def run(self, inputs: Any) -> dict[str, np.ndarray]:
        if self.step is not None:
            state = self.step(inputs["h"], inputs["x"])
        else:
            state = np.tanh(inputs["h"] @ self.weights + 0.3 * inputs["x"])
        return {"y": (2 * state).astype(np.float32), "hN": state.astype(np.float32)}

    def roll(self, asked: Asked) -> RollResult:
        effect, earlier, state = FAULTS[self.fault][1], [dict(asked.start)], dict(asked.start)
        found: dict[str, list[np.ndarray]] = {"y": [], "hN": []}
        for step in range(1, asked.steps + 1):
            outputs = self.run(asked.inputs(step, state))
            for name, array in outputs.items():
                found[name].append(array)
            right = {"h": outputs["hN"]}
            state = dict(effect(step, right, earlier))
            earlier = [earlier[0], right]
        outputs = {
            name: RolledOutput(
                tuple(range(1, len(each) + 1)), np.stack(each), np.array([loop.stats_of(array) for array in each])
            )
            for name, each in found.items()
        }
        return RollResult(outputs, asked.steps, 1.0)


def took(net: Net, *, moved: bool = False, asked: Rollout = ASKED) -> Capture:
    told = take_rollout(net, asked, ARRAYS, noise=2.0**-16 if moved else None)
    return Capture(trial="t", role="device", rollout=told)


def judged(
    *, source: Capture | None = None, base: Capture, here: Capture | None, device: Capture, **more: Any
) -> tuple[Any, list[tuple[str, str, Any]], Verdict]:
    """The drift, (code, severity, stage) of what was found, the verdict."""
    sides = Sides(source, base, here, device, more.get("is_host", False), more.get("quantized", True))
    limits = {name: more.get("limits", default_limits("dynamic", "float")) for name in KINDS}
    bounds = Bounds(limits, more.get("method", "dynamic"), "normal", (), True)
    found, looks = drift(more.get("asked", ASKED), sides, KINDS, bounds, Comparer(ARRAYS))
    told = [(each.code, each.severity, each.evidence.get("stage")) for look in looks for each in look.findings]
    severe = max((look.verdict for look in looks), key=list(Verdict).index, default=Verdict.PASS)
    return found, told, severe


SOURCE = took(Net(), moved=True)
FLOAT = took(Net(noise=1e-7))
QUANTIZED = took(Net(noise=2e-3, seed=3), moved=True)


def on_device(fault: str, **more: Any) -> tuple[Any, list[tuple[str, str, Any]], Verdict]:
    device = took(Net(noise=2e-3, seed=3, fault=fault))
    return judged(source=SOURCE, base=FLOAT, here=QUANTIZED, device=device, **more)


def test_a_sound_rollout_is_blamed_for_nothing() -> None:
    found, told, _ = on_device("healthy")
    assert told == []
    assert found.done == found.asked == STEPS
    assert set(found.outputs["y"].curves) == {"total", "conversion", "quantization", "device"}
    assert found.outputs["y"].curves["device"].kind == "exact"
    assert found.outputs["y"].breaks is None
    assert found.outputs["y"].bound is not None, "what was kept is told"


@pytest.mark.parametrize("seed", range(2))
def test_another_machines_rounding_is_blamed_for_nothing(seed: int) -> None:
    device = took(Net(noise=2e-3, seed=3, step=None, gain=1.0 + 1e-7 * (seed + 1)))
    assert judged(source=SOURCE, base=FLOAT, here=QUANTIZED, device=device)[1] == []


ONE_STATE = [name for name in FAULTS if name not in ("healthy", "one_not_fed", "other_input", "left_over")]


@pytest.mark.parametrize("fault", ONE_STATE)
def test_what_a_loop_does_to_its_state_is_the_devices(fault: str) -> None:
    _, told, verdict = on_device(fault)
    assert told
    assert {stage for _, _, stage in told} == {"device"}
    assert verdict is Verdict.FAIL


@pytest.mark.parametrize("fault", ["decayed_little", "fp16", "bias", "element_lost", "stale"])
def test_a_step_by_itself_shows_it_where_rounding_could_explain_it(fault: str) -> None:
    """As far from the host as int8 lets another CPU be."""
    device = took(Net(noise=4e-3, seed=3, fault=fault))
    noisy = QUANTIZED.model_copy(update={"rollout": QUANTIZED.rollout.model_copy(update={"moved": {}})})  # type: ignore[union-attr]
    codes = [code for code, *_ in judged(source=SOURCE, base=FLOAT, here=noisy, device=device)[1]]
    assert "STATE_ALTERED" in codes


@pytest.mark.parametrize(
    ("net", "stage"),
    [
        (Net(noise=1e-3), "conversion"),  # 0.1 % of the weights: 50 dB, where float arithmetic has 130
        (Net(step=lambda h, x: np.tanh(0.99 * h @ WEIGHTS + 0.3 * x)), "conversion"),
        (Net(step=lambda h, x: np.tanh(h.astype(np.float16).astype(np.float32) @ WEIGHTS + 0.3 * x)), "conversion"),
    ],
)
def test_a_float_file_that_keeps_every_limit_and_is_no_float_arithmetic(net: Net, stage: str) -> None:
    base = took(net)
    _, told, verdict = judged(source=SOURCE, base=base, here=base, device=base, is_host=True, quantized=False)
    assert ("RECURRENT_DRIFT", "fail", stage) in told
    assert verdict is Verdict.FAIL


def test_the_stage_and_the_step_of_a_limit_that_breaks() -> None:
    drifting = took(Net(step=lambda h, x: np.tanh(0.75 * h @ WEIGHTS + 0.3 * x)))
    found, told, verdict = judged(source=SOURCE, base=FLOAT, here=drifting, device=drifting, is_host=True)
    assert ("RECURRENT_DRIFT", "fail", "quantization") in told
    assert found.outputs["y"].stage == "quantization"
    assert 2 <= found.outputs["y"].breaks <= 8
    assert verdict is Verdict.FAIL


def test_a_model_that_carries_any_rounding_that_far_is_nobodys_fault() -> None:
    def chaos(h: State, x: State) -> State:
        return np.asarray(np.sin(8 * h + 0.3 * x))

    source, base = took(Net(step=chaos), moved=True), took(Net(step=lambda h, x: chaos(h * np.float32(1 + 1e-7), x)))
    _, told, verdict = judged(source=source, base=base, here=base, device=base, is_host=True, quantized=False)
    assert {each for each in told if each[0] == "RECURRENT_DRIFT"} == {("RECURRENT_DRIFT", "error", "model")}
    assert verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("gain", [0.6, 1.3, 3.0])
def test_rounding_is_nobodys_fault_however_far_a_model_carries_it(gain: float) -> None:
    """Sums in another order and in double precision; from a model that forgets to one that is chaos."""
    rough, order = 0.003 * np.abs(WEIGHTS).mean() * RNG.standard_normal(WEIGHTS.shape), RNG.permutation(WIDTH)
    right = np.float32(gain) * WEIGHTS
    wrong = (right + rough).astype(np.float32)

    def plain(weights: np.ndarray) -> Callable[[State, State], State]:
        return lambda h, x: np.tanh(h @ weights + np.float32(0.3) * x)

    def double(h: State, x: State) -> State:
        return np.asarray(np.tanh(h.astype(np.float64) @ right + 0.3 * x))

    def reordered(h: State, x: State) -> State:
        return np.asarray(np.tanh(h[:, order] @ wrong[order] + np.float32(0.3) * x))

    source, base = took(Net(step=double), moved=True), took(Net(step=plain(right)))
    here, device = took(Net(step=plain(wrong)), moved=True), took(Net(step=reordered))
    _, told, _ = judged(source=source, base=base, here=here, device=device, method="weight")
    assert not {"conversion", "device"} & {stage for *_, stage in told}


def test_a_state_that_nothing_reads_is_named_by_the_stage_that_lost_it() -> None:
    ignoring = took(Net(step=lambda _h, x: np.tanh(0.3 * x)))
    _, told, _ = judged(source=SOURCE, base=ignoring, here=ignoring, device=ignoring, is_host=True, quantized=False)
    assert ("STATE_IGNORED", "fail", "conversion") in told
    _, told, _ = judged(source=SOURCE, base=FLOAT, here=ignoring, device=ignoring, is_host=True)
    assert ("STATE_IGNORED", "fail", "quantization") in told
    _, told, _ = judged(source=SOURCE, base=FLOAT, here=QUANTIZED, device=ignoring)
    assert ("STATE_IGNORED", "fail", "device") in told
    _, told, verdict = judged(
        source=ignoring, base=ignoring, here=ignoring, device=ignoring, is_host=True, quantized=False
    )
    assert told == [("STATE_IGNORED", "error", "source")]
    assert verdict is Verdict.INCONCLUSIVE


def test_first_steps_that_come_out_otherwise_the_second_time() -> None:
    told = QUANTIZED.rollout
    assert told is not None
    later = {name: ARRAYS.put(ARRAYS.get(ref) + np.float32(0.1)) for name, ref in told.again.items()}
    device = QUANTIZED.model_copy(update={"rollout": told.model_copy(update={"again": later})})
    found = judged(source=SOURCE, base=FLOAT, here=QUANTIZED, device=device)
    assert found[1] == [("STATE_STALE", "fail", "device")]


def test_a_rollout_that_did_not_come_to_its_end() -> None:
    told = QUANTIZED.rollout
    assert told is not None
    failed = RolloutCapture(failure=Failure(code="INFERENCE_FAILED", message="no"))

    def having(rollout: RolloutCapture | None) -> Capture:
        return QUANTIZED.model_copy(update={"rollout": rollout})

    for rollout, code in ((told.model_copy(update={"done": 9}), "ROLLOUT_SHORT"), (failed, "ROLLOUT_FAILED"),
                          (None, "ROLLOUT_FAILED")):  # fmt: skip
        _, found, verdict = judged(source=SOURCE, base=FLOAT, here=QUANTIZED, device=having(rollout))
        assert found[0][:2] == (code, "error")
        assert verdict is Verdict.INCONCLUSIVE
    _, found, verdict = judged(source=SOURCE, base=having(failed), here=None, device=having(failed))
    assert found[0][:2] == ("ROLLOUT_FAILED", "fail")
    assert verdict is Verdict.FAIL


def test_nothing_is_said_where_none_was_asked_for() -> None:
    sides = Sides(None, FLOAT, FLOAT, FLOAT, True, False)
    found = drift(None, sides, KINDS, Bounds({}, "float", "normal", (), True), Comparer(ARRAYS))
    assert (found[0].outputs, found[1]) == ({}, ())


def test_whole_numbers_are_held_against_their_mismatch() -> None:
    steps = tuple(range(1, 101))
    right = np.zeros((100, 64), np.int64)
    wrong = right.copy()
    wrong[60:] = 1
    found = curves.errors((steps, right), (steps, wrong), whole=True)
    assert found is not None
    assert curves.first_break(found, 0.01, whole=True) == 61
    assert curves.first_break(found, 1.0, whole=True) is None


# ---- curves


def track(errors: Callable[[np.ndarray], np.ndarray], count: int = 1000) -> curves.Curve:
    steps = np.arange(1, count + 1)
    rng = np.random.default_rng(5)
    signal = rng.standard_normal((count, 32))
    error = errors(steps)[:, None] * rng.standard_normal((count, 32))
    found = curves.errors((tuple(steps.tolist()), signal), (tuple(steps.tolist()), signal + error))
    assert found is not None
    return curves.curve(found)


@pytest.mark.parametrize(
    ("errors", "kind", "slope"),
    [
        (lambda n: 0 * n, "exact", None),
        (lambda n: 1e-3 + 0 * n, "steady", 0),
        (lambda n: 1e-3 * (1 - 0.9**n), "saturates", 0),
        (lambda n: 1e-5 * n**0.5, "grows", 3),
        (lambda n: 1e-5 * n, "grows", 6),
        (lambda n: np.minimum(1e-6 * 1.05**n, 1e9), "explodes", None),
        (lambda n: np.where(n > 500, np.nan, 1e-3), "explodes", None),
    ],
)
def test_how_an_error_goes_on(errors: Callable[[np.ndarray], np.ndarray], kind: str, slope: float | None) -> None:
    found = track(errors)
    assert found.kind == kind
    if slope is not None:
        assert found.slope_db == pytest.approx(slope, abs=0.3)


def test_octaves_and_their_levels() -> None:
    found = track(lambda n: np.where(n == 1, 1e-2, 1e-3), 100)
    assert [last for last, _ in found.octaves] == [1, 2, 4, 8, 16, 32, 64, 100]
    assert found.octaves[0][1] == pytest.approx(40, abs=2)
    assert found.octaves[-1][1] == pytest.approx(60, abs=0.5)
    assert found.worst_db == found.octaves[0][1]


def test_statistics_show_a_step_that_did_not_come_back() -> None:
    """Of a large output some steps only: what happens between them moves its mean or its size."""
    few = (1, 2, 39, 40, 99, 100)

    def thinned(capture: Capture) -> Capture:
        told = capture.rollout
        assert told is not None
        outputs = {
            name: Rolled(
                steps=few, kept=ARRAYS.put(ARRAYS.get(each.kept)[[step - 1 for step in few]]), stats=each.stats
            )
            for name, each in told.outputs.items()
        }
        replays = tuple(each for each in told.replays if each.step in few)
        return capture.model_copy(update={"rollout": told.model_copy(update={"outputs": outputs, "replays": replays,
                                                                             "moved": {}})})  # fmt: skip

    here = thinned(QUANTIZED)
    reset = thinned(took(Net(noise=2e-3, seed=3, fault="reset_once")))
    asked = Rollout(steps=STEPS, feedback=ASKED.feedback, start=ASKED.start, frames=ASKED.frames)
    _, told, _ = judged(source=SOURCE, base=FLOAT, here=here, device=reset, asked=asked)
    assert ("RECURRENT_DRIFT", "fail", "device") in told
    assert judged(source=SOURCE, base=FLOAT, here=here, device=here, asked=asked)[1] == []


def test_replay_records_are_what_the_judge_reads() -> None:
    told = SOURCE.rollout
    assert told is not None
    assert [each.step for each in told.replays][:2] == [2, 2]
    assert [each.fixed for each in told.replays][:2] == [None, "h"]
    assert told.replays[-1].step == STEPS
    assert isinstance(told.replays[0], Replay)
    assert Observed().findings == ()
