"""The console script as a user runs it: a process of its own, its exit code, and what it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.waiting import LONG

EDGEQUANT = str(Path(sys.executable).with_name("edgequant"))


NAMED_SHELL = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
"""Completion for the shell that is named, where Typer else asks which one it was started from: there may be none."""


class Done(NamedTuple):
    """How it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Everything on stdout, as exactly one JSON document."""
        return json.loads(self.out)

    @property
    def errors(self) -> list[str]:
        """The lines that tell of an error."""
        return [line for line in self.err.splitlines() if line.startswith("edgequant: ")]


_PATIENT = """
import sys
from edgequant.cli.app import main
from edgequant.jobs import bench_device
from edgequant.lab.probes import latency
latency.TIMING_MAX_SECONDS = 200.0
bench_device.COOL_SECONDS = 0.0
sys.argv[0] = "edgequant"
main()
"""


def edgequant(*arguments: str, cwd: Path | None = None, patient: bool = False, **environment: str) -> Done:
    """Run it.  Whatever happens, there is no traceback, and nothing a terminal would obey.

    With `patient`, `run` takes all the time its samples need, however busy the machine is, and
    `bench` lets nothing cool.
    """
    # What pytest's workers are started in has a width, by GNU readline: a pipe has none.
    given = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    done = subprocess.run(
        [*([sys.executable, "-c", _PATIENT] if patient else [EDGEQUANT]), *arguments],
        cwd=cwd,
        env={**given, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=4 * LONG,
    )
    for text in (done.stdout, done.stderr):
        assert "Traceback" not in text, text
        assert "INTERNAL_ERROR" not in text, text
        assert "\x1b" not in text, repr(text)
    return Done(done.returncode, done.stdout, done.stderr)


def re_words(words: str, text: str) -> bool:
    """Whether a line of the text has these words, however they are spaced."""
    return any(words in " ".join(line.split()) for line in text.splitlines())
