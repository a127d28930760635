"""Sending a file over SSH: a stream into `cat`, about twice as fast as SFTP, and no SFTP server is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO

from edgequant.deadline import Deadline
from edgequant.devices.protocol import CommandResult, Progress
from edgequant.devices.reasons import reason
from edgequant.devices.ssh_link import TICK, Movement, SshLink
from edgequant.devices.ssh_process import SshProcess
from edgequant.errors import DeadlineExceeded, DeviceError, EdgequantError, InputError

# `[ -f ]`: the mode of a device node such as /dev/full is not ours to change.
RECEIVE = (
    "umask 077; LC_ALL=C; export LC_ALL; "
    ': > "$1" || exit 1; if [ -f "$1" ]; then chmod 600 -- "$1" || exit 1; fi; exec cat > "$1"'
)

# What only happens to files; the rest every transport shares.
_REASONS = (
    ("Is a directory", "IS_A_DIRECTORY", "Name a file."),
    ("No such file or directory", "NO_SUCH_DIRECTORY", "Create the directory first."),
    ("irectory nonexistent", "NO_SUCH_DIRECTORY", "Create the directory first."),  # as dash says it
    ("nonexistent directory", "NO_SUCH_DIRECTORY", "Create the directory first."),  # as busybox says it
    ("File name too long", "NAME_TOO_LONG", "Choose a shorter name."),
    ("File too large", "FILE_TOO_LARGE", "The file system there, or a limit of this account, allows no file that big."),
)


def write_error(remote_path: str, stderr: bytes, result: CommandResult, where: str) -> DeviceError:
    """The error for a write that failed on the device, with the device's own reason."""
    said = stderr.decode(errors="replace").strip()
    ended = f"signal {result.signal}" if result.exit_code is None else f"exit code {result.exit_code}"
    text = said.splitlines()[-1] if said else f"no reason given, {ended}"
    doing = f"{remote_path} could not be written"
    error = reason(text, doing, where)
    for words, code, hint in _REASONS:
        if words in text:
            error = DeviceError(code, f"{doing}: {text}", where=where, hint=hint)
    error.evidence.update({"stderr": said[-2000:], "exit_code": result.exit_code, "signal": result.signal})
    return error


def push(
    link: SshLink,
    process: SshProcess,
    source: Path,
    remote_path: str,
    stderr: Callable[[], bytes],
    deadline: Deadline,
    *,
    idle_limit: float,
    progress: Progress | None,
) -> None:
    """Feed `source` to a process that runs RECEIVE.  Raises as Device.send_file; `idle_limit` in seconds."""
    doing = f"sending {source.name}"
    still = Movement(idle_limit)
    # The check in the loop is the gentle way; the watchdog, a little later, is for a thread stuck in a full socket.
    with link.watching(idle_limit + 4 * TICK) as stuck:
        assert stuck is not None
        try:
            with _opened(source) as stream:
                while data := stream.read(process.packet):
                    while data:
                        sent = process.send_some(data, deadline, doing)
                        if sent:
                            still.moved()
                            stuck.moved()
                            if progress is not None:
                                progress(sent)
                            data = data[sent:]
                        elif still.stale:
                            raise _stalled(doing, idle_limit, link.where)
            process.close_stdin(deadline)
            while not process.ended(TICK):
                deadline.check(doing, link.where)
                if still.stale:
                    raise _stalled(doing, idle_limit, link.where)
            result = process.wait(deadline)
        except EdgequantError as error:
            if error.code == "LINK_LOST" and stuck.stale:
                raise _stalled(doing, idle_limit, link.where) from error
            if error.code != "PROCESS_ENDED":
                raise
            # cat ended while there was more to send: it said why on stderr.
            result = process.wait(deadline)
    if result.lost:
        if stuck.stale:
            raise _stalled(doing, idle_limit, link.where)
        raise link.lost(doing)
    if not result.ok:
        raise write_error(remote_path, stderr(), result, link.where)


def _opened(source: Path) -> IO[bytes]:
    try:
        return source.open("rb", buffering=1 << 20)
    except OSError as error:
        raise InputError("FILE_UNREADABLE", f"cannot be read: {error.strerror}", where=str(source)) from error


def _stalled(doing: str, idle_limit: float, where: str) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"{doing} stalled: the device took no byte for {idle_limit:g} s",
        code="STALLED",
        where=where,
        hint="Check the network and the storage of the device, then try again.",
    )
