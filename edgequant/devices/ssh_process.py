"""Processes on the device: started so that their output is clean and so that they can be killed.

The command sent is `exec sh -c 'printf MARK $$ ...; exec "$@"' sh MARK ARGV...`:

- The mark cuts off whatever the login shell printed before (a chatty .bashrc), on stdout and stderr alike, and brings
  the process id.
- Both exec leave the command itself as sshd's child and the leader of its process group: sshd then tells the signal
  that ended it, and the whole group can be killed by that id.  Closing the channel would not end it: without a
  terminal sshd sends no SIGHUP.

Killing is the business of one small shell per connection, the guard, which reads ids from its stdin.  It is there
already when a kill is due, and when the connection dies it sees the end of its stdin: what still runs gets a few
seconds to end by itself, then it is killed too.

Plain POSIX sh, one line, no single quotes: also for busybox, and for login shells that are not sh (csh, fish).
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import shlex
import signal
import threading
from collections.abc import Callable, Sequence
from typing import Any

import paramiko

from edgequant.deadline import Deadline
from edgequant.devices.collect import RemoteProcess, after_mark
from edgequant.devices.protocol import CommandResult
from edgequant.devices.ssh_link import TICK, SshLink
from edgequant.errors import DeadlineExceeded, DeviceError

_log = logging.getLogger(__name__)

_CHUNK = 32 << 10
_MAX_CHATTER = 1 << 20
"""Most bytes a login shell may print before our own command starts."""
_KILL_PATIENCE = 5.0
"""Seconds to wait for the device to confirm a kill before the channel is closed anyway."""

# Where nobody reads any more, printf fails and nothing is started: a shell that comes late runs no orphan.
_START = 'printf "%s %d\\n" "$1" $$ >&2 && printf "%s %d\\n" "$1" $$ && shift && exec "$@"'

_GUARD = (
    'all=" "; '
    'end() { kill -s "$1" -- "-$2" 2>/dev/null || kill -s "$1" "$2" 2>/dev/null; }; '
    "while read -r verb pid; do case $verb in "
    '+) all="$all$pid " ;; '
    '-) case $all in *" $pid "*) all=${all%%" $pid "*}" "${all#*" $pid "} ;; esac ;; '
    "k) end KILL $pid ;; "
    "q) for pid in $all; do end KILL $pid; done; exit 0 ;; "
    "esac; done; "
    'if [ "$all" != " " ]; then sleep 3; for pid in $all; do end TERM $pid; done; '
    "sleep 2; for pid in $all; do end KILL $pid; done; fi"
)


class _Cutter:
    """Drops everything up to and including the mark line; bytes after it pass untouched."""

    def __init__(self, mark: str) -> None:
        self._mark = mark.encode()
        self._held = bytearray()
        self.pid: int | None = None

    def feed(self, data: bytes) -> bytes:
        if self.pid is not None:
            return data
        self._held += data
        found = after_mark(self._held, self._mark, len(data))
        if found is None:
            return b""
        self.pid, at = found
        rest, self._held = bytes(self._held[at:]), bytearray()
        return rest

    @property
    def held(self) -> bytes:
        return bytes(self._held[: _MAX_CHATTER + 1])


class Guard:
    """The little shell on the device that kills what we started."""

    def __init__(self, link: SshLink, deadline: Deadline) -> None:
        self._channel = open_channel(link, deadline)
        self._channel.settimeout(TICK)
        _execute(link, self._channel, f"exec sh -c {shlex.quote(_GUARD)}", deadline)
        self._link = link
        self._lock = threading.Lock()

    @property
    def alive(self) -> bool:
        return not self._channel.status_event.is_set()

    def tell(self, verb: str, pid: int = 0) -> None:
        """Send one order: + watch, - forget, k kill, q kill all and end.  Never raises, never blocks for long."""
        # In a thread of its own: on a dead link paramiko's send waits for good, and kill() must not.
        sender = threading.Thread(target=self._send, args=(f"{verb} {pid}\n".encode(),), daemon=True)
        sender.start()
        sender.join(_KILL_PATIENCE)
        if sender.is_alive():
            self._link.why_lost = self._link.why_lost or "the device took no more data"
            self._link.close()

    def _send(self, line: bytes) -> None:
        with self._lock, contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.sendall(line)

    def finish(self) -> None:
        """Kill everything that is left, and wait until that is done."""
        self.tell("q")
        self._channel.status_event.wait(_KILL_PATIENCE)


def open_channel(link: SshLink, deadline: Deadline) -> Any:
    """A new session.  Raises DeviceError (LINK_LOST, SESSION_REFUSED), DeadlineExceeded."""
    deadline.check("opening a session", link.where)
    try:
        with link.watching(_last_resort(deadline)):
            return link.transport.open_session(timeout=deadline.remaining)
    except paramiko.ChannelException as error:
        raise DeviceError(
            "SESSION_REFUSED",
            f"the server opens no further session: {error.text}",
            where=link.where,
            transient=True,
            hint="Run fewer things at once on this device, or raise MaxSessions in its sshd_config.",
        ) from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        deadline.check("opening a session", link.where)
        raise link.lost("opening a session") from error


def _execute(link: SshLink, channel: Any, command: str, deadline: Deadline) -> None:
    # paramiko waits for the answer without a timeout.
    with link.watching(_last_resort(deadline)):
        channel.exec_command(command)


def _last_resort(deadline: Deadline) -> float | None:
    """When to close a connection that keeps a call from ever returning: a little after the call should have ended."""
    left = deadline.remaining
    return None if left is None else left + 4 * TICK


class SshProcess(RemoteProcess):
    """One command on the device.

    Args:
        link: the connection.
        guard: kills it; None where the server has no session left for one, then only closing the channel is tried.
        argv: the command; quoted here.
        deadline: for starting it.
        on_stderr: gets the command's stderr as it comes, in a thread of this process.

    Raises:
        DeviceError: LINK_LOST, SESSION_REFUSED, NO_SHELL (the account gives no POSIX shell), DeadlineExceeded.
    """

    def __init__(
        self,
        link: SshLink,
        guard: Callable[[Deadline], Guard | None],
        argv: Sequence[str],
        deadline: Deadline,
        on_stderr: Callable[[bytes], None] | None,
    ) -> None:
        mark = f"edgequant-{secrets.token_hex(8)}"
        self.name = argv[0]
        self._link = link
        self._on_stderr = on_stderr
        self._out = _Cutter(mark)
        self._err = _Cutter(mark)
        self._ready = b""
        self._killed = False
        self._forgotten = False
        self._kill_lock = threading.Lock()
        self._channel = channel = open_channel(link, deadline)
        self._guard = guard(deadline)
        # Blocking calls wake up this often to look at their own deadline: the channel has one timeout for all threads.
        channel.settimeout(TICK)
        try:
            command = f"exec sh -c {shlex.quote(_START)} sh {mark} {shlex.join(argv)}"
            _execute(link, channel, command, deadline)
        except (paramiko.SSHException, EOFError, OSError) as error:
            if link.active:
                channel.close()
                raise self._no_shell() from error
            deadline.check(f"starting {self.name}", link.where)
            raise link.lost(f"starting {self.name}") from error
        self._pump = threading.Thread(target=self._drain_stderr, name="ssh-stderr", daemon=True)
        self._pump.start()
        try:
            while self._out.pid is None:
                self._ready = self._out.feed(self._receive(_CHUNK, deadline, f"starting {self.name}"))
        except BaseException:
            self.kill()
            raise
        self.pid = self._out.pid
        if self._guard is not None:
            self._guard.tell("+", self.pid)

    def _receive(self, limit: int, deadline: Deadline, doing: str) -> bytes:
        while True:
            deadline.check(doing, self._link.where)  # also while something comes: a drip has no end
            try:
                data = bytes(self._channel.recv(limit))
            except TimeoutError:
                continue
            except (paramiko.SSHException, EOFError, OSError) as error:
                raise self._link.lost(doing) from error
            if data:
                self._link.moved()
            if self._out.pid is None and (not data or len(self._out.held) > _MAX_CHATTER):
                if not data and self._is_lost():
                    raise self._link.lost(doing)
                self._out.feed(data)
                raise self._no_shell()
            return data

    def _no_shell(self) -> DeviceError:
        chatter = (self._out.held + self._err.held)[-1000:].decode(errors="replace").strip()
        return DeviceError(
            "NO_SHELL",
            "the account runs no commands" + (f"; its shell said: {chatter}" if chatter else ""),
            where=self._link.where,
            hint="An account is needed whose login shell starts a POSIX sh: no ForceCommand, not SFTP only.",
            evidence={"said": chatter},
        )

    def _drain_stderr(self) -> None:
        while True:
            try:
                data = bytes(self._channel.recv_stderr(_CHUNK))
            except TimeoutError:
                continue
            except (paramiko.SSHException, EOFError, OSError):
                return
            if not data:
                return
            self._link.moved()
            if self._err.pid is None and len(self._err.held) > _MAX_CHATTER:
                continue  # the shell before our command talks without end; reading stdout will notice
            data = self._err.feed(data)
            if data and self._on_stderr is not None:
                try:
                    self._on_stderr(data)
                except Exception:  # noqa: BLE001 - whatever it is, it is logged
                    # The caller's fault must not stop the draining: the process would block on a full pipe.
                    _log.exception("the stderr callback of %s failed", self.name)
                    self._on_stderr = None

    def read(self, limit: int, deadline: Deadline) -> bytes:
        if not self._ready:
            data = self._receive(limit, deadline, f"reading from {self.name}")
            if not data and not self._killed and not self._channel.eof_received and self._is_lost():
                raise self._link.lost(f"reading from {self.name}")
            return data
        data, self._ready = self._ready[:limit], self._ready[limit:]
        return data

    def write(self, data: bytes | memoryview, deadline: Deadline) -> None:
        view = memoryview(data).cast("B")
        doing = f"writing to {self.name}"
        with self._link.watching(_last_resort(deadline)):
            while view.nbytes:
                sent = self.send_some(bytes(view[:_CHUNK]), deadline, doing)
                view = view[sent:]

    def send_some(self, data: bytes, deadline: Deadline, doing: str) -> int:
        """Send at least one byte of `data`; the number sent, or 0 when a tick passed without the device taking any.

        Raises DeviceError (PROCESS_ENDED, LINK_LOST), DeadlineExceeded.
        """
        deadline.check(doing, self._link.where)
        try:
            sent = int(self._channel.send(data))
        except TimeoutError:
            return 0
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._cannot_send(deadline, doing) from error
        if sent == 0:
            raise self._cannot_send(deadline, doing)
        self._link.moved()
        return sent

    def _cannot_send(self, deadline: Deadline, doing: str) -> DeviceError:
        if self._is_lost() and not self._killed:
            if deadline.expired:
                return DeadlineExceeded(f"{doing} did not finish within {deadline.seconds:g} s", where=self._link.where)
            return self._link.lost(doing)
        return DeviceError("PROCESS_ENDED", f"{self.name} has ended and takes no input", where=self._link.where)

    @property
    def packet(self) -> int:
        """Most bytes that travel in one packet; 64 are paramiko's own."""
        return int(self._channel.out_max_packet_size) - 64

    def close_stdin(self, deadline: Deadline) -> None:  # noqa: ARG002  (nothing here waits)
        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            self._channel.shutdown_write()

    def ended(self, seconds: float) -> bool:
        """Whether it has ended, or ends within `seconds`."""
        return bool(self._channel.status_event.wait(seconds))

    def wait(self, deadline: Deadline) -> CommandResult:
        while not self.ended(TICK):
            deadline.check(f"waiting for {self.name}", self._link.where)
        # The last of stderr; a grandchild that keeps it open must not keep us.
        self._pump.join(1.0)
        self._forget()
        if self._channel.exit_status >= 0:
            return CommandResult(int(self._channel.exit_status), b"", b"")
        name = getattr(self._channel, "exit_signal_name", None)
        if name is not None:
            number = getattr(signal, f"SIG{name}", None)
            return CommandResult(None, b"", b"", signal=int(number) if number is not None else None)
        if self._killed:
            return CommandResult(None, b"", b"", signal=int(signal.SIGKILL))
        return CommandResult(None, b"", b"", lost=self._is_lost())

    def _is_lost(self) -> bool:
        """Whether the link, not the process, went away."""
        channel = self._channel
        if channel.exit_status >= 0 or getattr(channel, "closed_by_server", False):
            return False
        if not channel.closed and self._link.active:
            return False
        # paramiko marks channels closed a moment before the connection that took them down.
        self._link.transport.join(1.0)
        return not self._link.active

    def _forget(self) -> None:
        if self._guard is not None and not self._forgotten and self._out.pid is not None and self._link.active:
            self._forgotten = True
            self._guard.tell("-", self._out.pid)

    def lost(self, doing: str) -> DeviceError:
        return self._link.lost(doing)

    def kill(self) -> None:
        with self._kill_lock:
            if self._killed:
                return
            ended = self._channel.status_event.is_set()
            self._killed = True
            if not ended and self._link.active and self._guard is not None and self._out.pid is not None:
                self._guard.tell("k", self._out.pid)
                self._channel.status_event.wait(_KILL_PATIENCE)
                self._forget()
            # On a link that is alive but stuck this would wait for the socket, so not in this thread.
            closer = threading.Thread(target=self._close_channel, daemon=True)
            closer.start()
            closer.join(_KILL_PATIENCE)

    def _close_channel(self) -> None:
        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            self._channel.close()
