"""The runner as the tests start it: the process, with both ends of its stream."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from edgequant.device_scripts import wire

OPTIONS = {"memory": "normal", "precision": "normal", "threads": 2, "cores": None}
ModelByName = Callable[[str], Path]
Converter = Callable[..., Path]


class Runner:
    """The process with both ends of its stream."""

    def __init__(self, argv: list[str], stderr: Path, **options: object) -> None:
        self.stderr = stderr
        with open(stderr, "wb") as log:
            self.child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, **options)
        self.events: list[dict] = []
        self._reader = wire.FrameReader(lambda limit: os.read(self.child.stdout.fileno(), limit))
        self.noise = self._reader.skip_to_preamble()
        self._number = 0

    def send(self, op: str, tensors: dict | None = None, **header: object) -> None:
        self._number += 1
        for piece in wire.encode(wire.REQUEST, {"id": self._number, "op": op, **header}, tensors):
            self.child.stdin.write(piece)
        self.child.stdin.flush()

    def answer(self) -> tuple[dict, dict]:
        self.events = []
        while True:
            frame = self._reader.read_frame()
            assert frame is not None, self.stderr.read_text()
            assert frame.header["id"] == self._number
            if frame.kind == wire.RESPONSE:
                return frame.header, frame.tensors()
            assert frame.kind == wire.EVENT
            self.events.append(frame.header)

    def ask(self, op: str, tensors: dict | None = None, **header: object) -> tuple[dict, dict]:
        self.send(op, tensors, **header)
        return self.answer()

    def refused(self, op: str, tensors: dict | None = None, **header: object) -> str:
        answer, _ = self.ask(op, tensors, **header)
        assert answer["ok"] is False
        assert answer["error"]["message"]
        return answer["error"]["code"]

    def load(self, path: Path, **options: object) -> dict:
        answer, _ = self.ask("load", path=str(path), options={**OPTIONS, **options})
        assert answer["ok"], answer
        return answer

    def run(self, handle: int, **tensors: np.ndarray) -> dict[str, np.ndarray]:
        answer, outputs = self.ask("run", tensors, handle=handle)
        assert answer["ok"], answer
        return outputs

    def restart(self) -> None:
        answer, _ = self.ask("restart")
        assert answer["ok"], answer
        assert not self._reader.skip_to_preamble()

    def children(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.child.pid).children()]

    def files(self) -> int:
        """How many descriptors it has."""
        return psutil.Process(self.child.pid).num_fds()

    def end(self) -> None:
        self.child.kill()
        self.child.wait()
        self.child.stdin.close()
        self.child.stdout.close()
