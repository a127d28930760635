"""What a rollout comes to: which stage lets the error grow, after how many steps a limit breaks, and whether the state
is what it should be.

Three looks, each of which sees what the others cannot:

- the limit on sqnr_db (mismatch of whole numbers) along the steps, source against device: what a user would hear;
- conversion and device held against what rounding does to this very model, in each step: a state that is a hundredth
  too small, or fp16, keeps every limit.  How far rounding goes is measured: the rollout once more on this host, with
  its inputs moved by next to nothing;
- steps by themselves, from the state that came back: what a loop did to its state shows in every bit, on any CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgequant.archive.rollout import Rollout, RolloutCapture
from edgequant.archive.types import Capture
from edgequant.findings import Finding
from edgequant.judge.curve import Curve, Drift, Errors, OutputDrift, curve, envelope, errors, first_break
from edgequant.judge.limits import device_bands
from edgequant.judge.stages import Comparer
from edgequant.judge.types import NOTHING, Observed
from edgequant.judge.verdict import Verdict
from edgequant.spec import Limit, Precision

STAGES = ("conversion", "quantization", "device")
MARGIN_DB = 12.0
"""A stage may be so much farther off than rounding takes this host itself: another runtime rounds in other places."""
CONVERSION_DB = 80.0
"""What is nearer to the source than this is float arithmetic.  Measured over 1,000 steps: 130 to 142 dB."""
SAME = 1e-6
"""Of the signal: what a step by itself may differ from the same step in the loop."""
HELD = ("sqnr_db", "mismatch")
"""The metrics of limits that are held along the steps."""


@dataclass(frozen=True)
class Sides:
    """Whose rollouts are held against each other, in order.  source: None where float MNN is the reference, or the
    reference consists of files; here: the file on this host, the device itself where that is this host."""

    source: Capture | None
    base: Capture
    here: Capture | None
    device: Capture
    is_host: bool
    quantized: bool

    @property
    def pairs(self) -> dict[str, tuple[Capture, Capture]]:
        """Stage -> what is held against what."""
        found = {}
        if self.source is not None:
            found["conversion"] = (self.source, self.base)
        if self.here is not None and self.quantized:
            found["quantization"] = (self.base, self.here)
        if self.here is not None and not self.is_host:
            found["device"] = (self.here, self.device)
        return found


@dataclass(frozen=True)
class Bounds:
    """limits: of each output.  method, precision, given: as `device_bands` has them; alike: device and host have the
    same MNN, so that what moved inputs do here says what rounding may do there."""

    limits: Mapping[str, Sequence[Limit]]
    method: str
    precision: Precision
    given: Sequence[Limit]
    alike: bool


class _Judge:
    def __init__(
        self, rollout: Rollout, sides: Sides, kinds: Mapping[str, str], bounds: Bounds, comparer: Comparer
    ) -> None:
        self._rollout, self._sides, self._kinds, self._bounds = rollout, sides, kinds, bounds
        self._array = comparer.array

    def stack(self, capture: Capture, name: str) -> tuple[Sequence[int], np.ndarray] | None:
        rolled = capture.rollout.outputs.get(name) if capture.rollout is not None else None
        return None if rolled is None else (rolled.steps, self._array(rolled.kept))

    def errors(self, expected: Capture, got: Capture, name: str) -> Errors | None:
        one, other = self.stack(expected, name), self.stack(got, name)
        if one is None or other is None:
            return None
        return errors(one, other, whole=self._kinds[name] == "int")

    def own(self, capture: Capture, name: str) -> Errors | None:
        """How far moved inputs take it."""
        whole, told = self.stack(capture, name), capture.rollout
        if whole is None or told is None or name not in told.moved:
            return None
        return errors(whole, (whole[0], self._array(told.moved[name])))

    # ---- limits along the steps

    def output(self, name: str) -> tuple[OutputDrift, Observed]:
        sides, whole = self._sides, self._kinds[name] == "int"
        total = self.errors(sides.source or sides.base, sides.device, name)
        if total is None:
            return OutputDrift(), NOTHING
        parts = {stage: self.errors(*pair, name) for stage, pair in sides.pairs.items()}
        curves = {"total": total, **{stage: each for stage, each in parts.items() if each is not None}}
        drawn = {} if whole else {stage: curve(each) for stage, each in curves.items()}
        bound = next((each for each in self._bounds.limits[name] if each.metric in HELD), None)
        step = None if bound is None else first_break(total, bound.value, whole=whole)
        if bound is None or step is None:
            return OutputDrift(drawn, bound), NOTHING
        at = {stage: _at(each, step) for stage, each in curves.items() if stage != "total"}
        stage = max(at, key=lambda each: at[each]) if at else "quantization"
        own = None if whole else self.own(sides.source or sides.base, name)
        sensitive = own is not None and _at(own, step) >= _at(total, step) / 2
        drift = OutputDrift(drawn, bound, step, "model" if sensitive else stage)
        return drift, self.drifts(name, drift, "; the model carries any rounding as far" if sensitive else "")

    def drifts(self, name: str, drift: OutputDrift, more: str = "") -> Observed:
        assert drift.stage is not None
        shown = drift.curves.get(drift.stage) or drift.curves.get("total")
        said = "" if shown is None else f"; the error {_SAYS[shown.kind]}{_slope(shown)}"
        sensitive = drift.stage == "model"
        finding = Finding(
            code="RECURRENT_DRIFT",
            severity="error" if sensitive else "fail",
            where=name,
            message=f"{drift.stage}: with its state fed back it breaks {drift.bound} in step {drift.breaks} of "
            f"{self._rollout.steps}{said}{more}",
            evidence={"stage": drift.stage, "step": drift.breaks, "curve": None if shown is None else shown.kind},
            remedy="Another rollout of the same model would be no better: judge it by what its steps decide."
            if sensitive
            else _REMEDIES[drift.stage],
        )
        return Observed((finding,), Verdict.INCONCLUSIVE if sensitive else Verdict.FAIL)

    # ---- what rounding explains

    def beyond(self, stage: str) -> Observed:
        """Conversion or device, where it is farther off in a step than rounding takes this model."""
        if stage not in self._sides.pairs:
            return NOTHING
        expected, got = self._sides.pairs[stage]
        worst: tuple[int, str, float, float] | None = None
        for name, kind in self._kinds.items():
            found = self.errors(expected, got, name) if kind == "float" else None
            if found is None:
                continue
            allowed = self.allowed(stage, name, found)
            step = self._first(expected, got, name, found, allowed)
            if step is not None and (worst is None or step < worst[0]):
                place = int(np.searchsorted(found.steps, step, side="right")) - 1
                worst = (step, name, found.db(float(found.rms[place])), found.db(float(allowed[place])))
        if worst is None:
            return NOTHING
        step, name, db, bound = worst
        finding = Finding(
            code="RECURRENT_DRIFT",
            severity="fail",
            where=name,
            message=f"{stage}: from step {step} of {self._rollout.steps} on, with its state fed back, it is farther "
            f"off than rounding takes this model: {db:.1f} dB, {bound:.1f} dB would be",
            evidence={"stage": stage, "step": step, "sqnr_db": db, "bound_db": bound},
            remedy=_REMEDIES[stage],
        )
        return Observed((finding,), Verdict.FAIL)

    def allowed(self, stage: str, name: str, found: Errors) -> np.ndarray:
        """Of each step the largest error that rounding explains."""
        bounds, sides = self._bounds, self._sides
        db, known = CONVERSION_DB, True
        if stage == "device":
            fixed = device_bands({name: "float"}, bounds.method, bounds.precision, ())[name]
            asked = device_bands({name: "float"}, bounds.method, bounds.precision, bounds.given)[name]
            db, known = asked.value, bounds.alike and asked == fixed and bounds.precision != "low"
        own = envelope(self.own(sides.pairs[stage][0], name) if known else None, found.steps)
        least = np.full(len(found.steps), found.signal * 10 ** (-db / 20))
        if own is not None:
            floats = bounds.method in ("float", "fp16", "weight")
            sharp = found.signal * 10 ** (-(db if stage == "conversion" or floats else 60.0) / 20)
            least = np.maximum(sharp, own * 10 ** (MARGIN_DB / 20))
        if stage == "conversion":
            # An operator that is only approximated is so in the first step, too.
            least = np.maximum(least, found.rms[0] * 10 ** (MARGIN_DB / 20))
        return least

    def _first(self, expected: Capture, got: Capture, name: str, found: Errors, allowed: np.ndarray) -> int | None:
        """The first step beyond, of those that came back, or of all by their statistics: mean and root mean square of
        two tensors are never farther apart than the root mean square of their difference."""
        steps = [int(step) for step in found.steps[~(found.rms <= allowed)]]
        one, other = (self._array(each.rollout.outputs[name].stats) for each in (expected, got) if each.rollout)
        count = min(len(one), len(other))
        apart = np.abs(one[:count, 2:4] - other[:count, 2:4]).max(axis=1)
        apart[one[:count, 4] != other[:count, 4]] = np.inf
        place = np.clip(np.searchsorted(found.steps, np.arange(1, count + 1)), 0, len(found.steps) - 1)
        steps += [int(step) + 1 for step in np.flatnonzero(~(apart <= np.maximum(allowed[place], found.signal * SAME)))]
        return min(steps, default=None)

    # ---- the state

    def ignored(self) -> Observed:
        """States that change nothing, and in which stage they began to."""
        sides, findings, verdict = self._sides, [], Verdict.PASS
        order = [("source", sides.source or sides.base)]
        order += [(stage, pair[1]) for stage, pair in sides.pairs.items() if pair[1] is not order[0][1]]
        for name in self._rollout.feedback:
            stage = next((stage for stage, capture in order if self._does_nothing(capture, name)), None)
            if stage is None:
                continue
            own = stage == "source"
            verdict = Verdict.INCONCLUSIVE if own and verdict is Verdict.PASS else verdict if own else Verdict.FAIL
            findings.append(
                Finding(
                    code="STATE_IGNORED",
                    severity="error" if own else "fail",
                    where=name,
                    message=f"{stage}: what is fed back into '{name}' changes nothing: step 2 comes out the same in "
                    "every bit with its first value",
                    evidence={"stage": stage, "input": name},
                    remedy="Say what is fed back with --feedback OUTPUT=INPUT; a state that nothing reads needs none."
                    if own
                    else _REMEDIES[stage],
                )
            )
        return Observed(tuple(findings), verdict)

    def _does_nothing(self, capture: Capture, name: str) -> bool:
        told = capture.rollout
        alone = next((each for each in told.replays if each.fixed == name), None) if told is not None else None
        if told is None or alone is None:
            return False
        pairs = [(self.stack(capture, output), self._array(ref)) for output, ref in alone.outputs.items()]
        return all(
            found is not None and 2 in found[0] and np.array_equal(found[1][found[0].index(2)], array, equal_nan=True)
            for found, array in pairs
        )

    def altered(self) -> Observed:
        """A step by itself that differs from the same step in the loop; the first steps, run once more."""
        for capture, stage in ((self._sides.device, "device"), (self._sides.here, "host"), (self._sides.base, "host")):
            told = None if capture is None else capture.rollout
            if capture is None or told is None:
                continue
            for code, step, name in self._differing(capture, told):
                on_device = stage == "device"
                finding = Finding(
                    code=code,
                    severity="fail" if on_device else "error",
                    where=name,
                    message=f"{stage}: {_WORDS[code].format(step=step)}",
                    evidence={"stage": stage, "step": step},
                    remedy=_REMEDIES["device"],
                )
                return Observed((finding,), Verdict.FAIL if on_device else Verdict.INCONCLUSIVE)
        return NOTHING

    def _differing(self, capture: Capture, told: RolloutCapture) -> list[tuple[str, int, str]]:
        found = []
        for replay in told.replays:
            for name, ref in replay.outputs.items() if replay.fixed is None else ():
                stack = self.stack(capture, name)
                if stack is not None and replay.step in stack[0]:
                    got = stack[1][stack[0].index(replay.step)]
                    if self._apart(stack[1], self._array(ref), got):
                        found.append(("STATE_ALTERED", replay.step, name))
        for name, ref in told.again.items():
            stack, again = self.stack(capture, name), self._array(ref)
            if (
                stack is None
                or len(again) > len(stack[1])
                or tuple(stack[0][: len(again)]) != tuple(range(1, len(again) + 1))
            ):
                continue
            for place in range(len(again)):
                if self._apart(stack[1], again[place], stack[1][place]):
                    found.append(("STATE_STALE", place + 1, name))
        return sorted(found, key=lambda each: each[1])[:1]

    def _apart(self, whole: np.ndarray, one: np.ndarray, other: np.ndarray) -> bool:
        if one.shape != other.shape:
            return True
        if one.dtype.kind != "f":
            return not np.array_equal(one, other)
        if np.array_equal(one, other, equal_nan=True):
            return False
        numbers = whole.astype(np.float64)
        finite = numbers[np.isfinite(numbers)]
        signal = float(np.sqrt(np.mean(np.square(finite)))) if finite.size else 0.0
        difference = one.astype(np.float64) - other.astype(np.float64)
        return not float(np.sqrt(np.mean(np.square(difference)))) <= SAME * signal

    # ---- whether there is anything

    def missing(self) -> Observed:
        """A rollout that could not be run, or not to its end."""
        sides = self._sides
        stages = ("source", "conversion", "quantization", "device")
        for stage, capture in zip(stages, (sides.source, sides.base, sides.here, sides.device), strict=True):
            told = None if capture is None else capture.rollout
            if capture is None or (told is not None and told.failure is None and told.done >= self._rollout.steps):
                continue
            failed = told is None or told.failure is not None
            models = failed and stage in ("conversion", "quantization") and told is not None
            why = "nothing of it was captured"
            if told is not None:
                why = f"{told.done} of {self._rollout.steps} steps in the time there was"
                why = why if told.failure is None else f"{told.failure.code}: {told.failure.message}"
            finding = Finding(
                code="ROLLOUT_FAILED" if failed else "ROLLOUT_SHORT",
                severity="fail" if models else "error",
                where=stage,
                message=f"{stage}: the rollout was not run to its end: {why}",
                evidence={"done": 0 if told is None else told.done, "asked": self._rollout.steps},
                remedy="Pin sizes with --shape, and say what is fed back with --feedback."
                if failed
                else "Give it more time with --timeout, or ask for fewer steps.",
            )
            return Observed((finding,), Verdict.FAIL if models else Verdict.INCONCLUSIVE)
        return NOTHING


_SAYS = {
    "exact": "is none",
    "steady": "is the same from the first step on",
    "saturates": "rises at first and then stays",
    "grows": "grows",
    "explodes": "explodes",
}
_REMEDIES = {
    "conversion": "Quantization is not the cause: look at the recurrent layers of the source (activations, reset, "
    "direction), unroll them, or report it to MNN with this model.",
    "quantization": "Leave the recurrent layers in float (a recipe), give them more bits, or reset the state earlier.",
    "device": "What the device does with its state is not what this host does: try --precision normal, --threads 1 and "
    "another MNN there.",
}
_WORDS = {
    "STATE_ALTERED": "step {step}, run by itself from the state that the step before it gave, comes out otherwise "
    "than in the rollout: the state is not what goes from step to step",
    "STATE_STALE": "step {step}, run once more from the first state, comes out otherwise than the first time: "
    "something of earlier steps is left",
}


def _slope(found: Curve) -> str:
    return f" by {found.slope_db:.1f} dB an octave" if found.kind == "grows" and found.slope_db is not None else ""


def _at(found: Errors, step: int) -> float:
    """Level of the octaves in which a step lies."""
    return next((found.level(places) for places in found.judged() if found.steps[places[-1]] >= step), 0.0)


def drift(
    rollout: Rollout | None, sides: Sides, kinds: Mapping[str, str], bounds: Bounds, comparer: Comparer
) -> tuple[Drift, tuple[Observed, ...]]:
    """Judge a trial's rollout; nothing where none was asked for."""
    if rollout is None:
        return Drift(), ()
    judge = _Judge(rollout, sides, kinds, bounds, comparer)
    found = {name: judge.output(name) for name in kinds}
    severe: list[Observed] = [judge.missing(), *(look for _, look in found.values())]
    severe += [judge.beyond("conversion"), judge.beyond("device"), judge.ignored(), judge.altered()]
    done = 0 if sides.device.rollout is None else sides.device.rollout.done
    outputs = {name: each for name, (each, _) in found.items() if each.curves}
    return Drift(rollout.steps, done, outputs), tuple(look for look in severe if look.findings)
