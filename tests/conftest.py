"""Fixtures of all tests: the beds, each in a module of its own, and the state each test process is in."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Before NumPy is: its threads spin while they wait, and with a worker on each core there is nowhere else to wait.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# How long an example takes says something of the machine, not of what is tested.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

pytest_plugins = [
    "tests.beds.adb", "tests.beds.browser", "tests.beds.models", "tests.beds.order", "tests.beds.pack",
    "tests.beds.sshd", "tests.beds.vm",
]  # fmt: skip

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@pytest.fixture(scope="session", autouse=True)
def signals_as_from_a_terminal() -> Iterator[None]:
    """What a test starts finds no signal ignored or blocked, though `nohup` or a shell's `&` left it so for us.

    The test process itself goes on ignoring them: a handler that does nothing is gone in a program that is started.
    """
    ignored = [number for number in ENDING if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        # Ctrl-C is tried within this process too.
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else lambda *_: None)
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
