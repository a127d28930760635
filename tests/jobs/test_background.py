"""What is done beside the rest is waited for, whatever interrupts the waiting."""

from __future__ import annotations

import signal
import threading

import pytest

from edgequant.jobs.devices import Background


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals reach the main thread")
def test_ctrl_c_while_waiting_does_not_lose_the_result() -> None:
    """`Thread.join` takes a thread for ended that ctrl-C only kept it from waiting for."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    go = threading.Event()
    before = signal.signal(signal.SIGALRM, interrupted)
    working = Background(lambda: go.wait(60))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            working.result()
        assert not working.done
        go.set()
        assert working.result() is True
    finally:
        go.set()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
