"""What the other variants of a command say about one that failed: nothing is suggested that was measured beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgequant import plain
from edgequant.archive.types import Failure
from edgequant.judge.verdict import Verdict
from edgequant.spec.variant import OFFLINE, Variant, takes

OTHER_WAYS = "Let edgequant try the other ways (leave --no-fallback out)"

_CANDIDATES = ("dynamic:8", "dynamic:8,block=32", "dynamic:8,hqq", "fp16", "auto")
_CLOSER: dict[str, tuple[str, ...]] = {
    "float": (),
    "fp16": ("float",),
    "weight": ("weight:8", "weight:8,block=32", "fp16", "auto"),
}
"""What is left to try after these; after all others, the candidates."""
_NOTHING_LEFT = (
    "No variant that is left is closer to the source: look at the error of the conversion, and at the limits."
)
_NAMED = 3


@dataclass(frozen=True)
class Beside:
    """What advice about one trial has to know of it, and of those on the same device.

    Attributes:
        variant, made_as: what was asked for and what the file is, in words.
        worst_db: SQNR of its worst output in dB; inf where all are exact, -inf where none has one.
        breaks: it breaks a limit.  (NaN, or a device that computes something else, is FAIL too.)
        ran: it was run to its end.
        size: of its file, in bytes.
        real_data: it was calibrated on data that is not random.
    """

    uri: str
    variant: str
    verdict: Verdict
    made_as: str | None = None
    worst_db: float = -math.inf
    breaks: bool = False
    ran: bool = True
    size: float = 0.0
    real_data: bool = False

    @property
    def method(self) -> str:
        return self.variant.partition(",")[0].partition(":")[0]


def limit_remedy(trial: Beside, others: Sequence[Beside]) -> str:
    """What to do where a trial breaks a limit.

    A variant that keeps its limits on the same device comes first; one that was run there and does not keep them, or
    could not be made, is never suggested.

    Args:
        others: the other trials on the same device.
    """
    said = _kept(others)
    if not said:
        left = [name for name in _CLOSER.get(trial.method, _CANDIDATES) if name not in _seen([trial, *others])]
        said = (
            f"Try {'other variants: ' if len(left) > 1 else ''}{plain.joined(left, 'or')}." if left else _NOTHING_LEFT
        )
        if failed := [_name(other) for other in others if other.breaks]:
            none = "do not keep their" if len(failed) > 1 else "does not keep its"
            said += f"  {plain.joined(failed, 'and')}, measured beside it, {none} limits either."
    return "  ".join([said, *_of_static(trial)])


def failure_hint(failure: Failure, others: Sequence[Beside]) -> str | None:
    """What to do where a method of MNN's failed and no other way was allowed; what was measured beside it is not
    advised."""
    quantizer = failure.code.startswith("QUANTIZER_") or failure.code == "QUANTIZED_MODEL_INSANE"
    if not quantizer or "doubt" in failure.evidence:
        return failure.hint
    kept = _kept(others)
    if kept or "dynamic:8" in _seen(others):
        return f"{kept + '  ' if kept else ''}{OTHER_WAYS}."
    return failure.hint


def rounding_remedy(made: Variant | None, *, coarse: bool) -> str:
    """What to do about something systematic in the error of quantizing.

    Args:
        made: what the file is; None where that is not known.
        coarse: rounding is so coarse there that it may be all of it.
    """
    if coarse:
        more = "more bits or a finer block=" if made is not None and takes(made, "block") else "a finer variant"
        return f"Rounding this coarse can do it: `edgequant diagnose RUN` says whether it does.  Try {more}."
    skips = made is not None and takes(made, "skip")
    how = "(skip=)" if skips else "by a recipe (recipe:FILE)"
    return (
        f"Rounding does not do this: try another variant, keep the layer in front of it in float {how}, or report it "
        "to MNN."
    )


def _of_static(trial: Beside) -> list[str]:
    """What static int8 itself can do better.  Of what the ladder made instead of it, nothing is known."""
    if trial.method not in ("static", *OFFLINE) or trial.made_as not in (None, trial.variant):
        return []
    found = []
    if not trial.real_data:
        found.append("Static int8 needs real calibration data.")
    more = {word: f",{word}=" in trial.variant for word in ("keep", "skip")}
    if trial.method == "static" and more["keep"]:
        found.append("With a larger keep= more of the layers that hurt most compute in float.")
    elif trial.method == "static":
        found.append("With keep=N the N layers that hurt most compute in float.")
    elif trial.method != "ema":  # which ignores skip=
        found.append(f"With {'more skip= more layers stay' if more['skip'] else 'skip=NAME a layer stays'} float.")
    return found


def _kept(others: Sequence[Beside]) -> str:
    """Those that keep their limits: the clear ones first, then the closest to the source, then the smaller.

    Float goes behind the others of its kind: it is the closest, and quantizes nothing.
    """
    good = [other for other in others if other.ran and other.verdict.exit_code == 0]
    good.sort(
        key=lambda other: (other.verdict is not Verdict.PASS, other.method == "float", -other.worst_db, other.size)
    )
    if not good:
        return ""
    names = [_name(other, *_notes(other)) for other in good[:_NAMED]]
    return f"{plain.joined(names, 'and')}, measured beside it, {'keep' if len(names) > 1 else 'keeps'} all limits."


def _notes(trial: Beside) -> list[str]:
    """How close it is to the source, where that can be said in dB, and whether it is a close call."""
    worst = trial.worst_db
    known = ["exact"] if worst == math.inf else [f"{plain.decibel(worst)} dB"] if worst > -math.inf else []
    return [*known, *([] if trial.verdict is Verdict.PASS else ["only just"])]


def _name(trial: Beside, *notes: str) -> str:
    """What was measured: the ladder may have made something else than was asked for.  Of auto it is a description."""
    asked = trial.made_as in (None, trial.variant) or trial.method not in ("static", *OFFLINE)
    said = [*([] if asked else [f"made where {trial.variant} was asked for"]), *notes]
    name = trial.variant if asked or trial.made_as is None else trial.made_as
    return f"{name} ({', '.join(said)})" if said else name


def _seen(trials: Sequence[Beside]) -> set[str | None]:
    return {name for trial in trials for name in (trial.variant, trial.made_as)}
