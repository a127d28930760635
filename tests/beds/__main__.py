"""python -m tests.beds: makes what the slow tests need and boots it once, so that they find it ready.

With --keep the phone and the board stay until ctrl-C, to try commands on; with --no-boot nothing is started.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgequant.errors import EdgequantError
from edgequant.pack import build_pack
from tests.beds import adb, vm
from tests.beds.vm_images import images


def main() -> int:
    """0, or 1 where a bed cannot be started here."""
    parser = argparse.ArgumentParser(prog="python -m tests.beds", description="prepare the virtual phone and board")
    parser.add_argument("--keep", action="store_true", help="keep both running until ctrl-C")
    parser.add_argument("--no-boot", action="store_true", help="make the pack and the disk images, and no more")
    given = parser.parse_args()
    try:
        _make()
        with ExitStack() as stack:
            if not given.no_boot:
                _start(stack, given.keep)
    except KeyboardInterrupt:
        return 0
    except (pytest.fail.Exception, EdgequantError) as error:
        print(f"cannot be started here: {error}", file=sys.stderr)
        return 1
    return 0


def _timed(what: str, started: float) -> None:
    print(f"{what}: {time.monotonic() - started:.1f} s", flush=True)


def _make() -> None:
    started = time.monotonic()
    pack = build_pack()
    _timed(f"pack {pack.sha256[:12]}, {pack.size / 1e6:.1f} MB", started)
    started = time.monotonic()
    images()
    _timed("disk images", started)


def _start(stack: ExitStack, keep: bool) -> None:
    started = time.monotonic()
    bed = stack.enter_context(adb.running())
    _timed("adb server and adbd", started)
    started = time.monotonic()
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgequant-beds-")))
    machines: list[vm.VirtualMachine] = []
    for name, make in (("phone", lambda made, base: vm.Phone(made, base, bed)), ("board", vm.Board)):
        (folder / name).mkdir()
        machines.append(stack.enter_context(vm.running(folder / name, make)))
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda machine: machine.boot(), machines))
    _timed("phone and board booted", started)
    if keep:
        phone, board = machines
        assert isinstance(phone, vm.Phone)
        assert isinstance(board, vm.Board)
        print(f"phone: export ADB_SERVER_SOCKET={bed.spec}\n       edgequant devices doctor {phone.uri}")
        print(f"board: ssh -F {board.config} {vm.ALIAS}\n       as Host {vm.ALIAS} in ~/.ssh/config, from that file")
        print("ctrl-C ends both", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
