"""The runner as a process: its private stream to the host, its end when the host goes away, its memory, and how it
becomes a new one."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from typing import Callable, Dict, List, Optional, Tuple

POLLRDHUP = getattr(select, "POLLRDHUP", 0x2000)
_ITSELF = "/proc/self/exe"


def take_stdio() -> Tuple[int, int]:
    """Move stdin and stdout to private descriptors and return them (input, output).

    MNN prints to stdout from native code whenever it likes; from here on that lands on stderr, so that nothing but
    frames can reach the host's end of the stream.
    """
    wire_in, wire_out = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    _say_at_once()
    return wire_in, wire_out


def _say_at_once() -> None:
    """Have MNN's words written line by line: what is still in a buffer when it crashes is lost, and the last ones are
    those that say why."""
    with contextlib.suppress(ImportError, OSError, AttributeError, ValueError):  # not every system has it so
        import ctypes

        library = ctypes.CDLL(None)
        library.setvbuf(ctypes.c_void_p.in_dll(library, "stdout"), None, 1, 0)  # 1: _IOLBF


def die_with_host(wire_in: int, *others: int, at_end: Callable[[], object] = lambda: None) -> Callable[[], None]:
    """Fork a watcher that kills this process as soon as the host's end of the stream closes, and tidies up behind it.

    Native code holds the interpreter lock while it computes, so a thread could not notice; without the watcher a lost
    link would leave a model running on the device for as long as it likes.

    others: descriptors that must not outlive this process, so that the watcher closes them.  at_end: called by the
    watcher once this process has ended, however that came.  Returns what ends it.
    """
    alive_read, alive_write = os.pipe()
    parent = os.getpid()
    watcher = os.fork()
    if watcher:
        os.close(alive_read)
        os.set_inheritable(alive_write, False)

        def dismiss() -> None:
            os.write(alive_write, b"!")  # it goes on as another program: nothing is to be tidied up
            os.close(alive_write)
            os.waitpid(watcher, 0)

        return dismiss
    # The watcher: holds no end of the host's streams but the one it watches, or the host would wait for it.
    for descriptor in (alive_write, *others):
        os.close(descriptor)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    # A group or a session that is killed whole must not take with it what tidies up.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.setsid()
    poller = select.poll()
    poller.register(wire_in, POLLRDHUP)
    poller.register(alive_read, select.POLLIN)
    while True:
        events = dict(poller.poll())
        if (
            alive_read in events
        ):  # the runner ended, or was killed: before all else, for its number may be another's now
            if not os.read(alive_read, 1):
                at_end()
            os._exit(0)
        if events[wire_in] & (select.POLLHUP | select.POLLERR | select.POLLNVAL | POLLRDHUP):
            with contextlib.suppress(ProcessLookupError):
                os.kill(parent, signal.SIGKILL)
            poller.unregister(wire_in)  # its end of the pipe closes when it is gone


def own_arguments() -> List[bytes]:
    """The command line this program was started with.  Raises OSError where the system does not tell, or starts
    nothing by the link to what runs."""
    if not os.access(_ITSELF, os.X_OK):
        raise FileNotFoundError("there is no %s" % _ITSELF)
    with open("/proc/self/cmdline", "rb") as stream:
        return stream.read().split(b"\0")[:-1]


def start_anew(arguments: List[bytes], wire_in: int, wire_out: int) -> None:
    """Become this program as it was when it was started, with the stream as its stdin and stdout.

    The process stays, and with it what the host watches, kills and waits for; its memory is new.  Returns only by
    OSError.
    """
    sys.stderr.flush()
    _flush_c()
    os.dup2(wire_in, 0)
    os.dup2(wire_out, 1)
    os.execv(_ITSELF, arguments)  # noqa: S606  (a program is what it is to become)


def capture_stdout(work: Callable[[], None]) -> str:
    """Run `work` and return what it printed on file descriptor 1, native code included (a few lines at most)."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)  # more than a pipe holds is dropped rather than waited for
    saved = os.dup(1)
    sys.stdout.flush()
    os.dup2(write_end, 1)
    os.close(write_end)
    try:
        work()
    finally:
        sys.stdout.flush()
        _flush_c()
        os.dup2(saved, 1)
        os.close(saved)
    with os.fdopen(read_end, "rb") as stream:
        return stream.read(1 << 16).decode("utf-8", "replace")


