"""Child processes that crash, hang, eat memory and talk too much: real ones, each watched from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgequant.background import Background
from edgequant.errors import InputError, ToolError
from edgequant.quantize.child import ChildResult, Stopper, death, run_child, tools_argv
from tests.waiting import ended

PYTHON = sys.executable


def python(code: str, tmp_path: Path, *, timeout: float = 60, **options: object) -> ChildResult:
    return run_child([PYTHON, "-c", code], log=tmp_path / "log.txt", timeout=timeout, **options)  # type: ignore[arg-type]


def read_pids(fifo: Path) -> list[int]:
    """Blocks until the other side has written and closed: no polling."""
    return [int(word) for word in fifo.read_text().split()]


FAMILY = """
import os, subprocess, sys
sleep = [sys.executable, '-c', 'import signal; signal.pause()']
near = subprocess.Popen(sleep)
far = subprocess.Popen(sleep, start_new_session=True)
with open({fifo!r}, 'w') as file:
    file.write(f'{{os.getpid()}} {{near.pid}} {{far.pid}}')
{then}
"""


def family(fifo: Path, then: str = "near.wait()") -> str:
    os.mkfifo(fifo)
    return FAMILY.format(fifo=str(fifo), then=then)


def test_exit_code_output_and_facts(tmp_path: Path) -> None:
    result = python("import os; print('out'); os.write(2, b'err\\n'); raise SystemExit(3)", tmp_path)
    assert (result.exit_code, result.signal, result.timed_out, result.ok) == (3, None, False, False)
    assert sorted(result.log_tail) == ["err", "out"]
    assert sorted(result.log.read_text().split()) == ["err", "out"]
    assert 0 < result.seconds < 60
    assert 2**20 < result.peak_rss < 2**30
    error = death(result, doing="the tool", prefix="TOOL", timeout=60)
    assert error is not None
    assert error.code == "TOOL_FAILED"


def test_success_is_no_death(tmp_path: Path) -> None:
    assert death(python("", tmp_path), doing="x", prefix="X", timeout=1) is None


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGILL", "SIGKILL", "SIGTERM"])
def test_a_signal_is_named(tmp_path: Path, name: str) -> None:
    code = f"import os, signal; print('the last words', flush=True); os.kill(os.getpid(), signal.{name})"
    result = python(code, tmp_path)
    assert (result.signal, result.exit_code, result.out_of_memory) == (name, None, False)
    error = death(result, doing="the tool", prefix="TOOL", timeout=60, hint="try this", where="m.onnx")
    assert error is not None
    assert error.code == "TOOL_CRASHED"
    assert name in str(error)
    assert "the last words" in str(error)
    assert error.hint
    assert error.evidence["log_tail"] == ["the last words"]


def test_native_code_that_really_segfaults(tmp_path: Path) -> None:
    (tmp_path / "noise.tflite").write_bytes(b"not a model at all" * 100)
    argv = tools_argv(("mnnconvert", ["-f", "TFLITE", "--modelFile", "noise.tflite", "--MNNModel", "x.mnn"]))
    result = run_child(argv, log=tmp_path / "log", timeout=60, cwd=tmp_path)
    assert result.signal == "SIGSEGV"
    assert any("Start to Convert" in line for line in result.log_tail)
    assert [path.name for path in tmp_path.iterdir() if "core" in path.name] == []


def test_no_core_dumps_and_no_stdin(tmp_path: Path) -> None:
    code = "import resource, sys; print(resource.getrlimit(resource.RLIMIT_CORE), repr(sys.stdin.read()))"
    assert python(code, tmp_path).log_tail == ["(0, 0) ''"]


def test_timeout_kills_the_whole_tree(tmp_path: Path) -> None:
    fifo = tmp_path / "pids"
    pids: list[int] = []
    code = family(fifo)
    reader = threading.Thread(target=lambda: pids.extend(read_pids(fifo)), daemon=True)
    reader.start()
    result = python(code, tmp_path, timeout=5)  # on the slowest machine three processes have started by then
    reader.join(30)
    assert result.timed_out
    assert not result.ok
    assert result.seconds >= 5
    assert len(pids) == 3
    assert all(ended(pid, 0) for pid in pids)  # when run_child returns they are gone, not soon after
    error = death(result, doing="the tool", prefix="TOOL", timeout=5)
    assert error is not None
    assert error.code == "TOOL_TIMEOUT"


@pytest.mark.parametrize("ending", ["os._exit(0)", "os.kill(os.getpid(), 11)"])
def test_nothing_is_left_when_the_command_ends_first(tmp_path: Path, ending: str) -> None:
    fifo = tmp_path / "pids"
    pids: list[int] = []
    code = family(fifo, ending)
    reader = threading.Thread(target=lambda: pids.extend(read_pids(fifo)))
    reader.start()
    python(code, tmp_path)
    reader.join(30)
    assert len(pids) == 3
    assert all(ended(pid, 0) for pid in pids)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_orphans_when_edgequant_dies(tmp_path: Path, number: signal.Signals) -> None:
    fifo = tmp_path / "pids"
    child = family(fifo)
    parent = subprocess.Popen(
        [
            PYTHON,
            "-c",
            "import sys; from pathlib import Path; from edgequant.quantize.child import run_child;"
            f"run_child([sys.executable, '-c', {child!r}], log=Path({str(tmp_path / 'log')!r}), timeout=100)",
        ],
        stderr=subprocess.PIPE,
    )
    pids = read_pids(fifo)
    assert len(pids) == 3
    parent.send_signal(number)
    _, error = parent.communicate(timeout=60)
    assert all(ended(pid) for pid in pids)
    assert (b"KeyboardInterrupt" in error) == (number == signal.SIGINT)


def test_a_killed_guard_is_named_and_takes_the_command_along(tmp_path: Path) -> None:
    fifo = tmp_path / "pids"
    os.mkfifo(fifo)
    pids: list[int] = []

    def kill_guard() -> None:
        pids.extend(read_pids(fifo))
        os.kill(pids[1], signal.SIGKILL)

    killer = threading.Thread(target=kill_guard)
    killer.start()
    code = f"import os,signal; open({str(fifo)!r},'w').write(f'{{os.getpid()}} {{os.getppid()}}'); signal.pause()"
    with pytest.raises(ToolError) as caught:
        python(code, tmp_path)
    killer.join(30)
    assert caught.value.code == "CHILD_LOST"
    assert ended(pids[0])


def test_memory_limit(tmp_path: Path) -> None:
    code = "x = bytearray(400 << 20); print(len(x))"
    assert python(code, tmp_path).ok
    result = python(code, tmp_path, memory_limit=200 << 20)
    assert not result.ok
    assert result.out_of_memory
    error = death(result, doing="the tool", prefix="TOOL", timeout=60, memory_limit=200 << 20)
    assert error is not None
    assert error.code == "TOOL_OUT_OF_MEMORY"
    assert "200 MB" in str(error)


def test_a_mapped_file_does_not_count_as_memory(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(1 << 30)
    code = f"import mmap; f=open({str(tmp_path / 'big')!r},'rb'); m=mmap.mmap(f.fileno(),0,access=mmap.ACCESS_READ)"
    assert python(code, tmp_path, memory_limit=200 << 20).ok


def test_runaway_output_is_bounded_and_keeps_both_ends(tmp_path: Path) -> None:
    code = (
        "import os; os.write(1, b'FIRST\\n')\n"
        "for i in range(2000): os.write(1, b'x' * 50000 + b'\\n')\n"
        "os.write(1, b'LAST\\n')"
    )
    result = python(code, tmp_path, log_limit=1 << 20)
    assert result.ok
    text = result.log.read_bytes()
    assert len(text) < 2 << 20
    assert text.startswith(b"FIRST")
    assert text.endswith(b"LAST\n")
    assert result.log_dropped > 90_000_000
    assert b"bytes of output left out" in text
    assert result.log_tail[-1] == "LAST"
    assert max(map(len, result.log_tail)) <= 500


def test_output_that_is_not_text(tmp_path: Path) -> None:
    result = python("import os; os.write(1, bytes(range(256)))", tmp_path)
    assert result.ok
    assert result.log.read_bytes() == bytes(range(256))


def test_an_unwritable_log_disk_does_not_stop_the_command(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.symlink_to("/dev/full")
    result = run_child([PYTHON, "-c", "print('hello')"], log=log, timeout=60)
    assert result.ok
    assert result.log_error
    assert result.log_tail == ["hello"]


def test_what_cannot_start_is_said(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as caught:
        run_child(["no-such-program-at-all"], log=tmp_path / "log", timeout=5)
    assert caught.value.code == "CHILD_NOT_STARTED"
    with pytest.raises(ToolError) as caught:
        run_child([PYTHON], log=tmp_path / "log", timeout=5, cwd=tmp_path / "missing")
    assert caught.value.code == "CHILD_NOT_STARTED"
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as refused:
        run_child([PYTHON], log=tmp_path / "file" / "log", timeout=5)
    assert refused.value.code == "LOG_NOT_WRITABLE"


def test_environment_and_directory(tmp_path: Path) -> None:
    env = {"ONLY": "this", "PATH": os.environ["PATH"]}
    code = "import os; print(os.environ['ONLY'], 'HOME' in os.environ, os.getcwd())"
    assert python(code, tmp_path, env=env, cwd=tmp_path).log_tail == [f"this False {tmp_path}"]


def test_many_at_once_from_threads(tmp_path: Path) -> None:
    results: dict[int, ChildResult] = {}

    def one(number: int) -> None:
        argv = [PYTHON, "-S", "-c", f"print({number}); raise SystemExit({number})"]
        results[number] = run_child(argv, log=tmp_path / str(number), timeout=60)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {number: (r.exit_code, r.log_tail) for number, r in results.items()} == {
        number: (number, [str(number)]) for number in range(12)
    }


def test_the_tools_worker_imports_nothing_of_mnn_and_opens_no_socket(tmp_path: Path) -> None:
    """Looked at from inside, after a real conversion tool call: modules, open sockets, module search path."""
    argv = tools_argv(("mnnconvert", ["--version"]))
    worker, extension = argv[3], argv[5]
    look = (
        f"import sys, os, runpy; sys.argv = ['worker', 'call', {extension!r}, '[[\"mnnconvert\", [\"x\", \"-v\"]]]'];"
        f"runpy.run_path({worker!r}, run_name='__main__');"
        "links = [os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd') if os.path.exists("
        "f'/proc/self/fd/{fd}')];"
        "print('SOCKETS', [x for x in links if x.startswith('socket:')]);"
        "print('MODULES', sorted(m for m in sys.modules if m.split('.')[0] in "
        "('MNN', 'socket', 'ssl', 'http', 'urllib', 'pip', 'subprocess')));"
        "print('SITE', [p for p in sys.path if 'site-packages' in p])"
    )
    result = run_child([*argv[:3], "-c", look], log=tmp_path / "log", timeout=60)
    assert result.ok, result.log_tail
    assert result.log_tail[-3:] == ["SOCKETS []", "MODULES []", "SITE []"]


def test_missing_mnn_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ToolError) as caught:
        tools_argv(("mnnconvert", []))
    assert caught.value.code == "MNN_MISSING"
    assert "pip install MNN" in (caught.value.hint or "")


def test_stopped_from_another_thread_nothing_is_left_and_nothing_more_starts(tmp_path: Path) -> None:
    stopper = Stopper()

    def work() -> ChildResult:
        with stopper.over_children():
            return python(family(tmp_path / "pids"), tmp_path)

    working = Background(work)
    while not (tmp_path / "pids").exists():  # made by the thread, right before it starts the child
        pass
    pids = read_pids(tmp_path / "pids")
    stopper.stop()
    assert working.result().signal == "SIGKILL"
    assert all(ended(pid) for pid in pids)
    with stopper.over_children(), pytest.raises(ToolError) as caught:
        python("", tmp_path)
    assert caught.value.code == "INTERRUPTED"
    assert python("", tmp_path).ok, "what is not its own is none of its business"
