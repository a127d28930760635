"""What runs inside the child processes of `child.py`.  Started by path with ``python -I -S``; never imported.

Only the standard library, and of that only what starts fast.  ``-I -S`` keeps out site-packages, PYTHON* variables
and the working directory, so nothing but this file and one extension module can run here: above all not
``MNN.tools``, which installs packages and talks to the network when it is imported.

    worker.py guard OPTIONS         watches over one command (OPTIONS: JSON, see `child.run_child`)
    worker.py call EXTENSION CALLS  loads MNN's _tools extension from that file and makes the calls,
                                    a JSON list of [function, [argv0, arg, ...]]
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import selectors
import signal
import sys
import time
from collections import deque

LINUX = sys.platform == "linux"
TAIL_LINES = 60
TAIL_LINE_CHARS = 500
KILL_PATIENCE = 10.0
"""Seconds to go on reading output once everything that could write it has been killed."""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    if LINUX:
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


class BoundedLog:
    """Writes the first `limit` bytes to a file as they come, keeps the last ones, and drops what is between.

    A failing write (disk full) ends the writing, not the child: the last lines still reach the parent.
    """

    def __init__(self, fd: int, limit: int) -> None:
        self._fd = fd
        self._head_left = limit // 2
        self._tail_limit = limit - limit // 2
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._recent = b""
        self.dropped = 0
        self.error: str | None = None

    def feed(self, data: bytes) -> None:
        self._recent = (self._recent + data)[-TAIL_LINES * TAIL_LINE_CHARS :]
        head, rest = data[: self._head_left], data[self._head_left :]
        if head:
            self._head_left -= len(head)
            self._write(head)
        if rest:
            self._tail.append(rest)
            self._tail_size += len(rest)
            while self._tail_size - len(self._tail[0]) >= self._tail_limit:
                gone = self._tail.popleft()
                self._tail_size -= len(gone)
                self.dropped += len(gone)

    def finish(self) -> None:
        if self.dropped:
            self._write(f"\n[edgequant] {self.dropped} bytes of output left out here\n".encode())
        for part in self._tail:
            self._write(part)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view and self.error is None:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            self.error = str(error)

    def last_lines(self) -> list[str]:
        lines = self._recent.decode("utf-8", "replace").splitlines()
        return [line[:TAIL_LINE_CHARS] for line in lines if line.strip()][-TAIL_LINES:]


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory, cgroup limits included; 0 where it is not told."""
    try:
        with open("/proc/vmstat", encoding="ascii") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
    except OSError:
        return 0


