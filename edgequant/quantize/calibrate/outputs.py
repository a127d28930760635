"""A model's outputs over the first samples, and how much of the float model's is left in them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgequant.compare.decibel import power_db
from edgequant.errors import ToolError
from edgequant.quantize.calibrate.child import Runs

Outputs = list[dict[str, np.ndarray]]
ENOUGH_DB = 100.0
"""More counts as this much in a mean over samples: no int8 model has it, but for an output that nothing quantized
reaches, and at `SQNR_CAP_DB` one sample that is equal would outweigh the others."""


class Fidelity(NamedTuple):
    """How an output resembles the float one, over all samples.

    sqnr_db: 10 log10(sum ref^2 / sum (ref - out)^2), infinite where they are equal, -inf where there is no signal.
    cosine: of the two, all samples in a row; 0 where one is all zeros and the other is not.
    finite: nothing in it is NaN or Inf that is not so in the float output.
    worst_db: SQNR of the worst sample, as a verdict looks at it; samples whose float output is all zeros do not count.
    mean_db: mean over the samples of their SQNR, each at most `ENOUGH_DB`: what one odd sample decides least.
    """

    sqnr_db: float
    cosine: float
    finite: bool
    worst_db: float
    mean_db: float


def run_outputs(model: Path, runs: Runs, doing: str, count: int, *, prefix: str = "STATIC") -> Outputs:
    """The model's outputs for the first `count` samples.

    Raises:
        ToolError: PREFIX_CRASHED, PREFIX_TIMEOUT, PREFIX_OUT_OF_MEMORY, PREFIX_FAILED, PREFIX_REFUSED (MNN says it
            cannot run it), PREFIX_BAD_ANSWER.
    """
    folder = runs.work / "outputs"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    answer, died = runs.run("outputs", model, doing, count=count, out=str(folder), prefix=prefix)
    if died is not None:
        raise died
    if answer.get("error") is not None:
        raise ToolError(
            f"{prefix}_REFUSED",
            f"{doing}: {str(answer.get('message'))[:1000]}",
            hint="The float model may be unable to run this sample too: try `edgequant run` on it.",
        )
    names = answer.get("outputs")
    found: Outputs = []
    try:
        if not isinstance(names, list):
            raise ValueError("it names no outputs")
        for number in range(count):
            with np.load(folder / f"{number}.npz", allow_pickle=False) as arrays:
                found.append({str(name): arrays[str(place)] for place, name in enumerate(names)})
    except (OSError, ValueError, KeyError) as error:
        raise ToolError(f"{prefix}_BAD_ANSWER", f"{doing}: its outputs cannot be read: {error}") from None
    return found


def fidelity(reference: Outputs, outputs: Outputs) -> dict[str, Fidelity]:
    """Compare the outputs of two models over the same samples, by output name."""
    names: Sequence[str] = list(reference[0])
    return {name: _fidelity(name, reference, outputs) for name in names}


def _fidelity(name: str, reference: Sequence[Mapping[str, np.ndarray]], outputs: Outputs) -> Fidelity:
    signal = noise = power = product = 0.0
    finite, each_db = True, []
    for want, have in zip(reference, outputs, strict=True):
        a = want[name].astype(np.float64)
        b = have[name].astype(np.float64) if name in have else np.zeros(0)
        if a.shape != b.shape:
            return Fidelity(-math.inf, 0.0, False, -math.inf, -math.inf)
        sound = np.isfinite(a)
        finite = finite and bool(np.isfinite(b[sound]).all())
        a, b = a[sound], b[sound]
        here, wrong = float((a * a).sum()), float(((a - b) ** 2).sum())
        if here > 0:
            each_db.append(power_db(here, wrong))
        signal += here
        power += float((b * b).sum())
        noise += wrong
        product += float((a * b).sum())
    if not finite:
        return Fidelity(-math.inf, 0.0, False, -math.inf, -math.inf)
    if noise == 0:
        return Fidelity(math.inf, 1.0, True, math.inf, ENOUGH_DB)
    sqnr = power_db(signal, noise)
    worst = min(each_db, default=-math.inf)
    mean = sum(min(db, ENOUGH_DB) for db in each_db) / len(each_db) if each_db else -math.inf
    return Fidelity(sqnr, product / math.sqrt(signal * power) if signal and power else 0.0, True, worst, mean)
