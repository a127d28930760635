"""Whether int8 costs an output more on the device than on this host, with the same file.

How far device and host are from each other says little of a deep model: which of 255 steps an activation rounds to is
chance, and two sound machines may be as far apart as each is from the float model.  But how *much* error rounding makes
is no chance: this host, run again with its inputs moved (`lab.probes.rounding`), makes the same to a few percent.  So
a device that makes more has something else in it than rounding, wherever in the model that is.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, median_low, stdev

from edgequant.archive.types import Artifact, Capture, Source
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
_LEAST_VARIANCE = 1e-4
"""(dB^2) Of a case in which no try of this host has moved anything."""
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
        on_host, on_device = (
            comparer.each(plain, capture.cases, (name,)).get(name, {})
            for plain, capture in ((base, here), (own, there))
        )
        cost = _cost([*_cases(name, source, on_host, here, on_device)])
        if cost is not None and cost["beyond_db"] > cost["bound_db"]:
            beyond[name] = cost
    return _said(beyond) if beyond else NOTHING


@dataclass(frozen=True)
class _Case:
    """Powers of the error that int8 makes, each in its signal: on the device, and on this host in each of its tries."""

    held: bool
    device: float
    host: Sequence[float]
    elements: int

    @property
    def apart(self) -> float:
        """How much more it is on the device, in dB."""
        return _decibels(self.device) - fmean(map(_decibels, self.host))

    @property
    def spread(self) -> float:
        """Of this host, in dB."""
        return stdev(map(_decibels, self.host))


def _cases(
    name: str,
    source: Source,
    on_host: Mapping[str, TensorComparison],
    here: Capture,
    on_device: Mapping[str, TensorComparison],
) -> Iterator[_Case]:
    """Those in which something is rounded, and enough is known of how much."""
    tries: dict[str, list[float]] = {}
    for each in here.moved:
        decibels = each.outputs[name].rounding_db if name in each.outputs else None
        if each.memory == here.memory_mode and decibels is not None:
            tries.setdefault(each.case, []).append(_power(decibels))
    for case in (each.name for each in source.cases):
        one, two = on_host.get(case), on_device.get(case)
        if one is None or two is None or len(tries.get(case, ())) < TRIES:
            continue
        if one.sqnr_db is None or one.sqnr_db > _LINEAR_DB or two.sqnr_db is None or two.problem is not None:
            continue
        if (two.max_abs or 0.0) > NEAR_NOTHING:
            host = (_power(one.sqnr_db), *tries[case])
            yield _Case(case in source.held, _power(two.sqnr_db), host, one.elements)


def _cost(cases: Sequence[_Case]) -> Cost | None:
    """What int8 costs an output on both sides, in dB of SQNR; None where too little of it can be compared."""
    looks = [_pooled([each for each in cases if each.held]), _weighed(cases)]
    known = [each for each in looks if each is not None]
    return max(known, key=lambda each: each["beyond_db"] - each["bound_db"], default=None)


def _pooled(cases: Sequence[_Case]) -> Cost | None:
    """All errors of the cases that are held against limits together, and in the median case."""
    if sum(each.elements for each in cases) < LEAST:
        return None
    device = fmean(each.device for each in cases)
    tries = [fmean(powers) for powers in zip(*(each.host for each in cases), strict=False)]
    within = math.sqrt(fmean(each.spread**2 for each in cases) / len(cases))
    return _found(cases, _decibels(device) - _decibels(fmean(tries)), max(stdev(map(_decibels, tries)), within))


def _weighed(cases: Sequence[_Case]) -> Cost | None:
    """Every case, those that strain the model too, by how well this host agrees with itself in it."""
    if sum(each.elements for each in cases) < LEAST:
        return None
    usual = median(each.spread for each in cases)
    weights = [1 / max(max(each.spread, usual) ** 2 * (1 + 1 / len(each.host)), _LEAST_VARIANCE) for each in cases]
    beyond = sum(weight * each.apart for weight, each in zip(weights, cases, strict=True)) / sum(weights)
    return _found(cases, beyond, sum(weights) ** -0.5)


def _found(cases: Sequence[_Case], beyond: float, spread: float) -> Cost:
    return {
        "device_db": -_decibels(fmean(each.device for each in cases)),
        "host_db": -_decibels(fmean(fmean(each.host) for each in cases)),
        # Of two cases the lower: what tips one of them has not tipped the median of more.
        "beyond_db": min(median_low([each.apart for each in cases]), beyond),
        "bound_db": (LEAST_DB + ERRORS * spread) * (ALONE if len(cases) == 1 else 1.0),
        "cases": len(cases),
    }


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
