"""The real runner, started as the process it is on a device: jobs, refusals, and how it ends."""

from __future__ import annotations

import ast
import os
import platform
import resource
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper

import device_scripts
from device_scripts import wire
from edgequant.runner.bundle import runner_file
from tests import generated

OPTIONS = {"memory": "normal", "precision": "normal", "threads": 2, "cores": None}
SOURCES = sorted(Path(device_scripts.__file__).parent.glob("*.py"))
ModelByName = Callable[[str], Path]
Converter = Callable[..., Path]


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runner_file(tmp_path_factory.mktemp("bundle"))[0]


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

    def children(self) -> list[int]:
        pid = self.child.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def end(self) -> None:
        self.child.kill()
        self.child.wait()
        self.child.stdin.close()
        self.child.stdout.close()


@pytest.fixture
def start(script: Path, tmp_path: Path) -> Iterator[Callable[..., Runner]]:
    """start() starts a runner of the test's own, start(argv) in another way."""
    started: list[Runner] = []

    def one(argv: list[str] | None = None, **options: object) -> Runner:
        started.append(Runner(argv or [sys.executable, "-u", str(script)], tmp_path / f"{len(started)}.err", **options))
        return started[-1]

    yield one
    for runner in started:
        runner.end()


@pytest.fixture(scope="module")
def runner(script: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """One runner that many tests ask, which shows at the same time that it lives on."""
    shared = Runner([sys.executable, "-u", str(script)], tmp_path_factory.mktemp("runner") / "stderr")
    yield shared
    assert shared.child.poll() is None
    shared.end()


@pytest.fixture(scope="module")
def cnn(generated_model: ModelByName, as_mnn: Converter) -> Path:
    return as_mnn(generated_model("conv_cnn"))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)


def until(true: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


# ---- the source


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_source_is_python_3_8_and_stands_alone(source: Path) -> None:
    tree = ast.parse(source.read_text(), feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    allowed = {*sys.stdlib_module_names, "numpy", "MNN", "psutil", "device_scripts"}
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
    assert runner.child.wait(20) == 0


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
    answer, _ = runner.ask("time", {"x": image}, handle=handle, warmup=0, repeat=1, min_seconds=1.5, max_seconds=60)
    assert 1.4 < time.monotonic() - start < 30
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


# ---- element types


CAST = {"float32": T.FLOAT, "float64": T.DOUBLE, "int8": T.INT8, "uint8": T.UINT8, "int64": T.INT64, "bool": T.BOOL}


@pytest.fixture(scope="module")
def takes(tmp_path_factory: pytest.TempPathFactory, as_mnn: Converter, runner: Runner) -> Callable[[str], int]:
    """takes("int8"): handle of a model whose input of that type comes out as float32."""
    folder = tmp_path_factory.mktemp("takes")
    handles: dict[str, int] = {}

    def get(dtype: str) -> int:
        if dtype not in handles:
            node = helper.make_node("Cast", ["x"], ["y"], to=T.FLOAT)
            value = helper.make_tensor_value_info
            source = generated.save(
                folder / f"{dtype}.onnx", [node], [value("x", CAST[dtype], [4])], [value("y", T.FLOAT, [4])]
            )
            handles[dtype] = runner.load(as_mnn(source))["handle"]
        return handles[dtype]

    return get


@pytest.mark.parametrize(
    ("model", "given"),
    [
        ("float32", np.array([0, -1.5, np.nan, np.inf], np.float32)),
        ("float32", np.array([0, -1.5, np.nan, -np.inf], np.float64)),
        ("float32", np.array([0, -1.5, 65504, 2], np.float16)),
        ("float32", np.array([1, 2, 3, 4], ">f4")),
        ("float64", np.array([0, -1.5, 1e30, 2], np.float64)),
        ("int8", np.array([-128, -1, 0, 127], np.int8)),
        ("int8", np.array([-128, -1, 0, 127], np.int64)),
        ("uint8", np.array([0, 1, 200, 255], np.uint8)),
        ("uint8", np.array([0, 1, 200, 255], np.uint16)),
        ("int64", np.array([0, -(2**31), 5, 2**24], np.int64)),
        ("int64", np.array([0, 1, 200, 2**24], np.uint32)),
        ("bool", np.array([True, False, False, True])),
        ("float32", np.arange(8, dtype=np.float32)[::2]),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.dtype}",
)
def test_values_arrive(runner: Runner, takes: Callable[[str], int], model: str, given: np.ndarray) -> None:
    assert np.array_equal(runner.run(takes(model), x=given)["y"], given.astype(np.float32), equal_nan=True)


@pytest.mark.parametrize(
    ("model", "given", "code"),
    [
        ("float32", np.array([1e39, 0, 0, 0]), "INPUT_RANGE"),
        ("int64", np.array([2**31, 0, 0, 0]), "INPUT_RANGE"),
        ("int64", np.array([-(2**31) - 1, 0, 0, 0]), "INPUT_RANGE"),
        ("int64", np.array([2**64 - 1, 0, 0, 0], np.uint64), "INPUT_RANGE"),
        ("int8", np.array([128, 0, 0, 0]), "INPUT_RANGE"),
        ("uint8", np.array([-1, 0, 0, 0]), "INPUT_RANGE"),
        ("uint8", np.zeros(4, np.float32), "INPUT_DTYPE"),
        ("float32", np.zeros(4, np.int32), "INPUT_DTYPE"),
        ("float32", np.zeros(4, bool), "INPUT_DTYPE"),
    ],
)
def test_values_that_would_change_are_refused(
    runner: Runner, takes: Callable[[str], int], model: str, given: np.ndarray, code: str
) -> None:
    assert runner.refused("run", {"x": given}, handle=takes(model)) == code


def test_all_kinds_of_inputs_at_once(runner: Runner, generated_model: ModelByName, as_mnn: Converter) -> None:
    import onnxruntime

    inputs = {
        "ids": np.array([[0, 3, 15, 7]]),
        "mask": np.array([[True, False, True, True]]),
        "scale": np.array(0.5, np.float32),
        "pixels": np.array([[0, 255, 128, 9]], np.uint8),
        "steps": np.array([[-5, 1, 0, 70000]], np.int32),
    }
    source = generated_model("many_dtypes")
    loaded = runner.load(as_mnn(source))
    assert [entry["dtype"] for entry in loaded["inputs"]] == ["int32", "int32", "float32", "uint8", "int32"]
    assert loaded["inputs"][2]["shape"] == []
    found = runner.run(loaded["handle"], **inputs)["y"]
    session = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(found, session.run(["y"], inputs)[0], rtol=1e-5, atol=1e-5)


# ---- refusals, after each of which it lives on


@pytest.mark.parametrize("job", ["run", "time"])
@pytest.mark.parametrize(
    "shape", [(1, 5, 32, 32), (7,), (), (1, 3, 0, 32), (0, 3, 32, 32)], ids=lambda shape: f"{list(shape)}"
)
def test_bad_shapes(runner: Runner, cnn: Path, image: np.ndarray, job: str, shape: tuple[int, ...]) -> None:
    handle = runner.load(cnn)["handle"]
    header = {"handle": handle, "warmup": 0, "repeat": 2, "min_seconds": 0, "max_seconds": 5}
    assert runner.refused(job, {"x": np.zeros(shape, np.float32)}, **header) == "INFERENCE_FAILED"
    assert runner.run(handle, x=image)["y"].shape == (1, 10)


def test_what_mnn_prints_goes_to_stderr(start: Callable[..., Runner], cnn: Path) -> None:
    runner = start()
    handle = runner.load(cnn)["handle"]
    before = runner.stderr.stat().st_size
    assert runner.refused("run", {"x": np.zeros(7, np.float32)}, handle=handle) == "INFERENCE_FAILED"
    assert until(lambda: runner.stderr.stat().st_size > before)
    assert runner.ask("hello")[0]["ok"]


def test_input_names(runner: Runner, cnn: Path, image: np.ndarray) -> None:
    handle = runner.load(cnn)["handle"]
    assert runner.refused("run", {}, handle=handle) == "INPUT_NAMES"
    assert runner.refused("run", {"x": image, "z": image}, handle=handle) == "INPUT_NAMES"


@pytest.mark.parametrize("kind", ["garbage", "cut", "empty", "directory", "missing"])
def test_no_model(runner: Runner, cnn: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.mnn"
    content = {"garbage": np.random.default_rng(1).bytes(5000), "cut": cnn.read_bytes()[:4000], "empty": b""}
    if kind in content:
        path.write_bytes(content[kind])
    elif kind == "directory":
        path.mkdir()
    assert runner.refused("load", path=str(path), options=OPTIONS) == "MODEL_LOAD_FAILED"


@pytest.mark.parametrize(
    ("op", "header", "code"),
    [
        ("nonsense", {}, "OP_UNKNOWN"),
        ("__class__", {}, "OP_UNKNOWN"),
        ("", {}, "OP_UNKNOWN"),
        ("run", {}, "REQUEST_INVALID"),
        ("run", {"handle": 10**6}, "HANDLE_UNKNOWN"),
        ("run", {"handle": [1]}, "REQUEST_INVALID"),
        ("load", {}, "REQUEST_INVALID"),
        ("load", {"path": "x", "options": {**OPTIONS, "memory": "lo"}}, "REQUEST_INVALID"),
        ("load", {"path": "x", "options": {**OPTIONS, "cores": [4000]}}, "CORES_UNAVAILABLE"),
        ("load", {"path": "x", "options": {**OPTIONS, "cores": [-1]}}, "CORES_UNAVAILABLE"),
        ("unload", {}, "REQUEST_INVALID"),
    ],
)
def test_bad_requests(runner: Runner, op: str, header: dict, code: str) -> None:
    assert runner.refused(op, **header) == code


def test_an_op_that_is_no_string(runner: Runner) -> None:
    assert runner.refused(5) == "OP_UNKNOWN"  # type: ignore[arg-type]


def test_cores(start: Callable[..., Runner], cnn: Path, image: np.ndarray) -> None:
    runner = start()
    every = os.sched_getaffinity(0)
    core = max(every)
    handle = runner.load(cnn, cores=[core], threads=1)["handle"]
    assert os.sched_getaffinity(runner.child.pid) == {core}
    assert runner.run(handle, x=image)["y"].shape == (1, 10)
    runner.load(cnn)
    assert os.sched_getaffinity(runner.child.pid) == every


# ---- ends


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
