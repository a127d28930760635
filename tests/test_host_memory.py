"""What runs on this host is bound in memory, by a limit that fits the model; a user's own limit is told as such."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.local import LocalDevice
from edgequant.host_memory import BASE, memory_for, users_limit
from edgequant.quantize.child import death, run_child
from tests.waiting import LONG

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
GREEDY = "import sys; sys.stdin.readline(); b = bytearray(600 << 20); print('got it')"


def test_it_grows_with_the_model_and_its_inputs() -> None:
    assert memory_for(0) <= BASE
    assert memory_for(0) <= memory_for(1 << 20) <= memory_for(1 << 20, 1 << 20)


def test_a_process_on_this_host_is_held_to_it_and_may_be_given_more() -> None:
    for most, wanted in ((200 << 20, b""), (2 << 30, b"got it\n")):
        with LocalDevice() as device:
            process = device.start([sys.executable, "-c", GREEDY], Deadline(LONG))
            device.bound_memory(100 << 20)
            device.bound_memory(most)
            process.write(b"go\n", Deadline(LONG))
            said = b""
            while piece := process.read(100, Deadline(LONG)):
                said += piece
            assert said == wanted


def test_a_users_ulimit_is_told_as_such(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edgequant.quantize.child import death, run_child\n"
        "r = run_child([sys.executable, '-c', 'b = bytearray(900 << 20)'], log=Path(sys.argv[1]), timeout=60,\n"
        "              memory_limit=4 << 30)\n"
        "e = death(r, doing='the converter', prefix='CONVERTER', timeout=60, memory_limit=4 << 30)\n"
        "print(e.code, e)"
    )
    line = f'ulimit -d 600000; exec {sys.executable} -c "$1" {tmp_path / "log"}'
    done = subprocess.run(["bash", "-c", line, "bash", code], capture_output=True, text=True, timeout=LONG, check=True)
    assert done.stdout.startswith("HOST_EXHAUSTED")
    assert "`ulimit -d` allows 614 MB" in done.stdout


def test_without_one_it_is_the_models(tmp_path: Path) -> None:
    assert users_limit(1 << 20) is None or resource.getrlimit(resource.RLIMIT_DATA)[0] < 1 << 20
    argv = [sys.executable, "-c", "b = bytearray(900 << 20)"]
    result = run_child(argv, log=tmp_path / "log", timeout=LONG, memory_limit=300 << 20)
    error = death(result, doing="x", prefix="CONVERTER", timeout=LONG, memory_limit=300 << 20)
    assert error is not None
    assert (error.code, error.exit_code) == ("CONVERTER_OUT_OF_MEMORY", 2)
