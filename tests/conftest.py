"""Fixtures of all tests: the beds, each in a module of its own."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts in the background so, and every child inherits it: ctrl-C could not be tried.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says something of the machine, not of what is tested.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

pytest_plugins = ["tests.beds.adb", "tests.beds.models", "tests.beds.pack", "tests.beds.sshd", "tests.beds.vm"]
