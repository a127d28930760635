"""The runner's timing loop against a bare MNN loop: does edgequant measure the model, or itself?

Timed: one inference, forward pass and reading of every output, as p50 of a burst of at least 0.3 s.  Ours is the
runner's `time` job, driven over its pipe exactly as `bench` and `verify` do it.  The peer is bare.py: the same MNN
calls in a plain loop, as a user would write them.

Fair because both are processes of their own with the same model file, input values, memory mode and thread count,
both loaded before the first burst, and bursts alternate (ours, bare, bare, ours, ...).  Two processes of the same
program differ by some percent on their own (where their memory happens to lie), so both are started anew several
times.
"""

from __future__ import annotations

import statistics
from typing import Any

from bench.harness import Pairs, Result, Settings, median
from bench.material import BareLoop, Model, quantized

BOUND = 1.02
MODELS = ("ppocr_cls", "enc")
THREADS = 1
WARMUP, REPEAT, SECONDS = 3, 20, 0.3


def run(settings: Settings) -> list[Result]:
    starts, bursts = settings.pairs(8, 2), settings.pairs(8, 3)
    return [_one(quantized(name, settings.folder), settings, starts, bursts) for name in MODELS]


def _one(model: Model, settings: Settings, starts: int, bursts: int) -> Result:
    from edgequant.lab.session import DeviceOptions, open_session
    from edgequant.spec import RunOptions

    pairs = Pairs()
    for _ in range(starts):
        options = DeviceOptions(work_dir=str(settings.folder / "device"))
        session = open_session("local:", options, RunOptions(threads=THREADS), log=None)
        with session, BareLoop(model, "low", THREADS) as peer:
            runner = session.runner()
            loaded = runner.load(session.push(model.quantized)[0], "low")

            def ours(runner: Any = runner, loaded: Any = loaded) -> float:
                timing = runner.time(loaded, model.inputs, warmup=WARMUP, repeat=REPEAT, min_seconds=SECONDS)
                return float(statistics.median(timing.samples))

            def theirs(peer: BareLoop = peer) -> float:
                return statistics.median(peer.burst(WARMUP, REPEAT, SECONDS))

            pairs.take(ours, theirs, bursts)
    return Result(
        f"runner {model.name}",
        pairs.ratios,
        BOUND,
        notes=f"p50 {median(pairs.ours):.3f} ms, bare {median(pairs.peer):.3f} ms, {THREADS} thread",
        detail=pairs.detail(),
    )
