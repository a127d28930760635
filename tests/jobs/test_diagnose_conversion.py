"""The node of a source that float MNN computes otherwise is named, with the cause and the proof; and its case runs."""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgequant.cases.case import Case
from edgequant.cases.generate import generate
from edgequant.cases.load import read_npz
from edgequant.errors import InputError, RunnerError
from edgequant.jobs.departure import Departure, Reproduction, TensorFact
from edgequant.jobs.export_case import export_case
from edgequant.lab.session import Session
from edgequant.models import read_model
from edgequant.models.onnx_cut import Cut, OnnxFile
from edgequant.reference.inside import Inside, LiteInside, batches
from edgequant.reference.lite_file import LiteFile
from edgequant.reference.reference import CaseRefused
from tests import generated
from tests.defects import departing, tflite
from tests.defects.departing import PARTS, case_of
from tests.defects.departures import NAMES, diagnosed, outcome, this_host
from tests.defects.tflite_spliced import nearest_in_the_midst
from tests.nightly import all_but
from tests.tflite_packages.compare import models

FAULTS = [name for name in NAMES if not name.startswith("sound_")]
SOUND = [name for name in NAMES if name.startswith("sound_")]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with this_host(tmp_path_factory.mktemp("host")) as session:
        yield session


@pytest.mark.parametrize("name", all_but("grid_bicubic", of=FAULTS))
def test_the_right_node_is_named_and_proven(name: str, host: Session, tmp_path: Path) -> None:
    found = outcome(name, host, tmp_path)
    assert found.right, found
    assert found.right_cause, found
    assert found.found is not None
    assert found.found.proof != "none"
    assert found.found.converter_runs <= 16
    shown = json.loads(found.found.model_dump_json())
    assert "reproduction" not in shown
    assert shown["node"] == found.wanted


@pytest.mark.parametrize("name", all_but("sound_gru", of=SOUND))
def test_nobody_is_blamed_in_a_sound_model(name: str, host: Session, tmp_path: Path) -> None:
    assert outcome(name, host, tmp_path).found is None


def test_a_case_shows_it_with_mnn_and_numpy_alone(host: Session, tmp_path: Path) -> None:
    """Here of an operator that is wrong only with those before it."""
    found = diagnosed(departing.between(PARTS["one_first"](), tmp_path / "m.onnx"), host, tmp_path / "work")
    assert found is not None
    assert (found.node, found.operator, found.proof) == ("bad", "Add", "with those before it")
    assert "conv" in found.context
    assert not {name for name in found.context if name.startswith("before")}
    script = export_case(found, tmp_path / "case")
    assert {each.name for each in script.parent.iterdir()} == {
        "part.onnx", "part.mnn", "inputs.npz", "expected.npz", "show_case.py", "README.md",
    }  # fmt: skip
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".case")] == []
    assert len((script.parent / "README.md").read_text().splitlines()) == 5
    assert "edgequant" not in script.read_text()
    shown = _run(script)
    assert shown.returncode == 1, shown.stderr
    assert "WRONG s" in shown.stdout
    # It can be converted again, as the README says.
    command = (script.parent / "README.md").read_text().splitlines()[4].split("`")[1]
    (script.parent / "part.mnn").unlink()
    again = shlex.split(command.replace("python ", f"{sys.executable} -I ", 1))
    subprocess.run(again, capture_output=True, timeout=60, cwd=script.parent, check=True)
    assert _run(script).returncode == 1
    # With what MNN makes of it as what is expected, nothing is wrong.
    assert found.reproduction is not None
    np.savez(script.parent / "expected.npz", **{str(k): v for k, v in found.reproduction.got.items()})
    assert _run(script).returncode == 0
    with pytest.raises(InputError, match="no empty folder"):
        export_case(found, script.parent)


