"""The one JSON document on stdout."""

from __future__ import annotations

import sys

from edgequant.text import json_escaped

_begun: list[bool] = []


def print_json(text: str) -> None:
    """Write it, in UTF-8 whatever the locale is."""
    sys.stdout.flush()
    _begun.append(True)
    sys.stdout.buffer.write(json_escaped(text.rstrip("\n")).encode() + b"\n")
    sys.stdout.buffer.flush()


def begun() -> bool:
    """Whether something of it is on stdout already."""
    return bool(_begun)
