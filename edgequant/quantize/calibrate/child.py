"""Starts `worker.py` on a model and tells how it ended."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgequant.errors import ToolError
from edgequant.progress import counting
from edgequant.quantize.calibrate.samples import Samples
from edgequant.quantize.calibrate.worker import SAMPLE_LINE
from edgequant.quantize.child import death, run_child

# Not with -m, which would import from the current directory first: that may be a folder somebody else filled.
_WORKER = """
import sys
sys.path[:] = [entry for entry in sys.path if entry]
from edgequant.quantize.calibrate.worker import main
sys.exit(main(sys.argv[1]))
"""
_WRONG = ("No quant info for Cast", "Error in CPUCast", "Compute Shape Error")
_MOST_ANSWER = 64 * 1024 * 1024


@dataclass(frozen=True)
class Runs:
    """How models are run over the samples.

    Attributes:
        work: a private folder for jobs and answers, removed by its owner.
        log_dir: logs of the runs.
        timeout: seconds for one run over all samples.
        memory_limit: bytes it may allocate; see `run_child`.
    """

    samples: Samples
    work: Path
    log_dir: Path
    timeout: float = 900.0
    memory_limit: int | None = None
    _numbers: list[int] = field(default_factory=lambda: [0])

    def run(
        self,
        job: str,
        model: Path,
        doing: str,
        *,
        first: int = 0,
        count: int | None = None,
        prefix: str = "CALIBRATION",
        **more: object,
    ) -> tuple[dict[str, Any], ToolError | None]:
        """Run one job of the worker.

        Args:
            doing: what it is, for the error, such as "running the float model".
            first, count: which samples; all by default.
            prefix: start of the error's code.

        Returns:
            (the worker's answer, None), or ({}, the named death).  A log is kept where something failed.
        """
        self._numbers[0] += 1
        path = self.work / f"job-{self._numbers[0]}.json"
        content: Mapping[str, object] = {
            "job": job,
            "model": str(model),
            "samples": str(self.samples.folder),
            "inputs": list(self.samples.inputs),
            "first": first,
            "count": self.samples.count - first if count is None else count,
            **more,
        }
        path.write_text(json.dumps(content), encoding="utf-8")
        log = self.log_dir / f"calibrate-{self.work.name.lstrip('.')}-{self._numbers[0]}.log"
        with counting(f"{doing}: samples", int(str(content["count"]))) as show:
            result = run_child(
                [sys.executable, "-c", _WORKER, str(path)],
                log=log,
                timeout=self.timeout,
                memory_limit=self.memory_limit,
                watch=_Steps(show),
            )
        steps = [line for line in result.log_tail if line.startswith(SAMPLE_LINE)]
        at = f" (calibration sample {steps[-1].removeprefix(SAMPLE_LINE)})" if steps else ""
        died = death(
            result,
            doing=doing + at,
            prefix=prefix,
            timeout=self.timeout,
            memory_limit=self.memory_limit,
            hint="Check the float model on this input with `edgequant run`, or leave this sample out.",
        )
        if died is not None:
            return {}, died
        answer = _read(path.with_name(path.name + ".answer"))
        if answer is None:
            return {}, ToolError(
                f"{prefix}_FAILED", f"{doing}{at}: it ended without an answer", evidence=result.evidence()
            )
        said = log.read_text(encoding="utf-8", errors="replace")
        wrong = next((line.strip() for line in said.splitlines() if any(bad in line for bad in _WRONG)), None)
        if wrong is not None:
            # MNN goes on, and the outputs look like any others.
            return {}, ToolError(
                f"{prefix}_MISCOMPUTED",
                f"{doing}: MNN says '{wrong[:200]}', so its outputs cannot be trusted",
                hint="Keep layers float with skip, or use dynamic:8.",
                evidence=result.evidence(),
            )
        if "error" not in answer:
            log.unlink(missing_ok=True)
        return answer, None


class _Steps:
    """Counts the samples that a worker says it has begun."""

    def __init__(self, show: Callable[[int], None]) -> None:
        self._show, self._begun = show, 0

    def __call__(self, new: bytes) -> None:
        self._begun += new.count(SAMPLE_LINE.encode())
        self._show(max(self._begun - 1, 0))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > _MOST_ANSWER:
            return None
        answer = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None