def _run(script: Path) -> subprocess.CompletedProcess[str]:
    """In a folder and with a path of its own: nothing of edgequant is there."""
    command = [sys.executable, "-I", str(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=script.parent)


def test_the_smallest_inputs_hold_what_the_source_computes(tmp_path: Path) -> None:
    """Written whole; an empty folder may be there; a suspicion makes no case."""
    (tmp_path / "part.onnx").write_bytes(b"onnx")
    (tmp_path / "part.mnn").write_bytes(b"mnn")
    array = np.arange(3, dtype=np.float32)
    found = Departure(
        node="n", operator="Op", attributes={"axes": (1, 2)}, inputs=(TensorFact(name="a/b"),), outputs=(),
        case="c0", proof="alone", proven_by="it", remedy="none", smallest={"a/b": (3,)},
    )  # fmt: skip
    assert (found.proven, found.finding().code, found.finding().severity) == (True, "CONVERSION_ERROR", "fail")
    assert found.finding().evidence["attributes"] == {"axes": [1, 2]}
    with pytest.raises(InputError, match="no case"):
        export_case(found, tmp_path / "case")
    assert not (tmp_path / "case").exists()
    arrays = {"a/b": array}
    found._reproduction = Reproduction(tmp_path / "part.onnx", tmp_path / "part.mnn", arrays, arrays, arrays)
    (tmp_path / "case").mkdir()
    export_case(found, tmp_path / "case")
    np.testing.assert_array_equal(read_npz(tmp_path / "case" / "inputs.npz")["a/b"], array)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="no empty folder"):
        export_case(found, tmp_path / "file")


@pytest.mark.nightly
def test_a_length_in_front_is_named_for_what_it_is(host: Session, tmp_path: Path) -> None:
    """It shows with open sizes alone."""
    path = generated.leading_length(tmp_path / "m.onnx")
    found = diagnosed(path, host, tmp_path / "work")
    assert found is not None
    assert (found.node, found.cause, found.proof) == ("rnn", "LEADING_DIMENSION_FIXED", "alone")


