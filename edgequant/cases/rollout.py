"""Which output of a streaming model is fed back into which input: as the user says, or as names and shapes tell."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from edgequant.errors import InputError

MIN_STEPS, MAX_STEPS, DEFAULT_STEPS = 2, 10_000, 100
_IN = {"in", "input", "prev", "previous", "past", "old", "init", "initial", "i", "0", "t0", "last"}
_OUT = {"out", "output", "new", "next", "present", "cur", "current", "updated", "n", "o", "t1", "1"}
_STATE = {"h", "c", "hx", "cx", "hn", "cn", "state", "states", "hidden", "cell", "cache", "mem", "memory", "buf",
          "buffer", "rnn", "gru", "lstm", "carry", "past", "prev", "ctx", "context"}  # fmt: skip
Arrays = Mapping[str, np.ndarray]


def parse_feedback(texts: Sequence[str]) -> dict[str, str]:
    """``OUT=IN`` each -> input: output.  Raises InputError (FEEDBACK_INVALID)."""
    found: dict[str, str] = {}
    for text in texts:
        output, equals, name = text.partition("=")
        if not equals or not output.strip() or not name.strip():
            raise InputError(
                "FEEDBACK_INVALID",
                f"--feedback {text}: not of the form OUTPUT=INPUT",
                hint="Such as --feedback hN=h, once for each state; `edgequant inspect MODEL` lists the names.",
            )
        if found.setdefault(name.strip(), output.strip()) != output.strip():
            raise InputError(
                "FEEDBACK_INVALID",
                f"--feedback: input '{name.strip()}' is fed by {found[name.strip()]} and by {output.strip()}",
                hint="Each input takes one output: leave one of the two away.",
            )
    return found


def check_feedback(feedback: Mapping[str, str], inputs: Arrays, outputs: Arrays) -> None:
    """Raise InputError (FEEDBACK_UNKNOWN, FEEDBACK_SHAPE) where it does not fit the model."""
    for name, output in feedback.items():
        for what, one, known in (("input", name, inputs), ("output", output, outputs)):
            if one not in known:
                raise InputError(
                    "FEEDBACK_UNKNOWN",
                    f"--feedback {output}={name}: the model has no {what} '{one}'",
                    hint=f"Its {what}s are {', '.join(known)}.",
                )
        if not _alike(inputs[name], outputs[output]):
            raise InputError(
                "FEEDBACK_SHAPE",
                f"--feedback {output}={name}: the output is {_said(outputs[output])}, the input {_said(inputs[name])}",
                hint="What is fed back has to have one type and one size in every step: pin it with --shape.",
            )


def find_feedback(inputs: Arrays, outputs: Arrays) -> dict[str, str]:
    """Input -> output, by matching names (h and hN, state_in and state_out, cache_prev and cache) and equal types and
    shapes.  An input that nothing matches is none.

    Raises InputError: FEEDBACK_AMBIGUOUS where several would do, FEEDBACK_NOT_FOUND; both list what there is.
    """
    pairs = {name: [output for output, got in outputs.items() if _alike(array, got)] for name, array in inputs.items()}
    # The narrowest way of matching names that finds anything for an input counts for it.
    named = {name: _by_name(name, fitting) for name, fitting in pairs.items()}
    named = {name: fitting for name, fitting in named.items() if fitting}
    if not named:
        # A name that says state, and one output that it could be.
        named = {name: fitting for name, fitting in pairs.items() if fitting and _words(name) & _STATE}
    taken = [output for fitting in named.values() for output in fitting]
    if any(len(fitting) > 1 for fitting in named.values()) or len(set(taken)) < len(taken):
        raise InputError(
            "FEEDBACK_AMBIGUOUS",
            f"which output is fed back into which input?  By type and shape it could be {_listed(named)}",
            hint="Say which: --feedback OUTPUT=INPUT, once for each state.",
            evidence={"candidates": named},
        )
    if not named:
        fits = {name: fitting for name, fitting in pairs.items() if fitting}
        could = f"; by type and shape it could be {_listed(fits)}" if fits else ""
        raise InputError(
            "FEEDBACK_NOT_FOUND",
            f"no output has the name, type and shape of an input's next state{could}",
            hint=f"Say which is fed back: --feedback OUTPUT=INPUT.  Inputs: {_all(inputs)}.  Outputs: {_all(outputs)}."[
                :600
            ],
            evidence={"candidates": fits},
        )
    return {name: fitting[0] for name, fitting in named.items()}


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape


def _by_name(name: str, outputs: Sequence[str]) -> list[str]:
    wanted = _parts(name)
    for stem in (_stem, _loose):
        found = [output for output in outputs if stem(wanted, _IN) and stem(wanted, _IN) == stem(_parts(output), _OUT)]
        if found:
            return found
    return []


def _parts(name: str) -> list[str]:
    """Words of a name: hN is h and n, lstm_h0 is lstm, h and 0."""
    split = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    return [word.lower() for word in re.findall(r"[A-Za-z]+|[0-9]+", split)]


def _words(name: str) -> set[str]:
    return set(_parts(name))


def _stem(parts: Sequence[str], dropped: set[str]) -> tuple[str, ...]:
    """Without the words that say in or out; numbers are kept, for they may count states."""
    return tuple(word for word in parts if word not in dropped or word.isdigit()) or tuple(parts)


def _loose(parts: Sequence[str], dropped: set[str]) -> tuple[str, ...]:
    """Without a 0 or 1 at its end, too, nor the n of hn."""
    found = list(_stem(parts, dropped))
    if len(found) > 1 and found[-1] in dropped:
        found.pop()
    if found and len(found[-1]) == 2 and found[-1][0] in "hc" and found[-1][1] == "n":
        found[-1] = found[-1][0]
    return tuple(found)


def _said(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _all(arrays: Arrays) -> str:
    return ", ".join(f"{name} {_said(array)}" for name, array in arrays.items())


def _listed(pairs: Mapping[str, Sequence[str]]) -> str:
    listed = [f"{output}={name}" for name, fitting in pairs.items() for output in fitting]
    return ", ".join(listed[:12]) + (", ..." if len(listed) > 12 else "")
