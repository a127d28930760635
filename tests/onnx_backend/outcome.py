"""What the product says of a backend test, and whether it is true."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import edgequant
from edgequant.errors import EdgequantError
from tests.onnx_backend.examples import Example

ROOT = Path(__file__).parents[2]
MOST_SECONDS = 60.0


class Truth:
    """Own runs of MNN, answered by `truth.py`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def of(self, example: Example, made: Path | None) -> str:
        """Of the file that the product made, else of a conversion of our own.  "right", what is wrong, or "unknown"."""
        if example.inputs is None or example.expected is None:
            return "unknown"
        job = {"model": str(made or example.model), "inputs": str(example.inputs), "expected": str(example.expected)}
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        _write(stdin, job)
        return str(json.loads(stdout.readline()))


def _write(stream: IO[str], job: dict[str, str]) -> None:
    stream.write(json.dumps(job) + "\n")
    stream.flush()


@contextmanager
def own_runs() -> Iterator[Truth]:
    """A process that runs MNN for us."""
    argv = [sys.executable, "-m", "tests.onnx_backend.truth"]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    ) as process:
        yield Truth(process)


@dataclass(frozen=True)
class Outcome:
    """code: of the verdict or the error.  seconds: on the clock; cpu: of computing, which a busy machine does not
    change.  deviation: empty, or how this is not what it should be."""

    name: str
    reference: bool
    exit_code: int
    code: str
    seconds: float
    truth: str
    said: str = ""
    cpu: float = 0.0

    @property
    def deviation(self) -> str:
        if self.exit_code == 0 and self.truth not in ("right", "unknown"):
            return "PASS, but wrong"
        if self.exit_code == 1 and self.truth == "right":
            return "FAIL, but right"
        if self.exit_code == 3:
            return "exit 3"
        if self.code == "INTERNAL_ERROR":
            return "bug"
        return "slow" if min(self.seconds, self.cpu) > MOST_SECONDS else ""


def outcome(example: Example, truth: Truth, *, reference: bool) -> Outcome:
    """Verify it.  reference: with the test's own outputs as the reference."""
    started, before = time.monotonic(), _cpu()
    with tempfile.TemporaryDirectory() as work:
        run = Path(work) / "run"
        try:
            report, _ = edgequant.verify(
                edgequant.Request(
                    example.model,
                    variants=("float",),
                    inputs=example.inputs,
                    reference=example.expected if reference and example.inputs else None,
                    latency=False,
                    run_dir=run,
                )
            )
            exit_code, code = report.verdict.exit_code, report.verdict.name
            said = "; ".join(f"{each.code}: {each.message}" for each in _findings(report))
        except EdgequantError as error:
            exit_code, code, said = error.exit_code, error.code, f"{error} -> {error.hint}"
        seconds, cpu = time.monotonic() - started, _cpu() - before
        made = next(iter((run / "models").glob("float*.mnn")), None)
        found = truth.of(example, made)
    return Outcome(example.name, reference, exit_code, code, round(seconds, 2), found, said[:2000], round(cpu, 2))


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _findings(report: edgequant.Report) -> list[edgequant.report.model.Finding]:  # type: ignore[name-defined]
    return [each for run in report.runs for each in run.findings if each.severity in ("error", "fail")]
