"""Reads the JSON of a recipe, and tells in plain words what keeps it from being JSON."""

from __future__ import annotations

import json
import re
from typing import Any

from edgequant.problems import Place

_MOST_DIGITS = 100
_YAML = re.compile(r"(---\s*$|- |[\"']?[A-Za-z_]\w*[\"']?\s*:(\s|$))")


class _Doubled(dict[str, Any]):
    """An object in which a key is given twice, of which the second would silently replace the first."""

    key: str


def read_json(text: str) -> Any:
    """What is written there.  Raises ValueError with one plain line."""
    if not text.strip():
        raise ValueError("the file is empty")
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise ValueError(_why(text, error)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _once("", value)
    if isinstance(value, dict) and isinstance(rules := value.get("rules"), list):
        for number, rule in enumerate(rules):
            _once(place(("rules", number)), rule)
    return value


def place(parts: Place) -> str:
    """A place in a recipe: rules are counted from 1, as people do."""
    if len(parts) > 1 and parts[0] == "rules" and isinstance(parts[1], int):
        return ": ".join([f"rule {parts[1] + 1}", *map(str, parts[2:])])
    return ": ".join(map(str, parts))


def _once(where: str, value: Any) -> None:
    if isinstance(value, _Doubled):
        raise ValueError(f"{where}: '{value.key}' is given twice".removeprefix(": "))
    for part in value.values() if isinstance(value, dict) else ():
        if not isinstance(part, list):
            _once(where, part)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            doubled = _Doubled(found)
            doubled.key = key
            return doubled
        found[key] = value
    return found


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"it has a number of {len(digits)} digits")
    return int(digits)


def _why(text: str, error: json.JSONDecodeError) -> str:
    at = error.pos
    # Newer Pythons stop at the comma itself, older ones behind it.
    before, rest = text[:at].rstrip(), text[at:]
    if rest.startswith(","):
        before, rest = text[: at + 1], text[at + 1 :].lstrip()
    where = f"line {error.lineno}, column {error.colno}"
    if text.startswith("<"):
        return "it is not JSON: it looks like HTML or XML"
    if rest.startswith(("//", "/*", "#")):
        return f"it is not JSON: {where}: a comment, which JSON has not"
    if before.endswith(",") and rest.startswith(("]", "}")):
        return f"it is not JSON: {where}: a comma before the closing '{rest[0]}'"
    if rest.startswith("'"):
        return f"it is not JSON: {where}: single quotes where JSON has double ones"
    first = next((line for line in text.splitlines() if line.strip()), "")
    if _YAML.match(first) and not text.lstrip().startswith(("{", "[")):
        return "it is not JSON: it looks like YAML"
    if not rest.strip() or error.msg.startswith("Unterminated"):
        return f"it is not JSON: it ends ({where}) before all that was opened is closed"
    if error.msg == "Extra data":
        return f"it is not JSON: {where}: something follows its end: {_short(rest)}"
    if error.msg.startswith("Expecting ','"):
        return f"it is not JSON: {where}: a comma or a closing bracket is missing before {_short(rest)}"
    if error.msg.startswith("Expecting ':'"):
        return f"it is not JSON: {where}: a colon is missing before {_short(rest)}"
    if error.msg.startswith("Expecting property name"):
        return f"it is not JSON: {where}: a key in double quotes is missing before {_short(rest)}"
    if error.msg.startswith("Invalid control character"):
        return f"it is not JSON: {where}: a line break or control character inside quotes"
    if error.msg.startswith("Expecting value"):
        return f"it is not JSON: {where}: {_short(rest)} is no value; text stands in double quotes"
    return f"it is not JSON: {where}: {error.msg}"


def _short(rest: str) -> str:
    word = rest.split("\n", 1)[0]
    return json.dumps(word if len(word) <= 20 else f"{word[:20]}...", ensure_ascii=False)
