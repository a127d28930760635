"""``local:`` - this host as the device, every command a child process in a session of its own."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from edgequant.deadline import Deadline
from edgequant.devices.protocol import CommandResult, Device, Kind, Listed, Process, Progress
from edgequant.devices.reasons import reason
from edgequant.errors import DeadlineExceeded, DeviceError, InputError

CHUNK = 1 << 20


class _TooMuch(Exception):
    """Raised by an `on_stderr` callback to have the process killed."""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _result(code: int, stdout: bytes = b"", stderr: bytes = b"") -> CommandResult:
    if code < 0:
        return CommandResult(None, stdout, stderr, signal=-code)
    return CommandResult(code, stdout, stderr)


class LocalProcess(Process):
    """A child process with byte pipes; its whole session is killed with it."""

    def __init__(self, child: subprocess.Popen[bytes], uri: str, on_stderr: Callable[[bytes], None] | None) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        self._child = child
        self._uri = uri
        self._in = child.stdin.fileno()
        self._out = child.stdout.fileno()
        os.set_blocking(self._in, False)
        self._stderr_thread = threading.Thread(
            target=self._drain, args=(child.stderr, on_stderr), name=f"stderr of {child.pid}", daemon=True
        )
        self._stderr_thread.start()

    @property
    def pid(self) -> int:
        return self._child.pid

    def _drain(self, stream: IO[bytes], on_stderr: Callable[[bytes], None] | None) -> None:
        with stream:
            try:
                while data := os.read(stream.fileno(), 1 << 16):
                    if on_stderr:
                        on_stderr(data)
            except _TooMuch:
                self._kill_group()

    def write(self, data: bytes | memoryview, deadline: Deadline) -> None:
        view = memoryview(data)
        while view:
            if deadline.expired or not _ready(self._in, select.POLLOUT, deadline):
                raise DeadlineExceeded("the process takes no input", where=self._uri)
            try:
                view = view[os.write(self._in, view) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise DeviceError(
                    "PROCESS_ENDED", "the process ended before it took its input", where=self._uri
                ) from None

    def read(self, limit: int, deadline: Deadline) -> bytes:
        # Also while something comes: a drip has no end.
        if deadline.expired or not _ready(self._out, select.POLLIN, deadline):
            raise DeadlineExceeded(f"no answer within {deadline.seconds:g} s", where=self._uri)
        return os.read(self._out, limit)

    def wait(self, deadline: Deadline) -> CommandResult:
        try:
            code = self._child.wait(deadline.remaining)
        except subprocess.TimeoutExpired:
            raise DeadlineExceeded("the process did not end in time", where=self._uri) from None
        # So that the last lines are there before anybody quotes them; a grandchild may hold stderr open for longer.
        self._stderr_thread.join(deadline.shorter(1).remaining)
        return _result(code)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Kill it and wait for it, but leave its streams open: another thread may still be using them."""
        self._kill_group()
        self._child.wait()

    def close_input(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()

    def kill(self) -> None:
        self.stop()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _ready(descriptor: int, event: int, deadline: Deadline) -> bool:
    # poll and not select, which fails for the descriptors of a host that has more than 1023 files open.
    poller = select.poll()
    poller.register(descriptor, event)
    left = deadline.remaining
    return bool(poller.poll(None if left is None else math.ceil(left * 1000)))


class LocalDevice(Device):
    """This host.  Without `python` it is the interpreter edgequant runs in, with the MNN installed beside it."""

    def __init__(self, uri: str = "local:", *, python: str | None = None) -> None:
        if uri != "local:":
            raise InputError("DEVICE_URI_INVALID", f"device '{uri}': local: takes nothing behind the colon")
        self.uri = uri
        self._python = python or sys.executable or "python3"
        self._processes: list[LocalProcess] = []
        self._stopped = False

    def stop(self) -> None:
        """From another thread than the one that uses it: end every process, and each that is started from now on.  Who
        reads from one finds that it has ended."""
        self._stopped = True
        for process in list(self._processes):
            process.stop()

    def open(self, deadline: Deadline) -> None:
        deadline.check("opening", self.uri)

    def close(self) -> None:
        while self._processes:
            self._processes.pop().kill()

    def run(
        self, argv: Sequence[str], deadline: Deadline, *, stdin: bytes = b"", max_output: int = 16 << 20
    ) -> CommandResult:
        errors = bytearray()

        def collect(data: bytes) -> None:
            errors.extend(data)
            if len(errors) > max_output:
                raise _TooMuch

        process = self.start(argv, deadline, on_stderr=collect)
        output = bytearray()
        feeder = threading.Thread(target=self._feed, args=(process, stdin, deadline), daemon=True)
        feeder.start()
        try:
            while data := process.read(CHUNK, deadline):
                output += data
                if len(output) > max_output:
                    break
            else:
                feeder.join(deadline.remaining)
                ended = process.wait(deadline)
            if max(len(output), len(errors)) > max_output:
                raise DeviceError("OUTPUT_TOO_LARGE", f"{argv[0]} printed more than {max_output} bytes", where=self.uri)
        finally:
            process.stop()
            feeder.join(1)  # it ends at the latest now that nobody can read what it writes
            process.kill()
            if process in self._processes:
                self._processes.remove(process)
        return CommandResult(ended.exit_code, bytes(output), bytes(errors), ended.signal)

    @staticmethod
    def _feed(process: LocalProcess, stdin: bytes, deadline: Deadline) -> None:
        # A command that does not read its input is not an error; its exit code tells.
        with contextlib.suppress(DeviceError, OSError, ValueError):
            if stdin:
                process.write(stdin, deadline)
            process.close_input()

    def start(
        self, argv: Sequence[str], deadline: Deadline, *, on_stderr: Callable[[bytes], None] | None = None
    ) -> LocalProcess:
        deadline.check("starting a process", self.uri)
        try:
            child = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise DeviceError(
                "COMMAND_NOT_STARTED",
                f"{argv[0]} cannot be started: {error.strerror}",
                where=self.uri,
                # As a shell has it, which is what says it elsewhere.
                evidence={"exit_code": 127 if isinstance(error, (FileNotFoundError, NotADirectoryError)) else 126},
            ) from None
        process = LocalProcess(child, self.uri, on_stderr)
        self._processes.append(process)
        if self._stopped:
            process.stop()
        return process

    def send_file(
        self, source: Path, remote_path: str, deadline: Deadline, *, progress: Progress | None = None
    ) -> None:
        try:
            with open(source, "rb") as reader, open(remote_path, "wb", opener=_private) as writer:
                while data := reader.read(CHUNK):
                    deadline.check(f"copying {source.name}", self.uri)
                    writer.write(data)
                    if progress:
                        progress(len(data))
        except OSError as error:
            raise reason(error.strerror or str(error), f"{source.name} cannot be copied", self.uri) from None

    def bound_memory(self, most: int) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limits = [most, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
        for process in self._processes:
            # The soft one alone: for the next model it may be raised again.
            with contextlib.suppress(ProcessLookupError, PermissionError, AttributeError):  # Linux only
                resource.prlimit(process.pid, resource.RLIMIT_DATA, (min(limits), hard))

    @property
    def python(self) -> Sequence[str]:
        return (self._python,)

    @property
    def is_host(self) -> bool:
        # Another Python may have another MNN: that is another device, though the machine is the same.
        return self._python == sys.executable

    @property
    def exclusive(self) -> bool:
        return False  # whoever works on a host shares it with everything else there


def _listed() -> list[Listed]:
    return [Listed("local:", f"this host ({os.uname().machine}, {os.cpu_count()} cores)")]


KIND = Kind("local:", "", lambda uri, settings: LocalDevice(uri, python=settings.python), _listed)
