"""What a shell on a device sees of the runner, with a real runner, and what it may say to harm us."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from edgequant.archive.witness import Thread
from edgequant.deadline import Deadline
from edgequant.devices.local import LocalDevice
from edgequant.devices.protocol import CommandResult
from edgequant.lab.session import DeviceOptions, Session
from edgequant.lab.take import ModelFile, Place, feed
from edgequant.lab.witness import cpu_times, during, look
from edgequant.mnn_version import host_mnn_version
from edgequant.progress import Progress
from edgequant.spec import RunOptions
from tests.beds.models import ModelByName

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")


class Elsewhere(LocalDevice):
    """This host as another device.  said: what its shell says of the runner, in place of what it sees."""

    is_host = False  # type: ignore[assignment]
    said: bytes | None = None
    looks = 0

    def run(
        self, argv: Sequence[str], deadline: Deadline, *, stdin: bytes = b"", max_output: int = 16 << 20
    ) -> CommandResult:
        if "/proc/$pid/task" in "".join(argv):
            self.looks += 1
            if self.said is not None:
                return CommandResult(0, self.said, b"")
        return super().run(argv, deadline, stdin=stdin, max_output=max_output)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    options = DeviceOptions(work_dir=str(tmp_path / "work"), runtime="system")
    with Session(Elsewhere(), options, RunOptions(threads=2), log=None, progress=Progress()) as found:
        found.open()
        found.runner()
        yield found


def test_it_sees_the_runner_as_it_is(
    session: Session, generated_model: ModelByName, as_mnn: Callable[..., Path]
) -> None:
    place = Place.load(session, ModelFile(as_mnn(generated_model("conv_cnn")), "normal"))
    inputs = feed(place.loaded, {"x": np.ones((1, 3, 32, 32), np.float32)})
    before = cpu_times(session)
    place.runner.time(place.loaded, inputs, warmup=1, repeat=1, min_seconds=0.3)
    busy = sorted(during(before, cpu_times(session)), key=lambda each: -each.seconds)
    assert busy[1].seconds > 0.01, "two threads compute"
    found = look(session)
    assert found.why is None
    assert found.machine == platform.machine()
    assert found.cores is not None
    assert found.cores >= (os.cpu_count() or 1)
    assert set(found.allowed) == os.sched_getaffinity(0)
    (library,) = found.libraries
    assert library.machine == {"x86_64": 62, "aarch64": 183}[platform.machine()]
    assert library.has_version
    assert library.packages == (host_mnn_version(),)
    assert library.recorded == (library.sha256,)
    assert look(session).libraries == (library,), "it is hashed once"
    assert session.known_runner is not None
    object.__setattr__(session.known_runner.hello, "mnn", "3.99.0")
    (library,) = look(session).libraries
    assert not library.has_version


def test_a_process_that_is_another_is_not_looked_at(session: Session) -> None:
    assert session.known_runner is not None
    object.__setattr__(session.known_runner.hello, "pid", os.getpid())
    found = look(session)
    assert found.why is not None
    assert "does not see the process" in found.why
    assert found.libraries == ()
    assert cpu_times(session) == {}


HOSTILE = [
    b"",
    b"\n" * 100_000,
    b"thread\t1\n",
    b"thread\t" + b"9" * 400 + b" 1 R" + b" 1" * 40 + b"\n",
    b"thread\t1 x R" + b" -1" * 40 + b"\nmachine\t" + b"\xff" * 5000 + b"\ncores\t0-99999,x\nallowed\t-4\n",
    b"library\t/a\nlook\tb\nhead\t",
    b"thread\t1 5 R" + b" 1" * 40 + b"\nlibrary\t\nhead\tab\nsha256\tz\nversion\t9\nrecord\t/RECORD,\n",
    b"thread\t1 5 R" + b" 1" * 40 + b"\nlook\t\nsha256\t" + b"a" * 64 + b"\nlibrary\t" + b"\xf0" * 9000 + b"\n",
    (b"thread\t1 5 R" + b" 1" * 40 + b"\n") + b"library\t/x\nlook\tx\n" * 20_000,
    b"why\t" + b"\x1b]" * 1000,
]


@pytest.mark.parametrize("said", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_a_shell_says_breaks_it(session: Session, said: bytes) -> None:
    assert isinstance(session.device, Elsewhere)
    session.device.said = said
    found = look(session)
    assert found.why is None or found.why.isprintable()
    assert len(found.libraries) <= 4
    assert all(isinstance(each, Thread) for each in cpu_times(session).values())
    found.model_validate_json(found.model_dump_json())
