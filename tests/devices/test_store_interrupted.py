"""Pushes that are killed, interrupted or run at the same time, and what they leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from edgequant.devices.local import LocalDevice
from edgequant.files import sha256_of
from tests.devices.support import TIME, prepared, put

_PUSH = """
    import sys, time
    from pathlib import Path
    from edgequant.deadline import Deadline
    from edgequant.devices.local import LocalDevice
    from edgequant.devices.store import Store
    from edgequant.files import sha256_of
    source, work, slow = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "slow"
    def progress(size):
        if slow:
            print("sending", flush=True)
            time.sleep(600)
    store = Store(LocalDevice(), work)
    store.prepare(Deadline(60))
    digest = sha256_of(source)
    print("ready", flush=True)
    sys.stdin.readline()
    print(store.put(source, digest, Deadline(60), progress=progress).sent, flush=True)
"""


def pusher(source: Path, work: Path, how: str = "fast") -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", textwrap.dedent(_PUSH), str(source), str(work), how]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_killed_push_leaves_no_object(device: LocalDevice, work: Path, source: Path) -> None:
    source.write_bytes(os.urandom(3 << 20))
    with pusher(source, work, "slow") as child:
        assert said(child) == "ready"
        go(child)
        assert said(child) == "sending"
        child.send_signal(signal.SIGKILL)
        child.wait()
    (left,) = (work / "incoming").iterdir()
    assert left.stat().st_size < 3 << 20
    assert list((work / "objects").iterdir()) == []
    store = prepared(device, work)
    assert store.put(source, sha256_of(source), TIME).sent == 3 << 20
    assert left.exists()  # it may belong to a push that still runs


def test_two_pushes_at_once(work: Path, source: Path) -> None:
    source.write_bytes(os.urandom(8 << 20))
    with pusher(source, work) as one, pusher(source, work) as other:
        assert [said(one), said(other)] == ["ready", "ready"]
        go(one)
        go(other)
        assert {said(one), said(other)} <= {"0", str(8 << 20)}
    (path,) = (work / "objects").iterdir()
    assert path.read_bytes() == source.read_bytes()
    assert list((work / "incoming").iterdir()) == []


def test_old_leftovers_are_removed(device: LocalDevice, work: Path, source: Path) -> None:
    prepared(device, work)
    old, young, new = (f"{digit * 16}.{'0' * 16}" for digit in "abc")
    for name, age in ((old, 49 * 3600), (young, 23 * 3600), (new, 0), ("mine.txt", 49 * 3600)):
        path = work / "incoming" / name
        path.write_bytes(b"x")
        os.utime(path, (time.time() - age,) * 2)
    path = put(prepared(device, work), source)
    os.utime(path, (1, 1))
    prepared(device, work)
    assert sorted(entry.name for entry in (work / "incoming").iterdir()) == sorted([young, new, "mine.txt"])
    assert path.exists()  # objects have no age


def test_an_interrupted_push_leaves_nothing(device: LocalDevice, work: Path, source: Path) -> None:
    def press(size: int) -> None:
        raise KeyboardInterrupt

    store = prepared(device, work)
    with pytest.raises(KeyboardInterrupt):
        store.put(source, sha256_of(source), TIME, progress=press)
    assert list((work / "incoming").iterdir()) == []
    assert list((work / "objects").iterdir()) == []
