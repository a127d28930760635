"""What is tried, in which order and why, when a way to quantize crashes, hangs or yields a model that is no good.

Nothing is run here: the caller says how a rung is tried and how its model is checked.  Every step is kept with its
reason, so that the result can say what it is and how it came about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from edgequant.errors import EdgequantError, InputError, ToolError
from edgequant.findings import Finding
from edgequant.models import ModelGraph
from edgequant.quantize.offline_options import OR_DYNAMIC, OfflineMethod, OfflineOptions
from edgequant.quantize.work import HOPELESS

GOOD_ORDER: tuple[OfflineMethod, ...] = ("ema", "kl", "admm")
"""EMA crashes least and was the most accurate on every model tried; ADMM sees one sample and takes longest."""
_FULL = re.compile(r"No space left on device|Disk quota exceeded|problem writing element")
"""In the words of a child process, or of NumPy, which forgets why."""
_ATTENTION = {"Attention", "MultiHeadAttention", "LayerNormalization", "LayerNorm", "Einsum"}

_ELSEWHERE = "Run it on the ARM device or on emulated:cortex-a76, with --no-fallback: this host cannot judge it."
Way = Literal["mnn", "static", "dynamic"]


@dataclass(frozen=True)
class Rung:
    """One way to quantize.

    Attributes:
        way: MNN's offline methods, edgequant's own calibrator, or dynamic quantization (no calibration).
        method: of MNN's.
        origin_rnn: GRU and LSTM are kept as one operator instead of a loop; their weights stay float.
        fixed: the model takes the shapes of the calibration data and no others.
    """

    way: Way
    method: OfflineMethod | None = None
    origin_rnn: bool = False
    fixed: bool = False

    def __str__(self) -> str:
        if self.way != "mnn":
            return "edgequant's own static int8" if self.way == "static" else "dynamic:8"
        extra = [text for text, on in (("the RNN as one op", self.origin_rnn), ("fixed shapes", self.fixed)) if on]
        return f"{self.method}{' with ' if extra else ''}{' and '.join(extra)}"


@dataclass(frozen=True)
class LadderFacts:
    """What decides the order.

    Attributes:
        recurrent: it has GRU, LSTM or RNN layers.
        origin_rnn: these can be kept as one operator: not where the source is an .mnn, in which they are loops already.
        dynamic: an input has an open dimension.
        shapes: how many different sets of shapes the calibration data has.
        complex: a model on which ADMM was seen to yield something useless: recurrent, with branches or loops, with
            attention, or with several inputs.
        real_data: the calibration data was given, and is not random.
    """

    recurrent: bool = False
    origin_rnn: bool = False
    dynamic: bool = False
    shapes: int = 1
    complex: bool = False
    real_data: bool = False

    @classmethod
    def of(cls, source: ModelGraph, shapes: int) -> LadderFacts:
        inputs = source.inputs or ()
        kinds = [op.type.rpartition("::")[2] for op in source.ops]
        attention = bool(_ATTENTION & set(kinds)) or sum("softmax" in kind.lower() for kind in kinds) > 1
        recurrent = bool(source.recurrent)
        return cls(
            recurrent,
            recurrent and source.format != "mnn",
            any(spec.dynamic for spec in inputs),
            shapes,
            recurrent or source.has_subgraphs or attention or len(inputs) > 1,
        )


@dataclass(frozen=True)
class Planned:
    """A rung, why it is there, and why it is passed over (None: it is tried)."""

    rung: Rung
    why: str
    passed_over: str | None = None


def plan(options: OfflineOptions, facts: LadderFacts, *, static: bool = False, accurate: bool = False) -> list[Planned]:
    """The rungs in order; the first is what was asked for.

    Args:
        static: edgequant's own calibrator is there.
        accurate: of the other methods, KL goes before EMA.
    """
    wanted = options.method
    found = [Planned(Rung("mnn", wanted), "as asked")]
    if facts.origin_rnn:
        rung = Rung("mnn", wanted, origin_rnn=True)
        found.append(Planned(rung, "MNN's methods crash on the loop that a GRU or LSTM becomes"))
    elif facts.recurrent:
        rung = Rung("mnn", wanted, origin_rnn=True)
        found.append(Planned(rung, "", "the source is an .mnn, in which the RNN is a loop already"))
    if facts.dynamic:
        found.append(_fixed(wanted, facts))
    if static:
        found.append(Planned(Rung("static"), "scales of its own need no quantizer of MNN's"))
    order = ("kl", "ema", "admm") if accurate else GOOD_ORDER
    for method in order:
        if method != wanted:
            found.append(_other(method, options, facts))
    found.append(Planned(Rung("dynamic"), "it needs no calibration; activations are quantized while it runs"))
    return found


def plan_static(options: OfflineOptions, facts: LadderFacts) -> list[Planned]:
    """The rungs where edgequant's own static int8 is what was asked for; `options` are for MNN's methods behind it."""
    found = [Planned(Rung("static"), "as asked")]
    found += [_other(method, options, facts) for method in GOOD_ORDER]
    found.append(Planned(Rung("dynamic"), "it needs no calibration; activations are quantized while it runs"))
    return found


def _fixed(wanted: OfflineMethod, facts: LadderFacts) -> Planned:
    rung = Rung("mnn", wanted, facts.origin_rnn, fixed=True)
    reason = None
    if wanted == "ema":
        reason = "what ema makes of a model with fixed shapes crashes MNN"
    elif facts.shapes > 1:
        reason = f"the calibration data has {facts.shapes} shapes, so one alone is not what the model is for"
    elif facts.recurrent and not facts.origin_rnn:
        reason = "MNN cannot fix the shapes of a model with a loop"
    return Planned(rung, "shapes that are known let MNN fold what depends on them", reason)


def _other(method: OfflineMethod, options: OfflineOptions, facts: LadderFacts) -> Planned:
    rung = Rung("mnn", method, facts.origin_rnn)
    unused = options.model_copy(update={"method": method}).unused()
    reason = None
    if unused:
        reason = f"{method} ignores {' and '.join(unused)}, which you asked for"
    elif method == "admm" and facts.complex:
        reason = "admm yields useless models of this kind; ask for it by name if you want it"
    elif facts.recurrent and not facts.origin_rnn:
        reason = "MNN's methods crash on the loop in it"
    return Planned(rung, f"{method} is the next of MNN's methods", reason)


class Checked(Protocol):
    """What a check says: whether the model is taken, and why in one line; and `doubt`: why what was seen may be the
    fault of this host and not of the model, None where nothing is known of that."""

    @property
    def ok(self) -> bool: ...

    @property
    def why(self) -> str: ...

    @property
    def doubt(self) -> str | None: ...


@dataclass(frozen=True)
class Step:
    """One rung and what became of it.

    Attributes:
        rung: in words.
        outcome: ``made`` (the result), ``failed`` (crash, hang, no model), ``insane`` (a model that has nothing to do
            with the reference) or ``passed over`` (not tried).
        code: of the error; None where there was none.
        message: one line: what happened.
        signal: that ended it.
        next: the rung that comes next, and why.
        doubt: why the check may be wrong on this host; it is in the message, too.
    """

    rung: str
    outcome: Literal["made", "failed", "insane", "passed over"]
    message: str
    code: str | None = None
    signal: str | None = None
    next: str | None = None
    doubt: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if value is not None}

    def __str__(self) -> str:
        return f"{self.rung}: {self.message}" + (f"; next: {self.next}" if self.next else "")


Model = TypeVar("Model")


@dataclass(frozen=True)
class Climbed(Generic[Model]):
    """What the ladder came to: the model, the rung it is from, its check, and every step."""

    model: Model
    rung: Rung
    check: Checked
    steps: tuple[Step, ...]
    findings: tuple[Finding, ...]


def climb(
    planned: Sequence[Planned],
    attempt: Callable[[Rung], Model],
    check: Callable[[Model], Checked],
    *,
    facts: LadderFacts,
    fallback: bool = True,
    on_step: Callable[[Step], None] | None = None,
) -> Climbed[Model]:
    """Try the rungs in order until one yields a sane model.

    Args:
        planned: from `plan`; the first one is tried in any case.
        attempt: makes the model of a rung, or raises EdgequantError.
        check: runs and looks at it, or raises EdgequantError where the model crashes or does not load.
        fallback: False tries the first rung only.
        on_step: is told of every step as it ends.

    Raises:
        InputError: what `attempt` raises on the first rung: another way does not mend what the user gave.
        ToolError: without fallback the error of the first rung, or QUANTIZED_MODEL_INSANE; QUANTIZE_NO_WAY_LEFT, with
            the steps as evidence; what no other way helps against, such as DISK_FULL, at once.
    """
    steps: list[Step] = []

    def told(step: Step) -> None:
        steps.append(step)
        if on_step is not None:
            on_step(step)

    for index, entry in enumerate(planned):
        after = _next(planned, index)
        if entry.passed_over is not None:
            told(Step(str(entry.rung), "passed over", entry.passed_over, next=after))
            continue
        error: EdgequantError
        try:
            model = attempt(entry.rung)
            found = check(model)
        except EdgequantError as caught:
            if _FULL.search(f"{caught.message} {caught.evidence}"):
                raise ToolError(
                    "DISK_FULL",
                    f"no room left while {entry.rung} was made: {caught.message}",
                    hint="Free some space, or choose a run directory on another disk with --run-dir.",
                ) from caught
            gone = isinstance(caught, InputError) and caught.code.startswith("CALIBRATION_")
            if caught.code in HOPELESS or gone or not fallback or (index == 0 and isinstance(caught, InputError)):
                raise
            signal = caught.evidence.get("signal")
            told(Step(str(entry.rung), "failed", caught.message, caught.code, signal and str(signal), after))
            continue
        why = found.why if found.doubt is None else f"{found.why}; {found.doubt}"
        if found.ok:
            told(Step(str(entry.rung), "made", why, doubt=found.doubt))
            return Climbed(model, entry.rung, found, tuple(steps), _findings(planned, entry.rung, steps, facts))
        error = ToolError(
            "QUANTIZED_MODEL_INSANE",
            f"{entry.rung} yields a model that is no good: {why}",
            hint=f"{'' if found.doubt is None else f'{_ELSEWHERE}  '}{OR_DYNAMIC}",
            evidence={} if found.doubt is None else {"doubt": found.doubt},
        )
        if not fallback:
            raise error
        told(Step(str(entry.rung), "insane", why, error.code, next=after, doubt=found.doubt))
    raise ToolError(
        "QUANTIZE_NO_WAY_LEFT",
        f"every way to quantize the model failed; the last: {steps[-1]}",
        hint="Use fp16 or float, and look into the steps for what could be mended.",
        evidence={"steps": [step.as_dict() for step in steps]},
    )


def _next(planned: Sequence[Planned], index: int) -> str | None:
    after = next((entry for entry in planned[index + 1 :] if entry.passed_over is None), None)
    return None if after is None else f"{after.rung} ({after.why})"


def _findings(planned: Sequence[Planned], rung: Rung, steps: Sequence[Step], facts: LadderFacts) -> tuple[Finding, ...]:
    """What the result is, where it is not what was asked for, or was taken against this host's word."""
    found = []
    if steps[-1].doubt is not None:
        found.append(
            Finding(
                code="HOST_NO_JUDGE",
                severity="warn",
                message=f"what this host says of {rung} was not believed: {steps[-1].message}",
                remedy="What an ARM device says of the file counts; on this host it is of no use.",
            )
        )
    if rung != planned[0].rung:
        doubted = any(step.doubt is not None for step in steps[:-1])
        advice = [
            *([_ELSEWHERE] if doubted else []),
            "In report.json, the steps of the run say what was tried and why.",
            *([] if facts.real_data else ["Real calibration data often helps."]),
            *([] if rung.way == "dynamic" else ["dynamic:8 needs no calibration data."]),
            "With --no-fallback nothing else is tried.",
        ]
        found.append(
            Finding(
                code="QUANTIZE_FELL_BACK",
                severity="warn",
                message=f"asked for {planned[0].rung}, this is {rung}: {steps[0].rung} failed ({steps[0].message})",
                evidence={"steps": [step.as_dict() for step in steps]},
                remedy="  ".join(advice),
            )
        )
    if rung.origin_rnn:
        found.append(
            Finding(
                code="RNN_LEFT_FLOAT",
                severity="info",
                message="the recurrent layers are kept as one operator each: their weights and arithmetic stay float",
                remedy="dynamic:8 quantizes the weights of recurrent layers too.",
            )
        )
    if rung.fixed:
        found.append(
            Finding(
                code="SHAPES_FIXED",
                severity="warn",
                message="the model takes the shapes of the calibration data only; the source takes others too",
                remedy="Use ema or dynamic:8 for a model of any shape.",
            )
        )
    if rung.method == "admm" and facts.complex:
        found.append(
            Finding(
                code="ADMM_COMPLEX_MODEL",
                severity="warn",
                message="admm was seen to yield useless models of this kind (recurrent, attention, several inputs)",
                remedy="Compare it with ema or kl before you use it.",
            )
        )
    return tuple(found)
