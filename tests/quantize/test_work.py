"""Private directories beside an output: those of the living stay, whoever cleans up beside them."""

from __future__ import annotations

import threading
from pathlib import Path

from edgequant.quantize.work import remove_stale, work_dir


def test_many_at_once_take_none_of_each_others(tmp_path: Path) -> None:
    """One is made, then opened, then locked: in between it looks like that of a dead process to all others."""
    failed: list[BaseException] = []

    def go() -> None:
        try:
            for number in range(300):
                with work_dir(tmp_path) as work:
                    (work / "kept").write_text(str(number))
                    remove_stale(tmp_path)
                    assert (work / "kept").read_text() == str(number)
        except BaseException as error:  # noqa: BLE001  (it is told by the test)
            failed.append(error)

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed
    assert not list(tmp_path.iterdir())
