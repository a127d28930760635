"""MNN's known kernel faults, planted by a CPU that has them: no file holds one, and no change of weights is like one.

Where a run's device is emulated, another emulated CPU is at hand.  What it computes takes the place of what the run's
device computed; the list of known faults says nothing of it, for the device that is judged is still the run's.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgequant.jobs.planted import Tried, digests
from edgequant.jobs.planting import Planter
from edgequant.judge.kernel_faults import i8mm_wrong
from edgequant.judge.verdict import Verdict
from edgequant.lab.probes.engaged import NormalProbe
from edgequant.lab.session import DeviceOptions, open_session
from edgequant.lab.take import ModelFile, take
from edgequant.models.mnn.faults import Fault
from edgequant.progress import Progress

I8MM = "emulated:max"
"""Has the instructions whose kernel is wrong."""
KIND = "kernel for i8mm"


def kernel_faults(planter: Planter, progress: Progress) -> Iterator[Tried]:
    """Each, as what the device alone does; none where no layer of the file is computed wrong, or no CPU is emulated.

    Raises DeviceError where the emulated CPU cannot be used.
    """
    device, artifact = planter.device.device, planter.artifact
    layers = artifact.facts.half_tiles
    if device is None or device.emulator is None or not layers or i8mm_wrong(device):
        return
    progress.say(f"the same file on a CPU whose int8 kernel is known to be wrong: {I8MM}")
    fault = Fault(KIND, layers[0], "", None, None)
    options = planter.run.plan.options.model_copy(update={"cores": None})
    model = ModelFile(planter.run.path / artifact.path, planter.device.memory_mode or "normal", artifact.sha256)
    with open_session(I8MM, DeviceOptions(), options, log=None, progress=progress) as session:
        cases = [*planter.held, *planter.strained]
        wrong = take(session, model, cases, [NormalProbe()], planter.overlay, trial="audit", role="device")
    if wrong.failure is not None:
        yield Tried(fault, "device", Verdict.ERROR, died=True)
    elif digests(wrong.cases) == digests(planter.device.cases):
        yield Tried(fault, "device", None, cost_db=0.0)
    else:
        yield planter.judged(fault, "device", wrong, None)
    planter.overlay.clear()
