"""Apache TVM's RPC as a peer: installed apart, its server and its client as processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import CannotRun, median, say

REQUIREMENT = "apache-tvm[rpc]==0.27.0.post1"
"""The newest there was; another one may speak another API."""
CLIENT = Path(__file__).with_name("tvm_client.py")
_START_SECONDS = 60.0


@dataclass(frozen=True)
class Tvm:
    """An environment that has TVM."""

    python: Path

    @classmethod
    def installed(cls) -> Tvm:
        """The one in the user's cache; made the first time, 420 MB.  Raises CannotRun."""
        import platformdirs

        version = f"{REQUIREMENT.partition('==')[2]}-py{sys.version_info[0]}{sys.version_info[1]}"
        folder = Path(platformdirs.user_cache_dir("edgequant")) / "bench" / f"tvm-{version}"
        if not folder.exists():
            say(f"installing {REQUIREMENT} in {folder}")
            folder.parent.mkdir(parents=True, exist_ok=True)
            # Scripts of an environment name its place, but only its Python is used: it may be moved.
            made = Path(tempfile.mkdtemp(prefix="tvm-", dir=folder.parent))
            try:
                _checked([sys.executable, "-m", "venv", str(made)])
                pip = [str(made / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
                _checked([*pip, "install", REQUIREMENT])
                _checked([str(made / "bin" / "python"), "-c", "import tvm.rpc"])
                made.rename(folder)
            finally:
                shutil.rmtree(made, ignore_errors=True)
        return cls(folder / "bin" / "python")

    @contextmanager
    def server(self, prefix: list[str]) -> Iterator[int]:
        """A server on loopback, by its own command; yields its port.  prefix: words that run it in a namespace."""
        port = free_port()
        command = [str(self.python), "-m", "tvm.exec.rpc_server", "--host", "127.0.0.1", "--port", str(port)]
        # It leaves children behind that only the end of their group ends.
        child = subprocess.Popen(
            [*prefix, *command, "--port-end", str(port + 1)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            listening(port, prefix)
            yield port
        finally:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    @contextmanager
    def client(self, prefix: list[str], *ports: int) -> Iterator[TvmClient]:
        command = [*prefix, str(self.python), str(CLIENT), *map(str, ports)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            yield TvmClient(child)
        finally:
            child.kill()
            child.communicate()


class TvmClient:
    """tvm_client.py, running.  version: TVM's."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child
        self.version: str = self._answer()["version"]

    def shape(self, inputs: list[np.ndarray], outputs: list[np.ndarray]) -> None:
        """What the next inferences carry; of float32, whatever these are, as that is the same number of bytes."""
        if any(array.itemsize != 4 for array in (*inputs, *outputs)):
            raise CannotRun("a tensor that is not of 4 bytes each")
        shapes = [[list(array.shape) for array in arrays] for arrays in (inputs, outputs)]
        self._order({"inputs": shapes[0], "outputs": shapes[1]})

    def burst(self, connection: int, mode: str, count: int) -> float:
        """The median of `count` inferences in milliseconds."""
        samples: list[float] = self._order({"connection": connection, "mode": mode, "count": count})
        return median(samples)

    def _order(self, order: dict[str, Any]) -> Any:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(order) + "\n")
        self._child.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if line.startswith("TVM "):
                return json.loads(line[4:])
        raise CannotRun("TVM's client died")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listening(port: int, prefix: list[str]) -> None:
    """Wait until something listens there, without connecting: that would be a session.  Raises CannotRun."""
    wanted, end = f":{port:04X}", time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        table = subprocess.run([*prefix, "cat", "/proc/net/tcp"], capture_output=True, text=True, check=True).stdout
        rows = [line.split() for line in table.splitlines()[1:]]
        if any(row[1].endswith(wanted) and row[3] == "0A" for row in rows):
            return
        time.sleep(0.1)  # nothing announces that a foreign process has begun to listen
    raise CannotRun("TVM's server, or the way to it, does not come up")


def _checked(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise CannotRun(f"TVM cannot be installed: {said[-1]}")
