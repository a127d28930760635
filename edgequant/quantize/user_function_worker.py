"""The child process that calls a user's calibration function.  Run by path; imports nothing of edgequant.

    user_function_worker.py JOB FOLDER ANSWER

JOB is JSON: module (a name, or the path of a .py file), function, limit (samples), max_bytes (of all of them).  Samples
become FOLDER/00000.npz and so on; ANSWER is written last, as JSON: samples, more, code, error.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.util
import inspect
import json
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np


class Refused(Exception):
    """What the function gave cannot be used."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def unusable(message: str) -> Refused:
    return Refused("CALIBRATION_FUNCTION", message)


def find(module: str, function: str) -> Any:
    """The function.  Whatever importing the module raises is the user's to see."""
    # This file's own folder would come first, and its modules could hide the user's.
    sys.path[0] = str(Path.cwd())
    if module.endswith(".py"):
        spec = importlib.util.spec_from_file_location("edgequant_user_function", module)
        if spec is None or spec.loader is None or not Path(module).is_file():
            raise unusable(f"there is no file {module}")
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = loaded
        sys.path.insert(0, str(Path(module).absolute().parent))
        spec.loader.exec_module(loaded)
    else:
        try:
            loaded = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
                raise  # the module is there, and what it imports is not
            raise unusable(f"there is no module '{module}' that Python started in {Path.cwd()} finds, and no file or "
                           "folder of that name") from None  # fmt: skip
    found: Any = loaded
    for part in function.split("."):
        if not hasattr(found, part):
            near = [name for name, value in vars(loaded).items() if callable(value) and not name.startswith("_")]
            listed = f"; it has {', '.join(near[:10])}" if near else ""
            raise unusable(f"there is no '{part}' in {module}{listed}")
        found = getattr(found, part)
    return found


def samples_of(given: Any, function: str) -> Iterator[Any]:
    """An iterator over what the function gives, or over what it is where it cannot be called."""
    if callable(given):
        needed = needed_arguments(given)
        if needed:
            raise unusable(f"{function} needs {', '.join(needed)}: it is called without arguments")
        given, done = given(), "returned"
    else:
        done = "is"
    kind = type(given).__name__
    if given is None:
        raise unusable(f"{function} {done} nothing: does it yield its samples?")
    if inspect.iscoroutine(given) or inspect.isasyncgen(given):
        raise unusable(f"{function} is async; a plain function or generator is called")
    if isinstance(given, dict):
        raise unusable(f"{function} {done} one dict: yield it, or return a list of dicts, one per sample")
    if isinstance(given, (str, bytes)):
        raise unusable(f"{function} {done} text ({kind}), not samples")
    try:
        return iter(given)
    except TypeError:
        if hasattr(given, "__iter__"):
            raise
        raise unusable(f"{function} {done} one {kind}, not several samples") from None


def needed_arguments(function: Any) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C: it will say so itself
        return []
    return [each.name for each in parameters
            if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]  # fmt: skip


def arrays(sample: Any, number: int) -> dict[str, np.ndarray]:
    if not isinstance(sample, dict):
        raise unusable(f"sample {number} is a {type(sample).__name__}, not a dict of input name -> array")
    found = {}
    for name, value in sample.items():
        if not isinstance(name, str):
            raise unusable(f"sample {number} has the key {name!r:.100}, not an input's name")
        try:
            array = np.asarray(value)
        except Exception as error:  # noqa: BLE001  (any class may say how it becomes an array)
            raise unusable(f"sample {number}: input '{name}' is a {type(value).__name__} that does not become an "
                           f"array: {told(error)}") from None  # fmt: skip
        if array.dtype.kind not in "fiub":
            raise unusable(f"sample {number}: input '{name}' holds {array.dtype}, not numbers")
        found[name] = array
    return found


