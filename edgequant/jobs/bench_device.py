"""One device of a bench: settings in turn, each block in a process of its own, until numbers may be believed."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from edgequant.archive.bench import BenchDevice, BenchSetting, block_record, device_record
from edgequant.archive.folder import RunFolder, safe_name
from edgequant.archive.types import Capture, CaseFacts, Failure
from edgequant.cases.case import Case
from edgequant.cases.generate import generate, pin
from edgequant.cases.load import load_cases
from edgequant.cases.whole_numbers import checked
from edgequant.errors import InputError
from edgequant.jobs.bench_files import MeasuredFile
from edgequant.jobs.laboratory import Laboratory
from edgequant.judge.bench import Block, blocks_of, fastest_work, good_rounds
from edgequant.judge.disturbed import ranked
from edgequant.lab.probes.bench import BenchProbe
from edgequant.lab.probes.memory import SessionMemoryProbe
from edgequant.lab.session import Session, open_session
from edgequant.lab.take import ModelFile, Probe, take
from edgequant.models import ModelGraph
from edgequant.models.tables import row_limits
from edgequant.plan.bench import BenchRequest
from edgequant.progress import Progress

_COOLING = ("THROTTLED", "FREQUENCY_FELL", "SLOWS_DOWN")
COOL_SECONDS = 10.0


class Measuring:
    """One device."""

    def __init__(
        self,
        asked: BenchRequest,
        uri: str,
        files: Sequence[MeasuredFile],
        source: ModelGraph,
        folder: RunFolder,
        progress: Progress,
    ) -> None:
        self._asked = asked
        self._files = {each.facts.name: each for each in files}
        self._source = source
        self._folder = folder
        self._progress = progress
        self._device = BenchDevice(uri=uri)
        self._captures: dict[str, list[tuple[int, Capture]]] = {}

    @property
    def _uri(self) -> str:
        return self._device.uri

    def measure(self) -> None:
        """Take all rounds.  Raises DeviceError, InputError."""
        request = self._asked.request
        log = self._folder.log(f"runner-{safe_name(self._uri)}")
        self._progress.say(f"device: {self._uri}")
        with open_session(self._uri, request.access, request.options, log=log, progress=self._progress) as session:
            runner = session.runner()
            session.own()
            case = self._case()
            laboratory = Laboratory(
                self._asked.laboratory, session, self._folder, self._progress, request.options.cores
            )  # fmt: skip
            self._laboratory = laboratory
            settings = self._settings(runner.threads)
            self.keep(
                is_host=session.device.is_host,
                case=self._facts(case),
                settings=tuple(settings),
                cores=laboratory.told,
                cpus=runner.facts.usable_cores if request.options.cores is None else len(request.options.cores),
            )
            self._rounds(session, case)
            able = {each.name: self._model(each) for each in settings if not self._failed(each.name)}
            laboratory.after(able, case)

    def keep(self, **changed: object) -> None:
        """Write down what is known of the device by now."""
        self._device = self._device.model_copy(update=changed)
        self._folder.save_record(device_record(self._uri), self._device)

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

    def _facts(self, case: Case) -> CaseFacts:
        self._folder.save_case(case.name, case.inputs)
        inputs = {name: self._folder.array_folder.put(array) for name, array in case.inputs.items()}
        return CaseFacts(name=case.name, source=case.source, generated=case.generated, inputs=inputs)

    def _settings(self, threads: int) -> list[BenchSetting]:
        """Files x threads x memory; a name has what differs."""
        asked = self._asked
        found: list[BenchSetting] = []
        first = next(iter(self._files))
        for name, file in self._files.items():
            for count in asked.threads or (threads,):
                for memory in asked.memory or (file.facts.memory,):
                    words = [name]
                    words += [f"{count} thread{'s' if count > 1 else ''}"] if len(asked.threads) > 1 else []
                    words += [f"memory {memory}"] if len(asked.memory) > 1 else []
                    # The first file with as many threads; that itself is held against its first.
                    alike = [each for each in found if each.file == first and each.threads == count]
                    base = (alike or found)[0].name if found else ""
                    found.append(
                        BenchSetting(
                            name=", ".join(words), file=name, threads=count, memory=memory, base=base,
                            quantized=file.facts.quantized, cores=self._laboratory.cores_for(count),
                        )
                    )  # fmt: skip
        return found

    def _rounds(self, session: Session, case: Case) -> None:
        asked = self._asked
        most = asked.blocks + round(asked.blocks * asked.redo)
        order = random.Random(asked.request.options.seed)  # noqa: S311  (nobody has to guess it)
        for number in range(most):
            todo = [each for each in self._device.settings if not self._failed(each.name)]
            order.shuffle(todo)
            for setting in todo:
                self._take(session, setting, case, number)
            blocks = {name: self._blocks(name) for name in self._captures if not self._failed(name)}
            if len(good_rounds(blocks)) >= asked.blocks or not blocks:
                break
            if number + 1 >= asked.blocks and not self._worth_it(blocks, number):
                break

    def _failed(self, name: str) -> bool:
        return any(capture.failure is not None for _, capture in self._captures.get(name, ()))

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

    def _take(self, session: Session, setting: BenchSetting, case: Case, number: int) -> None:
        name = block_record(self._uri, setting.name, number)
        self._progress.say(f"round {number + 1}: {setting.name} on {self._uri}")
        probes = self._probes(self._files[setting.file], number)
        capture = take(
            session, self._model(setting), [case], probes, self._folder.array_folder, trial=name, role="device",
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

    def _model(self, setting: BenchSetting) -> ModelFile:
        file = self._files[setting.file]
        return ModelFile(file.path, setting.memory, file.facts.sha256, threads=setting.threads, cores=setting.cores)

    def _probes(self, file: MeasuredFile, number: int) -> list[Probe]:
        asked = self._asked
        probe = BenchProbe(
            runs=asked.runs, seconds=asked.seconds, warm_seconds=asked.warm_seconds, readied=self._laboratory.ready()
        )  # fmt: skip
        probes: list[Probe] = [probe]
        # It loads the model once more, so it comes last, and is the same in every block.
        return [*probes, SessionMemoryProbe(has_subgraphs=file.facts.has_subgraphs)] if number == 0 else probes

    def _blocks(self, name: str) -> list[Block]:
        fastest = fastest_work(capture for taken in self._captures.values() for _, capture in taken)
        return blocks_of(self._captures.get(name, []), self._device.cpus, self._asked.allowed, fastest)
