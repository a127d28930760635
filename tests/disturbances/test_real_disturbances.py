"""Real disturbances of a real block on this host.  It may be busy otherwise, too, so there are no quiet twins."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from edgequant.archive.folder import RunFolder
from edgequant.cases.case import Case
from edgequant.devices.local import LocalDevice
from edgequant.judge.disturbed import doubts
from edgequant.lab.probes.bench import BenchProbe
from edgequant.lab.session import DeviceOptions, Session
from edgequant.lab.take import ModelFile, Taking, take
from edgequant.progress import Progress
from edgequant.spec import RunOptions
from tests.beds.models import ModelByName
from tests.waiting import eventually

pytestmark = [pytest.mark.nightly, pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")]
CGROUP = Path("/sys/fs/cgroup/cpu" if Path("/sys/fs/cgroup/cpu").is_dir() else "/sys/fs/cgroup")
Codes = Callable[..., set[str]]


class Disturbing(BenchProbe):
    """Something happens to the runner's process once it times."""

    def __init__(self, act: Callable[[int], object]) -> None:
        super().__init__(runs=10, seconds=3.0, warm_seconds=0.1)
        self.act = act

    def take(self, taking: Taking) -> None:
        pid = taking.place.runner.hello.pid
        process = psutil.Process(pid)
        before = process.cpu_times().user

        def wait() -> None:
            if eventually(lambda: process.cpu_times().user > before + 0.8):
                self.act(pid)

        thread = threading.Thread(target=wait)
        thread.start()
        super().take(taking)
        thread.join()


@pytest.fixture
def codes(generated_model: ModelByName, as_mnn: Callable[..., Path], tmp_path: Path) -> Codes:
    def measure(act: Callable[[int], object] = lambda _: None) -> set[str]:
        folder = RunFolder.create(tmp_path / "run", "model")
        case = Case("case", {"x": np.ones((1, 3, 32, 32), np.float32)}, "ones")
        options = DeviceOptions(work_dir=str(tmp_path / "work"), runtime="system")
        with Session(LocalDevice(), options, RunOptions(threads=1), log=None, progress=Progress()) as session:
            session.open()
            model = ModelFile(as_mnn(generated_model("conv_cnn")), "normal")
            capture = take(session, model, [case], [Disturbing(act)], folder.array_folder, trial="t", role="device")
        assert capture.failure is None
        return {doubt.code for doubt in doubts(capture.timings[0], os.cpu_count())}

    return measure


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.parametrize("count", [1, 4])
def test_busy_loops(count: int, codes: Codes) -> None:
    with busy(count):
        assert codes() & {"OTHERS_RUNNING", "CPU_CONTENDED"}


def test_a_process_that_is_suspended(codes: Codes) -> None:
    def suspend(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.5)  # what is planted
        os.kill(pid, signal.SIGCONT)

    assert "STALLED" in codes(suspend)


def test_a_quota(codes: Codes) -> None:
    place = CGROUP / f"edgequant-test-{os.getpid()}"
    try:
        place.mkdir()
        if (place / "cpu.cfs_quota_us").exists():
            (place / "cpu.cfs_quota_us").write_text("20000")
        else:
            (place / "cpu.max").write_text("20000 100000")
    except OSError as error:
        with contextlib.suppress(OSError):
            place.rmdir()
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        assert "CPU_QUOTA" in codes(lambda pid: (place / "cgroup.procs").write_text(str(pid)))
    finally:
        assert eventually(lambda: not (place / "cgroup.procs").read_text())
        place.rmdir()
