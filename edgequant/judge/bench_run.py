"""A bench's folder, judged: the same folder and rules give the same, without device, MNN or model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgequant.archive.bench import Baseline, BaselineDevice, BaselineSetting, Bench, BenchDevice, BenchPlan
from edgequant.archive.open import invalid
from edgequant.archive.types import Capture, DeviceCapture, Failure
from edgequant.errors import InputError
from edgequant.judge.against import AgainstDevice, against_baseline
from edgequant.judge.bench import BenchJudgement, blocks_of, fastest_work, good_rounds, judge_bench
from edgequant.judge.bench_apart import apart_of
from edgequant.judge.disturbed import CAUSES, SIGNS
from edgequant.judge.laboratory import Apart
from edgequant.judge.trial import verdict_of
from edgequant.judge.verdict import Verdict, worst

NOT_MEASURED = Failure(code="INTERRUPTED", message="it ended before this device was measured")


@dataclass(frozen=True)
class BenchRules:
    """What makes numbers valid, and a difference one: see `judge.bench`."""

    within: float
    tell: float
    allowed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises InputError (OPTION_INVALID)."""
        known = sorted((*CAUSES, *SIGNS))
        if unknown := [code for code in self.allowed if code not in known]:
            raise InputError(
                "OPTION_INVALID", f"--allow {unknown[0]}: no condition has that name",
                hint=f"There are {', '.join(known)}.",
            )  # fmt: skip

    @classmethod
    def of(
        cls, plan: BenchPlan, within: float | None = None, tell: float | None = None, allowed: Sequence[str] = ()
    ) -> BenchRules:
        """Those of the plan, or others: those that are given take their place, and codes are borne as well."""
        return cls(within or plan.within, tell or plan.tell, tuple(dict.fromkeys((*plan.allowed, *allowed))))


@dataclass(frozen=True)
class JudgedDevice:
    """One device.

    Attributes:
        told: what the device says of itself; None where nothing was taken.
        judged: None where it could not be used, for which `failure` is the reason.
        rounds, good: taken, and those in which nothing speaks against any setting.
        apart: what was found beside latencies.
        against: the same in an earlier bench; None where there is none to be held against.
        work_ms: the known work at its fastest.
    """

    device: BenchDevice
    verdict: Verdict
    told: DeviceCapture | None = None
    judged: BenchJudgement | None = None
    failure: Failure | None = None
    rounds: int = 0
    good: int = 0
    against: AgainstDevice | None = None
    apart: Apart = field(default_factory=Apart)
    work_ms: float | None = None


@dataclass(frozen=True)
class JudgedBench:
    """The whole: `verdict` is the worst of all devices'; what was interrupted is never PASS."""

    verdict: Verdict
    rules: BenchRules
    devices: tuple[JudgedDevice, ...]


def judge_folder(bench: Bench, rules: BenchRules | None = None, baseline: Baseline | None = None) -> JudgedBench:
    """rules: None for those it was measured by.  baseline: in place of the one that is kept in the folder.

    Raises InputError (RUN_INVALID).
    """
    rules = rules or BenchRules.of(bench.plan)
    against = baseline or bench.baseline
    devices = tuple(_device(bench, uri, rules, against) for uri in bench.plan.devices)
    # What was not measured to its end may be as it is, and nobody knows.
    ended = [] if bench.closing.ended else [Verdict.INCONCLUSIVE]
    return JudgedBench(worst([*ended, *(each.verdict for each in devices)]), rules, devices)


def _device(bench: Bench, uri: str, rules: BenchRules, against: Baseline | None) -> JudgedDevice:
    device = bench.device(uri) or BenchDevice(uri=uri)
    taken = {each.name: list(bench.blocks(uri, each.name)) for each in device.settings}
    for setting in device.settings:
        file = bench.plan.file(setting.file)
        if file is not None and any(each.artifact_sha256 not in (None, file.sha256) for _, each in taken[setting.name]):
            raise invalid(bench.path, f"what is kept of {setting.name} on {uri} is of another file")
    captures = [capture for each in taken.values() for _, capture in each]
    told = next((each.device for each in reversed(captures) if each.device is not None), None)
    if device.failure is not None or not captures:
        return JudgedDevice(device, Verdict.ERROR, told, failure=device.failure or NOT_MEASURED)
    return _judged(bench, device, taken, captures, rules, against, told)


def _judged(
    bench: Bench,
    device: BenchDevice,
    taken: Mapping[str, Sequence[tuple[int, Capture]]],
    captures: Sequence[Capture],
    rules: BenchRules,
    against: Baseline | None,
    told: DeviceCapture | None,
) -> JudgedDevice:
    fastest = fastest_work(captures)
    blocks = {name: blocks_of(each, device.cpus, rules.allowed, fastest) for name, each in taken.items()}
    failed = {
        name: verdict_of(failure, host_too=device.is_host)
        for name, each in taken.items()
        for failure in [next((capture.failure for _, capture in each if capture.failure is not None), None)]
        if failure is not None
    }
    judged = judge_bench(
        blocks, failed=failed, bases={each.name: each.base for each in device.settings[1:]},
        quantized=[each.name for each in device.settings if each.quantized], within=rules.within, tell=rules.tell,
        allowed=rules.allowed,
    )  # fmt: skip
    rounds = {block.round for each in blocks.values() for block in each}
    return JudgedDevice(
        device,
        judged.verdict,
        told,
        judged,
        rounds=len(rounds),
        good=len(good_rounds(blocks)),
        against=None
        if against is None
        else against_baseline(against, bench.plan, device, told, judged, fastest, rules.tell),
        apart=apart_of(bench, device, judged),
        work_ms=fastest,
    )


def baseline_of(bench: Bench) -> Baseline:
    """What comparing with it needs, judged by its own rules.  Raises InputError (RUN_INVALID)."""
    plan = bench.plan
    return Baseline(
        folder=bench.path.name,
        created=plan.created,
        edgequant=plan.edgequant,
        mnn=plan.host.mnn,
        model=plan.model,
        model_sha256=plan.model_sha256,
        options=plan.options,
        devices=tuple(_of_device(plan, each) for each in judge_folder(bench).devices),
    )


def _of_device(plan: BenchPlan, found: JudgedDevice) -> BaselineDevice:
    measured = {} if found.judged is None else {each.name: each for each in found.judged.settings}
    settings = []
    for each in found.device.settings:
        file, now = plan.file(each.file), measured.get(each.name)
        if file is None or now is None:
            continue
        settings.append(
            BaselineSetting(
                name=each.name, threads=each.threads, memory=each.memory, sha256=file.sha256, valid=now.valid,
                why_invalid=now.why_invalid, p50_ms=tuple(now.medians),
            )
        )  # fmt: skip
    return BaselineDevice(
        uri=found.device.uri, device=found.told, case=found.device.case, work_ms=found.work_ms, settings=tuple(settings)
    )
