"""What `bench` does on a device beside its blocks: makes it ready, holds it to cores that are alike, lets a model run
on and on, and looks at its operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgequant.archive.folder import RunFolder, safe_name
from edgequant.archive.laboratory import SustainCapture
from edgequant.archive.timing import Readied, TimingCapture
from edgequant.archive.types import Capture
from edgequant.cases.case import Case
from edgequant.errors import DeviceError
from edgequant.jobs.clusters import Chosen, choose
from edgequant.judge.laboratory import Apart, Sustained, energy, findings, operator_times, sustained
from edgequant.lab.probes.operators import OperatorsProbe
from edgequant.lab.probes.sustain import SustainProbe
from edgequant.lab.ready import Readying
from edgequant.lab.session import Session
from edgequant.lab.take import ModelFile, Probe, device_capture_of, take
from edgequant.models import read_model
from edgequant.progress import Progress
from edgequant.runner.laboratory import Cluster

MINUTE = 60.0
PARTS = 10
"""A long run that is shorter than so many minutes has so many periods."""
MAX_PERIODS = 1000


@dataclass(frozen=True)
class LaboratoryRequest:
    """What is asked beside latencies.

    Attributes:
        governor: CPU frequency governor to be set meanwhile; None to leave it.
        cool_below: degrees Celsius waited for before each block, for at most cool_seconds.
        sustain: seconds without a pause, of each setting, behind the blocks.
        per_op: whether operators are timed, in a pass of its own.
    """

    governor: str | None = None
    cool_below: float | None = None
    cool_seconds: float = 300.0
    sustain: float | None = None
    per_op: bool = False

    @property
    def period(self) -> float:
        """Of the long run: a minute, but a tenth of a shorter run, and of one that is very long more."""
        seconds = self.sustain or 0.0
        return max(min(MINUTE, seconds / PARTS), seconds / MAX_PERIODS)


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
    readied: Readied | None = None
    long_runs: dict[str, Sustained] = field(default_factory=dict)
    times: dict[str, Capture] = field(default_factory=dict)

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

    def ready(self) -> Readied | None:
        """Before each block.  A device that fails at it fails at the block, which tells why."""
        try:
            self.readied = self._readying.ready(self.session, self.progress)
        except DeviceError as error:
            self.progress.say(f"{self.session.uri}: {error.code}: {error}")
            return None
        return self.readied

    def after(self, files: Mapping[str, ModelFile], case: Case, cpus: int | None) -> None:
        """What comes behind the blocks, of each setting that could be run."""
        for name, file in files.items():
            if self.asked.per_op:
                self.progress.say(f"operators: {name}")
                subgraphs = read_model(file.path).has_subgraphs
                self.times[name] = self._take(name, "operators", file, case, OperatorsProbe(has_subgraphs=subgraphs))
        for name, file in files.items():
            if self.asked.sustain:
                self._sustain(name, file, case, cpus)

    def _sustain(self, name: str, file: ModelFile, case: Case, cpus: int | None) -> None:
        seconds, period = self.asked.sustain or 0.0, self.asked.period
        self.progress.say(f"without a pause for {seconds:g} s: {name} on {self.session.uri}")

        def came(capture: SustainCapture) -> None:
            last = capture.periods[-1]
            heat = "" if last.conditions.celsius is None else f", {last.conditions.celsius:.0f} degrees"
            self.progress.say(f"{name}: after {last.at + last.seconds:.3g} s: p50 {last.p50:.3g} ms{heat}")
            # Whole each time: what came before an interruption is a capture like any other.
            self._save(name, "sustain", self._blank(name, "sustain", file).model_copy(update={"sustained": capture}))

        self.ready()
        capture = self._take(name, "sustain", file, case, SustainProbe(seconds, period, came))
        if capture.sustained is not None:
            self.long_runs[name] = sustained(capture.sustained, cpus)

    def _take(self, name: str, what: str, file: ModelFile, case: Case, probe: Probe) -> Capture:
        capture = take(
            self.session, file, [case], [probe], self.folder.array_folder, trial=self._trial(name, what), role="device",
            variant=name,
        )  # fmt: skip
        self._save(name, what, capture)
        if capture.failure is not None:
            self.progress.say(f"{name}: {what}: {capture.failure.code}: {capture.failure.message}")
        return capture

    def _blank(self, name: str, what: str, file: ModelFile) -> Capture:
        return Capture(
            trial=self._trial(name, what), role="device", variant=name, artifact_sha256=file.sha256,
            memory_mode=file.memory, threads=file.threads, device=device_capture_of(self.session),
        )  # fmt: skip

    def _trial(self, name: str, what: str) -> str:
        return f"{safe_name(self.session.uri)}/apart/{safe_name(name)}-{what}"

    def _save(self, name: str, what: str, capture: Capture) -> None:
        self.folder.save_capture(self._trial(name, what), capture)

    def apart(self, used: Mapping[str, Sequence[TimingCapture]]) -> Apart:
        """used: of each setting, the blocks that its numbers are of."""
        governor = None if self.readied is None else self.readied.governor
        mixed = [words for words, chosen in self.says.items() if chosen.mixed]
        return Apart(
            cores=tuple(self.says),
            governor=governor,
            sustained=self.long_runs,
            energy={name: energy(timings) for name, timings in used.items()},
            operators={
                name: operator_times(capture.operators)
                for name, capture in self.times.items()
                if capture.operators is not None
            },
            findings=tuple(findings(governor, self.long_runs, mixed)),
        )
