"""Measure as in a laboratory: settings in turn, each block in a process of its own, until numbers may be believed."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgequant.archive.folder import RunFolder, safe_name
from edgequant.archive.types import Capture, Failure
from edgequant.cases.case import Case
from edgequant.cases.generate import generate, pin
from edgequant.cases.load import load_cases
from edgequant.cases.whole_numbers import checked
from edgequant.clock import Clock
from edgequant.devices.registry import make_device
from edgequant.errors import DeviceError, EdgequantError, InputError
from edgequant.jobs.making import open_maker
from edgequant.jobs.run import memory_of_file
from edgequant.judge.bench import TELL, WITHIN, BenchJudgement, Block, blocks_of, fastest_work, good_rounds, judge_bench
from edgequant.judge.disturbed import CAUSES, SIGNS, ranked
from edgequant.judge.trial import verdict_of
from edgequant.judge.verdict import Verdict, worst
from edgequant.lab.probes.bench import BenchProbe
from edgequant.lab.session import Session, open_session
from edgequant.lab.take import ModelFile, device_capture_of, take
from edgequant.mnn_version import host_mnn_version, require_supported
from edgequant.models import ModelGraph, read_model
from edgequant.models.tables import row_limits
from edgequant.plan.request import Request
from edgequant.progress import Progress
from edgequant.spec import MemoryMode, Variant

_MADE = ("float", "fp16", "weight", "dynamic")
"""Methods whose files take no check on a device to be made."""
_COOLING = ("THROTTLED", "FREQUENCY_FELL", "SLOWS_DOWN")
COOL_SECONDS = 10.0


@dataclass(frozen=True)
class BenchRequest:
    """What is measured.

    Attributes:
        request: model, devices, variants, inputs, how models are run, and where it is kept.
        against: further files that are measured beside it: of an earlier release, or made in another way.
        files: name, path, SHA-256 and memory mode of files that were made already, in place of what would be made of
            the request's variants; those of its names that are quantized are to be faster than the first.
        threads, memory: each of them; empty for the default.
        blocks: processes per setting.  runs, seconds: that each block takes at least, behind its warm-up of
            at most warm_seconds.
        redo: so many times `blocks` rounds may be taken once more where something was in the way.
        within, tell: see `judge.bench`.  allowed: codes of conditions that are borne.
    """

    request: Request
    against: tuple[Path, ...] = ()
    files: tuple[tuple[str, Path, str, MemoryMode], ...] = ()
    threads: tuple[int, ...] = ()
    memory: tuple[MemoryMode, ...] = ()
    blocks: int = 7
    runs: int = 30
    seconds: float = 1.0
    warm_seconds: float = 8.0
    redo: float = 1.0
    within: float = WITHIN
    tell: float = TELL
    allowed: tuple[str, ...] = ()


@dataclass
class MeasuredDevice:
    """What was measured on one device."""

    uri: str
    judged: BenchJudgement
    case: Case
    capture: Capture
    rounds: int
    good: int


@dataclass
class BenchResult:
    """The whole: `verdict` is the worst of all devices'."""

    asked: BenchRequest
    folder: Path
    devices: list[MeasuredDevice] = field(default_factory=list)
    failed: dict[str, EdgequantError] = field(default_factory=dict)
    """Devices that could not be used, where there are others."""
    seconds: float = 0.0

    @property
    def verdict(self) -> Verdict:
        failed = [Verdict.ERROR] if self.failed else []
        return worst([*failed, *(each.judged.verdict for each in self.devices)])


@dataclass(frozen=True)
class _Setting:
    """base: the setting it is held against.  quantized: it is to be faster than that."""

    name: str
    file: ModelFile
    base: str
    quantized: bool


def bench(asked: BenchRequest, progress: Progress | None = None) -> BenchResult:
    """Measure every setting on every device, one device after the other.  The captures are in the run folder.

    Raises InputError, ToolError, DeviceError (a device that cannot be used).
    """
    progress = progress or Progress()
    request = asked.request
    version = host_mnn_version()
    require_supported(version, "this host")
    if unknown := [code for code in asked.allowed if code not in (*CAUSES, *SIGNS)]:
        raise InputError(
            "OPTION_INVALID", f"--allow {unknown[0]}: no condition has that name",
            hint=f"There are {', '.join(sorted((*CAUSES, *SIGNS)))}.",
        )  # fmt: skip
    for uri in request.devices:
        if make_device(uri).emulated is not None:
            raise InputError(
                "OPTION_INVALID",
                f"{uri} is emulated: how long it takes there says nothing about the CPU",
                hint="Measure on a device; `verify` checks accuracy on emulated CPUs.",
            )
    folder = RunFolder.create(request.run_dir, str(request.model))
    start = time.monotonic()
    with folder.alone():
        try:
            source = read_model(request.model)
            files = _files(asked, source, folder, progress)
            found = BenchResult(asked, folder.path)
        except InputError:
            folder.discard()
            raise
        for uri in request.devices:
            try:
                found.devices.append(_Measuring(asked, uri, files, source, folder, progress).measure())
            except KeyboardInterrupt:
                progress.say(f"the blocks that were finished are in {folder.path}")
                raise
            except DeviceError as error:
                if len(request.devices) == 1:
                    raise  # the files that were made, and logs, stay
                progress.say(f"{error.code}: {error}")
                found.failed[uri] = error
        found.seconds = time.monotonic() - start
    return found


