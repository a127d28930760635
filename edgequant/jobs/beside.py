"""What a file computes on this host, while a device computes the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgequant.archive.folder import RunFolder, host_capture
from edgequant.archive.open import Run
from edgequant.archive.types import Artifact, Capture
from edgequant.background import Background
from edgequant.devices.local import LocalDevice
from edgequant.jobs.prepare import Prepared
from edgequant.lab.probes.engaged import NormalProbe
from edgequant.lab.probes.rollout import RolloutProbe
from edgequant.lab.probes.rounding import RoundingProbe
from edgequant.lab.session import Session
from edgequant.lab.take import ModelFile, Probe, Taking, take
from edgequant.plan.request import Request
from edgequant.progress import Progress


class CompareBeside:
    """What a device has computed is compared as soon as its times are taken, while the other probes go on there.  As a
    probe, behind the one that times.

    compare: is called with the cases.
    """

    name = "compare"

    def __init__(self, compare: Callable[[Capture], None]) -> None:
        self._compare = compare

    def take(self, taking: Taking) -> None:
        cases = tuple(taking.cases.values())
        self._compare(Capture(trial=self.name, role="device", cases=cases))


class HostBeside:
    """The middle between quantization error and device error: one made file on this host, and how far rounding carries
    it there.  As a probe, it begins with that once what is timed before it is over.

    compare: is called with what was found, to look at it before it is judged.
    """

    name = "host"

    def __init__(
        self,
        artifact: Artifact,
        request: Request,
        prepared: Prepared,
        host: Session,
        folder: RunFolder,
        archive: Run,
        progress: Progress,
        compare: Callable[[Capture], None],
    ) -> None:
        self._artifact = artifact
        self._request = request
        self._prepared = prepared
        self._host = host
        self._folder = folder
        self._progress = progress
        self._compare = compare
        self._archive = archive
        self._memory = request.options.memory_for(artifact.run_as)
        self._taking: Background[Capture] | None = None

    def take(self, taking: Taking) -> None:
        """Begin."""
        del taking
        self.begin()

    @contextmanager
    def meanwhile(self, *, now: bool) -> Iterator[None]:
        """While a device is at work.  now: begin at once; else when this is asked as a probe, or at the end.

        At the end it is there, and in the folder.  Raises EdgequantError (this host's disk).
        """
        try:
            if now:
                self.begin()
            yield
            self.begin()
            found = None if self._taking is None else self._taking.result()
        except BaseException:
            if self._taking is not None:
                assert isinstance(self._host.device, LocalDevice)
                self._host.device.stop()  # nobody waits for it any more, and its session is about to be closed
                self._taking.wait()
            raise
        if found is not None:
            self._folder.save_capture(host_capture(self._artifact.asked), found)

    def begin(self) -> None:
        """Nothing to do where it is known already, or has begun."""
        if self._taking is None and not self._known():
            self._progress.say(f"running {self._artifact.asked} on this host (the quantization error)")
            self._taking = Background(self._take)

    def _known(self) -> bool:
        """Whether it is in the folder; what two variants share is written down for both."""
        asked = self._artifact.asked
        for variant in (asked, *self._request.variants):  # two variants may be one file
            kept = self._archive.on_host(variant)
            if kept is None or kept.failure is not None or not kept.trial.startswith("host/"):
                continue  # of what `local:` brought back nothing is known of rounding
            if (kept.artifact_sha256, kept.memory_mode) == (self._artifact.sha256, self._memory):
                if variant != asked:
                    name = host_capture(asked)
                    self._folder.save_capture(name, kept.model_copy(update={"trial": name, "variant": str(asked)}))
                return True
        return False

    def _take(self) -> Capture:
        artifact, rollout = self._artifact, self._prepared.rollout
        int8 = artifact.facts.static or self._memory == "low"
        # Memory normal runs static layers in int8 as well.
        floats = (self._archive.float_host or self._archive.reference).cases if artifact.facts.static else None
        probes: list[Probe] = [NormalProbe(), RoundingProbe(int8=int8, floats=floats)]
        probes += [] if rollout is None else [RolloutProbe(rollout, moved=True, int8=int8)]
        found = take(
            self._host, ModelFile(artifact.path, self._memory, artifact.sha256), self._prepared.cases, probes,
            self._folder.array_folder, trial=host_capture(artifact.asked), role="variant-host",
            variant=str(artifact.asked),
        )  # fmt: skip
        self._compare(found)
        return found
