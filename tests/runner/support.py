"""Programs that pretend to be a runner, and what the tests of sessions ask of processes."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.local import LocalDevice
from edgequant.errors import DeviceError
from edgequant.runner.session import RunnerSession

ROOT = Path(__file__).parents[2]
TIME = Deadline(None)  # every test has a time limit of its own
ModelByName = Callable[[str], Path]


def python(code: str, *arguments: str) -> list[str]:
    """A program that may pretend to be a runner: `say` sends frames, `heard` takes requests."""
    prelude = """
        import json, os, signal, sys, time
        sys.path.insert(0, sys.argv[1])
        from edgequant.device_scripts import wire, server
        import numpy as np
        stream = server.Stream(0, 1)
        HELLO = {"id": 1, "ok": True, "runner": "x", "protocol": wire.PROTOCOL, "pid": os.getpid(), "python": "3",
                 "mnn": "3.6.1", "numpy": "2"}
        def hello(**changed):
            stream.write_raw(wire.PREAMBLE)
            stream.read()
            stream.write(wire.RESPONSE, dict(HELLO, **changed))
    """
    return [sys.executable, "-c", textwrap.dedent(prelude) + textwrap.dedent(code), str(ROOT), *arguments]


def pretend(device: LocalDevice, code: str, **options: object) -> RunnerSession:
    return RunnerSession(device, python(code), **options)


def refused(device: LocalDevice, argv: list[str]) -> DeviceError:
    session = RunnerSession(device, argv)
    with pytest.raises(DeviceError) as caught:
        session.start(TIME)
    session.close()
    assert caught.value.where == "local:"
    return caught.value
