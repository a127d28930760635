"""How the runner ends: with its host, on garbage, in the middle of a computation; and its watcher with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from onnx import TensorProto as T
from onnx import helper

from edgequant.device_scripts import wire
from tests import generated
from tests.device_scripts.support import Converter, Runner
from tests.waiting import LONG, ended, eventually

LOADER = [str(found) for found in Path("/").glob("lib*/ld-linux-*.so.?")][:1]


def test_ends_when_the_host_closes_the_stream(start: Callable[..., Runner]) -> None:
    runner = start()
    (watcher,) = runner.children()
    runner.child.stdin.close()
    assert runner.child.wait(LONG) in (0, -signal.SIGKILL)
    assert ended(watcher)


def test_ends_in_the_middle_of_a_native_computation(
    start: Callable[..., Runner], tmp_path: Path, as_mnn: Converter
) -> None:
    # One inference that takes minutes, however fast the machine: nothing written in Python can run while it does.
    nodes = [helper.make_node("MatMul", [f"t{i}", "x"], [f"t{i + 1}"]) for i in range(4000)]
    nodes[0].input[0], nodes[-1].output[0] = "x", "y"
    value = helper.make_tensor_value_info
    shapes = [value("x", T.FLOAT, [2048, 2048])], [value("y", T.FLOAT, [2048, 2048])]
    model = as_mnn(generated.save(tmp_path / "long.onnx", nodes, *shapes))
    runner = start()
    (watcher,) = runner.children()
    handle = runner.load(model)["handle"]
    clock = psutil.Process(runner.child.pid)
    runner.send("run", {"x": np.zeros((2048, 2048), np.float32)}, handle=handle)
    before = clock.cpu_times().user
    assert eventually(lambda: clock.cpu_times().user - before > 0.5)
    assert runner.child.poll() is None
    runner.child.stdin.close()
    assert runner.child.wait(LONG) == -signal.SIGKILL  # one that got to its end would have said 0
    assert ended(watcher)


def test_ends_while_it_times(start: Callable[..., Runner], cnn: Path, image: np.ndarray) -> None:
    runner = start()
    (watcher,) = runner.children()
    handle = runner.load(cnn)["handle"]
    runner.send("time", {"x": image}, handle=handle, warmup=0, repeat=1_000_000, min_seconds=600, max_seconds=600)
    assert os.read(runner.child.stdout.fileno(), 1)  # "warm": it has begun
    runner.child.stdin.close()
    assert runner.child.wait(LONG) == -signal.SIGKILL
    assert ended(watcher)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it cannot")
@pytest.mark.parametrize("loader", [[], LOADER], ids=["plain", "as a pack"])
def test_started_anew_it_is_the_same_process_with_nothing_in_it(
    loader: list[str], start: Callable[..., Runner], script: Path, cnn: Path, image: np.ndarray
) -> None:
    runner = start([*loader, sys.executable, "-u", str(script)])
    (watcher,) = runner.children()
    before, _ = runner.ask("hello")
    handle = runner.load(cnn)["handle"]
    files = runner.files()
    for _ in range(3):
        runner.restart()
        assert ended(watcher)
        (watcher,) = runner.children()
        assert runner.refused("run", {"x": image}, handle=handle) == "HANDLE_UNKNOWN"
        assert {**runner.ask("hello")[0], "id": 0} == {**before, "id": 0}
        assert runner.run(runner.load(cnn)["handle"], x=image)
        assert runner.files() == files
    runner.child.stdin.close()
    assert runner.child.wait(LONG) in (0, -signal.SIGKILL)
    assert ended(watcher)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(100), wire.MAGIC + b"\xff" * 100])
def test_ends_on_garbage(start: Callable[..., Runner], garbage: bytes) -> None:
    runner = start()
    (watcher,) = runner.children()
    runner.child.stdin.write(garbage)
    runner.child.stdin.flush()
    assert runner.child.wait(LONG) == 4
    assert b"edgequant-runner: " in runner.stderr.read_bytes()
    assert ended(watcher)


def test_the_watcher_goes_when_the_runner_is_killed(start: Callable[..., Runner]) -> None:
    runner = start()
    (watcher,) = runner.children()
    runner.child.kill()
    runner.child.wait()
    assert ended(watcher)


def test_without_mnn_it_says_so(script: Path) -> None:
    argv = [sys.executable, "-I", "-S", str(script)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.wait(60) == 3  # with stdin open: a host that is still there
        assert child.stdout.read() == b""
        assert child.stderr.read().startswith(b"edgequant-runner: IMPORT_FAILED MNN: ")
