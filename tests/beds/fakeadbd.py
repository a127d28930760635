"""The device's side of adb, for what a real adbd cannot be made to show.

Run as a program.  It prints "listening PORT", takes orders on its standard input, one per line, and ends with it:

    accept      the user allows this computer (with --auth)
    drop        every connection is reset
    hang        from now on nothing is answered
    stick       the same, on the connections there are; new ones work

Commands run in /bin/sh of this host as the user who started it, files are written where they are named.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import struct
import sys

CNXN, AUTH, OPEN, OKAY, CLSE, WRTE = (
    int.from_bytes(word, "little") for word in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"CLSE", b"WRTE")
)
VERSION = 0x01000001
MAX_DATA = 256 << 10
PACKET = struct.Struct("<6I")
SHELL = struct.Struct("<BI")
SYNC = struct.Struct("<4sI")


class Ended(Exception):
    """The other end is done with a stream."""


class Stream:
    """One service: what the protocol calls a socket."""

    def __init__(self, connection: Connection, local: int, remote: int) -> None:
        self.connection = connection
        self.local = local
        self.remote = remote
        self.acknowledged = asyncio.Event()
        self.ended = False
        self._came: asyncio.Queue[bytes] = asyncio.Queue()
        self._held = b""

    def feed(self, data: bytes) -> None:
        self._came.put_nowait(data)

    def end(self) -> None:
        self.ended = True
        self.acknowledged.set()
        self._came.put_nowait(b"")

    async def exact(self, count: int) -> bytes:
        while len(self._held) < count:
            data = await self._came.get()
            if not data:
                raise Ended
            self._held += data
            await self.connection.send(OKAY, self.local, self.remote)
        data, self._held = self._held[:count], self._held[count:]
        return data

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), MAX_DATA):
            if self.ended:
                raise Ended
            self.acknowledged.clear()
            await self.connection.send(WRTE, self.local, self.remote, data[start : start + MAX_DATA])
            await self.acknowledged.wait()


class Connection:
    """One adb server."""

    def __init__(self, phone: Phone, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.phone = phone
        self.allowed = phone.allowed
        self.hanging = phone.hanging
        self.streams: dict[int, Stream] = {}
        self._reader = reader
        self._writer = writer
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        head = PACKET.pack(command, first, second, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF)
        self._writer.write(head + data)
        await self._writer.drain()

    async def welcome(self) -> None:
        options = self.phone.options
        text = f"{options.state}::ro.product.name=fake;ro.product.model={options.model};ro.product.device=fake;"
        await self.send(CNXN, VERSION, MAX_DATA, f"{text}features={options.features}".encode())

    def reset(self) -> None:
        self._writer.transport.abort()

    async def serve(self) -> None:
        self.phone.connections.add(self)
        try:
            while True:
                command, first, second, length, _, magic = PACKET.unpack(await self._reader.readexactly(PACKET.size))
                if command ^ 0xFFFFFFFF != magic:
                    return
                data = await self._reader.readexactly(length)
                if self.hanging:
                    await asyncio.Event().wait()
                await self._take(command, first, second, data)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self.phone.connections.discard(self)
            for stream in self.streams.values():
                stream.end()
            for task in self._tasks:
                task.cancel()
            self._writer.close()

    async def _take(self, command: int, first: int, second: int, data: bytes) -> None:
        if command == CNXN or (command == AUTH and not self.allowed):
            if self.allowed:
                await self.welcome()
            elif command == CNXN or first == 2:
                # No signature is good enough; the key itself (3) then waits for the user.
                await self.send(AUTH, 1, 0, os.urandom(20))
            else:
                print("asked", flush=True)
        elif not self.allowed:
            return
        elif command == OPEN:
            stream = self.streams[first] = Stream(self, first, first)
            task = asyncio.create_task(self._service(stream, data.rstrip(b"\0").decode()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif second in self.streams:
            stream = self.streams[second]
            if command == WRTE:
                stream.feed(data)
            elif command == OKAY:
                stream.acknowledged.set()
            elif command == CLSE:
                del self.streams[second]
                stream.end()

    async def _service(self, stream: Stream, name: str) -> None:
        options = self.phone.options
        known = {"shell,v2": _shell, "sync": _sync, "shell": _old_shell}
        kind, _, argument = name.partition(":")
        kind = kind.removesuffix(",raw")
        local = 0  # how the protocol says that it was never open
        if kind in known and kind not in options.refuse:
            local = stream.local
            await self.send(OKAY, stream.local, stream.remote)
            with contextlib.suppress(Ended, ConnectionError):
                await known[kind](stream, argument)
        if not stream.ended:
            with contextlib.suppress(ConnectionError):
                await self.send(CLSE, local, stream.remote)


class Phone:
    """What is the same for all connections."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.allowed = not options.auth
        self.hanging = False
        self.connections: set[Connection] = set()

    async def obey(self, order: str) -> None:
        if order == "accept":
            self.allowed = True
            for connection in self.connections:
                connection.allowed = True
                await connection.welcome()
        elif order in ("hang", "stick"):
            self.hanging = order == "hang"
            for connection in self.connections:
                connection.hanging = True
        elif order == "drop":
            for connection in list(self.connections):
                connection.reset()
        print(f"done {order}", flush=True)


