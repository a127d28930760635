"""What outputs decide, as users write it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, cast, get_args

from edgequant.errors import InputError

Decision = Literal["probabilities", "scores", "classes", "ordered", "set"]
"""What an output is: "probabilities" of exclusive classes (softmax, or its logarithm), "scores" between 0 and 1 each
for itself (sigmoid), "classes" (argmax), rows in an "ordered" list (sorted by a score, or after non-maximum
suppression), a "set" whose length depends on the data (non-zero elements)."""

DECISIONS: tuple[str, ...] = get_args(Decision)


def parse_decides(texts: Iterable[str]) -> dict[str, Decision]:
    """``OUTPUT=classes`` each.  Raises InputError (DECIDES_INVALID)."""
    found: dict[str, Decision] = {}
    for text in texts:
        name, equals, kind = text.rpartition("=")
        if not equals or not name:
            raise _invalid(f"'{text}' is not of the form OUTPUT=KIND")
        if found.setdefault(name, decision(kind.strip())) != kind.strip():
            raise _invalid(f"'{name}' is given twice, as {found[name]} and {kind.strip()}")
    return found


def decision(word: str) -> Decision:
    """A word that is one.  Raises InputError (DECIDES_INVALID)."""
    if word not in DECISIONS:
        raise _invalid(f"'{word}' is nothing that an output decides")
    return cast("Decision", word)


def _invalid(why: str) -> InputError:
    return InputError("DECIDES_INVALID", f"--decides: {why}", hint=f"KIND is one of {', '.join(DECISIONS)}.")
