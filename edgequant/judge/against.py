"""A bench against an earlier one: setting by setting, each with its own spread, or why the two cannot be compared.

Within a session settings are taken in turn, so that whatever changes on the device changes for all.  Two sessions are
not: what has changed in between (temperature, another kernel, what else is installed) is in the ratio, and in no
interval.  So a difference has to be there beyond both spreads AND be one that is to be noticed, and where the known
work says that the CPU itself is not as fast as it was, nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from edgequant.archive.bench import (
    Baseline,
    BaselineDevice,
    BaselineSetting,
    BenchDevice,
    BenchPlan,
    BenchSetting,
)
from edgequant.archive.types import CaseFacts, DeviceCapture
from edgequant.compare.blocks import Ratio, corrected, of_two_sessions
from edgequant.findings import Finding
from edgequant.judge.bench import APART_LEVEL, BenchJudgement, Measured

SESSIONS = 0.05
"""The known work may have taken that much longer, or shorter, in one of the two sessions."""
_SAME_DEVICE = ("arch", "cpu", "cores", "features", "emulator")
_SAME_FACTS = ("manufacturer", "model", "soc", "max_mhz", "usable_cores")
_NOTED_FACTS = ("hostname", "kernel", "build", "governor", "python", "numpy", "runtime", "mnn_kernels")
_SAME_OPTIONS = ("precision", "cores", "dynamic_quant_option")


@dataclass(frozen=True)
class AgainstSetting:
    """One setting against the one of its name.

    says: "slower", "faster", "same" or "unclear"; "not compared" where `why` says what differs.  blocks: of the
    baseline, and of now.  before_ms, ms: p50.  same_file: the same bytes were measured.
    """

    name: str
    says: str
    why: str | None = None
    ratio: Ratio | None = None
    before_ms: float | None = None
    ms: float | None = None
    blocks: tuple[int, int] = (0, 0)
    same_file: bool | None = None


@dataclass(frozen=True)
class AgainstDevice:
    """notes: what is not as it was, and is borne.  missing: settings of the baseline that are not measured now."""

    settings: tuple[AgainstSetting, ...]
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


def against_baseline(
    baseline: Baseline,
    plan: BenchPlan,
    device: BenchDevice,
    told: DeviceCapture | None,
    judged: BenchJudgement,
    work_ms: float | None,
    tell: float,
) -> AgainstDevice:
    """work_ms: the known work at its fastest in this session.  tell: the difference that is to be noticed."""
    before = next((each for each in baseline.devices if each.uri == device.uri), None)
    known = {} if before is None else {each.name: each for each in before.settings}
    measured = {each.name: each for each in judged.settings}
    apart = _apart(baseline, plan, before, device, told)
    moved = _moved(before, told, work_ms)
    level = corrected(APART_LEVEL, sum(each.name in known for each in device.settings))
    found = tuple(
        _setting(each, measured[each.name], known.get(each.name), apart, moved, plan, level, tell)
        for each in device.settings
    )
    return AgainstDevice(
        found,
        notes=tuple(_notes(baseline, plan, before, told)),
        missing=tuple(name for name in known if name not in measured),
        findings=tuple(_finding(each) for each in found if each.says == "slower"),
    )


def _apart(
    baseline: Baseline, plan: BenchPlan, before: BaselineDevice | None, now: BenchDevice, told: DeviceCapture | None
) -> str | None:
    """What forbids to compare anything on this device; None where nothing does."""
    if before is None:
        return f"the baseline did not measure {now.uri}"
    for key, was, is_ in _facts(before.device, told):
        if was != is_:
            return f"another device: {key} was {was}, and is {is_}"
    for key in _SAME_OPTIONS:
        was, is_ = getattr(baseline.options, key), getattr(plan.options, key)
        if was != is_:
            return f"another --{key.replace('_', '-')}: it was {was}, and is {is_}"
    return _other_case(before.case, now.case)


def _facts(before: DeviceCapture | None, now: DeviceCapture | None) -> Iterator[tuple[str, object, object]]:
    """Where nobody told, nothing is known to be the same."""
    if before is None or now is None:
        yield "what it told of itself", "known" if before is not None else "nothing", "known" if now else "nothing"
        return
    yield from ((key, getattr(before, key), getattr(now, key)) for key in _SAME_DEVICE)
    yield from ((key, before.facts.get(key), now.facts.get(key)) for key in _SAME_FACTS)


def _other_case(was: CaseFacts | None, now: CaseFacts | None) -> str | None:
    if was is None or now is None:
        return "the case is not known"
    for name in sorted({*was.inputs, *now.inputs}):
        one, other = was.inputs.get(name), now.inputs.get(name)
        if one is None or other is None:
            return f"another case: input {name} is in one of them only"
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            return f"another case: input {name} was {_sizes(one.shape)}, and is {_sizes(other.shape)}"
        if one.sha256 != other.sha256:
            return f"another case: the numbers of input {name} are others"
    return None


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def _moved(before: BaselineDevice | None, told: DeviceCapture | None, work_ms: float | None) -> str | None:
    """Why the CPU itself is not what it was, where known work tells."""
    was = None if before is None else before.work_ms
    if not was or not work_ms or before is None or before.device is None or told is None:
        return None
    if before.device.facts.get("python") != told.facts.get("python"):
        return None  # the known work is Python's
    share = work_ms / was
    if abs(math.log(share)) <= math.log(1 + SESSIONS):
        return None
    return f"the CPU itself is not as fast as it was: known work took {share:.2f} times as long at its fastest"


def _notes(
    baseline: Baseline, plan: BenchPlan, before: BaselineDevice | None, told: DeviceCapture | None
) -> Iterator[str]:
    yield "the two sessions were not taken in turn: what has changed on the device in between is in the ratios"
    if baseline.model_sha256 != plan.model_sha256:
        yield "the source model is another file"
    if baseline.edgequant != plan.edgequant:
        yield f"edgequant was {baseline.edgequant}, and is {plan.edgequant}"
    if before is None or before.device is None or told is None:
        return
    if before.device.mnn != told.mnn:
        yield f"MNN on the device was {before.device.mnn}, and is {told.mnn}"
    if before.device.os != told.os:
        yield f"os was {before.device.os}, and is {told.os}"
    for key in _NOTED_FACTS:
        was, is_ = before.device.facts.get(key), told.facts.get(key)
        if was != is_:
            yield f"{key} was {was}, and is {is_}"


def _setting(
    setting: BenchSetting,
    now: Measured,
    before: BaselineSetting | None,
    apart: str | None,
    moved: str | None,
    plan: BenchPlan,
    level: float,
    tell: float,
) -> AgainstSetting:
    # Of a device that is not the same, that says more than a setting that is not there.
    why = apart or _why_not(setting, now, before)
    if why is not None or before is None:
        return AgainstSetting(setting.name, "not compared", why)
    medians = now.medians
    ratio = of_two_sessions(before.p50_ms, medians, level)
    file = plan.file(setting.file)
    return AgainstSetting(
        setting.name,
        "unclear" if moved is not None else told_of(ratio, tell),
        moved,
        ratio,
        fmean(before.p50_ms),
        fmean(medians),
        (len(before.p50_ms), len(medians)),
        None if file is None else file.sha256 == before.sha256,
    )


def _why_not(setting: BenchSetting, now: Measured, before: BaselineSetting | None) -> str | None:
    if before is None:
        return "the baseline has no setting of that name"
    if before.threads != setting.threads:
        return f"it ran with {before.threads} threads then, and with {setting.threads} now"
    if before.memory != setting.memory:
        return f"it ran with memory {before.memory} then, and with memory {setting.memory} now"
    if not before.valid:
        codes = ", ".join(code for code, _ in before.why_invalid) or "no numbers"
        return f"the baseline's numbers are not valid ({codes})"
    if not now.valid:
        return f"the numbers are not valid ({', '.join(code for code, _ in now.why_invalid) or 'there are none'})"
    return None


def told_of(ratio: Ratio, tell: float) -> str:
    if ratio.low is None or ratio.high is None:
        return "unclear"
    if ratio.low > 1 and ratio.value > 1 + tell:
        return "slower"
    if ratio.high < 1 and ratio.value < 1 / (1 + tell):
        return "faster"
    return "same" if ratio.low > 1 / (1 + tell) and ratio.high < 1 + tell else "unclear"


def _finding(found: AgainstSetting) -> Finding:
    assert found.ratio is not None
    return Finding(
        code="SLOWER_THAN_BASELINE",
        severity="warn",
        where=found.name,
        message=f"{found.name} takes {found.ratio.value:.2f} times as long as in the baseline"
        + (": of the same file" if found.same_file else ""),
        evidence={"ratio": found.ratio.value, "low": found.ratio.low, "high": found.ratio.high},
        remedy="Measure both files in one session, in turn: edgequant bench NEW.mnn --against OLD.mnn. That leaves out "
        "whatever has changed on the device since.",
    )
