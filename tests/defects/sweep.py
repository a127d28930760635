"""python -m tests.defects.sweep [RECORDING...]: twenty faults of 3 %, or of one channel, on all recordings.

Each variant on each device gets all of them, its float outputs in turn.  Prints what was not seen.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edgequant.archive.open import open_run
from edgequant.jobs.rejudge import judge
from tests.defects import planting
from tests.defects.mechanisms import (
    Effect,
    after,
    after_resize,
    change,
    clip,
    exchange,
    gain,
    in_int8,
    levels,
    noise,
    offset,
    only,
    shift,
    stale,
    tail,
)
from tests.defects.outcome import Fits, Said, judged
from tests.defects.recordings import RECORDINGS, recorded


def _half(array: np.ndarray) -> np.ndarray:
    return (array * 0.97).astype(array.dtype)


def faults(name: str, example: np.ndarray, lone: bool) -> dict[str, Effect]:
    """The twenty, for an output.  lone: nothing is computed in int8 kernels."""
    axis = 1 if example.ndim > 1 else 0
    wide = int(np.argmax([size if size < 1000 else 0 for size in example.shape]))  # classes are no places
    some = example.shape[axis] // 3
    peak = np.unravel_index(np.abs(example).argmax(), example.shape)[axis]
    found = {
        "gain 3 %": gain(name, 1.03),
        "loss 3 %": gain(name, 0.97),
        "one channel 3 %": gain(name, 1.03, axis, int(peak)),
        "one channel zero": change(name, np.zeros_like, axis, int(peak)),
        "one channel negative": gain(name, -1.0, axis, int(peak)),
        "half of the channels 3 %": gain(name, 1.03, axis, slice(0, max(1, some))),
        "every second place 3 %": gain(name, 1.03, wide, slice(0, None, 2)),
        "first place 10 %": gain(name, 0.9, wide, 0),
        "last place 10 %": gain(name, 1.1, wide, -1),
        "bias 3 %": offset(name, 0.03, axis),
        "late": shift(name, wide, 1),
        "two places exchanged": exchange(name, wide, 0, int(example.shape[wide] // 2)),
        "saturated at 80 %": clip(name, 0.8),
        "64 levels": levels(name, 64),
        "noise at 27 dB": noise(name, 27.0),
        "stale": stale([name]),
        "3 % after a change of size": after_resize(gain(name, 1.03)),
        "3 % from the third on": after(2, gain(name, 0.97)),
        "what is left over 10 %": tail(name, wide, lambda part: (part * 1.1).astype(part.dtype)),
        "3 % in int8 kernels": only(lambda o, at: lone or at.low, gain(name, 1.03))
        if lone
        else in_int8(gain(name, 1.03)),
    }
    assert len(found) == 20
    return found


def trials(names: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for home in names:
        for uri in RECORDINGS[home].devices:
            for variant in RECORDINGS[home].variants:
                yield home, uri, variant


def main(names: Sequence[str]) -> int:
    missed = total = alarms = twins = 0
    for home, uri, variant in trials(names or list(RECORDINGS)):
        with tempfile.TemporaryDirectory() as scratch:
            twin_folder = planting.copied(recorded(home), Path(scratch) / "twin", uri, variant)
            twin = Said.by(judge(twin_folder).report)
            twins, alarms = twins + 1, alarms + (not twin.healthy)
            run = open_run(twin_folder)
            outputs = run.outputs(run.reference, run.source.cases[0].name) or {}
            floats = [name for name in outputs if outputs[name].dtype.kind == "f"]
            lone = not variant.startswith("dynamic")
            said = []
            for number in range(20):
                name = floats[number % len(floats)]
                label, effect = list(faults(name, outputs[name], lone).items())[number]
                folder = planting.copied(recorded(home), Path(scratch) / str(number), uri, variant)
                if not planting.plant(folder, uri, variant, effect):
                    continue  # an output without a place for it
                total += 1
                result, _ = judged(Said.by(judge(folder).report), twin, Fits())
                if result != "caught":
                    missed += 1
                    said.append(f"{label} of {name} ({result})")
        print(
            f"{home} {variant} {uri}: twin {twin.verdict} {','.join(twin.grave)}; not seen: {', '.join(said) or 'none'}"
        )
    print(f"not caught {missed} of {total}, false alarms {alarms} of {twins}")
    return int(missed + alarms > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