def write(path: Path, found: dict[str, np.ndarray]) -> None:
    # numpy.savez would take an input called "file" for its own argument.
    import zipfile

    from numpy.lib import format as npy_format

    try:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, array in found.items():
                with archive.open(name + ".npy", "w", force_zip64=True) as entry:
                    npy_format.write_array(entry, array, allow_pickle=False)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise Refused(
            "DISK_FULL" if full else "CALIBRATION_FUNCTION",
            f"its samples cannot be kept in {path.parent}: {error.strerror or error}",
        ) from None


def told(error: BaseException) -> str:
    """Its class and message in one line."""
    return " ".join("".join(traceback.format_exception_only(type(error), error)[-1:]).split())[:1500]


def own_frames(error: BaseException) -> TracebackType | None:
    """Its traceback from the user's code on: ours, and the import machinery's, tell them nothing."""
    trace = error.__traceback__
    while trace is not None and (
        trace.tb_frame.f_code.co_filename in (__file__, importlib.__file__)
        or trace.tb_frame.f_code.co_filename.startswith("<frozen importlib")
    ):
        trace = trace.tb_next
    return trace


def raised(error: BaseException, module: str) -> str:
    """What the user's code ended in, with its own line first: ``samples.py:12, in lines: ValueError: ...``."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{shown(error.filename)}:{error.lineno}: {type(error).__name__}: {error.msg}"
    what = told(error)
    if isinstance(error, SystemExit):
        what = f"it called sys.exit({error.code!r:.100})"
    elif isinstance(error, MemoryError):
        what = f"it ran out of memory ({what})"
    frames = traceback.extract_tb(own_frames(error))
    if not frames:
        return what
    file = getattr(sys.modules.get("edgequant_user_function" if module.endswith(".py") else module), "__file__", None)
    own = [frame for frame in frames if file and os.path.realpath(frame.filename) == os.path.realpath(file)]
    line = (own or frames)[-1]
    at = f"{shown(line.filename)}:{line.lineno}, in {line.name}: {what}"
    last = frames[-1]
    # What we raised over how the user's code asked: the place is theirs.
    if Path(last.filename).resolve().parent == Path(__file__).resolve().parent:
        return at
    return at if last is line else f"{at} (raised at {shown(last.filename)}:{last.lineno})"


def shown(file: str) -> str:
    near = os.path.relpath(file)
    return file if near.startswith("..") else near


def collect(job: dict[str, Any], folder: Path, done: dict[str, Any]) -> None:
    size, ours = 0, os.getpid()
    given = find(job["module"], job["function"])
    for sample in samples_of(given, job["function"]):
        if os.getpid() != ours:
            os._exit(0)  # a process that the function forked and let run on: the samples are the first one's
        if done["samples"] == job["limit"]:
            done["more"] = True
            break
        found = arrays(sample, done["samples"])
        size += sum(array.nbytes for array in found.values())
        if size > job["max_bytes"]:
            limit = job["max_bytes"] >> 20
            raise Refused("CALIBRATION_TOO_LARGE", f"its samples take more than {limit} MiB; ask for fewer")
        write(folder / f"{done['samples']:05d}.npz", found)
        done["samples"] += 1


def main() -> None:
    job, folder, answer = json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    done: dict[str, Any] = {"samples": 0, "more": False}
    ours = os.getpid()
    # The user's function may close these, or put others in their place.
    log = os.dup(2)
    try:
        collect(job, folder, done)
    except Refused as error:
        done.update(code=error.code, error=str(error)[:3000])
    except BaseException as error:  # noqa: BLE001  (it is reported: what a user's code raises may be anything)
        lines = traceback.format_exception(type(error), error, own_frames(error))
        with contextlib.suppress(OSError):
            os.write(log, "".join(lines).encode("utf-8", "backslashreplace")[-100_000:])
        code = "CALIBRATION_OUT_OF_MEMORY" if isinstance(error, MemoryError) else "CALIBRATION_FUNCTION"
        done.update(code=code, error=raised(error, job["module"])[:3000])
    if os.getpid() == ours:
        with open(answer, "w", encoding="utf-8") as file:
            json.dump(done, file)
    # Threads and exit handlers of the user's packages are not waited for: some hang.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
