"""Fixtures of all tests: the beds, each in a module of its own."""

from __future__ import annotations

pytest_plugins = ["tests.beds.adb", "tests.beds.models", "tests.beds.pack", "tests.beds.sshd", "tests.beds.vm"]
