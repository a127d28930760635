"""The child process that calls a user's calibration function.  Run by path; imports nothing of edgequant.

    user_function_worker.py JOB FOLDER ANSWER

JOB is JSON: module (a name, or the path of a .py file), function, limit (samples), max_bytes (of all of them).  Samples
become FOLDER/00000.npz and so on; ANSWER is written last, as JSON: samples, more, code, error.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np


class Refused(Exception):
    """What the function gave cannot be used."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def find(module: str, function: str) -> Any:
    """The function.  Whatever importing the module raises is the user's to see."""
    # This file's own folder would come first, and its modules could hide the user's.
    sys.path[0] = str(Path.cwd())
    if module.endswith(".py"):
        spec = importlib.util.spec_from_file_location("edgequant_user_function", module)
        if spec is None or spec.loader is None or not Path(module).is_file():
            raise Refused("CALIBRATION_FUNCTION", f"there is no file {module}")
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = loaded
        sys.path.insert(0, str(Path(module).absolute().parent))
        spec.loader.exec_module(loaded)
    else:
        loaded = importlib.import_module(module)
    found: Any = loaded
    for part in function.split("."):
        found = getattr(found, part)
    return found


def arrays(sample: Any, number: int) -> dict[str, np.ndarray]:
    if not isinstance(sample, dict) or not all(isinstance(name, str) for name in sample):
        kind = type(sample).__name__
        raise Refused("CALIBRATION_FUNCTION", f"sample {number} is a {kind}, not a dict of input name -> array")
    found = {}
    for name, value in sample.items():
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise Refused("CALIBRATION_FUNCTION", f"sample {number}: input '{name}' holds {array.dtype}, not numbers")
        found[name] = array
    return found


def write(path: Path, found: dict[str, np.ndarray]) -> None:
    # numpy.savez would take an input called "file" for its own argument.
    import zipfile

    from numpy.lib import format as npy_format

    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in found.items():
            with archive.open(name + ".npy", "w", force_zip64=True) as entry:
                npy_format.write_array(entry, array, allow_pickle=False)


def main() -> None:
    job, folder, answer = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
    done: dict[str, Any] = {"samples": 0, "more": False}
    size = 0
    try:
        given = find(job["module"], job["function"])
        for sample in given() if callable(given) else given:
            if done["samples"] == job["limit"]:
                done["more"] = True
                break
            found = arrays(sample, done["samples"])
            size += sum(array.nbytes for array in found.values())
            if size > job["max_bytes"]:
                limit = job["max_bytes"] >> 20
                raise Refused("CALIBRATION_TOO_LARGE", f"its samples take more than {limit} MiB; ask for fewer")
            write(Path(folder, f"{done['samples']:05d}.npz"), found)
            done["samples"] += 1
    except Refused as error:
        done.update(code=error.code, error=str(error)[:3000])
    except (Exception, SystemExit) as error:  # noqa: BLE001  (it is reported: what a user's code raises may be anything)
        traceback.print_exc()
        last = traceback.format_exception_only(type(error), error)[-1].strip()
        done.update(code="CALIBRATION_FUNCTION", error=last[:3000])
    with open(answer, "w", encoding="utf-8") as file:
        json.dump(done, file)
    # Threads and exit handlers of the user's packages are not waited for: some hang.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
