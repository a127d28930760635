"""Mistakes on the command line: exit code 2, one clear line, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.beds.models import ModelByName
from tests.cli.command import EDGEQUANT, edgequant
from tests.generated import external_data
from tests.waiting import LONG

L = ("--device", "local:")
M = "model.onnx"

# name: arguments, code, what the line says.  M is conv_cnn: x [1,3,32,32] -> y [1,10].
MISTAKES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "no such file": (("verify", "nope.onnx", *L), "MODEL_NOT_FOUND", "nope.onnx"),
    "no such run to diagnose": (
        ("diagnose", "nope"),
        "MODEL_NOT_FOUND",
        "neither a model file nor the folder of a run",
    ),
    "--feedback twice": (
        ("diagnose", M, *L, "--feedback", "y=h", "--feedback", "hN=h"),
        "FEEDBACK_INVALID",
        "is fed by y and by hN",
    ),
    "no folder of --model-explorer": (
        ("diagnose", M, *L, "--model-explorer", "none/n.json"),
        "OUTPUT_INVALID",
        "there is no folder none",
    ),
    "a folder": (("verify", "folder", *L), "MODEL_IS_DIRECTORY", "folder"),
    "empty": (("verify", "empty.onnx", *L), "MODEL_EMPTY", "empty.onnx"),
    "cut short": (("verify", "cut.onnx", *L), "MODEL_TRUNCATED", "cut short"),
    "not a model": (("verify", "text.onnx", *L), "MODEL_INVALID", "not an ONNX model"),
    "another format": (("verify", "onnx.tflite", *L), "MODEL_WRONG_FORMAT", "its name says a TensorFlow Lite model"),
    "unknown kind": (("verify", "text", *L), "MODEL_FORMAT_UNKNOWN", "text"),
    "input of --shape": (("verify", M, *L, "--shape", "z=1,2"), "INPUT_UNKNOWN", "no input 'z'"),
    "shape of --shape": (("verify", M, *L, "--shape", "x=1,3,32"), "INPUT_SHAPE", "[1, 3, 32, 32]"),
    "bad --shape": (("verify", M, *L, "--shape", "x=1,0"), "SHAPE_INVALID", "x=1,0"),
    "--shape twice": (("verify", M, *L, "--shape", "x=1", "--shape", "x=2"), "SHAPE_INVALID", "twice"),
    "no inputs": (("verify", M, *L, "--inputs", "nope.npz"), "INPUTS_NOT_FOUND", "nope.npz"),
    "input of a file": (("verify", M, *L, "--inputs", "name.npz"), "INPUT_UNKNOWN", "no input 'z'"),
    "shape of a file": (("verify", M, *L, "--inputs", "shape.npz"), "INPUT_SHAPE", "[1, 3, 8, 8]"),
    "dtype of a file": (("verify", M, *L, "--inputs", "dtype.npz"), "INPUT_DTYPE", "int64"),
    "broken .npz": (("verify", M, *L, "--inputs", "broken.npz"), "INPUT_FILE_INVALID", "broken.npz"),
    "empty folder": (("verify", M, *L, "--inputs", "folder"), "INPUTS_EMPTY", "folder"),
    "no reference": (("verify", M, *L, "--reference", "nope.npz"), "REFERENCE_NOT_FOUND", "nope.npz"),
    "device scheme": (("verify", M, "--device", "usb:1"), "DEVICE_SCHEME_UNKNOWN", "usb"),
    "local: with more": (("verify", M, "--device", "local:1"), "DEVICE_URI_INVALID", "local:1"),
    "ssh without host": (("verify", M, "--device", "ssh://"), "DEVICE_URI_INVALID", "host"),
    "variant": (("verify", M, *L, "--variant", "int8"), "VARIANT_INVALID", "int8"),
    "impossible variant": (("verify", M, *L, "--variant", "dynamic:9"), "VARIANT_INVALID", "dynamic:9"),
    "variant without bits": (("verify", M, *L, "--variant", "dynamic"), "VARIANT_INVALID", "needs its bits"),
    "contradiction": (("verify", M, *L, "--variant", "dynamic:8,hqq,sym"), "VARIANT_INVALID", "hqq"),
    "block": (("verify", M, *L, "--variant", "weight:4,block=17"), "VARIANT_INVALID", "16"),
    "limit names no output": (("verify", M, *L, "--limit", "z:cosine>=0.9"), "LIMIT_UNKNOWN_OUTPUT", "no output 'z'"),
    "limit upside down": (("verify", M, *L, "--limit", "cosine<=0.9"), "LIMIT_INVALID", "bounded with >="),
    "limit on nothing": (("verify", M, *L, "--limit", "mismatch<=0.9"), "LIMIT_UNDEFINED", "mismatch"),
    "limit of what": (("verify", M, *L, "--limit", "snr>=20"), "LIMIT_INVALID", "unknown metric 'snr'"),
    "decides of no output": (("verify", M, *L, "--decides", "z=set"), "DECIDES_UNKNOWN_OUTPUT", "no output 'z'"),
    "decides what it cannot": (("verify", M, *L, "--decides", "y=classes"), "DECIDES_WRONG_KIND", "whole numbers"),
    "decides nothing": (("verify", M, *L, "--decides", "y"), "DECIDES_INVALID", "OUTPUT=KIND"),
    "decides something else": (("verify", M, *L, "--decides", "y=logits"), "DECIDES_INVALID", "'logits' is nothing"),
    "decides two things": (
        ("verify", M, *L, "--decides", "y=set", "--decides", "y=scores"),
        "DECIDES_INVALID",
        "twice",
    ),
    "no limit": (("verify", M, *L, "--limit", "cosine"), "LIMIT_INVALID", "METRIC>=X"),
    "limit nan": (("verify", M, *L, "--limit", "cosine>=nan"), "LIMIT_INVALID", "finite"),
    "threads 0": (("verify", M, *L, "--threads", "0"), "OPTION_INVALID", "--threads: must be greater"),
    "threads a": (("verify", M, *L, "--threads", "a"), "USAGE", "--threads"),
    "cores backwards": (("verify", M, *L, "--cores", "4-2"), "CORES_INVALID", "backwards"),
    "cores of letters": (("verify", M, *L, "--cores", "a"), "CORES_INVALID", "'a' is not a core"),
    "a core twice": (("verify", M, *L, "--cores", "1,1"), "OPTION_INVALID", "twice"),
    "timeout 0": (("verify", M, *L, "--timeout", "0"), "OPTION_INVALID", "--timeout"),
    "seed -1": (("verify", M, *L, "--seed", "-1"), "OPTION_INVALID", "--seed"),
    "dynamic-quant-option 3": (("verify", M, *L, "--dynamic-quant-option", "3"), "OPTION_INVALID", "0, 1 or 2"),
    "memory": (("verify", M, *L, "--memory", "tiny"), "USAGE", "--memory"),
    "run dir in use": (("verify", M, *L, "--run-dir", "full"), "RUN_DIR_UNUSABLE", "not empty"),
    "run dir is a file": (("verify", M, *L, "--run-dir", "text"), "RUN_DIR_UNUSABLE", "text"),
    "no model": (("verify", *L), "USAGE", "MODEL"),
    "no such option": (("verify", M, *L, "--frobnicate"), "USAGE", "--frobnicate"),
    "no such command": (("frobnicate",), "USAGE", "frobnicate"),
    "quantize without -o": (("quantize", M), "USAGE", "--output"),
    "quantize into a folder": (("quantize", M, "-o", "folder"), "OUTPUT_INVALID", "is a folder"),
    "quantize into nowhere": (("quantize", M, "-o", "no/x.mnn"), "OUTPUT_INVALID", "there is no folder no"),
    "quantize onto itself": (("quantize", M, "-o", "link.onnx"), "OUTPUT_INVALID", "never overwritten"),
    "a table onto the model": (("verify", M, *L, "--csv", M), "OUTPUT_INVALID", "--csv"),
    "a table onto the output": (("quantize", M, "-o", "q.mnn", "--csv", "q.mnn"), "OUTPUT_INVALID", "--csv"),
    "a table onto a case": (("verify", M, *L, "--inputs", "cases", "--csv", "cases/a.npz"), "OUTPUT_INVALID", "--csv"),
    "a table onto references": (
        ("verify", M, *L, "--reference", "cases", "--csv", "cases/a.npz"),
        "OUTPUT_INVALID",
        "--csv",
    ),
    "a table onto a sample": (
        ("verify", M, *L, "--variant", "static:8", "--calibration", "cases/a.npz", "--csv", "cases/a.npz"),
        "OUTPUT_INVALID",
        "--csv",
    ),
    "a table onto the function": (
        ("verify", M, *L, "--variant", "static:8", "--calibration", "samples.py:lines", "--csv", "samples.py"),
        "OUTPUT_INVALID",
        "--csv",
    ),
    "a table onto the recipe": (
        ("quantize", M, "-o", "q.mnn", "--variant", "recipe:text", "--csv", "text"),
        "OUTPUT_INVALID",
        "--csv",
    ),
    "a table onto the spec": (("verify", M, "--spec", "spec.yaml", "--csv", "spec.yaml"), "OUTPUT_INVALID", "--csv"),
    "a table onto weights": (("verify", "outside.onnx", *L, "--csv", "weights.bin"), "OUTPUT_INVALID", "--csv"),
    "a table onto the report": (
        ("verify", M, *L, "--run-dir", "new", "--csv", "new/report.json"),
        "OUTPUT_INVALID",
        "--csv",
    ),
    "a table onto a folder": (("verify", M, *L, "--csv", "folder"), "OUTPUT_INVALID", "is a folder"),
    "a table into nowhere": (("verify", M, *L, "--csv", "no/x.csv"), "OUTPUT_INVALID", "there is no folder no"),
    "a table of quantize into nowhere": (
        ("quantize", M, "-o", "q.mnn", "--csv", "no/x.csv"),
        "OUTPUT_INVALID",
        "there is no folder no",
    ),
    "a table of a report into nowhere": (("report", "run", "--csv", "no/x.csv"), "OUTPUT_INVALID", "no folder no"),
    "a table of a report onto itself": (("report", "text", "--csv", "text"), "OUTPUT_INVALID", "--csv"),
    "a page onto the model": (("verify", M, *L, "--html", M), "OUTPUT_INVALID", "--html"),
    "a page onto the table": (("verify", M, *L, "--csv", "x.txt", "--html", "x.txt"), "OUTPUT_INVALID", "--html"),
    "a page onto the plan": (
        ("verify", M, *L, "--run-dir", "new", "--html", "new/plan.json"),
        "OUTPUT_INVALID",
        "--html names has to end in .html",
    ),
    "a page of a report into nowhere": (("report", "run", "--html", "no/x.html"), "OUTPUT_INVALID", "no folder no"),
    "quantize two ways": (
        ("quantize", M, "-o", "q.mnn", "--variant", "dynamic:8", "--variant", "fp16"),
        "USAGE",
        "--variant is given 2 times",
    ),
    "run what is no .mnn": (("run", M, *L), "MODEL_WRONG_FORMAT", "run takes an MNN model"),
    "inspect nothing": (("inspect", "nope.onnx"), "MODEL_NOT_FOUND", "nope.onnx"),
    "report of nothing": (("report", "folder"), "REPORT_", "folder"),
    "report of nowhere": (("report", "nowhere"), "REPORT_INVALID", "no such folder or file"),
    "diagnose an acceptance": (("diagnose", "accepted"), "RUN_INVALID", "the folder of an acceptance"),
    "resume an acceptance": (("verify", "--resume", "accepted"), "RUN_INVALID", "the folder of an acceptance"),
    "report of what": (("report",), "OPTION_INVALID", "which run?"),
    "probe what": (("devices", "probe", "usb:"), "DEVICE_SCHEME_UNKNOWN", "usb"),
    "doctor what": (("devices", "doctor", "usb:"), "DEVICE_SCHEME_UNKNOWN", "usb"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, generated_model: ModelByName) -> Path:
    folder = tmp_path_factory.mktemp("mistakes")
    data = generated_model("conv_cnn").read_bytes()
    (folder / M).write_bytes(data)
    (folder / "link.onnx").symlink_to(M)
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "cut.onnx").write_bytes(data[: len(data) // 2])
    (folder / "text.onnx").write_text("hello world\n")
    (folder / "text").write_text("just words\n")
    (folder / "onnx.tflite").write_bytes(data)
    (folder / "folder").mkdir()
    (folder / "full").mkdir()
    (folder / "accepted").mkdir()
    (folder / "accepted" / "accept.json").write_text("{}")
    (folder / "full" / "notes.txt").write_text("mine")
    (folder / "cases").mkdir()
    np.savez(folder / "cases" / "a.npz", x=np.zeros((1, 3, 32, 32), np.float32))
    (folder / "spec.yaml").write_text("devices: ['local:']\n")
    (folder / "samples.py").write_text("def lines():\n    return []\n")
    external_data(folder / "outside.onnx")
    np.savez(folder / "name.npz", z=np.zeros((1, 3, 32, 32), np.float32))
    np.savez(folder / "shape.npz", x=np.zeros((1, 3, 8, 8), np.float32))
    np.savez(folder / "dtype.npz", x=np.zeros((1, 3, 32, 32), np.int64))
    (folder / "broken.npz").write_bytes((folder / "shape.npz").read_bytes()[:200])
    return folder


def files(folder: Path) -> dict[str, bytes | None]:
    return {str(file): file.read_bytes() if file.is_file() else None for file in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake(mistake: str, place: Path) -> None:
    arguments, code, says = MISTAKES[mistake]
    before = files(place)
    done = edgequant(*arguments, "--json", cwd=place)
    assert done.code == 2, done
    assert len(done.errors) == 1, done.err
    assert done.errors[0].startswith(f"edgequant: {code}")
    assert says in done.errors[0]
    document = done.json
    assert document["schema"] == "edgequant.error/1"
    assert document["verdict"] is None  # nothing was judged; ERROR goes with 3
    assert document["error"]["code"].startswith(code)
    assert document["error"]["message"] in done.errors[0]
    after = done.err.splitlines()[done.err.splitlines().index(done.errors[0]) + 1 :]
    assert after == ([f"  {document['error']['hint']}"] if document["error"]["hint"] else [])
    assert files(place) == before


def test_a_name_that_is_not_utf8(place: Path, tmp_path: Path) -> None:
    """MNN and ONNX Runtime cannot open it, and would say so of the model."""
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.onnx")
    shutil.copy(place / M, odd)
    for arguments in ((odd, *L), (str(place / M), *L, "--run-dir", f"{odd}.run")):
        done = edgequant("verify", *arguments, "--no-latency", "--json", cwd=tmp_path)
        assert (done.code, done.json["error"]["code"]) == (2, "PATH_UNUSABLE"), done
        assert "not UTF-8" in done.errors[0]
    assert [os.fspath(path) for path in tmp_path.iterdir()] == [odd]
    folder = tmp_path / os.fsdecode(b"\xfe")
    folder.mkdir()
    np.savez(folder / "x.npz", x=np.zeros((1, 3, 32, 32), np.float32))
    samples = ("--variant", "static:8", "--calibration", str(folder / "x.npz"))
    places: list[tuple[tuple[str, ...], dict[str, str]]] = [(samples, {}), ((), {"XDG_CACHE_HOME": str(folder)})]
    for arguments, environment in places:
        done = edgequant("verify", str(place / M), *L, *arguments, "--no-latency", cwd=tmp_path, **environment)
        assert (done.code, "not UTF-8" in done.errors[0]) == (3 if environment else 2, True), done


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        ("report of nowhere", "Give the folder that --run-dir named"),
        ("diagnose an acceptance", "edgequant accept --resume"),
        ("no inputs", "numpy.savez"),
        ("quantize into nowhere", "mkdir -p no"),
        ("a table into nowhere", "mkdir -p no"),
    ],
)
def test_a_mistake_has_a_way_out(mistake: str, says: str, place: Path) -> None:
    assert says in edgequant(*MISTAKES[mistake][0], "--json", cwd=place).json["error"]["hint"]


def test_a_table_into_a_folder_that_is_sealed(place: Path, tmp_path: Path) -> None:
    """Said before anything is converted, not after."""
    folder, run_dir = tmp_path / "sealed", tmp_path / "run"
    folder.mkdir()
    # For root, permissions do not count; a read-only mount does.
    root = os.geteuid() == 0
    mount = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o ro none "$0" && exec "$@"', folder] if root else []
    folder.chmod(0o555)
    command = [EDGEQUANT, "verify", M, *L, "--csv", folder / "x.csv", "--run-dir", run_dir]
    done = subprocess.run([*mount, *command], cwd=place, capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 2, done.stderr
    assert f"edgequant: OUTPUT_INVALID: {folder / 'x.csv'}: you may not write into the folder" in done.stderr
    assert not run_dir.exists()


def test_a_table_into_the_run_directory_that_is_to_be_made(place: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    where = ("--run-dir", str(run_dir), "--csv", str(run_dir / "table.csv"))
    done = edgequant("verify", M, *L, "--variant", "float", "--no-latency", *where, cwd=place)
    assert done.code == 0, done
    assert (run_dir / "table.csv").read_text().count("\n") == 2


def test_without_json_stdout_is_empty(place: Path) -> None:
    done = edgequant("verify", "nope.onnx", *L, cwd=place)
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "edgequant: MODEL_NOT_FOUND: nope.onnx: there is no such model file\n"
        "  Check the path; it is taken relative to the current directory.\n"
    )


def test_nothing_given_shows_the_help() -> None:
    done = edgequant()
    assert done.code == 2
    assert "verify" in done.out + done.err
    assert not done.errors


def test_a_device_without_those_cores_is_an_error_of_the_device(place: Path, tmp_path: Path) -> None:
    done = edgequant("verify", M, *L, "--cores", "4095", "--run-dir", str(tmp_path / "run"), "--json", cwd=place)
    assert done.code == 3
    (run,) = done.json["runs"]
    assert (run["verdict"], run["error"]["code"]) == ("ERROR", "CORES_UNAVAILABLE")
    assert "--cores" in run["error"]["hint"]
    assert "--cores" in done.err


@pytest.mark.parametrize("options", [["--target", "sqnr_db>=90"], ["--budget", "latency"]])
def test_a_target_for_what_is_not_searched_is_refused(
    options: list[str], generated_model: ModelByName, tmp_path: Path
) -> None:
    """Whoever reads PASS would believe that it was held against the target."""
    done = edgequant(
        "quantize", str(generated_model("conv_cnn")), "-o", "x.mnn", "--variant", "dynamic:8", *options, cwd=tmp_path
    )
    assert done.code == 2
    assert f"OPTION_UNUSED: {options[0]}" in done.errors[0]
    assert not (tmp_path / "x.mnn").exists()
