"""What is printed where: help, JSON, quiet and verbose, pipes, colours, and names that try to be clever."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
from pathlib import Path

import jsonschema
import onnx
import pytest
from onnx import TensorProto, helper

import edgequant as package
from tests import generated
from tests.beds.models import ModelByName
from tests.cli.command import EDGEQUANT, NAMED_SHELL, edgequant
from tests.waiting import LONG

COMMANDS = (
    (), ("verify",), ("quantize",), ("run",), ("inspect",), ("demo",), ("report",), ("devices",), ("devices", "list"),
    ("devices", "probe"), ("devices", "doctor"), ("devices", "clean"), ("history",), ("history", "plot"),
)  # fmt: skip
QUICK = ("--device", "local:", "--threads", "1", "--no-latency")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help(command: tuple[str, ...]) -> None:
    done = edgequant(*command, "--help", COLUMNS="80")
    assert (done.code, done.err) == (0, "")
    assert " ".join(["Usage: edgequant", *command]) in done.out
    assert max(len(line) for line in done.out.splitlines()) <= 80


def test_help_names_what_can_be_given() -> None:
    text = " ".join(edgequant("verify", "--help", COLUMNS="200").out.split())
    for part in ("[OUTPUT:]METRIC>=X", "NAME=1,3,48,160", "lsnr:cosine>=0.99", "<low|normal|high>", "0|1|2", "4-7"):
        assert part in text, part
    for option in ("--device", "--variant", "--inputs", "--limit", "--memory", "--work-dir", "--run-dir", "--json"):
        assert option in text
    assert "[required, here or in the file of --spec]" in text.partition("--device URI")[2].partition("--spec FILE")[0]
    assert "Exit codes: 0 PASS" in " ".join(edgequant("--help").out.split())


def test_version() -> None:
    assert edgequant("--version") == (0, f"edgequant {package.__version__}\n", "")


@pytest.mark.parametrize(
    ("more", "verdict", "code"),
    [
        (("--variant", "float"), "PASS", 0),
        (("--variant", "fp16", "--limit", "sqnr_db>=150"), "FAIL", 1),
        (("--variant", "dynamic:8", "--memory", "normal"), "INCONCLUSIVE", 4),
        (("--variant", "float", "--variant", "float", "--cores", "4000"), "ERROR", 3),
        (("--variant", "float", "--limit", "max_abs<=1e-12", "--limit", "sqnr_db>=0"), "FAIL", 1),
    ],
)
def test_json_of_every_verdict(
    more: tuple[str, ...], verdict: str, code: int, generated_model: ModelByName, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    done = edgequant(
        "verify", str(generated_model("conv_cnn")), *QUICK, *more, "--json", "--run-dir", str(run_dir)
    )  # fmt: skip
    assert done.code == code
    assert done.json["verdict"] == verdict
    assert done.json == json.loads((run_dir / "report.json").read_text())
    assert done.out == (run_dir / "report.json").read_text()
    assert re.search(rf"^{verdict}( on random inputs)?  1 run", done.err, re.MULTILINE)
    again = edgequant("report", str(run_dir), "--json")
    assert (again.code, again.out) == (code, done.out)


def test_marginal_is_no_failure(generated_model: ModelByName, tmp_path: Path) -> None:
    model = str(generated_model("conv_cnn"))
    first = edgequant("verify", model, *QUICK, "--variant", "fp16", "--json", "--run-dir", str(tmp_path / "1")).json
    value = first["runs"][0]["outputs"]["y"]["sqnr_db"]
    limit = f"y:sqnr_db>={value - 0.5}"
    done = edgequant("verify", model, *QUICK, "--variant", "fp16", "--limit", limit, "--run-dir", str(tmp_path / "2"))
    assert done.code == 0
    assert "MARGINAL on random inputs  1 run: 1 MARGINAL" in done.out
    assert "only just keeps it" in done.out


def test_quiet_and_verbose(generated_model: ModelByName, tmp_path: Path) -> None:
    model = str(generated_model("many_outputs"))
    quiet = edgequant("verify", model, *QUICK, "--variant", "float", "-q", "--run-dir", str(tmp_path / "1"))
    assert quiet.err == ""
    assert quiet.code == 0
    assert "PASS on random inputs  1 run" in quiet.out
    assert "more outputs not shown" in quiet.out
    verbose = edgequant("verify", model, *QUICK, "--variant", "float", "-v", "--run-dir", str(tmp_path / "2"))
    assert "converting to float MNN" in verbose.err
    assert "running float on local: (7 cases)" in verbose.err
    assert "PASS: float on local:" in verbose.err
    assert "more outputs not shown" not in verbose.out
    assert all(re.search(rf"^ +y{i} ", verbose.out, re.MULTILINE) for i in range(40))


def test_verbose_errors_show_evidence(tmp_path: Path) -> None:
    model = generated.ONNX_MODELS["scale_as_input"](tmp_path / "m.onnx")
    short = edgequant("verify", str(model), *QUICK, "--run-dir", str(tmp_path / "1"))
    long = edgequant("verify", str(model), *QUICK, "-v", "--run-dir", str(tmp_path / "2"))
    assert short.code == long.code == 2
    assert len(short.errors) == len(long.errors) == 1
    assert "log_tail" in long.err
    assert "log_tail" not in short.err


@pytest.mark.parametrize(
    "arguments", [("inspect", "{model}"), ("report", "--schema"), ("--help",), ("inspect", "{model}", "--json")]
)
def test_a_reader_that_goes_away(arguments: tuple[str, ...], generated_model: ModelByName) -> None:
    given = [word.format(model=generated_model("many_outputs")) for word in arguments]
    read_end, write_end = os.pipe()
    os.close(read_end)  # before anything is written: every write fails
    try:
        done = subprocess.run([EDGEQUANT, *given], stdout=write_end, stderr=subprocess.PIPE, timeout=4 * LONG)
    finally:
        os.close(write_end)
    assert done.returncode == 3
    assert b"Traceback" not in done.stderr
    assert b"Broken" not in done.stderr
    assert "--json" in given or done.stderr == b""


def test_head(generated_model: ModelByName, tmp_path: Path) -> None:
    script = '"$@" 2>&1 | head -1; exit ${PIPESTATUS[0]}'
    command = [EDGEQUANT, "verify", str(generated_model("many_outputs")), *QUICK, "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(["bash", "-c", script, "bash", *command], capture_output=True, text=True, timeout=4 * LONG)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""
    assert done.returncode != 1  # which would be the verdict FAIL


def on_a_terminal(*arguments: str, **environment: str) -> bytes:
    """What the script writes where stdout and stderr are a terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [EDGEQUANT, *arguments], stdin=follower, stdout=follower, stderr=follower,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **environment},
    )  # fmt: skip
    os.close(follower)
    seen = b""
    while select.select([leader], [], [], 4 * LONG)[0]:
        try:
            data = os.read(leader, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        seen += data
    os.close(leader)
    process.wait(LONG)
    return seen


def test_colours_only_on_a_terminal_that_wants_them(generated_model: ModelByName) -> None:
    model = str(generated_model("gru"))
    assert b"\x1b[" in on_a_terminal("inspect", model)
    plain = on_a_terminal("inspect", model, NO_COLOR="1")
    assert not re.search(rb"\x1b\[[0-9;]*3[0-9]", plain)
    assert b"\x1b" not in on_a_terminal("inspect", model, TERM="dumb")
    edgequant("inspect", model)  # checks that there is none


EVIL = ("\x1b[2J\x1b[31mowned", "[bold red]x[/bold red]", "a\nPASS  1 run: 1 PASS", "\u202egnp", "[/]", "x\x07\x9b1m")


def hostile(path: Path) -> Path:
    nodes, values = [], []
    for index, name in enumerate(EVIL):
        nodes.append(helper.make_node("Relu", ["x"], [name], name=f"{name}{index}"))
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, f"{name}dim"]))
    graph = helper.make_graph(
        nodes, EVIL[0], [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "\x1b[5m"])], values
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    model.producer_name = EVIL[0]
    path.write_bytes(model.SerializeToString())
    assert onnx.load(path).graph.output[0].name == EVIL[0]
    return path


