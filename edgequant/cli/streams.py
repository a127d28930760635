"""stdout and stderr as they come: closed, full, or of a locale that cannot show every name."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class StdoutLostError(Exception):
    """What stdout is sent to takes nothing any more; not an OSError, which may be of any file."""


class _Stdout(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StdoutLostError(error.strerror or str(error)) from None


class _Stderr(io.FileIO):
    """What cannot be said there changes nothing of what is done."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def prepare() -> None:
    """Once, at the beginning.  A stream that is closed becomes one to nowhere: the next file that is opened would take
    its place, and be printed into."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
            setattr(sys, name, open(descriptor, "r" if descriptor == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    if sys.stdout is sys.__stdout__:
        sys.stdout = _over(_Stdout(1, "wb", closefd=False), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _over(_Stderr(2, "wb", closefd=False), sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every locale can show every name


def _over(raw: io.FileIO, stream: Any) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, line_buffering=stream is sys.__stderr__)


def give_up(*descriptors: int) -> None:
    """What is still to be written there goes nowhere: the interpreter must not fail over it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
