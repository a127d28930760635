"""python -m bench.rates: how often `edgequant bench` is right, in simulation and on this machine.

Simulated: blocks that differ by 1.5 %, of skewed samples of 5 %, as tests/compare/test_blocks.py has them; there the
truth is known.  Real: sessions in which a file is measured beside a copy of itself, so that the truth of their ratio is
1; and the same sessions with every sample of the copy made 3 % longer, so that it is 1.03.  Each session is judged as
`bench` judges it, and once more with all conditions borne, which says what the intervals are worth whatever was in the
way.  docs/bench.md has the numbers.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.harness import machine, say
from edgequant.archive.bench import open_bench
from edgequant.archive.types import Capture
from edgequant.compare.blocks import estimates, ratio
from edgequant.errors import EdgequantError
from edgequant.jobs.bench import BenchRequest, bench
from edgequant.judge.against import of_two_sessions, told_of
from edgequant.judge.bench import APART_LEVEL, TELL, WITHIN, Compared, blocks_of, fastest_work, judge_bench
from edgequant.judge.disturbed import CAUSES, SIGNS
from edgequant.plan.request import Request
from edgequant.spec import RunOptions, Variant

PLANTED = 1.03
_BETWEEN, _SKEW = 0.015, 0.05
Blocks = list[list[float]]


def main() -> int:
    """Exit code 0: these are numbers, not limits."""
    parser = argparse.ArgumentParser(prog="python -m bench.rates", description="how often bench is right")
    parser.add_argument("--simulated", type=int, default=1000, help="series of each kind")
    parser.add_argument("--pairs", type=int, default=0, help="real sessions of a file beside its copy")
    parser.add_argument("--model", type=Path, help="an .mnn for them, or what becomes one")
    parser.add_argument("--blocks", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--warm-up", type=float, default=8.0)
    parser.add_argument("--redo", type=float, default=1.0)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything there")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    say(", ".join(f"{key} {value}" for key, value in machine().items()))
    found = dict(simulated(given.simulated)) if given.simulated else {}
    if given.pairs:
        if given.model is None:
            parser.error("--pairs needs --model")
        found |= real(given)
    for what, number in found.items():
        print(f"{what:<90} {number}", flush=True)
    if given.json:
        given.json.write_text(json.dumps({"machine": machine(), "found": found}, indent=1) + "\n")
    return 0


def _session(draw: np.random.Generator, middles: np.ndarray) -> Blocks:
    return [list(10 * middle * (0.95 + draw.gamma(1.0, _SKEW, 60))) for middle in middles]


def simulated(count: int) -> dict[str, str]:
    """What is sure in simulation: each a share of `count`."""
    draw = np.random.default_rng(0)
    truth = 10 * (0.95 + _SKEW * float(np.log(2.0)))

    def blocks(number: int, by: float = 1.0, between: float = _BETWEEN) -> Blocks:
        return _session(draw, by * np.exp(between * draw.standard_normal(number)))

    found = {}
    for number in (3, 7):
        inside = sum(_holds(estimates(blocks(number))["p50"], truth) for _ in range(count))
        found[f"simulated: 95 % interval of p50, {number} blocks, holds the truth"] = _share(inside, count)
    apart = sum(not _holds(ratio(blocks(7), blocks(7), APART_LEVEL), 1.0) for _ in range(count))
    found["simulated: the same beside itself, 7 blocks, called different"] = _share(apart, count)
    for number in (7, 20):
        said: Counter[str] = Counter()
        for _ in range(count):
            # Blocks beside each other share what the machine is like just then: 1 % is left between them.
            one = np.exp(_BETWEEN * draw.standard_normal(number))
            other = PLANTED * one * np.exp(0.01 * draw.standard_normal(number))
            each = ratio(_session(draw, one), _session(draw, other), APART_LEVEL)
            said["slower" if (each.low or 0) > 1 else "faster" if (each.high or 2) < 1 else "unclear"] += 1
        found[f"simulated: 3 % slower, {number} blocks beside each other"] = _told(said, count)
    for by in (1.0, 1.06):
        said = Counter()
        for _ in range(count):
            before, now = ([float(np.median(block)) for block in blocks(7, times)] for times in (1.0, by))
            said[told_of(of_two_sessions(before, now, APART_LEVEL), TELL)] += 1
        found[f"simulated: against a baseline of 7 blocks, {by:.2f} times"] = _told(said, count)
    return found


def real(given: argparse.Namespace) -> dict[str, str]:
    """What this machine allows: sessions of a file beside its copy."""
    as_told, borne, planted, planted_borne = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    holds = holds_planted = valid = done = 0
    with tempfile.TemporaryDirectory(prefix="edgequant-rates-") as folder:
        for number in range(given.pairs):
            try:
                taken, cpus = _take(given, Path(folder) / str(number))
            except EdgequantError as error:
                say(f"session {number + 1}: {error}")
                continue
            except KeyboardInterrupt:
                break  # what there is, is told
            done += 1
            slow = {
                name: [_slowed(each) if name == "copy" else each for each in captures]
                for name, captures in taken.items()
            }
            one, two = _judged(taken, cpus, bear=False), _judged(taken, cpus, bear=True)
            three, four = _judged(slow, cpus, bear=False), _judged(slow, cpus, bear=True)
            for counted, found in ((as_told, one), (borne, two), (planted, three), (planted_borne, four)):
                counted[found.says] += 1
            valid += one.valid
            holds += _holds(two.compared.ratio, 1.0)
            holds_planted += _holds(four.compared.ratio, PLANTED)
            say(f"session {number + 1}: {one.says}; all borne: {two.says}, {two.compared.ratio}")
    return {
        "real: sessions of a file beside its copy": str(done),
        "real: both valid": _share(valid, done),
        "real: the same beside itself, as bench says": _told(as_told, done),
        "real: the same beside itself, with everything borne": _told(borne, done),
        "real: 95 % interval of that ratio, everything borne, holds 1": _share(holds, done),
        "real: 3 % slower, as bench says": _told(planted, done),
        "real: 3 % slower, with everything borne": _told(planted_borne, done),
        "real: 95 % interval of that ratio, everything borne, holds 1.03": _share(holds_planted, done),
    }


def _take(given: argparse.Namespace, folder: Path) -> tuple[dict[str, list[Capture]], int | None]:
    """The captures of one session: of the file, and of its copy."""
    folder.mkdir()
    copy = folder / "copy.mnn"
    options = RunOptions(threads=1)
    request = Request(given.model, variants=(Variant.parse("float"),), run_dir=folder / "run", options=options)
    asked = BenchRequest(
        request, against=(copy,), blocks=given.blocks, runs=given.runs, seconds=given.seconds,
        warm_seconds=given.warm_up, redo=given.redo,
    )  # fmt: skip
    if given.model.suffix == ".mnn":
        shutil.copy(given.model, copy)
    else:
        made = bench(replace(asked, against=(), blocks=1, runs=1, seconds=0, warm_seconds=0, redo=0,
                             request=replace(request, run_dir=folder / "made")))  # fmt: skip
        shutil.copy(next((made.folder / "models").glob("*.mnn")), copy)
        asked = replace(
            asked, request=replace(request, model=copy), against=(Path(shutil.copy(copy, folder / "again.mnn")),)
        )
    measured = open_bench(bench(asked).folder)
    device = measured.device("local:")
    assert device is not None
    first, second = device.settings
    taken = {
        name: [capture for _, capture in measured.blocks("local:", setting.name)]
        for name, setting in (("file", first), ("copy", second))
    }
    return taken, device.cpus


def _slowed(capture: Capture) -> Capture:
    timing = capture.timings[0]
    slow = timing.model_copy(update={"samples_ms": tuple(PLANTED * each for each in timing.samples_ms)})
    return capture.model_copy(update={"timings": (slow,)})


class _Judged:
    def __init__(self, compared: Compared, *, valid: bool) -> None:
        self.compared, self.valid, self.says = compared, valid, compared.says


def _judged(taken: dict[str, list[Capture]], cpus: int | None, *, bear: bool) -> _Judged:
    fastest = fastest_work(capture for captures in taken.values() for capture in captures)
    allowed = (*CAUSES, *SIGNS) if bear else ()
    blocks = {name: blocks_of(list(enumerate(captures)), cpus, allowed, fastest) for name, captures in taken.items()}
    judged = judge_bench(blocks, failed={}, within=1.0 if bear else WITHIN)
    found = judged.compared[0]
    if bear:
        # Coverage is asked of 95 %, what is said of 99 %.
        one, two = ([[value] for value in each.medians] for each in judged.settings)
        found = replace(found, ratio=ratio(one, two, 0.95))
    return _Judged(found, valid=all(each.valid for each in judged.settings))


def _holds(found: object, truth: float) -> bool:
    low, high = getattr(found, "low", None), getattr(found, "high", None)
    return low is not None and high is not None and low <= truth <= high


def _share(part: int, of: int) -> str:
    return f"{part} of {of}" + (f" ({part / of:.1%})" if of else "")


def _told(said: Counter[str], of: int) -> str:
    return ", ".join(f"{word} {_share(number, of)}" for word, number in said.most_common())


if __name__ == "__main__":
    sys.exit(main())
