"""Instructions of an inference, whole and by operator."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from edgequant.cases.case import Case
from edgequant.cases.load import save_npz
from edgequant.errors import RunnerError
from edgequant.files import read_bounded
from edgequant.spec import MemoryMode, Precision

FIRST, SEEN = 3, 5
"""Inferences that warm up, and those that are counted."""
BEGIN, END = 1_000_000, 2_000_000
"""Marks of operators; as in `inference`."""
_MEMORY = {"normal": 0, "high": 1, "low": 2}
_PRECISION = {"normal": 0, "high": 1, "low": 2}
_MOST_BYTES = 64 << 20
_NAMES = TypeAdapter(list[tuple[str, str]])
_GUEST = Path(__file__).with_name("inference.py")


@dataclass(frozen=True)
class Operator:
    """As MNN runs it.  instructions: of them about 15,000 are the counting's own."""

    name: str
    type: str
    instructions: int


@dataclass(frozen=True)
class Work:
    """Of one model with one case on one thread.

    counted: instructions of each inference.  operators: in the order they are run; empty where MNN does not tell them.
    """

    counted: tuple[int, ...]
    operators: tuple[Operator, ...]

    @property
    def instructions(self) -> int:
        """Of the middle inference."""
        return int(statistics.median_low(self.counted))

    @property
    def spread(self) -> float:
        """Farthest inference from it, as a share."""
        return max(abs(each - self.instructions) for each in self.counted) / max(self.instructions, 1)


@dataclass(frozen=True)
class Emulator:
    """qemu: with its arguments up to the program.  python: of the pack, as it is started.  plugin: compiled."""

    qemu: str
    cpu: str
    python: Sequence[str]
    plugin: Path

    def count(
        self, model: Path, case: Case, folder: Path, *, memory: MemoryMode, precision: Precision,
        operators: bool = True, timeout: float = 600.0,
    ) -> Work:  # fmt: skip
        """Run it.  folder: a private one.  operators: by operator as well, which only models without loops have.

        Raises RunnerError (WORK_FAILED).
        """
        marks, names, inputs = folder / "marks", folder / "names.json", folder / "case.npz"
        for path in (marks, names):
            path.unlink(missing_ok=True)
        save_npz(inputs, case.inputs)
        command = ["env", "-i", "PYTHONHASHSEED=0", self.qemu, "-plugin", f"file={self.plugin},out={marks}"]
        command += ["-cpu", self.cpu, *self.python, str(_GUEST), str(model.resolve()), str(inputs)]
        command += [str(_MEMORY[memory]), str(_PRECISION[precision]), str(FIRST + SEEN)]
        command.append(str(names) if operators else "")
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=timeout, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            raise RunnerError("WORK_FAILED", f"{model}: it did not end within {timeout:.0f} s", hint=_SMALLER) from None
        told = _read(marks)
        whole = [told[2 * at + 1] - told[2 * at] for at in range(FIRST, FIRST + SEEN) if 2 * at + 1 in told]
        if len(whole) < SEEN:
            said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise RunnerError("WORK_FAILED", f"{model}: it cannot be run under QEMU: {said[:300]}")
        try:
            found = _NAMES.validate_json(read_bounded(names, _MOST_BYTES)) if names.is_file() else []
        except (OSError, ValidationError) as error:
            raise RunnerError(
                "WORK_FAILED", f"{model}: what it says of its operators cannot be read: {error}"
            ) from None
        return Work(
            tuple(whole),
            tuple(
                Operator(name, kind, told[END + at] - told[BEGIN + at])
                for at, (name, kind) in enumerate(found)
                if END + at in told and BEGIN + at in told
            ),
        )


_SMALLER = "Give smaller inputs with --inputs: work is counted at a tenth of the speed of an emulator."


def _read(marks: Path) -> dict[int, int]:
    """Mark -> instructions until then; of one that came several times the last."""
    if not marks.is_file():
        return {}
    lines = (line.split() for line in marks.read_text("ascii", "replace").splitlines())
    return {int(words[0]): int(words[1]) for words in lines if len(words) == 2 and all(map(str.isdigit, words))}
