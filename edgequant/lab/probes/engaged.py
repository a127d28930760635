"""What memory normal computes with the same file, where the trial itself runs with memory low.

It proves that memory low did something else; and as nothing is int8 there, it tells another file or a kernel that is
wrong from rounding: device and host may part by no more than float kernels do.
"""

from __future__ import annotations

from edgequant.archive.types import SessionCapture
from edgequant.errors import RunnerError
from edgequant.lab.probes.memory import session_memory
from edgequant.lab.take import HOST_DEATHS, Place, Taking, each_case, refusal_of


class NormalProbe:
    """Runs each case that memory low has run; one that MNN refuses is kept as that."""

    name = "normal"

    def take(self, taking: Taking) -> None:
        if taking.place.model.memory == "low":
            self.run(taking).unload()

    def run(self, taking: Taking) -> Place:
        """The same, with the model still loaded."""
        place = taking.place.with_memory("normal")
        for case, result in each_case(place, taking.done, deaths=0 if taking.on_device else HOST_DEATHS):
            told = refusal_of(case, result) if isinstance(result, RunnerError) else taking.keep(case, result)
            taking.normal.append(told)
        return place


class EngagedProbe(NormalProbe):
    """The same, and what MNN says a session with memory normal holds."""

    name = "engaged"

    def __init__(self, *, has_subgraphs: bool) -> None:
        self._subgraphs = has_subgraphs

    def run(self, taking: Taking) -> Place:
        place = super().run(taking)
        if not self._subgraphs:
            mb, _ = session_memory(place, taking.middle)
            known = taking.session or SessionCapture()
            taking.session = known.model_copy(update={"normal_mb": mb})
        return place
