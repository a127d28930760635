"""What every device can do: run a command, start a long-lived process, take a file.  Nothing about models.

Drivers (one file per transport) implement this and nothing else; everything built from these calls, such as the
content-addressed store, lives beside it and works with any driver.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgequant.deadline import Deadline

if TYPE_CHECKING:
    from edgequant.devices.facts_model import DeviceFacts
    from edgequant.pack import WantedPack
    from edgequant.progress import Progress as Listener

Progress = Callable[[int], None]
"""Called with the number of bytes sent since the last call."""


@dataclass(frozen=True)
class CommandResult:
    """How a command on the device ended.

    exit_code is None when it was killed by a signal (`signal` is then its number, or None where the transport
    does not tell) or when the link was lost before the status arrived (`lost` is then true).
    """

    exit_code: int | None
    stdout: bytes
    stderr: bytes
    signal: int | None = None
    lost: bool = False

    @property
    def ok(self) -> bool:
        return self.exit_code == 0


class Process(ABC):
    """A long-lived process on the device with a byte-clean duplex stream: its stdin and its stdout.

    stderr is drained by the driver all the time (so the process never blocks on it) and handed to the `on_stderr`
    callback given to `Device.start`.
    """

    @abstractmethod
    def write(self, data: bytes | memoryview, deadline: Deadline) -> None:
        """Send all of `data` to stdin.  Raises DeviceError (code LINK_LOST or PROCESS_ENDED), DeadlineExceeded."""

    @abstractmethod
    def read(self, limit: int, deadline: Deadline) -> bytes:
        """At least 1 and at most `limit` bytes of stdout as soon as any are there; b"" once the stream has ended.

        Raises DeviceError (LINK_LOST) where the transport knows that the link, not the process, went away;
        DeadlineExceeded where nothing came in time.
        """

    @abstractmethod
    def wait(self, deadline: Deadline) -> CommandResult:
        """Wait for the end; stdout and stderr of the result are empty.  Raises DeadlineExceeded."""

    @abstractmethod
    def kill(self) -> None:
        """Make it end now, at the latest when the connection closes.  Never raises; may be called twice."""


class Device(ABC):
    """One device under test.  Use as a context manager; after `close` nothing of ours runs there any more."""

    uri: str
    """As the user wrote it: names the device in every message and in the report."""

    @abstractmethod
    def open(self, deadline: Deadline) -> None:
        """Connect.  Raises DeviceError with what to do about it."""

    @abstractmethod
    def close(self) -> None:
        """Disconnect and end every process started here.  Never raises; may be called twice."""

    @abstractmethod
    def run(
        self, argv: Sequence[str], deadline: Deadline, *, stdin: bytes = b"", max_output: int = 16 << 20
    ) -> CommandResult:
        """Run one command to its end.  `argv` reaches the command as it is: the driver quotes it.

        Raises DeviceError (LINK_LOST, OUTPUT_TOO_LARGE when stdout or stderr exceeds `max_output`), DeadlineExceeded
        (the command is killed first).  A non-zero exit code is a result, not an exception.
        """

    @abstractmethod
    def start(
        self, argv: Sequence[str], deadline: Deadline, *, on_stderr: Callable[[bytes], None] | None = None
    ) -> Process:
        """Start a long-lived process; `deadline` covers starting it, not its life."""

    def bound_memory(self, most: int) -> None:  # noqa: B027  (only this host has something to defend)
        """Bytes that what was started may allocate from now on."""

    @abstractmethod
    def send_file(
        self, source: Path, remote_path: str, deadline: Deadline, *, progress: Progress | None = None
    ) -> None:
        """Write the bytes of `source` into `remote_path` (created or truncated, mode 0600) as fast as the link allows.

        No checks, no atomicity: that is the store's business.  A stall (no byte moved for the driver's idle limit)
        raises DeadlineExceeded even when `deadline` is far.  Raises DeviceError with the device's own reason
        (NO_SPACE, READ_ONLY, PERMISSION_DENIED, LINK_LOST, ...).
        """

    @property
    @abstractmethod
    def python(self) -> Sequence[str]:
        """Command that starts Python on the device, for example ("python3",)."""

    @property
    def work_dirs(self) -> Sequence[str]:
        """Where to work there, best first; @home and @tmp as the store knows them."""
        return ("@home", "@tmp")

    @property
    @abstractmethod
    def is_host(self) -> bool:
        """True where models run in the very environment edgequant itself runs in, so that both must agree."""

    @property
    def emulated(self) -> str | None:
        """What emulates this device; None for a real one.  Of an emulated one outputs count, times and memory not."""
        return None

    @property
    def needs_pack(self) -> bool:
        """True where there is no Python but the pack's, unless the user names one."""
        return False

    @property
    def brings_runtime(self) -> bool:
        """True where `python` is that of the pack already, so that nothing else can be asked to run there."""
        return False

    @property
    def pack_sha256(self) -> str | None:
        """Of that pack; None where the device brings none."""
        return None

    @property
    def exclusive(self) -> bool:
        """Whether one edgequant at a time may measure there: on a device that is there to be measured."""
        return not self.is_host and self.emulated is None

    def corrected(self, facts: DeviceFacts) -> DeviceFacts:
        """What was read of the machine, with what cannot be read there put right."""
        return facts

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclass(frozen=True)
class Settings:
    """What a user wants of a device, beside its URI; a kind takes what it has a use for, and refuses what contradicts.

    accept_new_host_key: whether one never seen before is believed.
    python: command that starts Python there; None for the default.
    wanted: the pack of a device that brings one.
    listener: told of what is fetched and built on this host.
    """

    accept_new_host_key: bool = False
    python: str | None = None
    wanted: WantedPack | None = None
    listener: Listener | None = None


class Listed(NamedTuple):
    """A device that can be named without connecting to it, and what it is; or why none can."""

    uri: str
    what: str


@dataclass(frozen=True)
class Kind:
    """One kind of devices.

    prefix: what its URIs begin with, such as "ssh://".
    rest: how they go on, for people, such as "[user@]host[:port]".
    make: the driver for a URI, not yet connected.  Raises InputError (DEVICE_URI_INVALID, ...).
    listed: the devices that are known without connecting to any.  Raises DeviceError with the reason where none can be.
    """

    prefix: str
    rest: str
    make: Callable[[str, Settings], Device]
    listed: Callable[[], Iterable[Listed]] = tuple

    @property
    def form(self) -> str:
        return self.prefix + self.rest