@pytest.mark.nightly
def test_an_operator_that_mnn_cannot_run_is_named(
    host: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In MNN's own words where nothing is known of it; its case fails to run too."""
    monkeypatch.setattr("edgequant.jobs.conversion_causes.known_cause", lambda graph, nodes: None)
    path = departing.between(PARTS["resize_axes"](), tmp_path / "m.onnx")
    found = diagnosed(path, host, tmp_path / "work")
    assert found is not None
    assert (found.node, found.cause, found.proof) == ("bad", "CANNOT_RUN", "alone")
    assert "MNN said" in (found.why or "")
    assert _run(export_case(found, tmp_path / "case")).returncode == 1


@pytest.mark.nightly
def test_inputs_that_mnn_cannot_take_are_the_users(host: Session, tmp_path: Path) -> None:
    path = departing.between(PARTS["hash"](), tmp_path / "m.onnx")
    case = case_of(path)
    inputs = {**case.inputs, "ids": case.inputs["ids"] * 10**12}
    with pytest.raises(InputError, match="outside of int32"):
        diagnosed(path, host, tmp_path / "work", Case("c0", inputs, "test"))


@pytest.mark.nightly
@pytest.mark.parametrize(
    "make",
    [tflite.transposed_convolution(3, 5), tflite.nearest(True), tflite.depthwise(3), tflite.padded(True)],
    ids=["transposed", "nearest", "depthwise", "mirrored"],
)
def test_an_operator_of_tflite_is_named_and_its_case_runs(make: departing.Make, host: Session, tmp_path: Path) -> None:
    path = make(tmp_path)
    found = diagnosed(path, host, tmp_path / "work")
    assert found is not None
    assert found.operator in ("TRANSPOSE_CONV", "RESIZE_NEAREST_NEIGHBOR", "DEPTHWISE_CONV_2D", "MIRROR_PAD")
    assert (found.proof, found.cause) == ("alone", "OPERATOR_MISREAD")
    script = export_case(found, tmp_path / "case")
    shown = _run(script)
    assert shown.returncode == 1, shown.stderr
    assert "WRONG y" in shown.stdout


@pytest.mark.nightly
def test_an_operator_in_the_midst_of_a_real_tflite_model_is_cut_out(host: Session, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    wanted = nearest_in_the_midst(models("mediapipe==0.10.14")["mediapipe/palm_detection_lite"], path)
    case = generate(read_model(path).inputs or (), seed=1)[0]
    found = diagnosed(path, host, tmp_path / "work", case)
    assert found is not None
    assert (found.node, found.operator, found.proof) == (wanted, "RESIZE_NEAREST_NEIGHBOR", "alone")
    assert found.reproduction is not None
    assert found.reproduction.source.stat().st_size < 4096
    assert _run(export_case(found, tmp_path / "case")).returncode == 1


def test_what_cannot_be_cut_out_of_a_tflite_model_is_a_refusal(tmp_path: Path) -> None:
    path = tflite.depthwise(2)(tmp_path)
    graph = read_model(path)
    with LiteInside(graph, tmp_path / "log", 60) as inside:
        file = LiteFile(graph, inside)
        assert (file.constant, file.maker) == ({"k1", "k2"}, {"y": 0})
        part = Cut((0,), {"x": ("float32", (1, 6, 6, 4))}, {}, {"y": ("float32", (None,) * 4)})
        file.cut(part, tmp_path / "part.tflite")
        inputs = {"x": np.ones((1, 6, 6, 4), np.float32)}
        assert inside.run(tmp_path / "part.tflite", inputs)["y"].shape == (1, 6, 6, 8)
        with pytest.raises(RunnerError) as caught:
            file.cut(dataclasses.replace(part, outputs={"nothing": ("float32", ())}), tmp_path / "other.tflite")
        assert caught.value.code == "CUT_IMPOSSIBLE"
        for ask in (
            lambda: file.cut(part, tmp_path / "part.tflite"),
            lambda: inside.sizes(["y"], Case("c", inputs, "")),
        ):
            inside._runtime._session.close()  # as where it died of a part
            ask()


@pytest.mark.nightly
def test_a_sound_tflite_model(host: Session, tmp_path: Path) -> None:
    assert diagnosed(tflite.transposed_convolution(4, 4)(tmp_path), host, tmp_path / "work") is None


def test_inner_tensors_with_weights_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    path = generated.external_data(tmp_path / "model" / "m.onnx")
    case = case_of(path)
    with (
        OnnxFile(path) as file,
        Inside(read_model(path), file, tmp_path / "inside", tmp_path / "log", 60) as inside,
    ):
        assert inside.sizes(["y"], case) == {"y": (1, 8)}
        weights = np.frombuffer((path.parent / "weights.bin").read_bytes()[64:], np.float32).reshape(8, 8)
        np.testing.assert_allclose(inside.values(["y"], case)["y"], case.inputs["x"] @ weights, rtol=1e-4, atol=1e-6)


def test_what_cannot_be_handed_out_is_left_out(tmp_path: Path) -> None:
    """Sequences; and a case that the source cannot run is refused, whatever is asked."""
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b"], axis=1),
        helper.make_node("SequenceConstruct", ["a", "b"], ["both"]),
        helper.make_node("ConcatFromSequence", ["both"], ["y"], axis=1),
    ]
    value, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in "xy")
    path = generated.save(tmp_path / "m.onnx", nodes, [value], [out])
    case = case_of(path)
    with (
        OnnxFile(path) as file,
        Inside(read_model(path), file, tmp_path / "inside", tmp_path / "log", 60) as inside,
    ):
        assert inside.sizes(["a", "both", "y"], case) == {"a": (1, 4), "y": (1, 8)}
        assert set(inside.values(["a", "both", "y"], case)) == {"a", "y"}
        with pytest.raises(CaseRefused):
            inside.sizes(["a", "y"], Case("c1", {"x": np.zeros((1, 7), np.float32)}, "test"))


def test_batches_hold_no_more_than_they_may() -> None:
    sizes = {"a": (10,), "b": (10,), "c": (100,), "d": (), "e": (10,)}
    assert list(batches(sizes, 160)) == [["a", "b"], ["c"], ["d", "e"]]
    assert list(batches({}, 160)) == []
