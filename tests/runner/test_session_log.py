"""The runner's stderr: bounded on disk, its tail quoted, and no reason to stop."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.local import LocalDevice
from edgequant.errors import RunnerError
from edgequant.runner.session import LOG_LIMIT, TAIL_LINES, ErrorLog
from tests.runner.support import TIME, pretend
from tests.waiting import LONG


def test_the_log_is_bounded_and_its_tail_quoted(device: LocalDevice, tmp_path: Path) -> None:
    code = """
        hello(); stream.read()
        for number in range(100): sys.stderr.write("x" * 100_000 + "\\n")
        for number in range(30): print("line", number, file=sys.stderr)
        sys.exit(1)
    """
    log = tmp_path / "log"
    with pretend(device, code, log=log) as session:
        session.start(TIME)
        with pytest.raises(RunnerError, match="its last line: line 29") as caught:
            session.request("run", deadline=TIME)
    assert log.stat().st_size == LOG_LIMIT
    assert caught.value.evidence["stderr"] == [f"line {number}" for number in range(30 - TAIL_LINES, 30)]


def test_long_lines_are_cut() -> None:
    log = ErrorLog(None)
    for _ in range(100):
        log.add(b"y" * 100_000)
    log.add(b"\n\xff end of it")
    tail = log.tail()
    assert max(map(len, tail)) <= 4000
    assert tail[-1] == "\ufffd end of it"


def test_a_full_disk_does_not_stop_it(device: LocalDevice) -> None:
    code = "hello(); stream.read(); sys.stderr.write('z' * 5_000_000); stream.write(2, {'id': 2, 'ok': True})"
    with pretend(device, code, log=Path("/dev/full")) as session:
        session.start(TIME)
        assert session.request("run", deadline=Deadline(LONG))[0]["ok"]
