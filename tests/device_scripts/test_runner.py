"""The real runner, started as the process it is on a device: how it starts, and its jobs."""

from __future__ import annotations

import ast
import os
import platform
import resource
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgequant import device_scripts
from edgequant.device_scripts import wire
from tests.device_scripts.support import Converter, ModelByName, Runner
from tests.waiting import LONG

SOURCES = sorted(Path(device_scripts.__file__).parent.glob("*.py"))


# ---- the source


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_source_is_python_3_8_and_stands_alone(source: Path) -> None:
    tree = ast.parse(source.read_text(), feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    # Its own modules by a dot only: the package has another name on the host than on the device.
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    allowed = {*sys.stdlib_module_names, "numpy", "MNN", "psutil"}
    if source.name == "__main__.py":  # beside the package, in the zip
        allowed |= {"device_scripts"}
    assert {name.split(".")[0] for name in imported} <= allowed
    assert not any(isinstance(node, ast.Match) for node in ast.walk(tree))


def test_main_is_understood_by_any_python() -> None:
    # An old Python has to get as far as the sentence that says that it is too old.
    source = next(path for path in SOURCES if path.name == "__main__.py").read_text()
    assert "annotations" not in source
    assert 'f"' not in source


# ---- starting


@pytest.mark.parametrize("flags", [[], ["-I"], ["-I", "-B", "-X", "utf8=0"]], ids=str)
def test_handshake(start: Callable[..., Runner], script: Path, flags: list[str]) -> None:
    runner = start([sys.executable, *flags, str(script)])
    assert runner.noise == b""
    hello, _ = runner.ask("hello")
    assert hello["ok"]
    assert hello["pid"] == runner.child.pid
    assert hello["protocol"] == wire.PROTOCOL
    assert hello["python"] == platform.python_version()
    assert hello["numpy"] == np.__version__
    assert hello["banner"].startswith("The device supports:")
    facts = runner.ask("facts")[0]["facts"]
    assert facts["arch"] == platform.machine()
    assert facts["cores"] == os.cpu_count()
    assert 1 <= facts["usable_cores"] <= facts["cores"]
    assert facts["page_size"] == resource.getpagesize()
    assert facts["mnn_kernels"]
    answer, _ = runner.ask("exit")
    assert answer["ok"]
    assert runner.child.wait(LONG) == 0


def test_needs_nothing_of_edgequant(start: Callable[..., Runner], script: Path, tmp_path: Path, cnn: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    for entry in Path(sysconfig.get_path("platlib")).iterdir():
        if entry.name.lower().startswith(("mnn", "_mnn", "numpy")):
            (packages / entry.name).symlink_to(entry)
    environment = {"PYTHONPATH": str(packages), "PATH": os.defpath}
    argv = [sys.executable, "-S"]
    probe = [
        *argv,
        "-c",
        "import MNN, importlib.util as u; print(u.find_spec('edgequant'), u.find_spec('device_scripts'))",
    ]
    done = subprocess.run(probe, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "None None" in done.stdout.splitlines()
    runner = start([*argv, str(script)], env=environment, cwd=tmp_path)
    assert runner.load(cnn)["outputs"] == ["y"]


# ---- jobs


def test_load_run_unload(runner: Runner, cnn: Path, image: np.ndarray) -> None:
    loaded = runner.load(cnn)
    assert loaded["load_ms"] > 0
    assert loaded["inputs"] == [{"name": "x", "dtype": "float32", "shape": [1, 3, 32, 32], "layout": "NCHW"}]
    assert loaded["memory_after"]["rss"] > 0
    handle = loaded["handle"]
    first = runner.run(handle, x=image)["y"]
    assert first.shape == (1, 10)
    assert np.array_equal(first, runner.run(handle, x=image)["y"])
    assert not np.array_equal(first, runner.run(handle, x=-image)["y"])
    other = runner.load(cnn)["handle"]
    assert other != handle
    assert runner.ask("unload", handle=handle)[0]["ok"]
    assert runner.refused("run", {"x": image}, handle=handle) == "HANDLE_UNKNOWN"
    assert np.array_equal(first, runner.run(other, x=image)["y"])


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads(runner: Runner, cnn: Path, image: np.ndarray, threads: int) -> None:
    assert runner.run(runner.load(cnn, threads=threads)["handle"], x=image)["y"].shape == (1, 10)


def test_time_keeps_every_sample(runner: Runner, cnn: Path, image: np.ndarray) -> None:
    handle = runner.load(cnn)["handle"]
    header = {"handle": handle, "warmup": 3, "repeat": 50, "min_seconds": 0, "max_seconds": 60}
    answer, _ = runner.ask("time", {"x": image}, **header)
    assert answer["complete"] is True
    assert (answer["warmup"], answer["n"]) == (3, 50)
    assert runner.events[0] == {"event": "warm", "warmup": 3, "id": answer["id"]}
    samples = [sample for event in runner.events[1:] for sample in event["samples"]]
    assert len(samples) == 50
    assert all(sample > 0 for sample in samples)


def test_time_sends_samples_while_it_runs(runner: Runner, cnn: Path, image: np.ndarray) -> None:
    handle = runner.load(cnn)["handle"]
    start = time.monotonic()
    # About one event a second: where the machine stops for three of these four, two are left.
    answer, _ = runner.ask("time", {"x": image}, handle=handle, warmup=0, repeat=1, min_seconds=4, max_seconds=120)
    assert time.monotonic() - start > 3.9
    assert len([event for event in runner.events if event["event"] == "samples"]) >= 2
    assert sum(len(event.get("samples", [])) for event in runner.events) == answer["n"]


def test_time_stops_at_its_limit(runner: Runner, cnn: Path, image: np.ndarray) -> None:
    handle = runner.load(cnn)["handle"]
    answer, _ = runner.ask(
        "time", {"x": image}, handle=handle, warmup=10**9, repeat=10**6, min_seconds=0, max_seconds=0.2
    )
    assert answer["ok"]
    assert answer["complete"] is False
    assert answer["n"] == 1  # the warm-up took all the time there was


def test_session_memory(runner: Runner, cnn: Path) -> None:
    handle = runner.load(cnn)["handle"]
    answer, _ = runner.ask("session_memory", handle=handle, shapes={"x": [1, 3, 32, 32]})
    assert 0.1 < answer["session_mb"] < 100
    assert runner.refused("session_memory", handle=handle, shapes={"z": [1]}) == "INPUT_NAMES"


def test_memory_low_really_is_low(runner: Runner, real_model: ModelByName, as_mnn: Converter) -> None:
    model = as_mnn(real_model("enc"), "--weightQuantBits", "8")
    rng = np.random.default_rng(0)
    inputs = {
        "feat_erb": rng.standard_normal((1, 1, 20, 32)).astype(np.float32),
        "feat_spec": rng.standard_normal((1, 2, 20, 96)).astype(np.float32),
    }
    normal = runner.run(runner.load(model, memory="normal")["handle"], **inputs)
    again = runner.run(runner.load(model, memory="normal")["handle"], **inputs)
    low = runner.run(runner.load(model, memory="low")["handle"], **inputs)
    assert all(np.array_equal(normal[name], again[name]) for name in normal)
    assert any(not np.array_equal(normal[name], low[name]) for name in normal)


def test_cores(start: Callable[..., Runner], cnn: Path, image: np.ndarray) -> None:
    runner = start()
    every = os.sched_getaffinity(0)
    core = max(every)
    handle = runner.load(cnn, cores=[core], threads=1)["handle"]
    assert os.sched_getaffinity(runner.child.pid) == {core}
    assert runner.run(handle, x=image)["y"].shape == (1, 10)
    runner.load(cnn)
    assert os.sched_getaffinity(runner.child.pid) == every
