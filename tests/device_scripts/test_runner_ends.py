"""How the runner ends: with its host, on garbage, in the middle of a computation; and its watcher with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper

from device_scripts import wire
from tests import generated
from tests.device_scripts.support import Converter, Runner, gone, until


def test_ends_when_the_host_closes_the_stream(start: Callable[..., Runner]) -> None:
    runner = start()
    (watcher,) = runner.children()
    runner.child.stdin.close()
    assert runner.child.wait(10) in (0, -signal.SIGKILL)
    assert until(lambda: gone(watcher), 10)


def test_ends_in_the_middle_of_a_native_computation(
    start: Callable[..., Runner], tmp_path: Path, as_mnn: Converter
) -> None:
    # One inference that takes a minute: nothing written in Python can run while it does.
    nodes = [helper.make_node("MatMul", [f"t{i}", "x"], [f"t{i + 1}"]) for i in range(400)]
    nodes[0].input[0], nodes[-1].output[0] = "x", "y"
    value = helper.make_tensor_value_info
    shapes = [value("x", T.FLOAT, [2048, 2048])], [value("y", T.FLOAT, [2048, 2048])]
    model = as_mnn(generated.save(tmp_path / "long.onnx", nodes, *shapes))
    runner = start()
    (watcher,) = runner.children()
    handle = runner.load(model)["handle"]
    clock = Path(f"/proc/{runner.child.pid}/schedstat")
    runner.send("run", {"x": np.zeros((2048, 2048), np.float32)}, handle=handle)
    before = int(clock.read_text().split()[0])
    assert until(lambda: int(clock.read_text().split()[0]) - before > 5e8)
    assert runner.child.poll() is None
    start_of_end = time.monotonic()
    runner.child.stdin.close()
    assert runner.child.wait(10) == -signal.SIGKILL
    assert time.monotonic() - start_of_end < 5
    assert until(lambda: gone(watcher), 10)


def test_ends_while_it_times(start: Callable[..., Runner], cnn: Path, image: np.ndarray) -> None:
    runner = start()
    (watcher,) = runner.children()
    handle = runner.load(cnn)["handle"]
    runner.send("time", {"x": image}, handle=handle, warmup=0, repeat=1_000_000, min_seconds=600, max_seconds=600)
    assert os.read(runner.child.stdout.fileno(), 1)  # "warm": it has begun
    runner.child.stdin.close()
    assert runner.child.wait(10) == -signal.SIGKILL
    assert until(lambda: gone(watcher), 10)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(100), wire.MAGIC + b"\xff" * 100])
def test_ends_on_garbage(start: Callable[..., Runner], garbage: bytes) -> None:
    runner = start()
    (watcher,) = runner.children()
    runner.child.stdin.write(garbage)
    runner.child.stdin.flush()
    assert runner.child.wait(10) == 4
    assert b"edgequant-runner: " in runner.stderr.read_bytes()
    assert until(lambda: gone(watcher), 10)


def test_the_watcher_goes_when_the_runner_is_killed(start: Callable[..., Runner]) -> None:
    runner = start()
    (watcher,) = runner.children()
    runner.child.kill()
    runner.child.wait()
    assert until(lambda: gone(watcher), 10)


def test_without_mnn_it_says_so(script: Path) -> None:
    argv = [sys.executable, "-I", "-S", str(script)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.wait(60) == 3  # with stdin open: a host that is still there
        assert child.stdout.read() == b""
        assert child.stderr.read().startswith(b"edgequant-runner: IMPORT_FAILED MNN: ")
