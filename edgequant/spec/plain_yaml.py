"""YAML of which nothing is hidden.  Apart from what uses it: most runs read none, and need not load PyYAML."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from edgequant.errors import InputError
from edgequant.problems import Place

_NOT_YAML = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""A tag, a date or a number that is none is met by whatever Python says of it, beside PyYAML's own errors."""


class PlainLoader(yaml.SafeLoader):
    """Safe YAML without anchors, a few hundred bytes of which can stand for gigabytes, and without a key given twice,
    of which the second would silently replace the first."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("anchors and aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        self.flatten_mapping(node)  # what << brings in counts as well
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):  # others are refused below
                if key in seen:
                    raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: '{key}' is given twice")
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read(path: Path, text: bytes) -> tuple[Any, dict[Place, int]]:
    """What a file holds, nothing at all as no keys, and the line where each key and each entry stands.  Raises
    InputError (SPEC_INVALID)."""
    lines: dict[Place, int] = {}
    try:
        loader = PlainLoader(text.decode("utf-8"))
        try:
            node = loader.get_single_node()
            if node is None:
                return {}, lines
            data = loader.construct_document(node)
        finally:
            loader.dispose()
        _number(node, (), lines)
    except (yaml.YAMLError, *_NOT_YAML) as error:
        raise InputError("SPEC_INVALID", f"{path}: not YAML: {_why_not(error)}") from None
    return {} if data is None else data, lines


def _number(node: Any, place: Place, lines: dict[Place, int]) -> None:
    lines.setdefault(place, node.start_mark.line + 1)
    if node.id == "sequence":
        for at, item in enumerate(node.value):
            _number(item, (*place, at), lines)
    elif node.id == "mapping":
        for key, value in node.value:
            here = (*place, key.value if isinstance(key.value, str) else "?")
            lines[here] = key.start_mark.line + 1
            _number(value, here, lines)


def at_line(path: Path, lines: Mapping[Place, int], place: Place) -> str:
    """The file, and the line of the nearest thing around a place."""
    while place and place not in lines:
        place = place[:-1]
    return f"{path}:{lines[place]}" if place else str(path)


def _why_not(error: Exception) -> str:
    """What is wrong with a text that is no YAML, in one line: where, and what; the parser's excerpt is left out."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())[:300]
    parts = [getattr(error, "context", None), getattr(error, "problem", None)]
    told = " ".join(": ".join(filter(None, parts)).split())[:300]
    return f"line {mark.line + 1}, column {mark.column + 1}: {told}"
