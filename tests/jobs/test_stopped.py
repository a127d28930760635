"""The user stops it: in the middle of converting, running and pushing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from edgequant.spec import Variant
from tests import generated
from tests.beds.models import ModelByName
from tests.beds.sshd import ALIAS, SshServer
from tests.jobs.fault_cases import check_store
from tests.jobs.support import check_file, ssh_home
from tests.nightly import all_but
from tests.waiting import LONG, eventually

HALTING = Path(__file__).with_name("halting_cli.py")
URI = f"ssh://{ALIAS}"
DYNAMIC = Variant.parse("dynamic:8")


class Cli:
    """A real edgequant process, in which something is suspended at `moment`; its stderr is read line by line."""

    def __init__(self, moment: str, arguments: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, str(HALTING), moment, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.tree = psutil.Process(self.process.pid)
        self.family: list[psutil.Process] = []

    def wait_for(self, text: str) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            if text in line:
                return
        pytest.fail(f"{text!r} was never said: {self.lines}")

    def suspended(self) -> list[psutil.Process]:
        """What of it is suspended by now."""
        return [each for each in (self.tree, *self.tree.children(recursive=True)) if state(each) == "stopped"]

    def stop(self, number: signal.Signals) -> tuple[int, str, str]:
        """Send the signal in the very middle, then let what was suspended go on; all of it has to end."""
        assert eventually(lambda: bool(self.suspended())), self.lines
        suspended, self.family = self.suspended(), self.tree.children(recursive=True)
        self.process.send_signal(number)
        for each in suspended:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.resume()
        out, err = self.process.communicate(timeout=2 * LONG)
        # Where nobody takes in the status of orphans, they stay as zombies.
        left = lambda: [each for each in self.family if state(each) not in ("gone", "zombie")]  # noqa: E731
        assert eventually(lambda: not left()), [each.cmdline() for each in left()]
        text = "\n".join(self.lines) + err
        assert "Traceback" not in text + out
        return self.process.returncode, out, text

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.communicate()


def state(process: psutil.Process) -> str:
    try:
        return str(process.status()) if process.is_running() else "gone"
    except psutil.NoSuchProcess:
        return "gone"


@pytest.fixture
def cli() -> Iterator[Callable[..., Cli]]:
    started: list[Cli] = []

    def start(moment: str, *arguments: str, environment: dict[str, str] | None = None) -> Cli:
        started.append(Cli(moment, arguments, environment))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.mark.parametrize("number", all_but(signal.SIGINT, of=[signal.SIGINT, signal.SIGTERM]))
def test_stopped_while_it_converts(
    number: signal.Signals, real_model: ModelByName, cli: Callable[..., Cli], tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    words = ("verify", str(real_model("ppocr_rec")), "--device", "local:", "--threads", "1")
    one = cli("converting", *words, "--run-dir", str(run_dir), "--json")
    one.wait_for("converting")
    code, out, err = one.stop(number)
    assert code == 130
    assert "edgequant: interrupted" in err
    assert json.loads(out)["error"]["code"] == "INTERRUPTED"
    assert not (run_dir / "report.json").exists()
    assert not list((run_dir / "models").iterdir())


@pytest.mark.parametrize("number", all_but(signal.SIGINT, of=[signal.SIGINT, signal.SIGTERM]))
def test_stopped_while_it_runs(
    number: signal.Signals, generated_model: ModelByName, cases: Path, cli: Callable[..., Cli], tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    one = cli(
        "running", "verify", str(generated_model("conv_cnn")), "--device", "local:", "--variant", "float",
        "--variant", "dynamic:8", "--inputs", str(cases), "--threads", "1", "--no-latency",
        "--run-dir", str(run_dir), "--json",
    )  # fmt: skip
    one.wait_for("running dynamic:8")
    code, out, err = one.stop(number)
    assert code == 130
    document = check_file(run_dir / "report.json")
    assert json.loads(out) == document
    assert document["verdict"] == "ERROR"
    assert [(run["variant"], run["verdict"]) for run in document["runs"]] == [("float", "PASS")]
    (finding,) = [f for f in document["findings"] if f["code"] == "INTERRUPTED"]
    assert "1 of 2 runs" in finding["message"]
    assert "Report:" in err


@pytest.mark.slow
@pytest.mark.ssh
@pytest.mark.parametrize("number", all_but(signal.SIGINT, of=[signal.SIGINT, signal.SIGTERM]))
def test_stopped_while_it_pushes(
    number: signal.Signals, generated_model: ModelByName, sshd: SshServer, cli: Callable[..., Cli], tmp_path: Path
) -> None:
    model, run_dir, work = generated.big_mlp(tmp_path / "big.onnx", 2000), tmp_path / "run", tmp_path / "work"
    one = cli(
        "pushing", "verify", str(model), "--device", URI, "--variant", "float", "--threads", "1", "--no-latency",
        "--run-dir", str(run_dir), "--work-dir", str(work), "--python", sys.executable,
        environment=ssh_home(sshd, tmp_path),
    )  # fmt: skip
    one.wait_for("running float on ssh")

    def pushing() -> bool:
        return any(file.stat().st_size > 1_000_000 for file in (work / "incoming").glob("*"))

    assert eventually(pushing)
    code, _, _ = one.stop(number)
    assert code == 130
    document = check_file(run_dir / "report.json")
    assert document["runs"] == []
    assert document["verdict"] == "ERROR"
    check_store(work)
    assert not any(file.stat().st_size > 40_000_000 for file in (work / "objects").iterdir())
