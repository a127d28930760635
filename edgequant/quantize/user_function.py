"""Calibration data from a user's own Python function, run in a child process.

The function may need packages edgequant does not have, load a data set of any size, hang or crash.  So it runs apart,
in the directory edgequant was started in, bounded in time, memory, number and size of its samples; they come back as
.npz files.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgequant.errors import InputError
from edgequant.progress import counting
from edgequant.quantize.child import death, run_child
from edgequant.spec.function import PATTERN
from edgequant.variables import environment_as_found

WORKER = Path(__file__).with_name("user_function_worker.py")
MAX_SPOOL_BYTES = 8 << 30
EXPECTED = (
    "The function takes no argument and yields, or returns a list of, one dict per sample: input name -> array of "
    "numbers."
)
_ANSWER_LIMIT = 1 << 20


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    samples: int = Field(ge=0, le=1_000_000)
    more: bool
    code: str | None = None
    error: str | None = Field(default=None, max_length=4000)


@dataclass(frozen=True)
class Spooled:
    """What a function gave: files in order, and whether it had more than was asked for."""

    files: tuple[Path, ...]
    more: bool


def spool(
    function: str,
    folder: Path,
    *,
    limit: int,
    log: Path,
    timeout: float,
    max_bytes: int = MAX_SPOOL_BYTES,
    memory_limit: int | None = None,
    cwd: Path | None = None,
) -> Spooled:
    """Call `function` and keep the first `limit` samples it yields as .npz files in `folder`.

    Args:
        function: ``module:function``, imported as Python started in `cwd` would, or ``path/file.py:function``.  It
            takes no argument and returns an iterable of dicts (or is a generator): input name -> array.
        folder: an existing directory for the files.
        log: file for what the function prints.
        timeout: seconds for all of it, imports included.
        max_bytes: of all samples together.
        memory_limit: bytes it may allocate.

    Raises:
        InputError: CALIBRATION_FUNCTION (it cannot be imported, it raised: the user's own line is told, it
            yields something else than dicts of numbers), CALIBRATION_TOO_LARGE, CALIBRATION_OUT_OF_MEMORY, DISK_FULL.
        ToolError: CALIBRATION_TIMEOUT, CALIBRATION_CRASHED, CALIBRATION_OUT_OF_MEMORY, CALIBRATION_FAILED.
    """
    match = PATTERN.fullmatch(function)
    if match is None:
        raise InputError(
            "CALIBRATION_FUNCTION",
            f"'{function}' does not name a Python function",
            hint="Write module:function, or path/to/file.py:function.",
        )
    answer = folder / "answer.json"
    job = {"module": match["module"], "function": match["function"], "limit": limit, "max_bytes": max_bytes}
    argv = [sys.executable, str(WORKER), json.dumps(job), str(folder.resolve()), str(answer.resolve())]
    with counting(f"{function}: samples", None) as show:
        result = run_child(
            argv, log=log, timeout=timeout, memory_limit=memory_limit, cwd=cwd, env=environment_as_found(),
            watch=lambda _new: show(sum(1 for _ in folder.glob("*.npz"))),
        )  # fmt: skip
    if (
        error := death(
            result,
            doing=f"the calibration function {function}",
            prefix="CALIBRATION",
            timeout=timeout,
            memory_limit=memory_limit,
            where=function,
            hint="Run the function by itself and see where it ends.",
        )
    ) is not None:
        if error.code == "CALIBRATION_TIMEOUT":
            error.hint = (
                "Give it more time with --timeout SECONDS, or let it yield less: at most "
                f"{limit} samples are taken, and with samples=N in the variant only N."
            )
        raise error
    told = _read(answer, function)
    if told.error is not None:
        raise InputError(
            told.code or "CALIBRATION_FUNCTION",
            f"{function}: {told.error}",
            hint=f"{EXPECTED} All it printed is in {log}.",
            evidence={"log": str(log), "log_tail": result.log_tail[-20:]},
        )
    files = tuple(folder / f"{number:05d}.npz" for number in range(told.samples))
    if told.samples > limit or not all(file.is_file() for file in files):
        raise _broken(function)
    return Spooled(files, told.more)


def _read(answer: Path, function: str) -> _Answer:
    try:
        if answer.stat().st_size > _ANSWER_LIMIT:
            raise _broken(function)
        return _Answer.model_validate_json(answer.read_bytes())
    except (OSError, ValidationError):
        raise _broken(function) from None


def _broken(function: str) -> InputError:
    return InputError(
        "CALIBRATION_FUNCTION",
        f"{function}: it ended the process before its samples were complete",
        hint="It must not call sys.exit or os._exit, nor change files that are not its own.",
    )
