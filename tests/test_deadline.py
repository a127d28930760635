from __future__ import annotations

import time

import pytest

from edgequant.deadline import Deadline
from edgequant.errors import DeadlineExceeded


def test_no_limit() -> None:
    deadline = Deadline(None)
    assert deadline.remaining is None
    assert not deadline.expired
    deadline.check("waiting")
    assert deadline.shorter(5).seconds == 5


def test_time_passes() -> None:
    long = Deadline(1000)
    first = long.remaining
    assert first is not None
    assert 0 < first <= 1000
    assert not long.expired
    long.check("x")
    deadline = Deadline(0.05)
    end = time.monotonic() + 0.06
    while time.monotonic() < end:
        pass
    assert (long.remaining or 0) < first
    assert deadline.expired
    assert deadline.remaining == 0.0


@pytest.mark.parametrize("seconds", [0, -1])
def test_over_at_once(seconds: float) -> None:
    deadline = Deadline(seconds)
    assert deadline.expired
    assert deadline.remaining == 0.0


def test_a_part_is_never_later_than_the_whole() -> None:
    whole = Deadline(10)
    part = whole.shorter(100).remaining
    assert part is not None
    assert part <= 10
    assert whole.shorter(1).seconds == 1
    assert Deadline(0).shorter(5).expired


def test_what_it_says() -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        Deadline(0).check("pushing model.mnn", "ssh://board")
    assert str(caught.value) == "ssh://board: pushing model.mnn did not finish within 0 s"
    assert caught.value.code == "TIMEOUT"
    assert caught.value.transient