def harmless(seen: str) -> None:
    for character in ("\x1b[2J", "\x1b[31mowned", "\x07", "\x9b", "\u202e"):
        assert character not in seen
    assert not re.search(r"^PASS  1 run: 1 PASS", seen, re.MULTILINE)


@pytest.mark.parametrize("command", [("inspect",), ("inspect", "-v"), ("verify", *QUICK, "--variant", "float")])
def test_names_cannot_write_to_the_terminal(command: tuple[str, ...], tmp_path: Path) -> None:
    model = hostile(tmp_path / "evil.onnx")
    more = ("--run-dir", str(tmp_path / "run")) if command[0] == "verify" else ()
    done = edgequant(*command, str(model), *more)
    text = done.out + done.err
    if done.code == 0:
        harmless(text.replace("PASS  1 run: 1 PASS\nReport", "Report"))  # the one that is ours
        assert "[bold red]x[/bold red]" in text  # shown as it is, not taken for markup
        assert "\\x1b[2J" in text
    shutil_run = tmp_path / "again"
    more = ("--run-dir", str(shutil_run)) if command[0] == "verify" else ()
    seen = on_a_terminal(*command, str(model), *more).decode("utf-8", "replace")
    for character in ("\x1b[2J", "\x1b[31mowned", "\x07", "\x9b", "\u202e"):
        assert character not in seen


@pytest.mark.parametrize("name", ["\x1b[31mowned.onnx", "[red]model[bold].onnx", "sp ace's.onnx", "naïve-模型.onnx"])
def test_file_names_of_every_kind(name: str, generated_model: ModelByName, tmp_path: Path) -> None:
    model = tmp_path / name
    model.write_bytes(generated_model("conv_cnn").read_bytes())
    done = edgequant("verify", str(model), *QUICK, "--variant", "float", "--run-dir", str(tmp_path / "run"))
    assert done.code == 0, done.err
    gone = edgequant("verify", str(tmp_path / f"no-{name}"), *QUICK)
    assert gone.code == 2
    assert "MODEL_NOT_FOUND" in gone.err


def test_a_locale_without_unicode(generated_model: ModelByName, tmp_path: Path) -> None:
    model = tmp_path / "naïve-模型.onnx"
    model.write_bytes(generated_model("gru").read_bytes())
    for more in ((), ("--json",)):
        done = edgequant("inspect", str(model), *more, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
        assert done.code == 0, done.err
    assert json.loads(done.out)["path"] == str(model)


def test_schema() -> None:
    schema = edgequant("report", "--schema").json
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"] == "edgequant.report/1"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, tmp_path: Path) -> None:
    done = edgequant("--show-completion", shell, HOME=str(tmp_path), **NAMED_SHELL)
    assert done.code == 0, done
    assert "_EDGEQUANT_COMPLETE" in done.out
