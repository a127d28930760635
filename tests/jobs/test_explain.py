"""A FAIL that is looked into at once, and what a diagnosis leaves for others."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from rich.console import Console

from edgequant.archive.open import open_run
from edgequant.errors import InputError
from edgequant.jobs.diagnose import diagnose, diagnose_run
from edgequant.jobs.diagnose_layers import Looking
from edgequant.jobs.explain import resume, verify
from edgequant.jobs.export_layer import export_layer
from edgequant.jobs.model_explorer import node_ids
from edgequant.jobs.wanted import Wanted
from edgequant.judge.diagnosis import diagnose as judge_layers
from edgequant.judge.verdict import Verdict
from edgequant.models import read_model
from edgequant.models.mnn.weights import read_weights
from edgequant.plan.request import Request
from edgequant.report.console import render
from edgequant.report.diagnosis import sentences
from edgequant.report.read import load
from tests import generated
from tests.cli.command import edgequant
from tests.defects.layers import EDITS, generated_subject, planted, this_host
from tests.jobs.support import ONE_THREAD, check_file


def shown(script: Path) -> subprocess.CompletedProcess[str]:
    """With a path of its own: nothing of edgequant is there."""
    command = [sys.executable, "-I", str(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=script.parent)


def test_a_fail_is_looked_into_at_once_and_leaves_a_case_and_an_overlay(tmp_path: Path) -> None:
    model = generated.small_cnn(tmp_path / "small.onnx")
    request = Request(
        model, devices="local:", variants=("dynamic:8", "dynamic:2"), run_dir=tmp_path / "run", options=ONE_THREAD,
        latency=False, diagnose=True,
    )  # type: ignore[arg-type]  # fmt: skip
    report, folder = verify(request)
    assert report.verdict is Verdict.FAIL
    good, bad = report.runs
    assert (good.verdict, good.diagnosis) == (Verdict.PASS, None)
    assert bad.diagnosis is not None
    assert (bad.diagnosis.stage, bad.diagnosis.variant) == ("quantization", "dynamic:2")
    assert bad.diagnosis.next
    check_file(folder.report, report)
    kept = load(folder.report).runs[1].diagnosis
    assert kept is not None
    assert sentences(kept) == sentences(bad.diagnosis)
    assert open_run(folder.path).plan.diagnose, "so that --resume does it, too"
    stream = io.StringIO()
    render(report, Console(file=stream, width=100), path=folder.report)
    assert "Where and why\n  1. Quantization breaks it" in stream.getvalue()
    assert "edgequant diagnose" not in stream.getvalue(), "it has been done"
    again, _ = resume(folder.path)
    assert again.runs[1].diagnosis == bad.diagnosis, "what is there is not made twice"

    wanted = Wanted(tmp_path / "case", tmp_path / "nodes.json")
    told = diagnose_run(folder.path, wanted=wanted).report
    assert told.case is not None
    assert "part.mnn" in {each.name for each in (tmp_path / "case").iterdir()}
    script = shown(Path(told.case))
    assert (script.returncode, script.stdout.startswith("WRONG")) == (1, True), script.stdout + script.stderr
    assert "this layer alone" in (tmp_path / "case" / "README.md").read_text()
    # With what it computes as what is expected, it is right.
    held = dict(np.load(tmp_path / "case" / "expected.npz"))
    settings = json.loads((tmp_path / "case" / "case.json").read_text())
    (tmp_path / "case" / "case.json").write_text(json.dumps({**settings, "least_db": -200.0, "most_off": 100.0}))
    assert shown(Path(told.case)).returncode == 0
    assert sum(array.size for array in held.values())
    results = json.loads((tmp_path / "nodes.json").read_text())["results"]
    assert results.keys() <= set(node_ids(read_model(model)).values())
    assert any(each.get("bgColor") for each in results.values())
    check_file(folder.report)
    with pytest.raises(InputError, match="no empty folder"):
        diagnose_run(folder.path, wanted=wanted)


def test_what_cannot_be_written_is_told_in_one_line_before_anything_is_done(tmp_path: Path) -> None:
    model = generated.small_cnn(tmp_path / "small.onnx")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    full = tmp_path / "full"
    done = edgequant("diagnose", str(model), "--device", "local:", "--export-case", str(full), cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert len(done.errors) == 1
    assert "is there already, and is no empty folder" in done.errors[0]
    assert not (tmp_path / "edgequant-runs").exists()
    told = {
        Wanted(overlay=full): "is a folder", Wanted(overlay=model): "never overwritten",
        Wanted(page=full): "is a folder", Wanted(page=model): "needs itself",
        Wanted(overlay=tmp_path / "none" / "nodes.json"): "there is no folder",
    }  # fmt: skip
    for wanted, why in told.items():
        with pytest.raises(InputError, match=why):
            wanted.check(Request(model, devices="local:"))  # type: ignore[arg-type]
    (tmp_path / "m.mnn").write_bytes(b"")
    with pytest.raises(InputError):
        Wanted(overlay=tmp_path / "new").check(Request(tmp_path / "m.mnn", devices="local:"))  # type: ignore[arg-type]


FULL = """
import subprocess, sys
from pathlib import Path
import numpy as np
from edgequant.errors import EdgequantError
from edgequant.jobs.case_folder import write_case
disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], check=True)
model = Path(sys.argv[2])
try:
    write_case(disk / "case", {"part.mnn": model}, {"inputs.npz": {"x": np.zeros(100_000)}}, {})
