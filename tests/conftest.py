"""Fixtures of all tests: the beds, each in a module of its own."""

from __future__ import annotations

pytest_plugins = ["tests.beds.models", "tests.beds.sshd"]
