"""``local:`` - this host as the device, every command a child process in a session of its own."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from edgequant.deadline import Deadline
from edgequant.devices.protocol import CommandResult, Device, Process, Progress
from edgequant.devices.reasons import reason
from edgequant.errors import DeadlineExceeded, DeviceError, InputError

CHUNK = 1 << 20


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
            target=self._drain, args=(child.stderr.fileno(), on_stderr), name=f"stderr of {child.pid}", daemon=True
        )
        self._stderr_thread.start()

    @staticmethod
    def _drain(descriptor: int, on_stderr: Callable[[bytes], None] | None) -> None:
        while data := os.read(descriptor, 1 << 16):
            if on_stderr:
                on_stderr(data)

    def write(self, data: bytes | memoryview, deadline: Deadline) -> None:
        view = memoryview(data)
        while view:
            _, writable, _ = select.select([], [self._in], [], deadline.remaining)
            if not writable:
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
        readable, _, _ = select.select([self._out], [], [], deadline.remaining)
        if not readable:
            raise DeadlineExceeded(f"no answer within {deadline.seconds:g} s", where=self._uri)
        return os.read(self._out, limit)

    def wait(self, deadline: Deadline) -> CommandResult:
        try:
            code = self._child.wait(deadline.remaining)
        except subprocess.TimeoutExpired:
            raise DeadlineExceeded("the process did not end in time", where=self._uri) from None
        self._stderr_thread.join(deadline.remaining)  # so that the last lines are there before anybody quotes them
        return _result(code)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class LocalDevice(Device):
    """This host.  Without `python` it is the interpreter edgequant runs in, with the MNN installed beside it."""

    def __init__(self, uri: str = "local:", *, python: str | None = None) -> None:
        if uri != "local:":
            raise InputError("DEVICE_URI_INVALID", f"device '{uri}': local: takes nothing behind the colon")
        self.uri = uri
        self._python = python or sys.executable or "python3"
        self._processes: list[LocalProcess] = []

    def open(self, deadline: Deadline) -> None:
        deadline.check("opening", self.uri)

    def close(self) -> None:
        while self._processes:
            self._processes.pop().kill()

    def run(
        self, argv: Sequence[str], deadline: Deadline, *, stdin: bytes = b"", max_output: int = 16 << 20
    ) -> CommandResult:
        errors = bytearray()
        process = self.start(argv, deadline, on_stderr=errors.extend)
        output = bytearray()
        feeder = threading.Thread(target=self._feed, args=(process, stdin, deadline), daemon=True)
        feeder.start()
        try:
            while data := process.read(CHUNK, deadline):
                output += data
                if len(output) > max_output or len(errors) > max_output:
                    raise DeviceError(
                        "OUTPUT_TOO_LARGE", f"{argv[0]} printed more than {max_output} bytes", where=self.uri
                    )
            feeder.join(deadline.remaining)
            ended = process.wait(deadline)
        finally:
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
            assert process._child.stdin is not None
            process._child.stdin.close()

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
                "COMMAND_NOT_STARTED", f"{argv[0]} cannot be started: {error.strerror}", where=self.uri
            ) from None
        process = LocalProcess(child, self.uri, on_stderr)
        self._processes.append(process)
        return process

    def send_file(
        self, source: Path, remote_path: str, deadline: Deadline, *, progress: Progress | None = None
    ) -> None:
        try:
            descriptor = os.open(remote_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(source, "rb") as reader, open(descriptor, "wb") as writer:
                while data := reader.read(CHUNK):
                    deadline.check(f"copying {source.name}", self.uri)
                    writer.write(data)
                    if progress:
                        progress(len(data))
        except OSError as error:
            raise reason(error.strerror or str(error), f"{source.name} cannot be copied", self.uri) from None

    @property
    def python(self) -> Sequence[str]:
        return (self._python,)

    @property
    def is_host(self) -> bool:
        return True
