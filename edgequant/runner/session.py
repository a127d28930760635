"""One runner on one device, from its start to its end: requests, answers, and how it died if it did."""

from __future__ import annotations

import collections
import contextlib
import re
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from edgequant.deadline import Deadline
from edgequant.device_scripts import wire
from edgequant.devices.protocol import CommandResult, Device, Process
from edgequant.errors import DeadlineExceeded, DeviceError, RunnerError
from edgequant.host_memory import memory_for, users_limit
from edgequant.runner import answers
from edgequant.runner.start_errors import not_started, signal_text
from edgequant.spec import first_problem

Tensors = Mapping[str, np.ndarray]
Model = TypeVar("Model", bound=BaseModel)

LOG_LIMIT = 4 << 20
TAIL_LINES = 20
START_SECONDS = 60.0
_WORDS_SECONDS = 0.3
_MOST_WORDS = 600
_EMPTY_WORDS = re.compile(r"^code=\d+ in|^Create execution error|^The device supports|^Traceback|^edgequant-runner")
"""What MNN says of every failure."""
_MNNS_OWN = ("INFERENCE_FAILED", "MODEL_LOAD_FAILED", "SESSION_FAILED", "JOB_FAILED")
_OOM_KILLS = ["sh", "-c", "grep '^oom_kill ' /proc/vmstat 2>/dev/null || true"]


class ErrorLog:
    """The runner's stderr: kept in a file up to LOG_LIMIT, its last lines in memory for error messages."""

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.Lock()
        self._came = threading.Condition(self._lock)
        self.lines = 0
        """How many there have been."""
        self._tail: collections.deque[bytes] = collections.deque(maxlen=TAIL_LINES)
        self._partial = b""
        self._left = LOG_LIMIT
        self._stream = None if path is None else open(path, "ab")  # noqa: SIM115  (lives as long as the session)

    def add(self, data: bytes) -> None:
        with self._lock:
            if self._stream is not None and not self._stream.closed and self._left > 0:
                # A full disk must not stop the draining: the runner would block on its stderr.
                with contextlib.suppress(OSError):
                    self._stream.write(data[: self._left])
                    self._stream.flush()
                self._left -= len(data)
            *lines, self._partial = (self._partial + data).split(b"\n")
            self._partial = self._partial[-4000:]
            lines = [line[:1000] for line in lines if line.strip()]
            self._tail.extend(lines)
            self.lines += len(lines)
            self._came.notify_all()

    def words(self, since: int) -> str:
        """What MNN said last, of what came after so many lines; it comes on a stream of its own, so a little later."""
        with self._lock:
            self._came.wait_for(lambda: self.lines > since, _WORDS_SECONDS)
            new = list(self._tail)[-min(self.lines - since, TAIL_LINES) :] if self.lines > since else []
        said = [line.decode("utf-8", "replace").strip() for line in new]
        return "; ".join(dict.fromkeys(line for line in said if not _EMPTY_WORDS.search(line)))[-_MOST_WORDS:]

    def tail(self) -> list[str]:
        with self._lock:
            lines = [*self._tail, self._partial] if self._partial.strip() else list(self._tail)
        return [line.decode("utf-8", "replace") for line in lines]

    def close(self) -> None:
        with self._lock:
            if self._stream is not None:
                with contextlib.suppress(OSError):
                    self._stream.close()