def _descendants() -> list[int]:
    """Every living process below this one, found by parent ids (Linux only)."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc") if LINUX else ():
        if entry.name.isdigit():
            # A process may end while it is looked at; then it needs no killing.
            with contextlib.suppress(OSError), open(f"/proc/{entry.name}/stat", "rb") as file:
                # The command name, in parentheses, may itself hold parentheses and spaces.
                parent = int(file.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    todo = [os.getpid()]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


class Guard:
    """Runs one command, bounded in time, memory and output, and leaves no process of it behind.

    It is a process of its own, apart from edgequant, because only then can it still act when edgequant is killed
    with SIGKILL (it reads the end of file of its control pipe), and because a process with one thread may fork and
    set limits before exec, which a program with threads must not (`preexec_fn`).
    """

    def __init__(self, options: dict[str, object]) -> None:
        self._options = options
        self._log = BoundedLog(2, int(str(options["log_limit"])))
        self._status: int | None = None
        self._peak_rss = 0
        self._pid = 0
        self._ended = 0.0

    def run(self) -> dict[str, object]:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        # Grandchildren whose parent dies become children of this process, so that none can hide in a session of
        # its own.
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        wake_read, wake_write = os.pipe()
        for fd in (wake_read, wake_write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake_write)
        stopped: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda received, _frame: stopped.append(received))
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

        kills_before = oom_kills()
        started = time.monotonic()
        if os.getppid() != self._options["parent"]:
            return {"error": "edgequant is gone"}
        out, problem = self._start()
        if problem:
            return {"error": problem}
        timed_out = False
        end = started + float(str(self._options["timeout"]))
        with selectors.DefaultSelector() as selector:
            for fd in (0, wake_read, out):
                selector.register(fd, selectors.EVENT_READ)
            while self._status is None and not stopped:
                left = end - time.monotonic()
                if left <= 0:
                    timed_out = True
                    break
                for key, _ in selector.select(left):
                    if key.fd == out:
                        data = os.read(out, 65536)
                        if data:
                            self._log.feed(data)
                        else:
                            selector.unregister(out)
                    elif key.fd == wake_read:
                        os.read(wake_read, 4096)
                        self._reap(block=False)
                    elif not os.read(0, 1):
                        stopped.append(0)  # end of file: edgequant is gone, or has given up
        killed = self._status is None
        self._kill_all()
        self._drain(out)
        self._log.finish()
        return {
            "status": self._status,
            "killed": killed,
            "timed_out": timed_out,
            "seconds": self._ended - started,
            "peak_rss": self._peak_rss,
            "oom_killed": not killed and self._status == signal.SIGKILL and oom_kills() > kills_before,
            "tail": self._log.last_lines(),
            "dropped": self._log.dropped,
            "log_error": self._log.error,
        }

    def _start(self) -> tuple[int, str]:
        out, child_out = os.pipe()
        failed, child_failed = os.pipe()  # closed by a successful exec
        guard_pid = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._become_child(guard_pid, child_out)
            except OSError as error:
                os.write(child_failed, str(error).encode("utf-8", "replace")[:4000])
            finally:
                os._exit(127)
        os.close(child_out)
        os.close(child_failed)
        problem = b""
        while part := os.read(failed, 4096):
            problem += part
        os.close(failed)
        return out, problem.decode("utf-8", "replace")

    def _become_child(self, guard_pid: int, output: int) -> None:
        os.setsid()
        # A guard that is killed takes the command along.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard_pid:
            return
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        limit = self._options["memory_limit"]
        if limit is not None:
            soft = resource.getrlimit(resource.RLIMIT_DATA)[0]
            most = int(str(limit)) if soft == resource.RLIM_INFINITY else min(soft, int(str(limit)))
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        if LINUX:
            # Where memory runs out, the kernel shall take this process and not edgequant or the user's desktop.
            with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
                file.write("800")
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if self._options["cwd"] is not None:
            os.chdir(os.fsencode(str(self._options["cwd"])))
        argv = self._options["argv"]
        assert isinstance(argv, list)
        os.execvpe(argv[0], argv, os.environ)  # noqa: S606 - a list, no shell

    def _reap(self, *, block: bool) -> bool:
        """Take in the exit status of children; True when there are none left."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, 0 if block else os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self._pid:
                self._status = status
                self._ended = time.monotonic()
                # Kibibytes on Linux, bytes on macOS.
                self._peak_rss = usage.ru_maxrss * (1024 if LINUX else 1)
                if not LINUX:
                    # What it left behind cannot be found by parent ids here, but is in its process group as a rule.
                    with contextlib.suppress(OSError):
                        os.killpg(pid, signal.SIGKILL)
            if block:
                return False

    def _kill_all(self) -> None:
        while True:
            # Before the group's leader is reaped its id cannot belong to another group.
            if self._status is None:
                with contextlib.suppress(OSError):
                    os.killpg(self._pid, signal.SIGKILL)
            for pid in _descendants():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if self._reap(block=False) or self._reap(block=True):
                return

    def _drain(self, out: int) -> None:
        """Read what is left in the pipe; whoever held its other end has been killed."""
        end = time.monotonic() + KILL_PATIENCE
        with selectors.DefaultSelector() as selector:
            selector.register(out, selectors.EVENT_READ)
            while (left := end - time.monotonic()) > 0 and selector.select(left):
                data = os.read(out, 65536)
                if not data:
                    return
                self._log.feed(data)


def _say_at_once() -> None:
    """Have native code's words written line by line: what is still in a buffer when it crashes is lost, and the last
    ones are those that say why."""
    import ctypes

    line_buffered = 1  # _IOLBF
    with contextlib.suppress(OSError, AttributeError, ValueError):
        library = ctypes.CDLL(None)
        stream = ctypes.c_void_p.in_dll(library, "stdout" if LINUX else "__stdoutp")
        library.setvbuf(stream, None, line_buffered, 0)


def call(extension: str, calls: list[tuple[str, list[str]]]) -> None:
    """Load MNN's command line tools from their extension module and run them one after the other."""
    import importlib.machinery
    import importlib.util

    loader = importlib.machinery.ExtensionFileLoader("_tools", extension)
    spec = importlib.util.spec_from_loader("_tools", loader)
    assert spec is not None
    tools = importlib.util.module_from_spec(spec)
    loader.exec_module(tools)
    _say_at_once()
    for function, argv in calls:
        # MNN writes through C and C++ streams: by file descriptor only, or the lines would come out of order.
        os.write(1, f"[edgequant] {function} starts\n".encode())
        getattr(tools, function)(argv)
        os.write(1, f"[edgequant] {function} returned\n".encode())


def main() -> None:
    if sys.argv[1] == "guard":
        os.write(1, json.dumps(Guard(json.loads(sys.argv[2])).run()).encode())
    else:
        call(sys.argv[2], json.loads(sys.argv[3]))


if __name__ == "__main__":
    main()
