"""The one JSON document on stdout."""

from __future__ import annotations

import sys

_begun: list[bool] = []


def print_json(text: str) -> None:
    """Write it, in UTF-8 whatever the locale is."""
    sys.stdout.flush()
    _begun.append(True)
    sys.stdout.buffer.write(text.rstrip("\n").encode() + b"\n")
    sys.stdout.buffer.flush()


def begun() -> bool:
    """Whether something of it is on stdout already."""
    return bool(_begun)
