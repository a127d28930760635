"""What the benches work on: real models, quantized, with one case of inputs; and a real sshd."""

from __future__ import annotations

import json
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import CannotRun

BARE = Path(__file__).with_name("bare.py")


@dataclass(frozen=True)
class Model:
    """A model of edgequant's zoo, quantized to 8 bit, and one case for it (in memory and as .npz)."""

    name: str
    source: Path
    quantized: Path
    inputs: dict[str, np.ndarray]
    npz: Path


def quantized(name: str, folder: Path) -> Model:
    """Fetch (once), quantize to `dynamic:8`, and make the middle one of edgequant's random cases."""
    from edgequant.cases.generate import generate
    from edgequant.errors import EdgequantError
    from edgequant.models import read_model
    from edgequant.quantize.convert import convert
    from edgequant.spec import Variant
    from edgequant.zoo import fetch

    try:
        source = fetch(name)
        graph = read_model(source)
        out = folder / f"{name}.mnn"
        if not out.exists():
            convert(source, Variant(method="dynamic", bits=8), out, log_dir=folder)
    except EdgequantError as error:
        raise CannotRun(f"{name}: {error}") from error
    cases = generate(graph.inputs or (), 0)
    inputs = dict(cases[len(cases) // 2].inputs)
    npz = folder / f"{name}.npz"
    np.savez(npz, **inputs)  # type: ignore[arg-type]
    return Model(name, source, out, inputs, npz)


def bare(*arguments: object) -> dict[str, float]:
    """Run bare.py to its end and return what it answered."""
    done = subprocess.run(
        [sys.executable, str(BARE), *map(str, arguments)], capture_output=True, text=True, timeout=600, check=False
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("BARE ")]
    if done.returncode or not found:
        raise CannotRun(f"bare.py {arguments[0]} failed: {(done.stderr.splitlines() or ['no reason given'])[-1]}")
    value: dict[str, float] = json.loads(found[-1][5:])
    return value


class BareLoop:
    """A bare MNN loop as a process that times one burst whenever it is asked to."""

    def __init__(self, model: Model, memory: str, threads: int) -> None:
        command = [sys.executable, str(BARE), "loop", str(model.quantized), str(model.npz), memory, str(threads)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def _answer(self) -> Any:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if line.startswith("BARE "):
                return json.loads(line[5:])
        raise CannotRun("the bare MNN loop died")

    def burst(self, warmup: int, repeat: int, seconds: float) -> list[float]:
        assert self._child.stdin is not None
        self._child.stdin.write(f"{warmup} {repeat} {seconds}\n")
        self._child.stdin.flush()
        samples: list[float] = self._answer()
        return samples

    def __enter__(self) -> BareLoop:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait(30)


@contextmanager
def ssh_server() -> Iterator[Any]:
    """The real OpenSSH server of the tests, on loopback; gone afterwards with all its files.

    Where it can, it gives the account an empty home: a shell reads its start-up files for every command, and how long
    those take is the account's business, not edgequant's.
    """
    import pytest

    from tests.beds.sshd import SshServer

    if not shutil.which("ssh"):
        raise CannotRun("no OpenSSH client here")
    base = Path(tempfile.mkdtemp(prefix="edgequant-bench-"))
    server = SshServer(base)
    try:
        try:
            server.start()
        except pytest.fail.Exception as error:
            raise CannotRun(f"no sshd: {error}") from None
        if server.accounts:
            plain = server.home / "plain"
            plain.mkdir()
            # Written in place: the server sees this very file as its /etc/passwd.
            passwd = base / "passwd"
            account = pwd.getpwnam(server.user)
            passwd.write_text(
                passwd.read_text().replace(f":{account.pw_dir}:{account.pw_shell}", f":{plain}:/bin/sh", 1)
            )
        yield server
    finally:
        server.stop()
        shutil.rmtree(base, ignore_errors=True)