def _files(
    asked: BenchRequest, source: ModelGraph, folder: RunFolder, progress: Progress
) -> list[tuple[str, Path, str, MemoryMode]]:
    """Name, path, SHA-256 and memory mode of every file that is measured, the one the others are held against first."""
    request = asked.request
    files: list[tuple[str, Path, str, MemoryMode]] = list(asked.files)
    if files:
        return files
    if source.format == "mnn" and source.weights == "quantized":
        files.append((source.path.name, source.path, source.sha256, memory_of_file(source, request.options)))
    else:
        files += _made(request, source, folder, progress)
    for path in asked.against:
        graph = read_model(path)
        if graph.format != "mnn":
            raise InputError(
                "MODEL_WRONG_FORMAT",
                f"{path}: --against takes an MNN file, this is {graph.format}",
                hint=f"Make one first: edgequant quantize {path} -o model.mnn",
            )
        files.append((str(path), path, graph.sha256, memory_of_file(graph, request.options)))
    return files


def _made(
    request: Request, source: ModelGraph, folder: RunFolder, progress: Progress
) -> Iterator[tuple[str, Path, str, MemoryMode]]:
    for variant in request.variants:
        if variant.method not in _MADE:
            raise InputError(
                "OPTION_INVALID",
                f"--variant {variant}: bench makes float, fp16, weight:N and dynamic:N only",
                hint=f"Make it first, then measure the file beside float: edgequant quantize {request.model} --variant "
                f"{variant} -o small.mnn; edgequant bench {request.model} --variant float --against small.mnn",
            )
    variants = request.variants
    if any(variant.method != "float" for variant in variants):
        # What quantizing is for is shown beside what it replaces.
        variants = tuple(dict.fromkeys((Variant(method="float"), *variants)))
    maker = open_maker(source, request, folder, progress, Clock())
    try:
        maker.begin(list(variants))
        for variant in variants:
            made = maker.make(variant)
            yield str(variant), made.path, made.sha256, request.options.memory_for(variant)
    finally:
        maker.stop()


