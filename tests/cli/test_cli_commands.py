"""quantize, run, inspect, report, devices and demo, as a user runs them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.beds.models import ModelByName
from tests.beds.sshd import ALIAS, SshServer
from tests.cli.command import EDGEQUANT, edgequant
from tests.pipeline.support import ssh_home
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


@pytest.fixture
def case(tmp_path: Path) -> Path:
    path = tmp_path / "case.npz"
    np.savez(path, x=np.random.default_rng(7).standard_normal((1, 3, 32, 32)).astype(np.float32))
    return path


def mnn_itself(model: Path, case: Path, memory: int, tmp_path: Path) -> np.ndarray:
    """What MNN computes without any of edgequant's code."""
    saved = tmp_path / "itself.npy"
    command = [sys.executable, "-c", _RUN, str(model), str(case), str(memory), str(saved)]
    subprocess.run(command, check=True, capture_output=True, timeout=4 * LONG)
    return np.asarray(np.load(saved))


# --- quantize ---


def test_quantize(generated_model: ModelByName, case: Path, tmp_path: Path) -> None:
    model, out = generated_model("conv_cnn"), tmp_path / "out.mnn"
    out.write_bytes(b"what was there before")
    done = edgequant(
        "quantize", str(model), "-o", str(out), *ONE, "--json", "--run-dir", str(tmp_path / "run")
    )  # fmt: skip
    assert done.code == 0, done.err
    (run,) = done.json["runs"]
    assert run["variant"] == "dynamic:8"
    assert run["low_memory_engaged"] is True
    assert out.read_bytes() == (tmp_path / "run" / "models" / run["file"]).read_bytes()
    assert f"{out}: " in done.err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["case.npz", "out.mnn", "run"]
    # And it is what `run` takes.
    again = edgequant("run", str(out), "--device", "local:", "--inputs", str(case), *ONE, "--json")
    assert again.code == 0
    assert again.json["options"]["memory"] == "low"


def test_quantize_that_breaks_a_limit_is_written_and_exits_with_1(generated_model: ModelByName, tmp_path: Path) -> None:
    out, table = tmp_path / "out.mnn", tmp_path / "table.csv"
    arguments = ("--variant", "weight:2", "--limit", "sqnr_db>=60", *ONE, "--run-dir", str(tmp_path / "run"))
    done = edgequant("quantize", str(generated_model("argmax_ints")), "-o", str(out), *arguments, "--csv", str(table))
    assert done.code == 1
    assert "FAIL" in done.out
    assert out.is_file()
    # The same table that the report's folder gives.
    again = edgequant("report", str(tmp_path / "run"), "--csv", str(tmp_path / "again.csv"))
    assert again.code == 1
    assert "weight:2" in table.read_text()
    assert table.read_text() == (tmp_path / "again.csv").read_text()
    report = tmp_path / "run" / "report.json"
    before = report.read_bytes()
    onto = edgequant("report", str(tmp_path / "run"), "--csv", str(report))
    assert onto.code == 2
    assert "OUTPUT_INVALID" in onto.err
    assert report.read_bytes() == before


def test_quantize_keeps_a_file_that_is_there_when_the_new_one_fails(
    generated_model: ModelByName, tmp_path: Path
) -> None:
    out = tmp_path / "out.mnn"
    out.write_bytes(b"good one")
    arguments = ("--variant", "weight:2", "--limit", "sqnr_db>=60", *ONE, "--run-dir", str(tmp_path / "run"))
    done = edgequant("quantize", str(generated_model("argmax_ints")), "-o", str(out), *arguments)
    assert done.code == 1
    assert out.read_bytes() == b"good one"
    assert f"{out} was kept as it was" in done.out
    (new,) = (tmp_path / "run" / "models").glob("weight*.mnn")
    assert str(new) in done.out


def test_quantize_writes_nothing_that_computes_something_else(generated_model: ModelByName, tmp_path: Path) -> None:
    out = tmp_path / "out.mnn"
    out.write_bytes(b"what was there before")
    model = generated_model("leading_length")
    done = edgequant("quantize", str(model), "-o", str(out), *ONE, "--run-dir", str(tmp_path / "run"))
    assert done.code == 1
    assert "was not written" in done.out
    assert out.read_bytes() == b"what was there before"


