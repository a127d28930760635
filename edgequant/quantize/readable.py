"""The source as MNN's converter can read it: under a path it can open, with nothing left out that it needs."""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path

from edgequant.findings import Finding
from edgequant.models import ModelGraph
from edgequant.models.model import BrokenFileError
from edgequant.models.onnx_defaults import WrittenOut, write_defaults


def written_out(written: WrittenOut) -> Finding:
    return Finding(
        code="DEFAULTS_WRITTEN_OUT",
        severity="info",
        message="what the source leaves out, or says in a way that MNN takes for something else, was written out in "
        f"{written.nodes} operator(s) of the copy that was converted: {written}",
        evidence={kind: sorted(names) for kind, names in written.attributes.items()},
        remedy="MNN's own converter, on the source itself, gives another model.",
    )


def readable_source(graph: ModelGraph, work: Path) -> tuple[str, WrittenOut | None]:
    """A path the converter can open, of a model that leaves out nothing it needs, and what was written out for that.

    It takes a backslash for a directory, and only UTF-8.
    """
    folder = work / "source"
    folder.mkdir()
    written = None
    if graph.format == "onnx":
        try:
            with graph.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                written = write_defaults(data, folder / "model", graph.opset or 0)
        except (BrokenFileError, ValueError):
            written = None  # it was changed meanwhile, or is empty by now: the converter says what is wrong
    if written is None:
        name = os.fspath(graph.path)
        with contextlib.suppress(UnicodeEncodeError):
            name.encode("utf-8")
            if "\\" not in name:
                return name, None
        (folder / "model").symlink_to(graph.path)
    for external in graph.external_files:
        link = folder / external.relative_to(graph.path.parent.resolve())
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(external)
    return "source/model", written
