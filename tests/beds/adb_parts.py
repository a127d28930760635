"""What the adb bed is put together from: processes that end with the tests, fake devices, and a scripted adb server."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from tests.waiting import LONG


class Daemon:
    """A process that ends, at the latest, with the one that started it."""

    # Its parent is a shell that waits for the end of its stdin: that comes also when the tests are killed.
    _KEEPER = 'log=$1; shift; "$@" < /dev/null >> "$log" 2>&1 & echo $!; read -r _; kill -KILL $!; wait $!'

    def __init__(self, command: Sequence[str], log: Path, environment: dict[str, str]) -> None:
        self._log = log
        log.touch()
        self._keeper = subprocess.Popen(
            ["sh", "-c", self._KEEPER, "sh", str(log), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it says "Killed"
            env=environment,
            cwd="/",
        )
        assert self._keeper.stdout is not None
        self.pid = int(self._keeper.stdout.readline())

    @property
    def alive(self) -> bool:
        try:
            return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def stop(self) -> None:
        """kill -9: to the other end a reset connection, and nothing is cleaned up."""
        if self._keeper.poll() is None:
            self.signal(signal.SIGCONT)
            self._keeper.communicate(timeout=LONG)


class Fake:
    """A running `fakeadbd`.  `tell` gives it an order, `heard` waits for a line it prints."""

    def __init__(self, command: Sequence[str]) -> None:
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._lines: list[str] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        self.port = int(self.heard("listening").split()[1])
        self.serial = f"127.0.0.1:{self.port}"

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            with self._changed:
                self._lines.append(line.strip())
                self._changed.notify_all()

    def heard(self, start: str) -> str:
        with self._changed:
            if not self._changed.wait_for(lambda: any(line.startswith(start) for line in self._lines), LONG):
                pytest.fail(f"fakeadbd did not say {start}, but {self._lines}")
            return next(line for line in self._lines if line.startswith(start))

    def tell(self, order: str) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(order + "\n")
        self._child.stdin.flush()
        self.heard(f"done {order}")

    def stop(self) -> None:
        self._child.kill()
        self._child.communicate()


class ScriptedServer:
    """An adb server on a port of loopback that knows a few answers by heart; None: no answer, ever."""

    def __init__(self, answers: dict[str, bytes | None]) -> None:
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while digits := connection.recv(4, socket.MSG_WAITALL):
                request = connection.recv(int(digits, 16), socket.MSG_WAITALL).decode()
                answer = self._answers.get(request, b"FAIL0007unknown")
                if answer is None:
                    continue
                connection.sendall(answer)
                if not request.startswith(("host:transport", "host:track")):
                    connection.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def okay(text: str) -> bytes:
        return b"OKAY%04x" % len(text.encode()) + text.encode()

    def close(self) -> None:
        self._listener.close()
        for connection in self._open:
            connection.close()