class RunnerSession:
    """A started runner.  Use as a context manager.

    Args:
        device: an open device.
        argv: command that starts the runner there.
        log: file its stderr is appended to; None to keep only the last lines.
        name: what to call it in messages, such as "the runner".

    Raises (from every request): RunnerError with RUNNER_DIED, RUNNER_OUT_OF_MEMORY, RUNNER_PROTOCOL or the code of
    the job that failed; DeadlineExceeded, after which the session is dead; DeviceError LINK_LOST.
    """

    def __init__(
        self, device: Device, argv: Sequence[str], *, log: Path | None = None, name: str = "the runner"
    ) -> None:
        self._device = device
        self._argv = list(argv)
        self._name = name
        self._log = ErrorLog(log)
        self._process: Process | None = None
        self._reader: wire.FrameReader | None = None
        self._deadline = Deadline(None)
        self._number = 0
        self._oom_kills: int | None = None
        self.noise = b""
        self.hello: answers.Hello

    def start(self, deadline: Deadline, *, meanwhile: Callable[[], object] = lambda: None) -> answers.Hello:
        """Start it and shake hands.  `meanwhile` is called when it has been started, and takes a while to be there.

        Raises DeviceError (PYTHON_MISSING, PYTHON_TOO_OLD, MNN_MISSING, NUMPY_MISSING) or RunnerError
        (RUNNER_NOT_STARTED).
        """
        deadline = deadline.shorter(START_SECONDS)
        try:
            process = self._process = self._device.start(self._argv, deadline, on_stderr=self._log.add)
        except DeviceError as error:
            if error.code != "COMMAND_NOT_STARTED":
                raise
            result = CommandResult(error.evidence["exit_code"], b"", b"")
            raise not_started(self._device, result, [error.message], b"", self._name) from None
        self._deadline = deadline
        self._reader = wire.FrameReader(lambda limit: process.read(limit, self._deadline))
        try:
            # Before it has loaded anything that memory could run out for.
            self._oom_kills = self._count_oom_kills(deadline)
            meanwhile()
        except BaseException:
            self._kill()
            raise
        return self._greeted(deadline)

    def restart(self, deadline: Deadline) -> answers.Hello:
        """Have it start itself anew, in the same process, which keeps its lock and nothing else.

        Raises RunnerError (RESTART_UNSUPPORTED, CORES_UNAVAILABLE), after which it lives on as it was; else as
        `start` and `request`, and no runner is left.
        """
        deadline = deadline.shorter(START_SECONDS)
        self.request("restart", deadline=deadline)
        self._deadline = deadline
        return self._greeted(deadline)

    def _greeted(self, deadline: Deadline) -> answers.Hello:
        assert self._reader is not None
        try:
            self.noise = self._reader.skip_to_preamble()
        except wire.WireError as error:
            noise = bytes(error.args[1])
            if "ended" not in str(error):
                raise self.broken(f"{error}, but {noise[:80]!r}") from None
            result = self._end()
            raise not_started(self._device, result, self._log.tail(), noise, self._name) from None
        except DeadlineExceeded as error:
            self._kill()
            raise DeadlineExceeded(
                f"{self._name} did not say hello within {deadline.seconds:g} s",
                where=self._device.uri,
                evidence={"stderr": self._log.tail()},
            ) from error
        except DeviceError:
            self._kill()
            raise
        header, _ = self.request("hello", deadline=deadline)
        self.hello = self.checked(answers.Hello, header)
        if self.hello.protocol != wire.PROTOCOL:
            raise self.broken(f"it speaks protocol {self.hello.protocol}, this host {wire.PROTOCOL}")
        return self.hello

    def request(
        self,
        op: str,
        header: Mapping[str, Any] | None = None,
        tensors: Tensors | None = None,
        *,
        deadline: Deadline,
        on_event: Callable[[dict[str, Any]], None] | None = None,
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Send one request and wait for its answer; events that come before it go to `on_event`."""
        if self._process is None or self._reader is None:
            raise RunnerError("RUNNER_DIED", f"{self._name} is not running", where=self._device.uri)
        self._number += 1
        self._deadline = deadline
        since = self._log.lines
        try:
            frame_out = wire.encode(wire.REQUEST, {**(header or {}), "id": self._number, "op": op}, tensors)
            for piece in wire.gathered(frame_out):
                self._process.write(piece, deadline)
            while True:
                frame = self._reader.read_frame()
                if frame is None:
                    raise self._died(op)
                if frame.header.get("id") != self._number:
                    raise self.broken(f"it answered request {frame.header.get('id')!r:.80} instead of {self._number}")
                if frame.kind == wire.EVENT:
                    if on_event:
                        on_event(frame.header)
                    continue
                if frame.kind != wire.RESPONSE:
                    raise self.broken("it sent a request")
                return self._answer(op, frame, since)
        except wire.WireError as error:
            # A stream that stops inside a frame is a death; anything else is nonsense on the wire.
            if "stream ended" in str(error):
                raise self._died(op) from None
            raise self.broken(str(error)) from None
        except DeadlineExceeded as error:
            self._kill()
            raise DeadlineExceeded(
                f"{self._name} did not finish '{op}' within {deadline.seconds:g} s",
                where=self._device.uri,
                hint="Give it more time with --timeout, or fewer and smaller cases.",
                evidence={"stderr": self._log.tail()},
            ) from error
        except RunnerError:
            raise  # either a job it refused, and it lives on, or its end, which has been seen to
        except DeviceError as error:
            if error.code == "PROCESS_ENDED":
                raise self._died(op) from None
            self._kill()
            raise

    def close(self) -> None:
        """Ask it to end, make it end, close the log.  Never raises."""
        process, self._process = self._process, None
        if process is not None:
            deadline = Deadline(5)
            try:
                for piece in wire.encode(wire.REQUEST, {"id": 0, "op": "exit"}):
                    process.write(piece, deadline)
                self._deadline = deadline
                assert self._reader is not None
                self._reader.read_frame()  # its answer: nothing of ours is left in it, so it need not clean up
            except (DeviceError, wire.WireError):
                pass  # it is dead or deaf already; kill() below is all that is left to do
            process.kill()
        self._log.close()

    def __enter__(self) -> RunnerSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ---- answers

    def _answer(self, op: str, frame: wire.Frame, since: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        envelope = self.checked(answers.AnyAnswer, frame.header)
        if envelope.ok:
            return frame.header, frame.tensors()
        failure = envelope.error or answers.JobFailure(code="RUNNER_ERROR", message="it gave no reason")
        words = self._log.words(since) if failure.code in _MNNS_OWN else ""
        said = f"; MNN said: {words}" if words else ""
        raise RunnerError(
            failure.code,
            f"{self._name} could not do '{op}': {failure.message}{said}",
            where=self._device.uri,
            evidence={"stderr": self._log.tail()},
        )

    def checked(self, model: type[Model], header: Mapping[str, Any]) -> Model:
        """`header` as a validated answer.  Raises RunnerError (RUNNER_PROTOCOL)."""
        try:
            return model.model_validate(header)
        except ValidationError as error:
            raise self.broken(f"its answer is not valid: {first_problem(error)}") from None

    # ---- ends

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def broken(self, why: str) -> RunnerError:
        """End the runner, and return the error that says why it cannot be talked to."""
        self._kill()
        return RunnerError(
            "RUNNER_PROTOCOL",
            f"{self._name} does not speak edgequant's protocol: {why}",
            where=self._device.uri,
            hint="Something else may be writing to its stream, or the runner there is damaged: try again after "
            f"`edgequant devices clean {self._device.uri}`.",
            evidence={"stderr": self._log.tail()},
        )

    def _end(self) -> CommandResult:
        process, self._process = self._process, None
        assert process is not None
        try:
            return process.wait(Deadline(10))
        except DeadlineExceeded:
            return CommandResult(None, b"", b"", lost=True)
        finally:
            process.kill()

    def _died(self, op: str) -> RunnerError:
        result = self._end()
        evidence = {"exit_code": result.exit_code, "signal": result.signal, "stderr": self._log.tail(), "during": op}
        if result.lost:
            return RunnerError(
                "LINK_LOST",
                f"the link was lost during '{op}'",
                transient=True,
                where=self._device.uri,
                hint="Check cable, network and power of the device, then run again.",
                evidence=evidence,
            )
        code, how, hint = "RUNNER_DIED", f"exit status {result.exit_code}", "Its last lines are in the log."
        if result.signal is not None:
            how = signal_text(result.signal)
            hint = "This is a crash in native code: try --memory normal, fewer --threads, or pinned --shape sizes."
        kills = self._count_oom_kills(Deadline(5)) if result.signal == signal.SIGKILL else None
        if kills is not None and self._oom_kills is not None and kills > self._oom_kills:
            code = "RUNNER_OUT_OF_MEMORY"
            how = "the system killed it because memory ran out"
            hint = "Use smaller cases (--shape), a smaller variant, or free memory on the device."
        elif result.signal == signal.SIGKILL:
            hint = "Somebody or the system killed it; on small devices the reason is usually memory."
        tail = self._log.tail()
        said = f"; its last line: {tail[-1]}" if tail else ""
        if self._device.is_host and (told := users_limit(memory_for(0))) is not None:
            code, hint = "HOST_EXHAUSTED", f"{told} in the shell this was started from: raise it there."
        return RunnerError(
            code,
            f"{self._name} died during '{op}': {how}{said}",
            where=self._device.uri,
            hint=hint,
            evidence=evidence,
        )

    def _count_oom_kills(self, deadline: Deadline) -> int | None:
        """How often the kernel there killed something for memory since it booted; None where it does not tell."""
        try:
            words = self._device.run(_OOM_KILLS, deadline, max_output=4096).stdout.split()
        except DeviceError:
            return None  # only adds detail to another error
        return int(words[1]) if len(words) == 2 and words[1].isdigit() else None
