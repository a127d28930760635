"""What all ways to make a file share: the source as it was read, a private directory beside the output, and limits."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from edgequant.errors import InputError, ToolError
from edgequant.host_memory import available
from edgequant.models import ModelGraph, read_model

HOPELESS = {"DISK_FULL", "MNN_MISSING", "MNN_TOO_OLD", "CHILD_NOT_STARTED", "CHILD_LOST", "LOG_NOT_WRITABLE",
            "OUTPUT_NOT_WRITABLE", "OUTPUT_IS_SOURCE", "CALIBRATION_CHANGED"}  # fmt: skip
"""Another way to quantize does not help against these."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_WORK = ".edgequant-convert-"
_PROBE = 256 * 1024  # bytes


def as_graph(source: Path | ModelGraph) -> ModelGraph:
    """What is known of a model, with an absolute path; read only where nobody has yet.  Raises as `read_model`."""
    graph = source if isinstance(source, ModelGraph) else read_model(Path(source).absolute())
    return replace(graph, path=graph.path.absolute())


def refuse_quantized(graph: ModelGraph) -> None:
    """Refuse what has no float weights to start from.

    MNN leaves quantized weights, and those an .mnn has in half precision, as they are.  Its converter writes halves of
    other formats as float32, so that such a source is as good as a float one.

    Raises:
        InputError: ALREADY_QUANTIZED.
    """
    if graph.weights == "quantized" or (graph.weights == "fp16" and graph.format == "mnn"):
        raise InputError(
            "ALREADY_QUANTIZED",
            f"its weights are {graph.weights} already; MNN would leave them as they are and say nothing",
            hint="Start from the original model or a float .mnn.",
            where=str(graph.path),
        )


def source_sha256(graph: ModelGraph) -> str | None:
    """SHA-256 of a model's files as they are now, as `ModelGraph.sha256`; None where one cannot be read any more."""
    digest = hashlib.sha256()
    try:
        for path in (graph.path, *graph.external_files):
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
    except OSError:
        return None
    return digest.hexdigest()


def memory_limit() -> int:
    """Bytes a tool may take: what is free now, less a tenth, so that it dies before this host starts to swap."""
    return max(1 << 30, int(available() * 0.9))


@contextlib.contextmanager
def output_work(out: Path, source: Path) -> Iterator[Path]:
    """`work_dir` beside an output that is made from a source; what the disk refuses is told as of the output.

    Raises:
        InputError: OUTPUT_NOT_WRITABLE, OUTPUT_IS_SOURCE.
        ToolError: DISK_FULL.
    """
    try:
        if out.is_dir():
            raise InputError("OUTPUT_NOT_WRITABLE", f"{str(out)!r} is a directory", hint="Name a file in it.")
        if out.exists() and out.samefile(source):
            raise InputError(
                "OUTPUT_IS_SOURCE", "the output is the source model", hint="Name another file.", where=str(source)
            )
        with work_dir(out.parent) as work:
            yield work
    except OSError as error:
        if error.errno in _FULL:
            raise _disk_full(out.parent) from error
        raise InputError(
            "OUTPUT_NOT_WRITABLE",
            f"{str(out)!r} cannot be written: {error.strerror or error}",
            hint="Choose an output in a directory that exists and that you may write to.",
        ) from error


def _disk_full(folder: Path) -> ToolError:
    return ToolError(
        "DISK_FULL",
        f"no room to write in {str(folder)!r}",
        hint="Free some space, or choose an output on another disk. The converter needs room for the float weights "
        "and the result at once.",
    )


def room_left(work: Path) -> None:
    """Raise ToolError DISK_FULL where nothing more can be written: then what was written may be cut unnoticed."""
    probe = work / "probe"
    try:
        with probe.open("wb") as file:
            file.write(b"\1" * _PROBE)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in _FULL:
            raise _disk_full(work.parent) from error
        raise
    finally:
        probe.unlink(missing_ok=True)


@contextlib.contextmanager
def work_dir(parent: Path) -> Iterator[Path]:
    """A private directory beside the output, removed at the end; those of dead processes are removed as well.

    A lock tells the living from the dead: the kernel drops it with the process that holds it.
    """
    remove_stale(parent)
    while True:
        work = Path(tempfile.mkdtemp(prefix=_WORK, dir=parent))
        try:
            lock = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # somebody took it for stale before it was even opened
        with contextlib.suppress(OSError):  # without locks (some network file systems) nothing is ever stale
            fcntl.flock(lock, fcntl.LOCK_EX)
        if work.exists():
            break
        os.close(lock)  # somebody took it for stale before it was locked
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(lock)


def remove_stale(parent: Path) -> None:
    """Remove the private directories of dead processes."""
    for old in parent.glob(_WORK + "*"):
        # Not ours to remove, gone already, or in use: then it stays.
        with contextlib.suppress(OSError):
            lock = os.open(old, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old, ignore_errors=True)
            finally:
                os.close(lock)
