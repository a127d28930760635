"""What is measured on a device, in this order."""

from __future__ import annotations

from edgequant.archive.rollout import Rollout
from edgequant.lab.probes.engaged import EngagedProbe
from edgequant.lab.probes.latency import LatencyProbe
from edgequant.lab.probes.memory import SessionMemoryProbe
from edgequant.lab.probes.repeat import RepeatProbe
from edgequant.lab.probes.rollout import RolloutProbe
from edgequant.lab.probes.settings import SettingsProbe
from edgequant.lab.probes.witness import WitnessProbe
from edgequant.lab.take import Probe
from edgequant.spec import RunOptions


def device_probes(options: RunOptions, *, timed: bool, subgraphs: bool, rollout: Rollout | None) -> list[Probe]:
    """The timing comes first, where there is one: memory then tells of it alone."""
    probes: list[Probe] = [LatencyProbe(options)] if timed else []
    probes += [RepeatProbe(), WitnessProbe()]
    probes += [SessionMemoryProbe(has_subgraphs=subgraphs), EngagedProbe(has_subgraphs=subgraphs)]
    return probes if rollout is None else [*probes, RolloutProbe(rollout), SettingsProbe()]