def test_quantize_where_the_converter_crashes(generated_model: ModelByName, tmp_path: Path) -> None:
    out = tmp_path / "out.mnn"
    model = generated_model("lstm_two_outputs")
    done = edgequant("quantize", str(model), "-o", str(out), *ONE, "--json", "--run-dir", str(tmp_path / "run"))
    assert done.code == 3
    error = done.json["error"]
    assert error["code"] == "CONVERTER_CRASHED"
    assert f"  log: {error['evidence']['log']}" in done.err.splitlines()
    assert Path(error["evidence"]["log"]).is_file()
    assert not out.exists()


# --- run ---


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
    assert document["latency_ms"]["valid"] is True


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
    from edgequant.cli import run as command
    from edgequant.cli.options import Ui
    from edgequant.pipeline.single import RunOnce
    from edgequant.pipeline.target import TargetOptions
    from edgequant.runner.answers import Facts, Hello, MemoryKb
    from edgequant.spec import RunOptions

    evil = "3.5\x1b]0;x\x07\x9b2J\u202e\ud800"
    hello = Hello.model_construct(mnn=evil)
    facts = Facts.model_construct(arch=evil)
    found = RunOnce(hello, facts, "low", 1, [], {}, {}, 1.0, MemoryKb(), MemoryKb(), MemoryKb())
    monkeypatch.setattr(command, "run_once", lambda *_, **__: found)
    command.run(
        model="m.mnn", device="local:", output=None, inputs=None, shapes=None, run_options=RunOptions(),
        target=TargetOptions(), ui=Ui(True, False, False), images=None,
    )  # fmt: skip
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


def re_words(words: str, text: str) -> bool:
    return any(words in " ".join(line.split()) for line in text.splitlines())


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


# --- inspect and report ---


def test_inspect(real_model: ModelByName) -> None:
    done = edgequant("inspect", str(real_model("enc")), "--json")
    assert done.code == 0
    document = done.json
    assert document["schema"] == "edgequant.inspect/1"
    assert [entry["name"] for entry in document["inputs"]] == ["feat_erb", "feat_spec"]
    assert document["inputs"][0]["shape"] == [1, 1, None, 32]
    assert document["inputs"][0]["dims"][2] == "S"
    assert document["recurrent"] == ["/emb_gru/GRU"]
    assert document["recommended"] == document["advice"][0]["variant"] == "dynamic:8"
    assert [each["order"] for each in document["advice"]] == list(range(1, len(document["advice"]) + 1))
    assert document["ranges"] is None
    assert {"RECURRENT_LAYER", "NONLINEARITY_AFTER_RECURRENT"} <= {f["code"] for f in document["findings"]}
    text = edgequant("inspect", str(real_model("enc"))).out
    assert re_words("feat_erb float32 [1, 1, S, 32]", text)
    assert "Worth trying, in this order 1. --variant dynamic:8 " in " ".join(text.split())
    assert "--shape feat_erb=1,1,A,32" in " ".join(text.split())


def test_inspect_with_inputs(real_model: ModelByName, tmp_path: Path) -> None:
    """One sample of five is thirty times as loud: told, with the model run; and not where all are alike."""
    draw = np.random.default_rng(0)
    for loud in (1, 30):
        folder = tmp_path / f"loud-{loud}"
        folder.mkdir()
        for number in range(5):
            size = loud if number == 3 else 1
            arrays = {
                "feat_erb": size * draw.standard_normal((1, 1, 8 + number, 32)),
                "feat_spec": size * draw.standard_normal((1, 2, 8 + number, 96)),
            }
            np.savez(folder / f"{number}.npz", **{name: array.astype("f4") for name, array in arrays.items()})
        done = edgequant("inspect", str(real_model("enc")), "--inputs", str(folder), "--json", TMPDIR=str(tmp_path))
        assert done.code == 0, done.err
        document = done.json
        assert document["ranges"]["samples"] == 5
        assert document["ranges"]["tensors"] > 10
        found = {finding["code"]: finding for finding in document["findings"]}
        assert document["ranges"]["varies"] == ("ACTIVATION_RANGE_VARIES" in found) == (loud == 30)
    assert found["ACTIVATION_RANGE_VARIES"]["evidence"]["tensors"][0]["ratio"] > 8
    two = tmp_path / "two"
    two.mkdir()
    for number in range(2):
        (two / f"{number}.npz").write_bytes((tmp_path / "loud-1" / f"{number}.npz").read_bytes())
    done = edgequant("inspect", str(real_model("enc")), "--inputs", str(two), TMPDIR=str(tmp_path))
    assert "over 2 samples: too few to tell" in done.out
    assert not list(tmp_path.glob("edgequant-inspect-*"))