class _Measuring:
    """One device."""

    def __init__(
        self,
        asked: BenchRequest,
        uri: str,
        files: Sequence[tuple[str, Path, str, MemoryMode]],
        source: ModelGraph,
        folder: RunFolder,
        progress: Progress,
    ) -> None:
        self._asked = asked
        self._uri = uri
        self._files = files
        self._source = source
        self._folder = folder
        self._progress = progress
        self._quantized = {str(each) for each in asked.request.variants if each.method in ("weight", "dynamic")}
        self._captures: dict[str, list[tuple[int, Capture]]] = {}
        self._failed: dict[str, Verdict] = {}

    def measure(self) -> MeasuredDevice:
        request = self._asked.request
        log = self._folder.log(f"runner-{safe_name(self._uri)}")
        self._progress.say(f"device: {self._uri}")
        with open_session(self._uri, request.access, request.options, log=log, progress=self._progress) as session:
            runner = session.runner()
            session.own()
            case = self._case()
            settings = self._settings(runner.threads)
            cpus = runner.facts.usable_cores if request.options.cores is None else len(request.options.cores)
            judged = self._rounds(session, settings, case, cpus)
            _, last = next(iter(self._captures.values()))[-1]
            rounds = {number for taken in self._captures.values() for number, _ in taken}
            good = good_rounds({name: self._blocks(name, cpus) for name in self._captures})
            capture = last.model_copy(update={"device": device_capture_of(session)})
            return MeasuredDevice(self._uri, judged, case, capture, len(rounds), len(good))

    def _case(self) -> Case:
        request, graph = self._asked.request, self._source
        specs = graph.inputs
        if specs is None:
            raise InputError(
                "MODEL_WRONG_FORMAT", f"{graph.path.name}: {graph.format} does not tell its inputs",
                hint="Quantize it first, and measure the file: edgequant quantize ... -o model.mnn",
            )  # fmt: skip
        if request.inputs is not None:
            cases = load_cases(request.inputs, specs, request.images)
            return checked(cases, row_limits(graph))[len(cases) // 2]
        return checked(generate(pin(specs, request.shapes), request.options.seed)[1:2], row_limits(graph))[0]

    def _settings(self, threads: int) -> list[_Setting]:
        """Files x threads x memory; a name has what differs."""
        asked = self._asked
        found: list[_Setting] = []
        first = self._files[0][1]
        for name, path, sha256, usual in self._files:
            for count in asked.threads or (threads,):
                for memory in asked.memory or (usual,):
                    words = [name]
                    words += [f"{count} thread{'s' if count > 1 else ''}"] if len(asked.threads) > 1 else []
                    words += [f"memory {memory}"] if len(asked.memory) > 1 else []
                    # The first file with as many threads; that itself is held against its first.
                    alike = [each for each in found if each.file.path == first and each.file.threads == count]
                    base = (alike or found)[0].name if found else ""
                    file = ModelFile(path, memory, sha256, threads=count)
                    found.append(_Setting(", ".join(words), file, base, quantized=name in self._quantized))
        names = [each.name for each in found]
        if len(set(names)) < len(names):
            raise InputError("OPTION_INVALID", f"{names[0]}: the same file is measured twice")
        return found

    def _rounds(self, session: Session, settings: Sequence[_Setting], case: Case, cpus: int | None) -> BenchJudgement:
        asked = self._asked
        most = asked.blocks + round(asked.blocks * asked.redo)
        order = random.Random(asked.request.options.seed)  # noqa: S311  (nobody has to guess it)
        for number in range(most):
            todo = [each for each in settings if each.name not in self._failed]
            order.shuffle(todo)
            for setting in todo:
                self._take(session, setting, case, number)
            blocks = {name: self._blocks(name, cpus) for name in self._captures if name not in self._failed}
            good = good_rounds(blocks)
            if len(good) >= asked.blocks or not blocks:
                break
            if number + 1 >= asked.blocks and not self._worth_it(blocks, number):
                break
        return judge_bench(
            {each.name: self._blocks(each.name, cpus) for each in settings},
            failed=self._failed, bases={each.name: each.base for each in settings[1:]},
            quantized=[each.name for each in settings if each.quantized], within=asked.within, tell=asked.tell,
        )  # fmt: skip

    def _worth_it(self, blocks: dict[str, list[Block]], number: int) -> bool:
        """Whether what spoke against the last round may pass; where the device is hot, after a while."""
        found = [doubt for each in blocks.values() for block in each if block.round == number for doubt in block.doubts]
        if not found:
            return True
        if any(not doubt.passing for doubt in found):
            return False
        worst_first = ranked(found)
        self._progress.say(f"round {number + 1} is taken again: {worst_first[0].message} ({worst_first[0].code})")
        if worst_first[0].code in _COOLING:
            self._progress.say(f"{self._uri} is given {COOL_SECONDS:g} s to cool down")
            time.sleep(COOL_SECONDS)  # nothing tells when a CPU has cooled down; the next block's known work does
        return True

    def _take(self, session: Session, setting: _Setting, case: Case, number: int) -> None:
        name = f"{safe_name(self._uri)}/{safe_name(setting.name)}-{number + 1}"
        self._progress.say(f"round {number + 1}: {setting.name} on {self._uri}")
        probe = BenchProbe(runs=self._asked.runs, seconds=self._asked.seconds, warm_seconds=self._asked.warm_seconds)
        capture = take(
            session, setting.file, [case], [probe], self._folder.array_folder, trial=name, role="device",
            variant=setting.name,
        )  # fmt: skip
        refused = next((each for each in capture.cases if each.refused is not None), None)
        if capture.failure is None and refused is not None:
            code = refused.refused_code or "INFERENCE_FAILED"
            failure = Failure(code=code, message=refused.refused or "", where=self._uri)
            capture = capture.model_copy(update={"failure": failure})
        self._captures.setdefault(setting.name, []).append((number, capture))
        self._folder.save_capture(name, capture)
        if capture.failure is not None:
            self._progress.say(f"{setting.name}: {capture.failure.code}: {capture.failure.message}")
            self._failed[setting.name] = verdict_of(capture.failure, host_too=session.device.is_host)

    def _blocks(self, name: str, cpus: int | None) -> list[Block]:
        fastest = fastest_work(capture for taken in self._captures.values() for _, capture in taken)
        return blocks_of(self._captures.get(name, []), cpus, self._asked.allowed, fastest)
