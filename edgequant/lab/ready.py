"""A device made ready for a block: its governor set, its heat waited for, its screen and battery looked at."""

from __future__ import annotations

import time
from dataclasses import dataclass

from edgequant.archive.timing import GovernorCapture, Readied
from edgequant.errors import RunnerError
from edgequant.lab.phone import look
from edgequant.lab.session import Session
from edgequant.progress import Progress
from edgequant.runner.laboratory import Laboratory, State

COOL_WORK = 1.05
"""Where there is no thermometer: known work takes no more than so many times what it took at its fastest."""
LOOK_SECONDS = 2.0


@dataclass
class Readying:
    """What is asked of a device before each block.

    Attributes:
        governor: to be set; None to leave it.
        cool_below: degrees Celsius its hottest zone has to be below; None not to wait.
        cool_seconds: for at most so long, before each block.
        fastest: milliseconds of known work at its fastest so far.
    """

    governor: str | None = None
    cool_below: float | None = None
    cool_seconds: float = 300.0
    fastest: float | None = None

    def ready(self, session: Session, progress: Progress) -> Readied:
        """With a runner that has loaded nothing: the model is loaded at the governor that was asked for, too.

        Raises DeviceError.
        """
        laboratory = session.fresh().laboratory
        found = Readied(phone=look(session.device), governor=self._governor(laboratory))
        if self.cool_below is None:
            return found
        begin = time.monotonic()
        told = False
        while True:
            state = laboratory.state()
            degrees = state.conditions.celsius
            cool = self._cool(state, self.cool_below)
            waited = time.monotonic() - begin
            if cool or waited >= self.cool_seconds:
                return found.model_copy(
                    update={
                        "cool_below": self.cool_below,
                        "waited": waited,
                        "by": "work" if degrees is None else "thermometer",
                        "cooled": cool,
                        "at": degrees,
                    }
                )
            if not told:
                told = True
                hot = "slower than it was" if degrees is None else f"at {degrees:.0f} degrees"
                progress.say(f"{session.uri} is {hot}: it is given up to {self.cool_seconds:g} s to cool down")
            time.sleep(min(LOOK_SECONDS, self.cool_seconds - waited))  # nothing tells when a device has cooled down

    def _governor(self, laboratory: Laboratory) -> GovernorCapture | None:
        if self.governor is None:
            return None
        try:
            told = laboratory.governor(self.governor)
        except RunnerError as error:
            if error.code.startswith("RUNNER_"):
                raise
            return GovernorCapture(asked=self.governor, set=False, why=error.message)
        return GovernorCapture(
            asked=self.governor, set=told.set, why=told.why,
            was={name: tuple(cores) for name, cores in told.was.items()},
        )  # fmt: skip

    def _cool(self, state: State, below: float) -> bool:
        if state.conditions.celsius is not None:
            return state.conditions.celsius < below
        self.fastest = min(state.work_ms, self.fastest or state.work_ms)
        return state.work_ms <= COOL_WORK * self.fastest
