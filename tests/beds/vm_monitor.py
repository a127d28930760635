"""QEMU's monitor: pulls the network cable of a virtual machine and stops its clock, while it runs.

The protocol is QMP, a line of JSON each way: https://www.qemu.org/docs/master/interop/qmp-spec.html
"""

from __future__ import annotations

import json
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest

_SECONDS = 20.0
"""For one answer: QEMU gives it at once, but its host may be busy."""


class Monitor:
    """The monitor of one QEMU process; `arguments` are for its command line.

    Its socket has a directory of its own: pytest's have names that are too long for one.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="edgequant-vm-")
        self._path = Path(self._folder.name, "qmp")
        self._socket: socket.socket | None = None
        self._held = b""

    @property
    def arguments(self) -> list[str]:
        return ["-qmp", f"unix:{self._path},server=on,wait=off"]

    def connect(self) -> None:
        """To be called once QEMU runs."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_SECONDS)
        self._socket.connect(str(self._path))
        greeting = self._line()
        if "QMP" not in greeting:
            pytest.fail(f"QEMU's monitor says {greeting}")
        self.order("qmp_capabilities")

    def order(self, command: str, **arguments: Any) -> Any:
        """What it answers, after it has been done.  Events that come before that are dropped."""
        assert self._socket is not None, "boot() comes first"
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = self._line()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                pytest.fail(f"QEMU refuses {command}: {answer['error']}")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._folder.cleanup()

    def _line(self) -> dict[str, Any]:
        assert self._socket is not None
        while b"\n" not in self._held:
            data = self._socket.recv(1 << 16)
            if not data:
                pytest.fail("QEMU has closed its monitor")
            self._held += data
        line, _, self._held = self._held.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer
