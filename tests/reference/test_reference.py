"""Float references: ONNX Runtime in its own process, float MNN, and the user's files."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgequant.cases.case import Case
from edgequant.cases.load import save_npz
from edgequant.deadline import Deadline
from edgequant.devices.local import LocalDevice
from edgequant.errors import DeadlineExceeded, InputError, RunnerError, ToolError
from edgequant.reference.reference import (
    CaseRefused,
    FileReference,
    MnnFloatReference,
    OrtReference,
    onnxruntime_available,
)
from edgequant.runner.bundle import runner_file
from edgequant.runner.client import MnnRunner
from edgequant.runner.session import RunnerSession
from edgequant.spec import RunOptions
from tests.waiting import ended, eventually

ModelByName = Callable[[str], Path]
Opener = Callable[..., OrtReference]


@pytest.fixture
def ort(tmp_path: Path) -> Iterator[Opener]:
    """ort(model): an OrtReference that is closed in the end."""
    opened: list[OrtReference] = []

    def get(model: Path, timeout: float = 60) -> OrtReference:
        opened.append(OrtReference(model, tmp_path / "ort.log", timeout).ready())
        return opened[-1]

    yield get
    for reference in opened:
        reference.close()
        reference.close()


def case(**inputs: np.ndarray) -> Case:
    return Case("case", inputs, "test")


def direct(model: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def pid_of(reference: OrtReference) -> int:
    return reference._session.hello.pid


IMAGE = {"x": np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)}
DTYPES = {
    "ids": np.array([[0, 3, 15, 7]]),
    "mask": np.array([[True, False, True, True]]),
    "scale": np.array(0.5, np.float32),
    "pixels": np.array([[0, 255, 128, 9]], np.uint8),
    "steps": np.array([[-5, 1, 0, 70000]], np.int32),
}


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("conv_cnn", IMAGE),
        ("many_dtypes", DTYPES),
        ("argmax_ints", {"x": np.ones((1, 16), np.float32)}),
        ("branches", {"x": np.array([[-1, 0, 1, np.nan]], np.float32), "deep": np.array(True)}),
        ("many_outputs", {"x": np.arange(8, dtype=np.float32).reshape(1, 8)}),
    ],
)
def test_the_same_as_onnxruntime(ort: Opener, generated_model: ModelByName, name: str, inputs: dict) -> None:
    model = generated_model(name)
    reference = ort(model)
    assert (reference.name, reference.version) == ("onnxruntime", onnxruntime.__version__)
    found, expected = reference.run(case(**inputs)), direct(model, inputs)
    assert list(found) == list(expected)
    for output, array in expected.items():
        assert (found[output].dtype, found[output].shape) == (array.dtype, array.shape)
        assert np.array_equal(found[output], array, equal_nan=array.dtype.kind == "f")


def test_a_real_model(ort: Opener, real_model: ModelByName) -> None:
    rng = np.random.default_rng(0)
    inputs = {
        "feat_erb": rng.standard_normal((1, 1, 20, 32)).astype(np.float32),
        "feat_spec": rng.standard_normal((1, 2, 20, 96)).astype(np.float32),
    }
    found, expected = ort(real_model("enc")).run(case(**inputs)), direct(real_model("enc"), inputs)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": np.zeros((1, 3, 32, 31, 1), np.float32)},
        {"x": np.zeros((1, 4, 32, 32), np.float32)},
        {"x": np.zeros((1, 3, 32, 32), np.float64)},
        {"z": np.zeros((1, 3, 32, 32), np.float32)},
        {},
    ],
    ids=str,
)
def test_it_refuses_a_case_and_lives_on(ort: Opener, generated_model: ModelByName, inputs: dict) -> None:
    reference = ort(generated_model("conv_cnn"))
    with pytest.raises(CaseRefused) as caught:
        reference.run(case(**inputs))
    assert caught.value.reason
    assert "\n" not in caught.value.reason
    assert reference.run(case(**IMAGE))["y"].shape == (1, 10)


@pytest.mark.parametrize("kind", ["garbage", "cut", "empty", "missing", "directory"])
def test_no_model(ort: Opener, generated_model: ModelByName, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.onnx"
    content = {"garbage": os.urandom(5000), "cut": generated_model("conv_cnn").read_bytes()[:-100], "empty": b""}
    if kind in content:
        path.write_bytes(content[kind])
    elif kind == "directory":
        path.mkdir()
    with pytest.raises(InputError, match=r"model\.onnx: ONNX Runtime cannot load it: .") as caught:
        ort(path)
    assert caught.value.code == "MODEL_INVALID"
    assert "--reference" in str(caught.value.hint)


def test_killed_between_cases(ort: Opener, generated_model: ModelByName) -> None:
    reference = ort(generated_model("conv_cnn"))
    os.kill(pid_of(reference), signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(ToolError) as caught:
            reference.run(case(**IMAGE))
        assert caught.value.code == "REFERENCE_DIED"
        assert "--reference" in str(caught.value.hint)


def seconds_of(pid: int) -> float:
    """CPU time a process has used."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A model that takes minutes, on however many cores: x [2048,2048] times itself many times."""
    from onnx import TensorProto as T
    from onnx import helper

    from tests import generated

    nodes = [helper.make_node("MatMul", [f"t{i}", "x"], [f"t{i + 1}"]) for i in range(4000)]
    nodes[0].input[0], nodes[-1].output[0] = "x", "y"
    value = helper.make_tensor_value_info
    shape = [2048, 2048]
    return generated.save(tmp_path / "long.onnx", nodes, [value("x", T.FLOAT, shape)], [value("y", T.FLOAT, shape)])


LONG = {"x": np.zeros((2048, 2048), np.float32)}


def test_killed_while_it_computes(ort: Opener, endless: Path) -> None:
    reference = ort(endless)
    pid = pid_of(reference)
    before = seconds_of(pid)

    def kill() -> None:
        if eventually(lambda: seconds_of(pid) - before > 0.3):
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(ToolError, match="SIGKILL") as caught:
        reference.run(case(**LONG))
    killer.join()
    assert caught.value.code == "REFERENCE_DIED"


def test_too_slow(ort: Opener, endless: Path) -> None:
    reference = ort(endless, timeout=3)
    pid = pid_of(reference)
    with pytest.raises(DeadlineExceeded, match="ONNX Runtime did not finish 'run' within 3 s"):
        reference.run(case(**LONG))
    assert ended(pid)


def test_close_ends_the_process(generated_model: ModelByName, tmp_path: Path) -> None:
    reference = OrtReference(generated_model("conv_cnn"), tmp_path / "log", 60).ready()
    pid = pid_of(reference)
    reference.close()
    assert ended(pid)


def test_nothing_is_imported_from_the_current_directory(
    ort: Opener, generated_model: ModelByName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("numpy", "onnxruntime", "edgequant", "json"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w'); raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    assert ort(generated_model("conv_cnn")).run(case(**IMAGE))["y"].shape == (1, 10)
    assert not (tmp_path / "trace").exists()


def test_a_relative_path(ort: Opener, generated_model: ModelByName, monkeypatch: pytest.MonkeyPatch) -> None:
    model = generated_model("conv_cnn")
    monkeypatch.chdir(model.parent)
    assert ort(Path(model.name)).run(case(**IMAGE))["y"].shape == (1, 10)


def test_it_is_found_without_being_imported() -> None:
    assert onnxruntime_available()


# ---- float MNN


def test_mnn_float(generated_model: ModelByName, as_mnn: Callable[..., Path], tmp_path: Path) -> None:
    source = generated_model("conv_cnn")
    script, _ = runner_file(tmp_path)
    with LocalDevice() as device, RunnerSession(device, [sys.executable, str(script)]) as session:
        session.start(Deadline(60))
        runner = MnnRunner(session, RunOptions(timeout=60), uri="local:")
        reference = MnnFloatReference(runner, runner.load(str(as_mnn(source)), "normal"))
        assert (reference.name, reference.version) == ("mnn-float", runner.hello.mnn)
        np.testing.assert_allclose(reference.run(case(**IMAGE))["y"], direct(source, IMAGE)["y"], atol=1e-4)
        with pytest.raises(CaseRefused, match="MNN returned 0 of 1 outputs"):
            reference.run(case(x=np.zeros((1, 5, 32, 32), np.float32)))
        assert reference.run(case(**IMAGE))["y"].shape == (1, 10)
        with pytest.raises(RunnerError) as caught:
            reference.run(case(z=IMAGE["x"]))
        assert caught.value.code == "INPUT_NAMES"
        reference.close()
        os.kill(runner.hello.pid, signal.SIGKILL)
        with pytest.raises(RunnerError) as caught:
            reference.run(case(**IMAGE))
        assert caught.value.code == "RUNNER_DIED"


# ---- files


def cases(*names: str) -> list[Case]:
    return [Case(name, IMAGE, "test") for name in names]


def test_one_file_for_one_case(tmp_path: Path) -> None:
    save_npz(tmp_path / "y.npz", {"y:0": np.arange(4)})
    reference = FileReference(tmp_path / "y.npz", cases("any"))
    assert (reference.name, reference.version) == ("file", None)
    assert reference.run(cases("any")[0])["y:0"].tolist() == [0, 1, 2, 3]
    with pytest.raises(InputError, match="one reference for 2 cases") as caught:
        FileReference(tmp_path / "y.npz", cases("a", "b"))
    assert caught.value.code == "REFERENCE_CASES"


def test_a_folder_with_a_file_for_each(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b")):
        save_npz(tmp_path / f"{name}.npz", {"y": np.array(number)})
    reference = FileReference(tmp_path, cases("a", "b"))
    assert [int(reference.run(one)["y"]) for one in cases("b", "a")] == [1, 0]
    with pytest.raises(InputError, match=r"no c\.npz for case 'c'") as caught:
        FileReference(tmp_path, cases("a", "c"))
    assert caught.value.code == "REFERENCE_CASES"


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        FileReference(tmp_path / "none.npz", cases("a"))
    assert caught.value.code == "REFERENCE_NOT_FOUND"
    path = tmp_path / "y.npz"
    for content, code in ((b"garbage", "INPUT_FILE_INVALID"), (None, "REFERENCE_CASES")):
        save_npz(path, {}) if content is None else path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            FileReference(path, cases("a")).run(cases("a")[0])
        assert caught.value.code == code
        assert str(path) in str(caught.value)


def test_onnxruntime_that_is_closed_before_it_is_ready_leaves_nothing(
    generated_model: ModelByName, tmp_path: Path
) -> None:
    reference = OrtReference(generated_model("conv_cnn"), tmp_path / "log", 600)
    assert eventually(lambda: bool(reference._device._processes))
    pids = [process._child.pid for process in reference._device._processes]
    reference.close()
    assert all(ended(pid) for pid in pids)
    with pytest.raises(ToolError):
        reference.ready()
