"""Ranges of a float model's inner tensors, measured over calibration samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgequant.errors import EdgequantError, InputError, ToolError
from edgequant.quantize.calibrate.child import Runs
from edgequant.quantize.calibrate.histogram import Histogram, unpack

T = TypeVar("T")
CHUNK = 32
"""Tensors asked for in one run: all of them are in memory at once, each as large as the sample makes it."""


@dataclass(frozen=True)
class Gathered:
    """Histograms by tensor name; and tensors that could not be read, with the reason."""

    histograms: dict[str, Histogram]
    unreadable: dict[str, str]


def gather(model: Path, tensors: Sequence[str], runs: Runs, *, chunk: int = CHUNK, decay: float = 0.9) -> Gathered:
    """Run the float model over all samples with its inner tensors as outputs.

    Tensors are asked for `chunk` at a time.  Where a run dies (asking for an inner tensor can crash MNN, or need more
    memory than there is), its tensors are tried again in halves, so that one bad tensor costs no other.

    Args:
        model: a float .mnn.
        tensors: names of main-graph tensors, in the order they are computed; inputs of the model may be among them.
        decay: of the moving average; see `Histogram`.

    Raises:
        InputError: CALIBRATION_NOT_FINITE: a tensor holds NaN or Inf; the first such tensor and its sample are named.
            CALIBRATION_REFUSED: MNN cannot run the model on a sample.
        ToolError: CALIBRATION_CRASHED, CALIBRATION_OUT_OF_MEMORY, CALIBRATION_FAILED: so does the model alone, without
            inner tensors.  CALIBRATION_TIMEOUT; CALIBRATION_BAD_ANSWER; and what `run_child` raises.
    """
    found, unreadable = in_parts(tensors, chunk, lambda names: _chunk(model, names, runs, decay))
    return Gathered(found, unreadable)


def in_parts(
    tensors: Sequence[str], chunk: int, attempt: Callable[[list[str]], dict[str, T] | EdgequantError]
) -> tuple[dict[str, T], dict[str, str]]:
    """What `attempt` finds of each tensor, and those of which it finds nothing, with the reason; see `gather`."""
    found: dict[str, T] = {}
    unreadable: dict[str, str] = {}
    waiting = [list(tensors[start : start + chunk]) for start in range(0, len(tensors), chunk)][::-1]
    alone_works = False
    while waiting:
        names = waiting.pop()
        part = attempt(names)
        if not isinstance(part, EdgequantError):
            found.update(part)
        elif part.code == "CALIBRATION_TIMEOUT":
            raise part  # in halves it would take twice as long
        elif len(names) > 1:
            middle = len(names) // 2
            waiting += [names[middle:], names[:middle]]
        else:
            if not alone_works:
                alone = attempt([])
                if isinstance(alone, EdgequantError):
                    raise alone
                alone_works = True
            unreadable[names[0]] = str(part)
    return found, unreadable


def _chunk(model: Path, names: list[str], runs: Runs, decay: float) -> dict[str, Histogram] | EdgequantError:
    """One run.  Returns what may be the fault of asking for these tensors; raises what is not."""
    out = runs.work / "histograms.npz"
    problem = run_part("histograms", model, names, runs, out, decay=decay)
    if problem is not None:
        return problem
    try:
        with np.load(out, allow_pickle=False) as arrays:
            return dict(zip(names, unpack(dict(arrays), len(names)), strict=True))
    except (OSError, ValueError) as error:
        raise ToolError("CALIBRATION_BAD_ANSWER", f"the histograms cannot be read: {error}") from None


def run_part(job: str, model: Path, names: list[str], runs: Runs, out: Path, **more: Any) -> EdgequantError | None:
    """One run of a job that writes what it finds of tensors to `out`; returns and raises as `_chunk` does."""
    out.unlink(missing_ok=True)
    answer, died = runs.run(job, model, "running the float model", tensors=names, out=str(out), **more)
    if died is not None:
        return died
    error, message = answer.get("error"), str(answer.get("message"))[:1000]
    if error == "NOT_FINITE":
        tensor, sample = answer.get("tensor"), answer.get("sample")
        raise InputError(
            "CALIBRATION_NOT_FINITE",
            f"the float model computes {message} in '{tensor}' for calibration sample {sample}",
            hint="Later layers hide it in MNN, so it would not show in the outputs. Leave this sample out, or repair "
            "the model at that layer.",
            where=str(model),
            evidence={"tensor": tensor, "sample": sample},
        )
    if error is not None:
        return InputError(
            "CALIBRATION_REFUSED",
            message,
            hint="Check the samples' shapes against `edgequant inspect`.",
            evidence={"reason": error},
        )
    return None