except EdgequantError as error:
    print(error.code, list(disk.iterdir()))
"""


def test_a_full_disk_leaves_no_half_of_a_case(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "part.mnn").write_bytes(b"mnn")
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    command = [*unshare, sys.executable, "-c", FULL, tmp_path / "disk", tmp_path / "part.mnn"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "DISK_FULL []\n", done.stderr[-2000:]


def test_nodes_without_a_name_are_called_what_model_explorer_calls_them(tmp_path: Path) -> None:
    """By their number, as onnx-ir makes names unique: seen with model-explorer-onnx 0.4.2."""
    names = ("one", "", "one", "", "node_1", "")
    nodes = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"], name=name) for i, name in enumerate(names)]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("t0", "t6")]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", value[:1], value[1:])), tmp_path / "m.onnx")
    found = node_ids(read_model(tmp_path / "m.onnx"))
    assert list(found.values()) == ["one", "node", "one_1", "node_1", "node_1_1", "node_2"]


def softplus(path: Path, factor: float) -> Path:
    nodes = [helper.make_node("Mul", ["x", "k"], ["big"], name="scale"),
             helper.make_node("Softplus", ["big"], ["y"], name="soft")]  # fmt: skip
    k = helper.make_tensor("k", TensorProto.FLOAT, [1], [factor])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [k])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.nightly
def test_an_activation_near_its_limit_is_told(tmp_path: Path) -> None:
    cases = tmp_path / "x.npz"
    np.savez(cases, x=np.linspace(-1, 1, 64, dtype=np.float32)[None])
    for factor, severity in ((60.0, "info"), (20.0, None)):
        request = Request(
            softplus(tmp_path / "m.onnx", factor), devices="local:", variants=("float",), inputs=cases,
            run_dir=tmp_path / f"run-{factor:g}", options=ONE_THREAD, latency=False,
        )  # type: ignore[arg-type]  # fmt: skip
        found = [each for each in diagnose(request).report.findings if each.code == "ACTIVATION_NEAR_LIMIT"]
        assert [each.severity for each in found] == ([severity] if severity else [])
        for each in found:
            assert each.evidence["margin"] == pytest.approx(88 / factor)


@pytest.mark.nightly
def test_a_layer_in_a_loop_is_shown_with_the_whole_model(tmp_path: Path) -> None:
    model = generated.gru(tmp_path / "gru.onnx")
    request = Request(
        model, devices="local:", variants=("dynamic:2",), run_dir=tmp_path / "run", options=ONE_THREAD, latency=False
    )  # type: ignore[arg-type]
    told = diagnose(request, wanted=Wanted(tmp_path / "case", tmp_path / "nodes.json")).report
    assert told.verdict is Verdict.FAIL
    assert told.case is not None
    assert shown(Path(told.case)).returncode == 1


@pytest.mark.nightly
def test_a_layer_that_a_device_computes_otherwise_is_right_here_and_was_wrong_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is this host with a fault planted into its copy of the file."""
    with this_host() as host, this_host() as there:
        cnn = generated_subject("small_cnn", "dynamic:8", tmp_path, host)
        layer = [each for each in read_weights(cnn.made) if each.kept == "quantized"][1]
        other = tmp_path / "other.mnn"
        assert planted(cnn.made, layer, EDITS["scales of a quarter of the channels times 3"][0], other)
        monkeypatch.setattr(there, "push", lambda _path, *_more: (str(other), 0))
        looking = Looking(
            variant="dynamic:8", uri="ssh://board", plain=cnn.plain, made=cnn.made, memory="low", precision="normal",
            stage="device", cases=cnn.cases, expected=lambda _name: {}, limits={}, host=host, work=tmp_path,
            device=there,
        )  # fmt: skip
        capture = looking.capture()
        found = judge_layers(capture, tuple(cnn.floor))
        assert found.blame.layers == (layer.name,)
        script = export_layer(looking, capture, found, ONE_THREAD, tmp_path / "case")
    done = shown(script)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("right ")
    far = next(line for line in lines if line.startswith("ssh://board"))
    assert float(far.split(": ")[1].split(" dB")[0]) < 30
    assert sorted(each.name for each in script.parent.iterdir()) == [
        "README.md", "case.json", "device.npz", "expected.npz", "inputs.npz", "part.mnn", "show_case.py",
    ]  # fmt: skip
