"""Text from models, files and devices made harmless: it moves no cursor, hides nothing of itself, and has an end."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

_INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_NOT_ASCII = re.compile(r"[^\x00-\x7e]")
MESSAGE = 1500
"""Characters of what is said to people."""
NAME = 300
"""Characters of a name as it is shown."""
EVIDENCE = 4000
"""Characters of one text in what stands behind an error or a finding."""
MOST_ENTRIES = 10_000
"""Entries of one list there."""


def invisible(character: str) -> bool:
    """Control, bidirectional and other characters that do not show as what they are."""
    return unicodedata.category(character) in _INVISIBLE


def escape(character: str) -> str:
    """Such as ``\\x1b`` or ``\\u202e``."""
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def printable(text: str, encoding: str = "utf-8") -> str:
    """One line that a terminal shows as it is.

    Control, bidirectional and invisible characters, and those the encoding lacks, become escapes like ``\\x1b``: a
    tensor name must not move the cursor, recolour the screen or hide a part of itself.
    """
    shown = "".join(escape(c) if invisible(c) else c for c in text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def shortened(text: str, most: int = MESSAGE) -> str:
    """The text, or its beginning and its end where it has more than `most` characters.

    What stands between them has the whole text's hash, so that two long names never look the same.
    """
    if len(text) <= most:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    head, tail = most * 2 // 3, most // 3 - 40
    return f"{text[:head]}...[{len(text)} characters, {digest}]...{text[-tail:]}"


def bounded(value: Any) -> Any:
    """Evidence with its texts and lists cut."""
    if isinstance(value, str):
        return shortened(value, EVIDENCE)
    if isinstance(value, dict):
        return {bounded(key): bounded(item) for key, item in list(value.items())[:MOST_ENTRIES]}
    if isinstance(value, (list, tuple)):
        return [bounded(item) for item in value[:MOST_ENTRIES]]
    return value


def json_escaped(document: str) -> str:
    """A JSON document in which what does not show as what it is, is written as an escape: it means the same."""
    return _NOT_ASCII.sub(_json_escape, document)


def _json_escape(found: re.Match[str]) -> str:
    if not invisible(found[0]):
        return found[0]
    units = found[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def apart(values: Sequence[float], digits: int = 6) -> list[str]:
    """Numbers that are shown beside each other: none that differ look the same.  digits: at least so many of each."""
    number = len({f"{value:.17g}" for value in values})
    for more in range(digits, 17):
        texts = [f"{value:.{more}g}" for value in values]
        if len(set(texts)) == number:
            return texts
    return [f"{value:.17g}" for value in values]
