"""What a device is: its facts and, where a runner can be started, what MNN makes of them."""

from __future__ import annotations

from dataclasses import dataclass

from edgequant.deadline import Deadline
from edgequant.devices.facts import READ_SECONDS, facts_or_why
from edgequant.devices.facts_model import DeviceFacts
from edgequant.errors import EdgequantError
from edgequant.lab.session import OPEN_SECONDS, DeviceOptions, Session
from edgequant.progress import Progress
from edgequant.runner.answers import Facts, Hello
from edgequant.spec import RunOptions


@dataclass(frozen=True)
class Probed:
    """One device.

    Attributes:
        facts: of the device.
        hello, runner: what MNN and Python there said; None where they could not be asked, and `error` says why.
        emulator: what emulates it; None for a real device.
    """

    uri: str
    facts: DeviceFacts
    hello: Hello | None = None
    runner: Facts | None = None
    emulator: str | None = None
    error: EdgequantError | None = None


def probe(uri: str, options: DeviceOptions, progress: Progress) -> Probed:
    """Connect, read the facts, start the runner.

    Raises InputError (a bad URI), DeviceError where it cannot even be connected to.
    """
    from edgequant.devices.registry import make_device

    device = make_device(
        uri,
        accept_new_host_key=options.accept_new_host_key,
        python=options.python,
        wanted=options.wanted,
        listener=progress,
    )
    with Session(device, options, RunOptions(), log=None, progress=progress) as session:
        device.open(Deadline(OPEN_SECONDS))
        try:
            session.store.prepare(Deadline(OPEN_SECONDS))
            runner = session.runner()
        except EdgequantError as error:
            facts = facts_or_why(device, Deadline(READ_SECONDS), work_dir=options.work_dir)
            return Probed(uri, facts, emulator=device.emulated, error=error)
        assert session.facts is not None
        return Probed(uri, session.facts, runner.hello, runner.facts, device.emulated)
