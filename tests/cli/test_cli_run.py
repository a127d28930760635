"""run, as a user runs it: what it saves is what MNN computes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.beds.models import ModelByName
from tests.cli.command import edgequant, re_words
from tests.waiting import LONG

AsMnn = Callable[..., Path]
ONE = ("--threads", "1")

_RUN = """
import json, os, sys
out = os.dup(1); os.dup2(2, 1)
import MNN.expr as F, MNN.nn as nn, numpy as np
path, case, memory, saved = sys.argv[1:]
runtime = nn.create_runtime_manager(({"backend": 0, "numThread": 1, "memory": int(memory), "precision": 0},))
module = nn.load_module_from_file(path, [], [], runtime_manager=runtime)
x = np.load(case)["x"]
y = module.onForward([F.const(x.tobytes(), list(x.shape), F.NCHW, F.float)])[0]
np.save(saved, F.convert(y, F.NCHW).read() if y.data_format == F.NC4HW4 else y.read())
"""


def mnn_itself(model: Path, case: Path, memory: int, tmp_path: Path) -> np.ndarray:
    """What MNN computes without any of edgequant's code."""
    saved = tmp_path / "itself.npy"
    command = [sys.executable, "-c", _RUN, str(model), str(case), str(memory), str(saved)]
    subprocess.run(command, check=True, capture_output=True, timeout=4 * LONG)
    return np.asarray(np.load(saved))


@pytest.mark.parametrize(("flags", "memory"), [((), 0), (("--weightQuantBits", "8"), 2)])
def test_run_saves_what_mnn_computes(
    flags: tuple[str, ...], memory: int, generated_model: ModelByName, as_mnn: AsMnn, case: Path, tmp_path: Path
) -> None:
    model, out = as_mnn(generated_model("conv_cnn"), *flags), tmp_path / "out.npz"
    done = edgequant(
        "run", str(model), "--device", "local:", "--inputs", str(case), "-o", str(out), *ONE, "--json", patient=True
    )  # fmt: skip
    assert done.code == 0, done.err
    with np.load(out) as saved:
        assert saved.files == ["y"]
        np.testing.assert_array_equal(saved["y"], mnn_itself(model, case, memory, tmp_path))
    document = done.json
    assert document["schema"] == "edgequant.run/1"
    assert document["options"]["memory"] == ("low" if memory else "normal")
    assert document["cases"][0]["outputs"]["y"] == {"dtype": "float32", "shape": [1, 10], "nonfinite": 0}
    assert document["latency_ms"]["n"] >= 20
    # Where something else begins to run beside it, the machine is not at rest, and that is said.
    why = document["latency_ms"]["why_invalid"]
    assert document["latency_ms"]["valid"] is (not why)
    assert not [each for each in why if not each.startswith("the second half took")]


def test_run_without_timing(generated_model: ModelByName, as_mnn: AsMnn, case: Path, tmp_path: Path) -> None:
    model, out = as_mnn(generated_model("conv_cnn")), tmp_path / "out.npz"
    here = ("--device", "local:", "--inputs", str(case), "-o", str(out), *ONE)
    done = edgequant("run", str(model), *here, "--no-latency", "--json")
    assert done.code == 0, done.err
    assert done.json["latency_ms"] is None
    assert "latency" not in done.err
    assert out.exists()
    timed = edgequant("run", str(model), *here)
    assert timed.code == 0, timed.err
    assert "model load" in timed.out


def test_run_with_many_cases_fills_a_folder(
    generated_model: ModelByName, as_mnn: AsMnn, case: Path, tmp_path: Path
) -> None:
    model, folder = as_mnn(generated_model("conv_cnn")), tmp_path / "inputs"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.npz").write_bytes(case.read_bytes())
    out = tmp_path / "outputs"
    done = edgequant("run", str(model), "--device", "local:", "--inputs", str(folder), "-o", str(out), *ONE)
    assert done.code == 0, done.err
    assert sorted(file.name for file in out.iterdir()) == ["a.npz", "b.npz"]
    assert "case a" in done.out
    assert "latency of 'b'" in done.out


@pytest.mark.parametrize("output", ["m.mnn", "cases", "cases/a.npz"])
def test_run_writes_over_nothing_it_was_given(
    generated_model: ModelByName, as_mnn: AsMnn, case: Path, tmp_path: Path, output: str
) -> None:
    model, cases = tmp_path / "m.mnn", tmp_path / "cases"
    model.write_bytes(as_mnn(generated_model("conv_cnn")).read_bytes())
    cases.mkdir()
    case.rename(cases / "a.npz")
    before = model.read_bytes(), (cases / "a.npz").read_bytes()
    done = edgequant("run", "m.mnn", "--device", "local:", "--inputs", "cases", "-o", output, *ONE, cwd=tmp_path)
    assert done.code == 2
    assert "OUTPUT_INVALID" in done.err
    assert (model.read_bytes(), (cases / "a.npz").read_bytes()) == before
    assert [file.name for file in cases.iterdir()] == ["a.npz"]


def test_what_a_device_calls_itself_does_not_reach_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    from edgequant.archive.types import Capture
    from edgequant.cli import run as command
    from edgequant.cli.options import Ui
    from edgequant.jobs.run import RunOnce
    from edgequant.runner.answers import Facts, Hello

    evil = "3.5\x1b]0;x\x07\x9b2J\u202e\ud800"
    hello = Hello.model_construct(mnn=evil)
    facts = Facts.model_construct(arch=evil)
    found = RunOnce(hello, facts, 1, [], {}, Capture(trial="run", role="device", memory_mode="low"), None, None)
    monkeypatch.setattr(command, "run_request", lambda *_, **__: found)
    command.run("m.mnn", "local:", {}, output=None, ui=Ui(json=True))
    shown = capfdbinary.readouterr()
    assert json.loads(shown.out)["device"]["mnn"] == evil.replace("\ud800", "\\ud800")
    for text in (shown.out, shown.err):
        assert all(32 <= byte < 127 or byte == 10 for byte in text)
    assert b"MNN 3.5\\x1b]0;x" in shown.err


def test_run_without_inputs(generated_model: ModelByName, as_mnn: AsMnn, tmp_path: Path) -> None:
    done = edgequant("run", str(as_mnn(generated_model("argmax_ints"))), "--device", "local:", *ONE, cwd=tmp_path)
    assert done.code == 0, done.err
    assert re_words("scores float32 1x64", done.out)
    assert re_words("best int32 1", done.out)
    assert not list(tmp_path.iterdir())


def test_run_on_cores_that_are_not_there(generated_model: ModelByName, as_mnn: AsMnn, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    done = edgequant(
        "run",
        str(as_mnn(generated_model("conv_cnn"))),
        "--device",
        "local:",
        "--cores",
        "4000",
        "-o",
        str(out),
        "--json",
    )
    assert done.code == 3
    assert done.json["error"]["code"] == "CORES_UNAVAILABLE"
    assert done.json["error"]["hint"]
    assert not out.exists()
