"""Two edgequants on one device: the second waits, or says who has it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgequant.lab.session import DeviceOptions
from tests.beds.models import ModelByName
from tests.beds.sshd import ALIAS, SshServer
from tests.jobs.support import Listener, do, ssh_home
from tests.waiting import LONG

pytestmark = [pytest.mark.ssh, pytest.mark.slow]

EDGEQUANT = str(Path(sys.executable).with_name("edgequant"))
URI = f"ssh://{ALIAS}"


class Other:
    """Another user's edgequant, with a work directory of its own, in the middle of measuring the device."""

    def __init__(self, model: Path, tmp_path: Path) -> None:
        words = [EDGEQUANT, "verify", str(model), "--device", URI, "--python", sys.executable, "--threads", "1"]
        words += ["--work-dir", str(tmp_path / "other"), "--run-dir", str(tmp_path / "other-run")]
        words += ["--repeat", "1000000"]  # so that it has not ended before it is suspended
        self.child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert self.child.stderr is not None
        for line in self.child.stderr:
            if line.startswith("running dynamic:8 on ssh"):
                break
        else:
            pytest.fail("it did not get as far")
        # By now it has the device.  Its runner there keeps it as long as this process lives, which gets no further.
        self.child.send_signal(signal.SIGSTOP)

    def end(self) -> None:
        self.child.kill()
        self.child.communicate(timeout=LONG)


@pytest.fixture
def options(sshd: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DeviceOptions:
    for key, value in ssh_home(sshd, tmp_path).items():
        monkeypatch.setenv(key, value)
    return DeviceOptions(work_dir=str(tmp_path / "work"), python=sys.executable)


def test_it_waits(generated_model: ModelByName, options: DeviceOptions, tmp_path: Path) -> None:
    other = Other(generated_model("conv_cnn"), tmp_path)
    heard: list[str] = []

    def hear(text: str) -> None:
        if "is being used by" in text:
            heard.append(text)
            threading.Timer(0.5, other.end).start()

    report = do(generated_model("conv_cnn"), tmp_path / "run", devices=(URI,), access=options, progress=Listener(hear))
    assert report.verdict == "PASS"
    (line,) = heard
    assert f"process {other.child.pid}" in line
    assert report.timing_s["device wait"] > 0.3


def test_it_says_who_has_it(generated_model: ModelByName, options: DeviceOptions, tmp_path: Path) -> None:
    other = Other(generated_model("conv_cnn"), tmp_path)
    impatient = DeviceOptions(work_dir=options.work_dir, python=options.python, wait=0.2)
    try:
        report = do(generated_model("conv_cnn"), tmp_path / "run", "fp16", "float", devices=(URI,), access=impatient)
        words = [EDGEQUANT, "devices", "clean", URI, "--work-dir", str(tmp_path / "other")]
        cleaned = subprocess.run(words, capture_output=True, text=True, timeout=3 * LONG, env=dict(os.environ))
    finally:
        other.end()
    assert report.verdict == "ERROR"
    for run in report.runs:
        assert run.error is not None
        assert run.error.code == "DEVICE_BUSY"
        assert f"process {other.child.pid}" in run.error.message
    assert cleaned.returncode == 3
    assert "DEVICE_BUSY" in cleaned.stderr
    assert list((tmp_path / "other" / "objects").iterdir())


def test_cleaned_while_it_was_at_work_on_its_host(
    generated_model: ModelByName, options: DeviceOptions, tmp_path: Path
) -> None:
    """Before it takes the device nobody knows that it is there; what was taken away is brought again."""
    cleaned: list[int] = []

    def clean(text: str) -> None:
        if text.startswith("converting to float"):
            words = [EDGEQUANT, "devices", "clean", URI, "--work-dir", str(options.work_dir)]
            cleaned.append(subprocess.run(words, capture_output=True, timeout=3 * LONG).returncode)

    report = do(generated_model("conv_cnn"), tmp_path / "run", devices=(URI,), access=options, progress=Listener(clean))
    assert cleaned == [0]
    assert report.verdict == "PASS", report.runs[0].error
