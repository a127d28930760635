"""What a bench's folder holds beside latencies, judged."""

from __future__ import annotations

from edgequant.archive.bench import Bench, BenchDevice
from edgequant.archive.timing import GovernorCapture
from edgequant.judge.bench import BenchJudgement
from edgequant.judge.laboratory import Apart, energy, findings, operator_times, sustained


def apart_of(bench: Bench, device: BenchDevice, judged: BenchJudgement) -> Apart:
    """Of one device.  Raises InputError (RUN_INVALID)."""
    long_runs, operators = {}, {}
    for each in device.settings:
        kept = bench.apart(device.uri, each.name, "sustain")
        if kept is not None and kept.sustained is not None:
            long_runs[each.name] = sustained(kept.sustained, device.cpus)
        kept = bench.apart(device.uri, each.name, "operators")
        if kept is not None and kept.operators is not None:
            operators[each.name] = operator_times(kept.operators)
    governor = _governor(judged)
    return Apart(
        cores=tuple(each.says for each in device.cores),
        governor=governor,
        sustained=long_runs,
        energy={
            each.name: energy([block.timing for block in each.blocks if block.timing and block.round in each.used])
            for each in judged.settings
        },
        operators=operators,
        findings=tuple(findings(governor, long_runs, [each.says for each in device.cores if each.mixed])),
    )


def _governor(judged: BenchJudgement) -> GovernorCapture | None:
    """The last that was asked for; one that could not be set before all others."""
    timings = [block.timing for each in judged.settings for block in each.blocks if block.timing is not None]
    asked = [
        each.readied.governor for each in timings if each.readied is not None and each.readied.governor is not None
    ]
    return next((each for each in asked if not each.set), asked[-1] if asked else None)
