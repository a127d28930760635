"""What the device's shell sees of the runner, with the model loaded and all cases run."""

from __future__ import annotations

from edgequant.lab.take import Taking
from edgequant.lab.witness import look


class WitnessProbe:
    """On this host there is nobody to be distrusted."""

    name = "witness"

    def take(self, taking: Taking) -> None:
        session = taking.place.session
        if not session.device.is_host:
            taking.witness = look(session)