async def _shell(stream: Stream, command: str) -> None:
    """The shell v2 protocol, without a terminal."""
    options = stream.connection.phone.options
    if options.mute_shell:
        await stream.exact(1 << 30)
    if options.broken_shell:
        await stream.write(SHELL.pack(2, 12) + b"no shell!!!\n" + SHELL.pack(3, 1) + b"\x7f")
        return
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    )
    assert child.stdin is not None
    lock = asyncio.Lock()

    async def pump(kind: int, source: asyncio.StreamReader | None) -> None:
        assert source is not None
        while data := await source.read(32 << 10):
            async with lock:
                await stream.write(SHELL.pack(kind, len(data)) + data)

    async def feed(target: asyncio.StreamWriter) -> None:
        try:
            while True:
                kind, length = SHELL.unpack(await stream.exact(SHELL.size))
                data = await stream.exact(length)
                if kind == 4:
                    target.close()
                elif kind == 0:
                    target.write(data)
        except Ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGHUP)
            target.close()

    feeding = asyncio.create_task(feed(child.stdin))
    try:
        await asyncio.gather(pump(1, child.stdout), pump(2, child.stderr))
        code = await child.wait()
        await stream.write(SHELL.pack(3, 1) + bytes([code if code >= 0 else 128 - code]))
    finally:
        feeding.cancel()


async def _old_shell(stream: Stream, command: str) -> None:
    """As before Android 7: a terminal, so lines end with CR LF, and no exit code."""
    known = {"getprop ro.build.version.release": stream.connection.phone.options.release}
    await stream.write((known.get(command, f"{command}: not found") + "\r\n").encode())


async def _sync(stream: Stream, _: str) -> None:
    """SEND, with the faults asked for."""
    phone = stream.connection.phone
    fault, _, limit = (phone.options.sync_fault or "@").rpartition("@")
    while True:
        word, length = SYNC.unpack(await stream.exact(SYNC.size))
        argument = await stream.exact(length)
        if word != b"SEND":
            return
        total = 0
        with open(argument.rpartition(b",")[0], "wb") as target:
            while True:
                word, length = SYNC.unpack(await stream.exact(SYNC.size))
                if word == b"DONE":
                    break
                target.write(await stream.exact(length))
                total += length
                if fault and total >= int(limit):
                    await _fail(stream, fault)
        if fault:
            await _fail(stream, fault)
        await stream.write(SYNC.pack(b"OKAY", 0))


async def _fail(stream: Stream, fault: str) -> None:
    if fault == "drop":
        stream.connection.reset()
    elif fault == "hang":
        print("hanging", flush=True)
        await asyncio.Event().wait()
    elif fault == "nonsense":
        await stream.write(b"\xff" * 8)
    else:
        await stream.write(SYNC.pack(b"FAIL", len(fault)) + fault.encode())
    raise Ended


async def _orders(phone: Phone) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        await phone.obey(line.decode().strip())


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", default="Fake_Phone")
    parser.add_argument("--state", default="device", help="device, recovery, sideload, ...")
    parser.add_argument("--features", default="shell_v2,cmd,stat_v2")
    parser.add_argument("--release", default="", help="the Android version")
    parser.add_argument("--auth", action="store_true", help="ask the user, who answers with the order accept")
    parser.add_argument("--sync-fault", help="WHAT@BYTES: drop, hang, nonsense, or the text of a FAIL")
    parser.add_argument("--refuse", action="append", default=[], help="a service that is refused")
    parser.add_argument("--mute-shell", action="store_true", help="commands start and nothing happens")
    parser.add_argument("--broken-shell", action="store_true", help="commands end with 127")
    phone = Phone(parser.parse_args())
    server = await asyncio.start_server(
        lambda reader, writer: Connection(phone, reader, writer).serve(), "127.0.0.1", phone.options.port
    )
    print("listening", server.sockets[0].getsockname()[1], flush=True)
    await _orders(phone)


if __name__ == "__main__":
    asyncio.run(main())