def _flush_c() -> None:
    # Without python -u, C keeps what native code printed to a pipe in a buffer of its own.
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).fflush(None)


_highest = 0
"""KiB: the highest mark of RSS that any reading has seen since `reset_peak`."""


def reset_peak() -> None:
    """Start `rss_peak` anew (Linux 4.0), so that it belongs to the model that is loaded next.

    Where the system refuses, the peak stays that of the whole process, which is an upper bound.
    """
    global _highest
    _highest = 0
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "wb") as stream:
        stream.write(b"5")


PSS_STEP = 64
"""KiB: PSS is read again only where RSS has moved by more than that."""


class Memory:
    """This process's memory.

    Adding up PSS makes the kernel walk through all pages, which takes it 0.4 to 2 ms: more than everything else the
    runner does for one inference.  Mappings of ours that stay the same keep their PSS, so it is read where RSS, which
    costs nothing, has moved by more than PSS_STEP since it was read last.
    """

    def __init__(self) -> None:
        self._status = self._clear = None  # type: Optional[int]
        with contextlib.suppress(OSError):
            self._status = os.open("/proc/self/status", os.O_RDONLY)  # kept open: half of what reading it takes
        with contextlib.suppress(OSError):
            self._clear = os.open("/proc/self/clear_refs", os.O_WRONLY)
        self._at = None  # type: Optional[int]
        self._rollup = {}  # type: Dict[str, Optional[int]]

    def read(self, anew: bool = False) -> Dict[str, Optional[int]]:
        """Now, in KiB: `rss`, `rss_peak` (since `reset_peak`), `stage_peak` (since the last reading, and starts anew by
        this one), `pss`, `uss` (what no other process shares) and `swap`; None where not known.

        anew: read PSS and USS whatever RSS says.
        """
        global _highest
        keys = ("rss", "rss_peak", "stage_peak", "pss", "uss", "swap")
        found = dict.fromkeys(keys)  # type: Dict[str, Optional[int]]
        if self._status is None:
            return _memory_without_proc(found)
        status = os.pread(self._status, 1 << 14, 0)
        rss, peak = _kib(status, b"\nVmRSS:"), _kib(status, b"\nVmHWM:")
        found["rss"], found["swap"] = rss, _kib(status, b"\nVmSwap:")
        if peak is not None:
            found["stage_peak"] = peak if self._next_stage() else None
            found["rss_peak"] = _highest = max(_highest, peak)
        if anew or rss is None or self._at is None or abs(rss - self._at) > PSS_STEP:
            self._at, self._rollup = rss, _rollup()
        found.update(self._rollup)
        return found

    def _next_stage(self) -> bool:
        """Start the kernel's mark anew; false where it does not let us, and the mark is that of all stages so far."""
        try:
            return self._clear is not None and os.write(self._clear, b"5") == 1
        except OSError:
            return False


def _kib(text: bytes, key: bytes) -> Optional[int]:
    _, found, rest = text.partition(key)
    return int(rest.split(None, 1)[0]) if found else None


def _rollup() -> Dict[str, Optional[int]]:
    try:
        with open("/proc/self/smaps_rollup", "rb", buffering=0) as stream:  # Linux 4.14
            text = stream.read(1 << 16)
    except OSError:
        return {}
    clean, dirty = _kib(text, b"\nPrivate_Clean:"), _kib(text, b"\nPrivate_Dirty:")
    return {"pss": _kib(text, b"\nPss:"), "uss": None if clean is None or dirty is None else clean + dirty}


def _memory_without_proc(found: Dict[str, Optional[int]]) -> Dict[str, Optional[int]]:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found["rss_peak"] = peak // 1024 if sys.platform == "darwin" else peak
    try:
        import psutil
    except ImportError:
        return found
    found["rss"] = psutil.Process().memory_info().rss // 1024
    return found
