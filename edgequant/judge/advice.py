"""What the other variants of a command say about one that failed: nothing is suggested that was measured beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgequant.judge.verdict import OTHER_VARIANTS, Verdict
from edgequant.quantize.offline_options import OR_DYNAMIC, OTHER_WAYS
from edgequant.report import plain
from edgequant.report.model import Failure, Run
from edgequant.spec.variant import OFFLINE

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


def with_hints(runs: Sequence[Run]) -> list[Run]:
    """The runs, with remedies of broken limits and hints of failed tools that know of the others on the same device.

    A variant that keeps its limits there comes first; one that was run there and does not keep them, or could not be
    made, is never suggested.
    """
    return [_told(run, [other for other in runs if other.device.uri == run.device.uri]) for run in runs]


def _told(run: Run, there: Sequence[Run]) -> Run:
    others = [other for other in there if other is not run]
    findings = [
        finding.model_copy(update={"remedy": _remedy(run, others)})
        if finding.code == "LIMIT_EXCEEDED" and finding.remedy == OTHER_VARIANTS
        else finding
        for finding in run.findings
    ]
    return run.model_copy(update={"findings": findings, "error": _failure(run, others)})


def _remedy(run: Run, others: Sequence[Run]) -> str:
    method = _method(run)
    said = _kept(others)
    if not said:
        left = [name for name in _CLOSER.get(method, _CANDIDATES) if name not in _seen([run, *others])]
        said = (
            f"Try {'other variants: ' if len(left) > 1 else ''}{plain.joined(left, 'or')}." if left else _NOTHING_LEFT
        )
        if failed := [_name(other) for other in others if _breaks(other)]:
            none = "do not keep their" if len(failed) > 1 else "does not keep its"
            said += f"  {plain.joined(failed, 'and')}, measured beside it, {none} limits either."
    return "  ".join([said, *_of_static(run, method)])


def _of_static(run: Run, method: str) -> list[str]:
    """What static int8 itself can do better.  Of what the ladder made instead of it, nothing is known."""
    if method not in ("static", *OFFLINE) or run.made_as not in (None, run.variant):
        return []
    found = []
    if run.calibration is None or any(finding.code == "CALIBRATION_RANDOM" for finding in run.findings):
        found.append("Static int8 needs real calibration data.")
    more = {word: f",{word}=" in run.variant for word in ("keep", "skip")}
    if method == "static" and more["keep"]:
        found.append("With a larger keep= more of the layers that hurt most compute in float.")
    elif method == "static":
        found.append("With keep=N the N layers that hurt most compute in float.")
    elif method != "ema":  # which ignores skip=
        found.append(f"With {'more skip= more layers stay' if more['skip'] else 'skip=NAME a layer stays'} float.")
    return found


def _failure(run: Run, others: Sequence[Run]) -> Failure | None:
    error = run.error
    if error is None or error.hint != OR_DYNAMIC:
        return error
    kept = _kept(others)
    if kept or "dynamic:8" in _seen(others):
        return error.model_copy(update={"hint": f"{kept + '  ' if kept else ''}{OTHER_WAYS}."})
    return error


def _kept(others: Sequence[Run]) -> str:
    """Those that keep their limits: the clear ones first, then the closest to the source, then the smaller.

    Float goes behind the others of its kind: it is the closest, and quantizes nothing.
    """
    good = [other for other in others if other.error is None and other.verdict.exit_code == 0]
    good.sort(
        key=lambda other: (other.verdict is not Verdict.PASS, _method(other) == "float", -_worst(other), _size(other))
    )
    if not good:
        return ""
    names = [_name(other, *_notes(other)) for other in good[:_NAMED]]
    return f"{plain.joined(names, 'and')}, measured beside it, {'keep' if len(names) > 1 else 'keeps'} all limits."


def _notes(run: Run) -> list[str]:
    """How close it is to the source, where that can be said in dB, and whether it is a close call."""
    worst = _worst(run)
    known = ["exact"] if worst == math.inf else [f"{plain.decibel(worst)} dB"] if worst > -math.inf else []
    return [*known, *([] if run.verdict is Verdict.PASS else ["only just"])]


def _worst(run: Run) -> float:
    """SQNR in dB of its worst output; inf where all are exact, -inf where none has one: whole numbers have none."""
    if run.outputs and all(each.exact for each in run.outputs.values()):
        return math.inf
    return min((each.sqnr_db for each in run.outputs.values() if each.sqnr_db is not None), default=-math.inf)


def _breaks(run: Run) -> bool:
    """Whether it breaks a limit: NaN, or a device that computes something else, is FAIL too."""
    return any(finding.code == "LIMIT_EXCEEDED" for finding in run.findings)


def _name(run: Run, *notes: str) -> str:
    """What was measured: the ladder may have made something else than was asked for.  Of auto it is a description."""
    asked = run.made_as in (None, run.variant) or _method(run) not in ("static", *OFFLINE)
    said = [*([] if asked else [f"made where {run.variant} was asked for"]), *notes]
    name = run.variant if asked or run.made_as is None else run.made_as
    return f"{name} ({', '.join(said)})" if said else name


def _size(run: Run) -> float:
    return run.memory_mb.model_file or 0.0 if run.memory_mb is not None else 0.0


def _seen(runs: Sequence[Run]) -> set[str | None]:
    return {name for run in runs for name in (run.variant, run.made_as)}


def _method(run: Run) -> str:
    return run.variant.partition(",")[0].partition(":")[0]
