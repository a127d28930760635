"""What a fresh runner has to show, on any device."""

from __future__ import annotations

from pathlib import Path

from edgequant.lab.session import Session

SPREAD_KIB = 3 << 10
"""What two measurements of one model's memory may differ by."""


def peak(session: Session, model: Path) -> int:
    answer = session.fresh().load(session.push(model)[0], "normal").answer
    assert answer.memory_after.rss_peak is not None
    return answer.memory_after.rss_peak


def knows_nothing_of_what_ran_before(session: Session, small: Path, large: Path) -> None:
    alone = peak(session, small)
    after = peak(session, large)
    again = peak(session, small)
    assert after > alone + 2 * SPREAD_KIB  # or it would show nothing
    assert abs(again - alone) <= SPREAD_KIB