def test_inspect_with_inputs_that_do_not_fit(real_model: ModelByName, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", feat_erb=np.zeros((1, 1, 8, 32), "f4"))
    done = edgequant("inspect", str(real_model("enc")), "--inputs", str(tmp_path / "a.npz"), TMPDIR=str(tmp_path))
    assert done.code == 2
    assert "INPUT_MISSING" in done.err or "feat_spec" in done.err
    assert not list(tmp_path.glob("edgequant-inspect-*"))


def test_report_of_a_folder_and_of_a_file(generated_model: ModelByName, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    first = edgequant(
        "verify", str(generated_model("argmax_ints")), "--device", "local:", *ONE, "--limit", "scores:sqnr_db>=150",
        "--run-dir", str(run_dir),
    )  # fmt: skip
    again, file = edgequant("report", str(run_dir)), edgequant("report", str(run_dir / "report.json"))
    assert first.code == again.code == file.code == 1
    assert again.out == first.out == file.out
    (run_dir / "report.json").write_text((run_dir / "report.json").read_text()[:-20])
    broken = edgequant("report", str(run_dir), "--json")
    assert broken.code == 2
    assert broken.json["error"]["code"] == "REPORT_INVALID"
    document = {"schema": "edgequant.report/1", "verdict": "PASS", "runs": []}
    (run_dir / "report.json").write_text(json.dumps(document))
    assert edgequant("report", str(run_dir)).code == 2


# --- devices ---


def test_list(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host board other*\n  HostName 192.0.2.7\n  User pi\n")
    # No adb server of this machine is asked, or started.
    environment = {"HOME": str(tmp_path), "ADB_SERVER_SOCKET": f"localfilesystem:{tmp_path}/none/socket"}
    done = edgequant("devices", "list", "--json", **environment)
    assert done.code == 0
    uris = [entry["uri"] for entry in done.json["devices"]]
    assert (uris[:2], uris[-1]) == (["local:", "ssh://board"], "emulated:cortex-a76")
    assert "pi@192.0.2.7" in done.json["devices"][1]["what"]
    assert edgequant("devices", "list", **environment).out.startswith("device")


def test_probe_doctor_and_clean_of_this_host(tmp_path: Path) -> None:
    work = ("--work-dir", str(tmp_path / "work"))
    probe = edgequant("devices", "probe", "local:", *work, "--json")
    assert probe.code == 0
    assert probe.json["arch"] == os.uname().machine
    assert probe.json["mnn"]
    assert probe.json["cores"] >= 1
    assert probe.json["work_dir"] == str(tmp_path / "work")
    assert probe.json["error"] is None
    for key in ("thermal", "battery", "soc", "android"):
        assert (probe.json[key] is None) == (key in probe.json["why_null"]), key
    shown = edgequant("devices", "probe", "local:", *work).out
    assert "not known: there is no getprop" not in shown  # a host is no phone, and nobody has to be told
    for line in ("CPU", "  clusters", "  kernels", "  free there"):
        assert f"\n{line}" in shown
    doctor = edgequant("devices", "doctor", "local:", *work, "--json")
    assert doctor.code == 0
    assert doctor.json["usable"] is True
    assert [check["name"] for check in doctor.json["checks"]][:3] == ["connection", "architecture", "work directory"]
    assert "local: can be used" in doctor.err
    clean = edgequant("devices", "clean", "local:", *work, "--json")
    assert clean.code == 0
    assert clean.json["freed_bytes"] > 10_000
    assert not (tmp_path / "work").exists()


def test_doctor_of_a_host_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"ssh://127.0.0.1:{taken.getsockname()[1]}"
        done = edgequant("devices", "doctor", uri, "--json", HOME=str(tmp_path))
        probe = edgequant("devices", "probe", uri, "--json", HOME=str(tmp_path))
    assert done.code == 3
    checks = {check["name"]: check for check in done.json["checks"]}
    assert checks["connection"]["status"] == "fail"
    assert checks["connection"]["fix"]
    assert checks["runtime"]["status"] == checks["work directory"]["status"] == "skipped"
    assert f"{uri} cannot be used" in done.err
    assert probe.code == 3
    assert probe.json["error"]["code"] == "HOST_UNREACHABLE"
    assert probe.json["error"]["hint"]


def test_probe_where_no_runner_can_be_started(tmp_path: Path) -> None:
    arguments = ("devices", "probe", "local:", "--work-dir", str(tmp_path / "work"), "--python", "/no/python")
    done = edgequant(*arguments, "--json")
    assert done.code == 3
    assert done.json["arch"] == os.uname().machine
    assert done.json["mnn"] is None
    assert done.json["why_null"]["mnn"] == "MNN could not be asked: PYTHON_MISSING"
    assert done.json["error"]["code"] == "PYTHON_MISSING"
    shown = edgequant(*arguments)
    assert shown.code == 3
    assert os.uname().machine in shown.out
    assert "PYTHON_MISSING" in shown.err


@pytest.mark.slow
@pytest.mark.ssh
def test_devices_over_ssh(sshd: SshServer, tmp_path: Path) -> None:
    environment = ssh_home(sshd, tmp_path)
    work = ("--work-dir", str(tmp_path / "work"))
    python = ("--python", sys.executable)
    probe = edgequant("devices", "probe", f"ssh://{ALIAS}", *work, *python, "--json", **environment)
    assert probe.code == 0, probe.err
    assert probe.json["arch"] == os.uname().machine
    doctor = edgequant("devices", "doctor", f"ssh://{ALIAS}", *work, *python, **environment)
    assert doctor.code == 0
    assert f"ssh://{ALIAS} can be used" in doctor.out
    missing = edgequant("devices", "doctor", f"ssh://{ALIAS}", *work, "--python", "/no/python", **environment)
    assert missing.code == 3
    assert "PYTHON_MISSING" in missing.out
    assert "-> " in missing.out
    clean = edgequant("devices", "clean", f"ssh://{ALIAS}", *work, **environment)
    assert clean.code == 0
    assert not (tmp_path / "work").exists()


@pytest.mark.ssh
def test_accepting_a_host_key_from_the_command_line(sshd: SshServer, tmp_path: Path) -> None:
    known = tmp_path / "known"
    config = sshd.config.read_text().replace(str(sshd.known_hosts), str(known))
    environment = ssh_home(sshd, tmp_path, config=config)
    arguments = ("devices", "clean", f"ssh://{ALIAS}", "--work-dir", str(tmp_path / "work"))
    refused = edgequant(*arguments, **environment)
    assert refused.code == 3
    assert "HOST_KEY_UNKNOWN" in refused.err
    assert "--accept-new-host-key" in refused.err
    assert not known.exists()
    assert edgequant(*arguments, "--accept-new-host-key", **environment).code == 0
    assert known.exists()
    assert edgequant(*arguments, **environment).code == 0


# --- demo and completion ---


def test_demo(real_model: ModelByName, tmp_path: Path) -> None:
    real_model("enc")  # so that nothing has to be fetched
    done = edgequant("demo", "--json", "--run-dir", str(tmp_path / "run"))
    assert done.code == 0, done.err
    assert [run["variant"] for run in done.json["runs"]] == ["dynamic:8", "dynamic:8,hqq"]
    assert "edgequant verify MODEL" in done.err


def test_demo_on_a_device_that_is_not_there(real_model: ModelByName, tmp_path: Path) -> None:
    real_model("enc")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"ssh://127.0.0.1:{taken.getsockname()[1]}"
        done = edgequant("demo", "--device", uri, "--json", "--run-dir", str(tmp_path / "run"))
    assert done.code == 3
    assert {run["error"]["code"] for run in done.json["runs"]} == {"HOST_UNREACHABLE"}


def test_completion_is_installed_and_completes(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "SHELL": "/bin/bash"}
    done = edgequant("--install-completion", "bash", **home)
    if done.code == 2:
        done = edgequant("--install-completion", **home)
    assert done.code == 0, done
    scripts = [file for file in tmp_path.rglob("*") if file.is_file() and "edgequant" in file.read_text()]
    assert scripts
    words = {"COMP_WORDS": "edgequant ver", "COMP_CWORD": "1", "_EDGEQUANT_COMPLETE": "complete_bash"}
    asked = subprocess.run([EDGEQUANT], env={**os.environ, **words}, capture_output=True, text=True, timeout=4 * LONG)
    assert "verify" in asked.stdout
