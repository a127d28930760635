"""What memory normal computes with the same file: the proof that memory low did something else."""

from __future__ import annotations

from dataclasses import replace

from edgequant.archive.types import SessionCapture
from edgequant.errors import RunnerError
from edgequant.lab.probes.memory import session_memory
from edgequant.lab.take import Place, Taking, each_case


class EngagedProbe:
    """Runs the middle case with memory normal, where the trial itself runs with memory low."""

    name = "engaged"

    def __init__(self, *, has_subgraphs: bool) -> None:
        self._subgraphs = has_subgraphs

    def take(self, taking: Taking) -> None:
        low = taking.place
        if low.model.memory != "low":
            return
        model = replace(low.model, memory="normal")
        place = Place(low.session, model, low.path, low.runner, low.runner.load(low.path, "normal"))
        for case, result in each_case(place, [taking.middle]):
            if isinstance(result, RunnerError):
                raise result
            taking.normal.append(taking.keep(case, result))
        if not self._subgraphs:
            mb, _ = session_memory(place, taking.middle)
            known = taking.session or SessionCapture()
            taking.session = known.model_copy(update={"normal_mb": mb})
        place.unload()
