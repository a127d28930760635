"""The names that the nodes of an ONNX file have in the file."""

from __future__ import annotations

import mmap
from pathlib import Path

from edgequant.models.model import Work, text
from edgequant.models.proto import BYTES, MAX_FIELDS, fields

_GRAPH, _NODE, _NAME = 7, 1, 3
"""Field numbers of onnx.proto: of ModelProto, GraphProto and NodeProto."""


def node_names(path: Path) -> list[str]:
    """Of the main graph, in order; "" where there is none.  Raises OSError, BrokenFileError, ValueError (empty)."""
    found = []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        work = Work(MAX_FIELDS)
        for number, wire, a, b in fields(data, 0, len(data), work):
            if (number, wire) != (_GRAPH, BYTES):
                continue
            for kind, how, start, end in fields(data, a, b, work):
                if (kind, how) == (_NODE, BYTES):
                    inner = fields(data, start, end, work)
                    names = [text(data[x:y]) for key, form, x, y in inner if (key, form) == (_NAME, BYTES)]
                    found.append(names[-1] if names else "")
    return found
