"""What `bench` does on a device beside its blocks: makes it ready, holds it to cores that are alike, lets a model run
on and on, and looks at its operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgequant.archive.bench import BenchCores, apart_record
from edgequant.archive.folder import RunFolder
from edgequant.archive.laboratory import SustainCapture
from edgequant.archive.timing import Readied
from edgequant.archive.types import Capture
from edgequant.cases.case import Case
from edgequant.errors import DeviceError
from edgequant.jobs.clusters import Chosen, choose
from edgequant.lab.probes.operators import OperatorsProbe
from edgequant.lab.probes.sustain import SustainProbe
from edgequant.lab.ready import Readying
from edgequant.lab.session import Session
from edgequant.lab.take import ModelFile, Probe, device_capture_of, take
from edgequant.models import read_model
from edgequant.plan.bench import LaboratoryRequest as LaboratoryRequest
from edgequant.progress import Progress
from edgequant.runner.laboratory import Cluster


@dataclass
class Laboratory:
    """One device of a measurement."""

    asked: LaboratoryRequest
    session: Session
    folder: RunFolder
    progress: Progress
    cores: tuple[int, ...] | None
    """Those the user names."""
    clusters: Sequence[Cluster] = ()
    says: dict[str, Chosen] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._readying = Readying(self.asked.governor, self.asked.cool_below, self.asked.cool_seconds)
        if self.cores is None:
            self.clusters = self.session.runner().laboratory.clusters()

    def cores_for(self, threads: int) -> tuple[int, ...] | None:
        """What a setting is held to; None for nothing beyond what the user says."""
        chosen = choose(self.clusters, threads)
        if chosen.says and chosen.says not in self.says:
            self.says[chosen.says] = chosen
            self.progress.say(chosen.says)
        return chosen.cores

    @property
    def told(self) -> tuple[BenchCores, ...]:
        """What settings were held to, in words."""
        return tuple(BenchCores(says=says, mixed=chosen.mixed) for says, chosen in self.says.items())

    def ready(self) -> Readied | None:
        """Before each block.  A device that fails at it fails at the block, which tells why."""
        try:
            return self._readying.ready(self.session, self.progress)
        except DeviceError as error:
            self.progress.say(f"{self.session.uri}: {error.code}: {error}")
            return None

    def after(self, files: Mapping[str, ModelFile], case: Case) -> None:
        """What comes behind the blocks, of each setting that could be run."""
        for name, file in files.items():
            if self.asked.per_op:
                self.progress.say(f"operators: {name}")
                subgraphs = read_model(file.path).has_subgraphs
                self._take(name, "operators", file, case, OperatorsProbe(has_subgraphs=subgraphs))
        for name, file in files.items():
            if self.asked.sustain:
                self._sustain(name, file, case)

    def _sustain(self, name: str, file: ModelFile, case: Case) -> None:
        seconds, period = self.asked.sustain or 0.0, self.asked.period
        self.progress.say(f"without a pause for {seconds:g} s: {name} on {self.session.uri}")

        def came(capture: SustainCapture) -> None:
            last = capture.periods[-1]
            heat = "" if last.conditions.celsius is None else f", {last.conditions.celsius:.0f} degrees"
            self.progress.say(f"{name}: after {last.at + last.seconds:.3g} s: p50 {last.p50:.3g} ms{heat}")
            # Whole each time: what came before an interruption is a capture like any other.
            self._save(name, "sustain", self._blank(name, "sustain", file).model_copy(update={"sustained": capture}))

        self.ready()
        self._take(name, "sustain", file, case, SustainProbe(seconds, period, came))

    def _take(self, name: str, what: str, file: ModelFile, case: Case, probe: Probe) -> None:
        capture = take(
            self.session, file, [case], [probe], self.folder.array_folder, trial=self._trial(name, what), role="device",
            variant=name,
        )  # fmt: skip
        self._save(name, what, capture)
        if capture.failure is not None:
            self.progress.say(f"{name}: {what}: {capture.failure.code}: {capture.failure.message}")

    def _blank(self, name: str, what: str, file: ModelFile) -> Capture:
        return Capture(
            trial=self._trial(name, what), role="device", variant=name, artifact_sha256=file.sha256,
            memory_mode=file.memory, threads=file.threads, device=device_capture_of(self.session),
        )  # fmt: skip

    def _trial(self, name: str, what: str) -> str:
        return apart_record(self.session.uri, name, what)

    def _save(self, name: str, what: str, capture: Capture) -> None:
        self.folder.save_capture(self._trial(name, what), capture)
