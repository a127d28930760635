"""Runs native code in a child process that cannot hurt us: it may crash, hang, eat memory or fill its log.

MNN's tools crash on input they do not like, and report success when they failed.  So each runs as

    edgequant -> guard (worker.py, Python's standard library only) -> the command

with the guard holding the command to its time, memory and output, and killing every process of it at the end.
The guard also kills them when edgequant itself dies, by SIGKILL too: it then reads the end of its control pipe.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from edgequant.errors import InputError, ToolError
from edgequant.files import disk_error
from edgequant.host_memory import users_limit
from edgequant.quantize.log import last_words

WORKER = Path(__file__).with_name("worker.py")
LOG_LIMIT = 16 * 1024 * 1024
"""Bytes of output kept in a log: the first and the last half of it."""
_PATIENCE = 20.0
"""Seconds the guard has, beyond the timeout, to kill what it watches over and to answer."""
_LOOK = 0.3
"""Seconds between two looks at a log that somebody watches."""
_LOOK_BYTES = 1 << 20
_NO_MEMORY = ("std::bad_alloc", "MemoryError", "Cannot allocate memory", "Memory Alloc Failed", "out of memory",
              "failed to map segment")  # fmt: skip


class Stopper:
    """Ends the children of one owner from another thread.  They are those that are run within `over_children`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._guards: set[subprocess.Popen[bytes]] = set()

    def stop(self) -> None:
        """End them, and let none start any more: it raises ToolError (INTERRUPTED) instead.  Does not wait."""
        with self._lock:
            self._stopped = True
            for guard in self._guards:
                assert guard.stdin is not None
                guard.stdin.close()

    @contextlib.contextmanager
    def over_children(self) -> Iterator[None]:
        token = _STOPPER.set(self)
        try:
            yield
        finally:
            _STOPPER.reset(token)

    def start(self, call: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        """A guard that `stop` ends."""
        with self._lock:
            if self._stopped:
                raise ToolError("INTERRUPTED", "the run ended before this was begun")
            guard = call()
            self._guards.add(guard)
            return guard

    def forget(self, guard: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._guards.discard(guard)


_STOPPER: ContextVar[Stopper] = ContextVar("edgequant_stopper")


@dataclass(frozen=True)
class ChildResult:
    """How a command ended.

    Attributes:
        exit_code: its exit status; None when a signal ended it.
        signal: name of the signal that ended it, such as ``SIGSEGV``; None when it exited.
        timed_out: it was killed because its time was up.
        seconds: wall-clock time from start to end.
        peak_rss: largest resident memory of the command (or of a process it waited for), in bytes.
        log_tail: the last lines it wrote, at most 60.
        log: the file with all it wrote, shortened in the middle where that was too much.
        log_dropped: bytes left out of the log.
        log_error: why the log could not be written to its end (disk full); None when it could.
        out_of_memory: memory ran out: the log says so, the kernel killed it for that, or it crashed at its limit.
    """

    exit_code: int | None
    signal: str | None
    timed_out: bool
    seconds: float
    peak_rss: int
    log_tail: list[str]
    log: Path
    log_dropped: int = 0
    log_error: str | None = None
    out_of_memory: bool = False

    @property
    def ok(self) -> bool:
        return self.exit_code == 0 and not self.timed_out

    def evidence(self) -> dict[str, object]:
        """The facts for an error, JSON-compatible."""
        return {
            "exit_code": self.exit_code,
            "signal": self.signal,
            "seconds": round(self.seconds, 3),
            "peak_rss_mb": round(self.peak_rss / 2**20, 1),
            "log": str(self.log),
            "log_tail": self.log_tail[-20:],
        }


def run_child(
    argv: Sequence[str],
    *,
    log: Path,
    timeout: float,
    memory_limit: int | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log_limit: int = LOG_LIMIT,
    watch: Callable[[bytes], None] | None = None,
) -> ChildResult:
    """Run one command to its end and say how it ended.  A crash is a result, not an exception.

    The command runs in a session of its own with stdin at /dev/null, no core dumps, and stdout and stderr (the file
    descriptors, so native code too) in `log`.  When this returns or raises, Ctrl-C included, no process of the
    command is left; on Linux not even one that moved into another session.

    Args:
        argv: the program, looked up on PATH, and its arguments.
        log: file for the output; its directory is made.  Replaced when it exists.
        timeout: seconds of wall-clock time.
        memory_limit: bytes the command may allocate.  It is RLIMIT_DATA: heap and private writable mappings, which
            is what native code really asks for.  RLIMIT_AS would count address space too, such as the 64 MiB each
            thread's heap reserves and the mapped libraries, and would stop programs far below their limit.
            Each thread's stack (8 MiB as a rule) counts.  Enforced on Linux only.
        env: the whole environment; None for ours.
        cwd: directory to run in; None for ours.
        log_limit: bytes of output kept; the middle of a longer output is left out.
        watch: called now and then, while it runs, with what it has written since; never with what is left out.

    Raises:
        InputError: LOG_NOT_WRITABLE.
        ToolError: CHILD_NOT_STARTED (no such program, no such directory); CHILD_LOST (the guard was killed);
            INTERRUPTED (a `Stopper`).
    """
    stopper = _STOPPER.get(None) or Stopper()
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log_file = log.open("wb")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_error(log, error) from None
        raise InputError(
            "LOG_NOT_WRITABLE",
            f"the log {str(log)!r} cannot be written: {error.strerror}",
            hint="Choose a run directory that can be written to.",
        ) from None
    options = {
        "argv": list(argv),
        "timeout": timeout,
        "memory_limit": memory_limit,
        "cwd": None if cwd is None else str(cwd),
        "log_limit": log_limit,
        "parent": os.getpid(),
    }
    with log_file:
        guard = stopper.start(
            lambda: subprocess.Popen(
                [sys.executable, "-I", "-S", str(WORKER), "guard", json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                env=None if env is None else dict(env),
                start_new_session=True,
            )
        )
    answer = b""
    try:
        answer = _answer(guard, timeout + _PATIENCE, None if watch is None else _Watched(log, watch))
    finally:
        stopper.forget(guard)
        _end(guard)
    try:
        report = json.loads(answer)
    except ValueError:
        raise ToolError(
            "CHILD_LOST",
            f"the process watching over {Path(argv[0]).name} was killed (status {guard.returncode})",
            hint="Something outside ended it, often for want of memory. Try again with fewer jobs at a time.",
            evidence={"argv": list(argv), "log": str(log)},
        ) from None
    if report.get("error"):
        raise ToolError(
            "CHILD_NOT_STARTED",
            f"{argv[0]!r} could not be started: {report['error']}",
            evidence={"argv": list(argv), "log": str(log)},
        )
    return _result(report, log, memory_limit)


class _Watched:
    """Hands on what is new in a log that is being written."""

    def __init__(self, log: Path, watch: Callable[[bytes], None]) -> None:
        self._log, self._watch, self._read = log, watch, 0

    def look(self) -> None:
        with self._log.open("rb") as file:
            file.seek(self._read)
            new = file.read(_LOOK_BYTES)
        self._read += len(new)
        self._watch(new)


def _answer(guard: subprocess.Popen[bytes], seconds: float, watched: _Watched | None = None) -> bytes:
    """All the guard writes; what there is when it takes longer than `seconds`."""
    assert guard.stdout is not None
    end = time.monotonic() + seconds
    answer = b""
    with selectors.DefaultSelector() as selector:
        selector.register(guard.stdout, selectors.EVENT_READ)
        while (left := end - time.monotonic()) > 0:
            if watched is not None:
                watched.look()
            if selector.select(left if watched is None else min(left, _LOOK)):
                part = os.read(guard.stdout.fileno(), 65536)
                if not part:
                    break
                answer += part
    return answer


def _end(guard: subprocess.Popen[bytes]) -> None:
    """Let go of the guard, which makes it kill what still runs, and wait until it has done so."""
    assert guard.stdin is not None
    assert guard.stdout is not None
    guard.stdin.close()
    try:
        guard.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        guard.kill()  # the command dies with it (PR_SET_PDEATHSIG)
        guard.wait()
    finally:
        guard.stdout.close()


def _result(report: dict[str, object], log: Path, memory_limit: int | None) -> ChildResult:
    status = int(str(report["status"]))
    code = os.waitstatus_to_exitcode(status)
    tail = report["tail"]
    assert isinstance(tail, list)
    peak = int(str(report["peak_rss"]))
    timed_out = bool(report["timed_out"])
    died = code != 0 and not timed_out
    # Code that does not check malloc's answer dies of SIGSEGV where memory is short; near the limit that is the
    # likely reason.
    at_limit = code < 0 and memory_limit is not None and peak >= 0.8 * memory_limit
    said = any(word in line for line in tail[-20:] for word in _NO_MEMORY)
    return ChildResult(
        exit_code=None if code < 0 else code,
        signal=_signal_name(-code) if code < 0 else None,
        timed_out=timed_out,
        seconds=float(str(report["seconds"])),
        peak_rss=peak,
        log_tail=tail,
        log=log,
        log_dropped=int(str(report["dropped"])),
        log_error=None if report["log_error"] is None else str(report["log_error"]),
        out_of_memory=died and (said or at_limit or bool(report["oom_killed"])),
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def death(
    result: ChildResult,
    *,
    doing: str,
    prefix: str,
    timeout: float,
    memory_limit: int | None = None,
    where: str | None = None,
    hint: str | None = None,
) -> ToolError | None:
    """The error for a command that did not exit with 0; None when it did.

    Args:
        doing: what it was doing, such as "converting the model".
        prefix: start of the code: PREFIX_TIMEOUT, PREFIX_OUT_OF_MEMORY, PREFIX_CRASHED or PREFIX_FAILED.
        timeout: seconds it had.
        memory_limit: bytes it was allowed, as given to `run_child`.
        where: model it happened on.
        hint: what to try after a crash; memory and time have hints of their own.
    """
    if result.ok:
        return None
    words = last_words("\n".join(result.log_tail), 1)
    last = f"; last line: {words}" if words else ""
    if result.timed_out:
        code, message = "TIMEOUT", f"{doing} did not finish within {timeout:g} s and was killed{last}"
        hint = "Give it more time, or try a smaller model to see whether it hangs."
    elif result.out_of_memory and (told := users_limit(memory_limit)) is not None:
        return ToolError(
            "HOST_EXHAUSTED",
            f"{doing} ran out of memory: {told} in the shell this was started from{last}",
            where=where,
            hint="Raise it there, or start edgequant from a shell without it.",
            evidence=result.evidence(),
        )
    elif result.out_of_memory:
        limit = "" if memory_limit is None else f" (limit {memory_limit / 2**20:.0f} MB)"
        code, message = "OUT_OF_MEMORY", f"{doing} ran out of memory{limit}{last}"
        hint = "It may take 4 GiB and 32 times the model's size, but no more than is free: end other programs, or try "
        hint += "another export of the model."
    elif result.signal is not None:
        code, message = "CRASHED", f"{doing} crashed with {result.signal}{last}"
        if result.signal == "SIGKILL":
            hint = "Somebody or something killed it: look in the kernel log for the out-of-memory killer."
    else:
        code, message = "FAILED", f"{doing} ended with exit status {result.exit_code}{last}"
    return ToolError(f"{prefix}_{code}", message, where=where, hint=hint, evidence=result.evidence())


def tools_extension() -> Path:
    """The file of MNN's ``_tools`` extension module, found without importing anything of MNN.

    Raises:
        ToolError: MNN_MISSING.
    """
    spec = importlib.util.find_spec("_tools")
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ToolError(
            "MNN_MISSING",
            "MNN's converter is not installed for this Python",
            hint=f"Run: {Path(sys.executable).name} -m pip install MNN",
        )
    return Path(spec.origin)


def tools_argv(*calls: tuple[str, Sequence[str]]) -> list[str]:
    """The command that makes calls into MNN's ``_tools`` (``mnnconvert``, ``mnnquant``), one after the other.

    Args:
        calls: function name and its arguments, without argv[0].

    Raises:
        ToolError: MNN_MISSING.
    """
    listed = [[name, [name, *arguments]] for name, arguments in calls]
    return [sys.executable, "-I", "-S", str(WORKER), "call", str(tools_extension()), json.dumps(listed)]
