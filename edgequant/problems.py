"""What pydantic found wrong, for people: where, what is allowed, what was given."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import ValidationError

Place = tuple[int | str, ...]

_PLAIN = {
    "missing": "it is missing",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number",
    "int_from_float": "must be a whole number",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "path_type": "must be a path",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be keys and values",
    "model_type": "must be keys and values",
    "model_attributes_type": "must be keys and values",
}
"""Kinds whose own words are pydantic's rather than ours."""
_NUMBERS = ("int_type", "float_type")
_UNSAID = ("value_error", "missing", "extra_forbidden")
"""Kinds that say what was given themselves, or where nothing was."""
_MOST_PROBLEMS = 2000
_LONGEST = 40
"""Characters of what was given."""


def dotted(parts: Place) -> str:
    """A place as it is written unless somebody knows better."""
    return ".".join(map(str, parts))


def first_problem(
    error: ValidationError,
    *,
    keys: Callable[[Place], Sequence[str]] | None = None,
    place: Callable[[Place], str] = dotted,
) -> str:
    """The first thing pydantic found wrong, in one line.

    Args:
        keys: those there are in the thing at a place, so that the near one of an unknown key can be told.
        place: how a place is written.
    """
    if (count := error.error_count()) > _MOST_PROBLEMS:
        return f"{count} things in it are wrong"  # to list them takes thousands of bytes for each
    problem = error.errors(include_url=False)[0]
    where = place(problem["loc"])
    message = _message(problem, keys)
    return f"{where}: {message}" if where else message


def shown(value: Any) -> str:
    """What was given, as it stands in a file and in one short piece."""
    if isinstance(value, dict):
        return "keys and values"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, int) and value.bit_length() > 1000:
        return "a number of hundreds of digits"  # which Python refuses to write
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _message(problem: Any, keys: Callable[[Place], Sequence[str]] | None) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        wanted = str(problem["loc"][-1])
        near = difflib.get_close_matches(wanted, keys(problem["loc"]), n=1) if keys is not None else []
        return "there is no such key" + (f"; did you mean '{near[0]}'?" if near else "")
    if kind in ("too_short", "too_long"):
        return f"{_length(context)}, and has {context.get('actual_length') or len(problem['input'])}"
    if kind in ("string_too_short", "string_too_long"):
        return f"{_length(context)} characters, and has {len(problem['input'])}"
    message = _PLAIN.get(kind) or problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if kind in _UNSAID:
        return message
    message = f"{message}, not {shown(problem['input'])}"
    if kind in _NUMBERS and isinstance(problem["input"], str) and (number := _number_in(problem["input"])):
        return f"{message}, which is text: write {number}"
    if kind == "literal_error" and isinstance(problem["input"], str):
        allowed = str(context.get("expected", "")).replace(" or ", ", ").split(", ")
        near = difflib.get_close_matches(problem["input"], [each.strip("'") for each in allowed], n=1)
        message += f"; did you mean '{near[0]}'?" if near and len(allowed) > 1 else ""
    return message


def _number_in(text: str) -> str:
    """How the number that a text means is written; empty where it means none."""
    try:
        number = float(text)
    except ValueError:
        return ""
    if not math.isfinite(number):
        return ""
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)


def _length(context: Any) -> str:
    if "min_length" in context:
        return f"must have at least {context['min_length']}"
    return f"must have at most {context['max_length']}"
