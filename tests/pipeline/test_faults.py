"""Runners, links, servers and disks that fail in the middle of the main job: what is reported, and what is left."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from edgequant.devices.ssh import SshDevice
from edgequant.devices.store import sha256_of
from edgequant.pipeline import measure
from edgequant.pipeline.measure import capture_folder
from edgequant.pipeline.target import TargetOptions
from edgequant.report.model import Run
from edgequant.spec import RunOptions, Variant
from tests import generated
from tests.beds.models import ModelByName
from tests.beds.sshd import ALIAS, SshServer, make_key
from tests.pipeline.support import Listener, capture, check_file, device_and_host, do, once_kept, runners, ssh_home
from tests.waiting import LONG, eventually

EDGEQUANT = str(Path(sys.executable).with_name("edgequant"))
HALTING = Path(__file__).with_name("halting_cli.py")
URI = f"ssh://{ALIAS}"
MANY = 12
"""Cases: enough to be in the middle of them."""
DYNAMIC = Variant.parse("dynamic:8")


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """Many cases for conv_cnn."""
    return save_cases(tmp_path / "inputs", MANY)


def save_cases(folder: Path, count: int) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        np.savez(folder / f"case{number:03}.npz", x=random.standard_normal((1, 3, 32, 32)).astype(np.float32))
    return folder


@pytest.fixture
def over_ssh(sshd: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TargetOptions:
    """~/.ssh/config knows the server as `bed`; its Python is this one, its work directory is tmp_path/work."""
    for key, value in ssh_home(sshd, tmp_path).items():
        monkeypatch.setenv(key, value)
    return TargetOptions(work_dir=str(tmp_path / "work"), python=sys.executable)


@contextlib.contextmanager
def when(condition: Callable[[], Any], act: Callable[[Any], object]) -> Iterator[list[Any]]:
    """Do `act` beside the body as soon as `condition` is true; yields the list of what it was done with."""
    done: list[Any] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            with contextlib.suppress(psutil.Error, OSError):
                if found := condition():
                    done.append(found)
                    act(found)
                    return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield done
    finally:
        stop.set()
        watcher.join()
    assert done, "it never came to that"


def check_partial(run_dir: Path, run: Run, cases: int) -> None:
    """So many cases came back: on disk, and compared in the report."""
    assert len(capture(run_dir, run)) == cases < MANY
    assert {output.cases for output in run.outputs.values()} == {cases}
    assert all(output.sqnr_db is not None for output in run.outputs.values())


# --- the runner ---


def test_runner_killed_in_the_middle_of_a_run(generated_model: ModelByName, cases: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with once_kept(3, capture_folder("local:", DYNAMIC), lambda: device_and_host()[0].kill()):
        report = do(generated_model("conv_cnn"), run_dir, "dynamic:8", "fp16", inputs=cases)
    killed, after = report.runs
    assert killed.verdict == report.verdict == "ERROR"
    assert report.verdict.exit_code == 3
    assert killed.error is not None
    assert killed.error.code == "RUNNER_DIED"
    assert "SIGKILL" in killed.error.message
    assert killed.error.evidence["during"] == "run"
    assert killed.error.hint
    check_partial(run_dir, killed, 3)
    assert killed.low_memory_engaged is None
    assert killed.latency_ms is None
    assert killed.memory_mb is not None
    assert killed.memory_mb.why_null["session"]
    assert after.verdict == "PASS"
    assert len(capture(run_dir, after)) == MANY
    assert not runners()


@pytest.mark.slow
def test_runner_killed_in_the_middle_of_the_timing(
    generated_model: ModelByName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "TIMING_MAX_SECONDS", 120.0)  # more than it takes on the busiest machine
    run_dir = tmp_path / "run"
    started: dict[int, float] = {}

    def busy() -> psutil.Process | None:
        """The runner that has computed for a second and a half since its last case, so that samples have come."""
        if len(list((run_dir / "captures" / capture_folder("local:", DYNAMIC)).glob("*.npz"))) < 2:
            return None
        for process in runners():
            used = process.cpu_times().user
            if used > started.setdefault(process.pid, used) + 1.5:
                return process
        return None

    def kill(process: psutil.Process) -> None:
        measure.TIMING_MAX_SECONDS = 1.0  # for the run after this one, which nobody kills
        process.kill()

    options = RunOptions(threads=1, repeat=1_000_000)
    with when(busy, kill):
        report = do(generated_model("conv_cnn"), run_dir, "dynamic:8", "fp16", options=options, latency=True)
    killed, after = report.runs
    assert killed.verdict == report.verdict == "ERROR"
    assert killed.error is not None
    assert (killed.error.code, killed.error.evidence["during"]) == ("RUNNER_DIED", "time")
    assert killed.latency_ms is not None
    assert killed.latency_ms.n > 0
    assert not killed.latency_ms.valid
    assert "the runner did not get to the end of the timing" in killed.latency_ms.why_invalid
    assert killed.outputs["y"].verdict == "PASS"
    assert killed.outputs["y"].cases == 2
    timing = run_dir / "captures" / capture_folder("local:", DYNAMIC) / "timing.json"
    assert len(json.loads(timing.read_text())["samples_ms"]) == killed.latency_ms.n
    assert after.verdict == "PASS"
    assert after.latency_ms is not None
    assert not after.latency_ms.valid  # 1 000 000 were wanted
    assert "1000000 were wanted" in after.latency_ms.why_invalid[0]


def test_host_runner_killed(generated_model: ModelByName, cases: Path, tmp_path: Path) -> None:
    """The runner that measures the conversion: nothing is known of that case, which is no fault of the model."""
    run_dir = tmp_path / "run"
    with once_kept(4, "host/float", lambda: device_and_host()[1].kill()):
        report = do(generated_model("conv_cnn"), run_dir, "weight:8", inputs=cases)
    (run,) = report.runs
    (finding,) = [f for f in report.findings if f.code == "CONVERSION_RUN_FAILED"]
    assert "SIGKILL" in finding.message
    assert run.verdict == report.verdict == "PASS"
    assert run.outputs["y"].cases == MANY


def test_a_waiting_runner_that_died_is_replaced(generated_model: ModelByName, cases: Path, tmp_path: Path) -> None:
    """The device's runner is started first and waits for this host: its death meanwhile is nobody's verdict."""
    run_dir = tmp_path / "run"
    with once_kept(4, "host/float", lambda: device_and_host()[0].kill()):
        report = do(generated_model("conv_cnn"), run_dir, "weight:8", inputs=cases)
    assert report.runs[0].verdict == "PASS"
    assert report.runs[0].error is None


# --- the link ---


@pytest.mark.slow
@pytest.mark.ssh
def test_link_lost_in_the_middle_of_a_push(
    generated_model: ModelByName, sshd: SshServer, over_ssh: TargetOptions, tmp_path: Path
) -> None:
    sent = 0

    def count(label: str, size: int) -> None:
        nonlocal sent
        sent += size
        if "float" in label and 2_000_000 < sent < 4_000_000:
            sshd.kill_sessions()

    model = generated_model("big_mlp")
    report = do(
        model, tmp_path / "run", "float", "weight:8", devices=(URI, "local:"), target=over_ssh,
        progress=Listener(sent=count),
    )  # fmt: skip
    cut, after, here, here8 = report.runs
    assert cut.verdict == report.verdict == "ERROR"
    assert report.verdict.exit_code == 3
    assert cut.error is not None
    assert cut.error.code == "LINK_LOST"
    assert cut.error.hint
    assert not cut.outputs
    assert (after.verdict, here.verdict, here8.verdict) == ("PASS", "PASS", "PASS")  # it connected again
    check_store(tmp_path / "work")
    report = do(model, tmp_path / "again", "float", devices=(URI,), target=over_ssh)
    assert report.verdict == "PASS"
    check_store(tmp_path / "work")


def check_store(work: Path) -> None:
    """Every object is whole."""
    for file in (work / "objects").iterdir():
        assert sha256_of(file) == file.name


@pytest.mark.ssh
def test_link_lost_in_the_middle_of_a_run(
    generated_model: ModelByName, cases: Path, sshd: SshServer, over_ssh: TargetOptions, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    with once_kept(3, capture_folder(URI, DYNAMIC), sshd.kill_sessions):
        report = do(
            generated_model("conv_cnn"), run_dir, "dynamic:8", "fp16", inputs=cases, devices=(URI,), target=over_ssh
        )
    lost, after = report.runs
    assert lost.verdict == report.verdict == "ERROR"
    assert lost.error is not None
    assert lost.error.code == "LINK_LOST"
    assert lost.error.hint
    check_partial(run_dir, lost, 3)
    assert after.verdict == "PASS"
    assert all(error.exact for error in after.errors.device.values())
    check_store(tmp_path / "work")


@pytest.mark.ssh
@pytest.mark.slow
def test_server_frozen_in_the_middle_of_a_run(
    generated_model: ModelByName, cases: Path, sshd: SshServer, over_ssh: TargetOptions, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    # Enough for what is not frozen on a busy machine, and over before the connection counts as lost.
    options = RunOptions(threads=1, timeout=10)
    with once_kept(3, capture_folder(URI, DYNAMIC), sshd.freeze_sessions):
        report = do(
            generated_model("conv_cnn"), run_dir, inputs=cases, devices=(URI, "local:"), target=over_ssh,
            options=options,
        )  # fmt: skip
    frozen, here = report.runs
    assert frozen.verdict == report.verdict == "ERROR"
    assert frozen.error is not None
    assert frozen.error.code == "TIMEOUT"
    assert "within 10 s" in frozen.error.message
    assert frozen.error.hint
    check_partial(run_dir, frozen, 3)
    assert here.verdict == "PASS"


@pytest.mark.ssh
@pytest.mark.slow
def test_server_frozen_in_the_middle_of_a_push(
    generated_model: ModelByName, sshd: SshServer, over_ssh: TargetOptions, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(SshDevice, "idle_limit", 10.0)  # it holds for what is sent before that, on a busy machine too
    frozen: list[str] = []

    def freeze(label: str, size: int) -> None:
        if not frozen:
            frozen.append(label)
            sshd.freeze_sessions()

    report = do(
        generated_model("big_mlp"), tmp_path / "run", "float", devices=(URI, "local:"), target=over_ssh,
        progress=Listener(sent=freeze),
    )  # fmt: skip
    assert "float" in frozen[0]
    stalled, here = report.runs
    assert stalled.verdict == report.verdict == "ERROR"
    assert stalled.error is not None
    assert stalled.error.code == "STALLED"
    assert stalled.error.hint
    assert here.verdict == "PASS"
    sshd.end_sessions()
    check_store(tmp_path / "work")


# --- devices that cannot be used from the start ---


def bad_device(kind: str, sshd: SshServer, closed: int, tmp_path: Path) -> tuple[str, TargetOptions]:
    """Makes ~/.ssh/config and the options so that `bed` fails; returns the code it should fail with."""
    config, target = sshd.config.read_text(), TargetOptions(work_dir=str(tmp_path / "work"), python=sys.executable)
    work, python = str(tmp_path / "work"), sys.executable
    code = kind.upper()
    if kind == "host_key_unknown":
        config = config.replace(str(sshd.known_hosts), str(tmp_path / "empty_known_hosts"))
    elif kind == "auth_failed":
        config = config.replace(str(sshd.key), str(make_key(tmp_path / "stranger")))
    elif kind == "host_unreachable":
        config = config.replace(f"Port {sshd.port}", f"Port {closed}")
    elif kind == "python_missing":
        python = "/no/such/python3"
    elif kind == "mnn_missing":
        python = bare_python(tmp_path)
    elif kind in ("read_only", "no_space"):
        if not sshd.accounts:
            pytest.skip("needs file systems of its own: run as root")
        work = f"{sshd.read_only if kind == 'read_only' else sshd.small}/work"
    target = TargetOptions(work_dir=work, python=python)
    (tmp_path / "config").write_text(config)
    return code, target


def bare_python(tmp_path: Path) -> str:
    """A Python on the board that has NumPy but no MNN."""
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "numpy").symlink_to(Path(np.__file__).parent)
    libraries = Path(np.__file__).parent.with_name("numpy.libs")
    if libraries.exists():
        (packages / "numpy.libs").symlink_to(libraries)
    script = tmp_path / "bare-python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {sys.executable} -S "$@"\n')
    script.chmod(0o755)
    return str(script)


@pytest.mark.ssh
@pytest.mark.parametrize(
    "kind",
    ["host_key_unknown", "auth_failed", "host_unreachable", "python_missing", "mnn_missing", "read_only", "no_space"],
)
def test_one_of_two_devices_cannot_be_used(
    kind: str, generated_model: ModelByName, sshd: SshServer, closed_port: int, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    model = generated_model("conv_cnn")
    code, target = bad_device(kind, sshd, closed_port, tmp_path)
    for key, value in ssh_home(sshd, tmp_path, config=(tmp_path / "config").read_text()).items():
        monkeypatch.setenv(key, value)
    # --work-dir and --python hold for every device: the good one is judged first where they would break it too.
    good = "local:" if kind not in ("python_missing", "mnn_missing") else None
    report = do(model, tmp_path / "run", "weight:8", devices=(URI, good) if good else (URI,), target=target)
    bad, *rest = report.runs
    assert bad.verdict == report.verdict == "ERROR"
    assert report.verdict.exit_code == 3
    assert bad.error is not None
    assert bad.error.code == code
    assert bad.error.where == URI
    assert bad.error.hint
    assert not bad.outputs
    assert not bad.latency_ms
    assert [run.verdict.value for run in rest] == ["PASS"] * len(rest)


@pytest.mark.ssh
def test_the_boards_own_python_has_no_mnn(
    generated_model: ModelByName, sshd: SshServer, over_ssh: TargetOptions, tmp_path: Path
) -> None:
    its_own = subprocess.run(["python3", "-c", "import MNN"], capture_output=True, env={"PATH": "/usr/bin:/bin"})
    if its_own.returncode == 0:
        pytest.skip("the system's own Python has MNN")
    (run,) = do(
        generated_model("conv_cnn"), tmp_path / "run", devices=(URI,), target=TargetOptions(work_dir=over_ssh.work_dir)
    ).runs
    assert run.verdict == "ERROR"
    assert run.error is not None
    assert run.error.code in ("MNN_MISSING", "NUMPY_MISSING", "PYTHON_MISSING")
    assert "pip install MNN" in str(run.error.hint)


# --- the user stops it ---


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_it_runs(
    number: signal.Signals, generated_model: ModelByName, cases: Path, cli: Callable[..., Cli], tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    folder = capture_folder("local:", DYNAMIC)
    one = cli(
        f"running:{folder}", "verify", str(generated_model("conv_cnn")), "--device", "local:", "--variant", "float",
        "--variant", "dynamic:8", "--inputs", str(cases), "--threads", "1", "--no-latency",
        "--run-dir", str(run_dir), "--json",
    )  # fmt: skip
    one.wait_for("running dynamic:8")
    code, out, err = one.stop(number)
    assert 3 <= len(list((run_dir / "captures" / folder).glob("*.npz"))) < MANY
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
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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


# --- this host ---


@pytest.mark.parametrize("size", ["100k", "700k", "1200k"])
def test_the_disk_of_the_run_is_full(size: str, generated_model: ModelByName, tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs a mount namespace: run as root")
    model, disk = generated_model("conv_cnn"), tmp_path / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs -o size={size} small {disk} && exec "$@"'
    done = subprocess.run(
        [
            *("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"),
            *(EDGEQUANT, "verify", str(model), "--device", "local:", "--threads", "1", "--no-latency", "--json"),
            *("--inputs", str(save_cases(tmp_path / "inputs", 150)), "--run-dir", str(disk / "run")),
        ],
        capture_output=True,
        text=True,
        timeout=4 * LONG,
    )
    assert done.returncode == 3, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert "INTERNAL_ERROR" not in done.stderr
    document = json.loads(done.stdout)
    assert document["error"]["code"] in ("DISK_FULL", "RUN_DIR_FULL", "RUN_DIR_UNWRITABLE")
    assert document["error"]["hint"]
    last = [line for line in done.stderr.splitlines() if line.startswith("edgequant: ")]
    assert len(last) == 1


def test_a_cache_that_cannot_be_written(generated_model: ModelByName, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    command = [
        EDGEQUANT,
        "verify",
        str(generated_model("conv_cnn")),
        "--device",
        "local:",
        "--run-dir",
        f"{tmp_path}/run",
    ]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=4 * LONG)
    assert done.returncode == 3
    assert "CACHE_UNWRITABLE" in done.stderr
    assert "XDG_CACHE_HOME" in done.stderr
    assert "Traceback" not in done.stderr
