"""Whether int8 costs an output more on the device than on this host, with the same file.

How far device and host are from each other says little of a deep model: which of 255 steps an activation rounds to is
chance, and two sound machines may be as far apart as each is from the float model.  But how *much* error rounding makes
is no chance: this host, run again with its inputs moved (`lab.probes.rounding`), makes the same to a few percent.  So
a device that makes more has something else in it than rounding, wherever in the model that is.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from statistics import fmean, stdev

from edgequant.archive.types import Artifact, Capture, CaseCapture, Source
from edgequant.compare.metrics import TensorComparison
from edgequant.compare.summary import NEAR_NOTHING
from edgequant.findings import Finding
from edgequant.judge.decisions import LISTS
from edgequant.judge.evidence import has_normal
from edgequant.judge.stages import Comparer
from edgequant.judge.types import NOTHING, Observed
from edgequant.judge.verdict import Verdict

LEAST_DB, ERRORS = 0.5, 6.0
"""So much more error is still rounding, and beyond it so many standard errors of what this host makes.  Found on sound
devices: 0.4 dB, and 1.6 standard errors."""
ALONE = 2.0
"""A single case has to be so many times farther beyond: that none of a few tries tips a decision shows little."""
LEAST = 64
"""Numbers of an output, over all cases."""
TRIES = 3
_LINEAR_DB = 90.0
"""Above this, nothing in a case is rounded that matters."""

Cost = dict[str, float]


def costs_more(
    artifact: Artifact,
    source: Source,
    floats: Capture,
    here: Capture,
    there: Capture,
    comparer: Comparer,
    accepted: Container[str] = (),
) -> Observed:
    """FAIL where it does, by more than this host's own spread explains.

    Args:
        floats: float MNN on this host, or what stands in for it.
        here, there: this host and the device with the file.
        accepted: outputs that the user lets be further off than rounding leaves them.
    """
    if has_normal(artifact, here):
        base, own = here.normal, there.normal  # each against itself: what float kernels do is told elsewhere
    elif artifact.facts.static:
        base = own = floats.cases
    else:
        return NOTHING
    beyond: dict[str, Cost] = {}
    for name, kind in source.kinds.items():
        if kind != "float" or source.decisions.get(name) in LISTS or name in accepted:
            continue
        cost = _cost(name, source, _by_case(name, base, here.cases, comparer), here,
                     _by_case(name, own, there.cases, comparer))  # fmt: skip
        if cost is not None and cost["beyond_db"] > cost["bound_db"]:
            beyond[name] = cost
    return _said(beyond) if beyond else NOTHING


def _by_case(
    name: str, base: Sequence[CaseCapture], cases: Sequence[CaseCapture], comparer: Comparer
) -> Mapping[str, TensorComparison]:
    return comparer.each(base, cases, (name,)).get(name, {})


def _cost(
    name: str,
    source: Source,
    on_host: Mapping[str, TensorComparison],
    here: Capture,
    on_device: Mapping[str, TensorComparison],
) -> Cost | None:
    """What int8 costs an output on both sides, in dB of SQNR; None where too little of it can be compared."""
    tries: dict[str, list[float]] = {}
    for each in here.moved:
        if each.memory == here.memory_mode and name in each.outputs:
            decibels = each.outputs[name].rounding_db
            tries.setdefault(each.case, []).extend([] if decibels is None else [_power(decibels)])
    device: list[float] = []
    host: list[list[float]] = []
    elements = 0
    for case in source.held:
        one, two = on_host.get(case), on_device.get(case)
        if one is None or two is None or len(tries.get(case, ())) < TRIES:
            continue
        if one.sqnr_db is None or one.sqnr_db > _LINEAR_DB or two.sqnr_db is None or two.problem is not None:
            continue
        if (two.max_abs or 0.0) > NEAR_NOTHING:
            device.append(_power(two.sqnr_db))
            host.append([_power(one.sqnr_db), *tries[case]])
            elements += one.elements
    if not device or elements < LEAST:
        return None
    count = min(map(len, host))
    pooled = [fmean(each[index] for each in host) for index in range(count)]
    logs = [[_decibels(power) for power in each] for each in host]
    apart = sorted(_decibels(power) - fmean(each) for power, each in zip(device, logs, strict=True))
    # Of two cases the lower: what tips one of them has not tipped the median of more.
    beyond = min(apart[(len(apart) - 1) // 2], _decibels(fmean(device)) - _decibels(fmean(pooled)))
    spread = max(stdev(map(_decibels, pooled)), math.sqrt(fmean(stdev(each) ** 2 for each in logs) / len(logs)))
    bound = (LEAST_DB + ERRORS * spread) * (ALONE if len(device) == 1 else 1.0)
    return {
        "device_db": -_decibels(fmean(device)), "host_db": -_decibels(fmean(pooled)),
        "beyond_db": beyond, "bound_db": bound, "cases": len(device),
    }  # fmt: skip


def _power(decibels: float) -> float:
    """Of the error, in the signal."""
    return float(10 ** (-decibels / 10))


def _decibels(power: float) -> float:
    return 10 * math.log10(power)


def _said(beyond: Mapping[str, Cost]) -> Observed:
    worst = max(beyond, key=lambda name: beyond[name]["beyond_db"] - beyond[name]["bound_db"])
    cost, more = beyond[worst], f", and {len(beyond) - 1} more" if len(beyond) > 1 else ""
    finding = Finding(
        code="DEVICE_INT8_WORSE",
        severity="fail",
        where=worst,
        message=f"int8 leaves {worst} {cost['device_db']:.4g} dB SQNR on the device and {cost['host_db']:.4g} dB on "
        f"this host, over {cost['cases']:.0f} cases: {cost['beyond_db']:.3g} dB more error, where rounding leaves "
        f"{cost['bound_db']:.2g} at most{more}",
        evidence={"outputs": dict(list(beyond.items())[:1000])},
        remedy="Rounding is not the cause.  Find the layer with `edgequant diagnose`; compare MNN versions and "
        "--threads; then suspect MNN's int8 kernels for this CPU.  If you know the reason and accept it: "
        "--limit 'device_sqnr_db>=X'.",
    )
    return Observed((finding,), Verdict.FAIL)
