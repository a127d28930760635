"""YAML of which nothing is hidden.  Apart from what uses it: most runs read none, and need not load PyYAML."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml


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


def why_not(error: Exception) -> str:
    """What is wrong with a text that is no YAML, in one line: where, and what; the parser's excerpt is left out."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())[:300]
    parts = [getattr(error, "context", None), getattr(error, "problem", None)]
    told = " ".join(": ".join(filter(None, parts)).split())[:300]
    return f"line {mark.line + 1}, column {mark.column + 1}: {told}"
