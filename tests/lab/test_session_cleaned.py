"""A place that another edgequant cleans while nobody knows that we are there: it is prepared again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgequant.deadline import Deadline
from edgequant.devices.local import LocalDevice
from edgequant.devices.store import Store
from edgequant.errors import DeviceError
from edgequant.lab.session import DeviceOptions, Session
from edgequant.progress import Progress
from edgequant.spec import RunOptions

TIME = Deadline(None)


class Cleaned(LocalDevice):
    """This host, whose work directory is cleaned `times` times, before or after a file was sent there."""

    def __init__(self, work: Path, times: int, *, before: bool) -> None:
        super().__init__()
        self.work, self.times, self.before = work, times, before

    def send_file(
        self, source: Path, path: str, deadline: Deadline, *, progress: Callable[[int], object] | None = None
    ) -> None:
        if self.before:
            self.clean()
        super().send_file(source, path, deadline, progress=progress)
        if not self.before:
            self.clean()

    def clean(self) -> None:
        if self.times:
            self.times -= 1
            Store(LocalDevice(), str(self.work)).clean(TIME)


def session(device: Cleaned) -> Session:
    options = DeviceOptions(work_dir=str(device.work))
    return Session(device, options, RunOptions(threads=1), log=device.work.with_suffix(".log"), progress=Progress())


@pytest.mark.parametrize("before", [True, False])
def test_it_is_prepared_again(tmp_path: Path, before: bool) -> None:
    with session(Cleaned(tmp_path / "work", 2, before=before)) as ready:
        ready.open()
        assert ready.runner().alive()


def test_not_for_ever(tmp_path: Path) -> None:
    device = Cleaned(tmp_path / "work", 1_000_000, before=False)
    with session(device) as ready:
        ready.open()
        with pytest.raises(DeviceError) as caught:
            ready.runner()
    assert caught.value.code == "WORK_DIR_CLEANED"
    assert 1_000_000 - device.times == 3
