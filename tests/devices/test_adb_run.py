"""Commands over a real adbd: arguments, exit codes, output, deadlines, shells of phones."""

from __future__ import annotations

import signal
import threading

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.adb import AdbDevice
from edgequant.devices.adb_process import command_line
from edgequant.devices.adb_wire import MAX_REQUEST
from edgequant.errors import DeadlineExceeded, DeviceError, InputError
from tests.beds.adb import AdbBed
from tests.devices.support import ODD, soon
from tests.waiting import OnceReady, ended

pytestmark = pytest.mark.adb


def test_arguments_arrive_as_they_are(phone: AdbDevice) -> None:
    result = phone.run(["printf", "%s\\0", *ODD], soon())
    assert result.ok
    assert result.stdout == b"".join(f"{text}\0".encode() for text in ODD)
    assert result.stderr == b""


@pytest.mark.parametrize("code", [0, 1, 3, 126, 127, 128, 160, 255])
def test_exit_code(phone: AdbDevice, code: int) -> None:
    result = phone.run(["sh", "-c", f"echo out; echo err >&2; exit {code}"], soon())
    assert (result.exit_code, result.signal, result.lost) == (code, None, False)
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    assert result.ok == (code == 0)


def test_no_such_command(phone: AdbDevice) -> None:
    result = phone.run(["/no/such/command"], soon())
    assert result.exit_code == 127
    assert b"/no/such/command" in result.stderr
    assert b"edgequant-" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT])
def test_death_by_signal(phone: AdbDevice, number: signal.Signals) -> None:
    result = phone.run(["sh", "-c", f"echo last words; kill -{int(number)} $$"], soon())
    assert (result.exit_code, result.signal, result.lost) == (None, number, False)
    assert result.stdout == b"last words\n"


def test_binary_both_ways(phone: AdbDevice) -> None:
    data = bytes(range(256)) * 20_000 + b"\r\n\x04\x1a"
    result = phone.run(["cat"], Deadline(60), stdin=data)
    assert result.stdout == data


def test_stdin_that_nobody_reads(phone: AdbDevice) -> None:
    """It ends.  What was printed may be lost: adbd has one socket for both, and closes it when it cannot write."""
    result = phone.run(["echo", "done"], soon(), stdin=b"x" * (8 << 20))
    assert (result.exit_code, result.lost) == (0, False)
    assert result.stdout in (b"done\n", b"")


def test_no_stdin_is_an_empty_one(phone: AdbDevice) -> None:
    assert phone.run(["wc", "-c"], soon()).stdout.strip() == b"0"


def test_large_output_on_both_streams(phone: AdbDevice) -> None:
    size = 20 << 20
    script = f"head -c {size} /dev/zero; head -c {size} /dev/zero | tr '\\0' e >&2"
    result = phone.run(["sh", "-c", script], Deadline(120), max_output=size)
    assert len(result.stdout) == size
    assert result.stderr == b"e" * size


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_without_end(adb_bed: AdbBed, phone: AdbDevice, stream: str) -> None:
    script = 'echo $$ > "$1"; exec cat /dev/zero' + (" >&2" if stream == "stderr" else "")
    file = adb_bed.files / f"endless-{stream}"
    with pytest.raises(DeviceError) as caught:
        phone.run(["sh", "-c", script, "sh", str(file)], soon(), max_output=1 << 20)
    assert caught.value.code == "OUTPUT_TOO_LARGE"
    assert stream in caught.value.message
    assert ended(int(file.read_text()))
    assert phone.run(["true"], soon()).ok


def test_command_line_limit(phone: AdbDevice) -> None:
    mark = "edgequant-" + "0" * 16
    room = MAX_REQUEST - len(command_line(["echo", ""], mark, "")) + len("''")
    assert phone.run(["echo", "x" * room], soon()).stdout == b"x" * room + b"\n"
    for argument, code in (("x" * (room + 1), "COMMAND_TOO_LONG"), ("a\0b", "COMMAND_INVALID")):
        with pytest.raises(InputError) as caught:
            phone.run(["echo", argument], soon())
        assert caught.value.code == code
    assert phone.run(["true"], soon()).ok


def test_deadline_kills_the_whole_group(adb_bed: AdbBed, phone: AdbDevice) -> None:
    pids = adb_bed.files / "pids"
    script = 'trap "" TERM HUP; sleep 100 & echo $$ $! > "$1"; echo before; wait'
    with pytest.raises(DeadlineExceeded) as caught:
        phone.run(
            ["sh", "-c", script, "sh", str(pids)], OnceReady(3, lambda: pids.exists() and "\n" in pids.read_text())
        )
    assert "within 3 s" in caught.value.message
    assert caught.value.evidence["stdout"] == "before\n"
    for pid in pids.read_text().split():
        assert ended(int(pid)), pid
    assert phone.run(["echo", "next"], soon()).stdout == b"next\n"


def test_many_at_once(phone: AdbDevice) -> None:
    results: dict[int, bytes] = {}

    def one(number: int) -> None:
        results[number] = phone.run(["sh", "-c", f"sleep 0.2; echo {number}"], Deadline(60)).stdout

    threads = [threading.Thread(target=one, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number}\n".encode() for number in range(16)}


@pytest.mark.parametrize("shell", ["busybox-static", "mksh"])
def test_shells_of_phones(adb_bed: AdbBed, shell: str) -> None:
    """Android's own is mksh, that of many boards busybox; the one of this host is neither."""
    serial = adb_bed.second(shell)
    pids = adb_bed.files / f"pids-{shell}"
    pids.touch()
    pids.chmod(0o666)  # the phone's user is another one
    with AdbDevice(f"adb://{serial}") as it:
        it.open(soon())
        name = it.run(["sh", "-c", 'echo "$KSH_VERSION"; sh --help 2>&1'], soon()).stdout
        assert (b"BusyBox" if shell == "busybox-static" else b"MIRBSD KSH") in name
        assert it.run(["printf", "%s\\0", *ODD], soon()).stdout == b"".join(f"{text}\0".encode() for text in ODD)
        assert it.run(["sh", "-c", "exit 7"], soon()).exit_code == 7
        assert it.run(["sh", "-c", "kill -SEGV $$"], soon()).signal == signal.SIGSEGV
        assert it.run(["/no/such/command"], soon()).exit_code == 127
        data = bytes(range(256)) * 1000
        assert it.run(["cat"], soon(), stdin=data).stdout == data
        family = 'trap "" TERM HUP; sleep 99 & echo $$ $! > "$1"; echo ready; wait'
        with pytest.raises(DeadlineExceeded):
            it.run(["sh", "-c", family, "sh", str(pids)], OnceReady(3, lambda: "\n" in pids.read_text()))
        for pid in pids.read_text().split():
            assert ended(int(pid)), pid
        # Several at once, some of them over: the guard keeps a list.
        processes = [it.start(["sh", "-c", "trap '' HUP; echo $$; sleep 99; true"], soon()) for _ in range(4)]
        left = [int(process.read(100, soon())) for process in processes]
        processes[1].kill()
        assert ended(left[1])
        assert not any(ended(left[n], 0) for n in (0, 2, 3))
        adb_bed.kill_second()
        for pid in left:
            assert ended(pid), pid
