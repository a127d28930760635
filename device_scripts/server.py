"""The runner's loop: read a request, do the job, answer.  Knows no engine; `serve` is given one.

An engine is any object with methods named ``job_<op>(job)`` that take a Job and return ``(header, tensors)``.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

import numpy as np

from . import RUNNER_VERSION, wire

Tensors = Mapping[str, np.ndarray]
Answer = Tuple[Dict[str, Any], Optional[Tensors]]


class JobError(Exception):
    """A job that cannot be done, for a reason the host should hear.  The runner itself is fine."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Job:
    """One request: its header, its tensors by name, and `emit`, which sends partial results while the job runs."""

    def __init__(
        self, header: Dict[str, Any], tensors: Dict[str, np.ndarray], emit: Callable[[Dict[str, Any]], None]
    ) -> None:
        self.header = header
        self.tensors = tensors
        self.emit = emit


class Stream:
    """Frames over two file descriptors."""

    def __init__(self, fd_in: int, fd_out: int) -> None:
        self._in = fd_in
        self._out = fd_out
        self._reader = wire.FrameReader(lambda limit: os.read(self._in, limit))

    def write_raw(self, data: Any) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._out, view) :]

    def write(self, kind: int, header: Dict[str, Any], tensors: Optional[Tensors] = None) -> None:
        for piece in wire.gathered(wire.encode(kind, header, tensors)):
            self.write_raw(piece)

    def read(self) -> Optional[wire.Frame]:
        return self._reader.read_frame()


def serve(engine: Any, stream: Stream, leave: Callable[[], object] = lambda: None) -> int:
    """Answer requests until the host closes the stream, asks to exit, or to restart, and the engine can.  Returns the
    exit code.

    leave: puts back what was changed on the machine, when it is asked to exit.
    """
    while True:
        try:
            frame = stream.read()
        except wire.WireError as error:
            # Once the stream is out of step nothing more can be understood: say so where a human looks, and end.
            print("edgequant-runner: %s" % error, file=sys.stderr, flush=True)
            return 4
        if frame is None:
            return 0
        number = frame.header.get("id")
        if frame.header.get("op") == "exit":
            leave()  # before the answer: the host may kill it as soon as that is there
            stream.write(wire.RESPONSE, {"id": number, "ok": True})
            return 0
        header, tensors = _do(engine, frame, stream)
        header["id"] = number
        try:
            stream.write(wire.RESPONSE, header, tensors)
        except (wire.WireError, ValueError) as error:  # encoding failed, so nothing has been sent yet
            stream.write(wire.RESPONSE, dict(_failed("ANSWER_UNSENDABLE", error), id=number))
        if frame.header.get("op") == "restart" and header["ok"]:
            return 0


def _do(engine: Any, frame: wire.Frame, stream: Stream) -> Answer:
    op, number = frame.header.get("op"), frame.header.get("id")
    work = getattr(engine, "job_%s" % op, None) if isinstance(op, str) and op.isidentifier() else None
    if work is None:
        return _failed("OP_UNKNOWN", "runner %s knows no op %r" % (RUNNER_VERSION, op)), None

    def emit(event: Dict[str, Any]) -> None:
        stream.write(wire.EVENT, dict(event, id=number))

    try:
        header, tensors = work(Job(frame.header, frame.tensors(), emit))
    except JobError as error:
        return _failed(error.code, error), None
    except wire.WireError as error:
        return _failed("REQUEST_INVALID", error), None
    except MemoryError as error:
        return _failed("OUT_OF_MEMORY", error or "not enough memory"), None
    except (KeyError, TypeError, ValueError) as error:
        # A malformed request, or a bug of ours: either way the host gets the place, and the runner lives on.
        traceback.print_exc()
        return _failed("REQUEST_INVALID", "%s: %s" % (type(error).__name__, error)), None
    except OSError:
        raise  # the stream to the host is gone, so nobody hears an answer
    except Exception as error:  # noqa: BLE001  (native code raises bare Exception and SystemError)
        traceback.print_exc()
        return _failed("JOB_FAILED", "%s: %s" % (type(error).__name__, error)), None
    return dict(header, ok=True), tensors


def _failed(code: str, message: Any) -> Dict[str, Any]:
    return {"ok": False, "error": {"code": code, "message": str(message)[:4000]}}
