"""Bars of several devices that are met side by side: a terminal has room for one set of them."""

from __future__ import annotations

import io

import pytest

from edgequant.cli.console import BAR_BYTES, CliProgress
from edgequant.cli.options import Ui


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_two_transfers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    progress = CliProgress(Ui())
    with progress.transfer("push one", BAR_BYTES) as one, progress.transfer("push two", BAR_BYTES) as two:
        one(BAR_BYTES)
        two(BAR_BYTES)
        with progress.counting("cases", 2) as count:
            count(1)
    assert "push two: 4.2 MB" in terminal.getvalue()
    with progress.transfer("push three", BAR_BYTES) as three:  # the room is free again
        three(BAR_BYTES)
    assert "push three: " not in terminal.getvalue()


def test_a_transfer_within_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    progress = CliProgress(Ui())
    with (
        progress.counting("variants", 2) as count,
        progress.counting("cases", 3) as below,
        progress.transfer("push", BAR_BYTES) as sent,
    ):
        below(1)
        sent(BAR_BYTES)
        count(1)
    assert "push: 4.2 MB" in terminal.getvalue()
