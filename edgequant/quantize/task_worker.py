"""The child process that calls a user's task metric.  Run by path; imports nothing of edgequant but the file beside
the one it is made like.

    task_worker.py JOB ANSWER

JOB is a JSON file: module (a name, or the path of a .py file), function, cases (null: it is only looked for).  Each
case has its name, a label, and for inputs, reference, outputs and labels the path of an .npy by name.  ANSWER is
written last, as JSON: values, code_sha256, error.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import inspect
import json
import math
import numbers
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

MOST_VALUES = 1000


def _beside(name: str) -> Any:
    """What finds a user's function and says where it broke, without the package around it."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


class Arrays(Mapping[str, np.ndarray]):
    """Arrays by name, each read from its file when it is asked for."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._files:
            raise KeyError(f"{name}; there are {', '.join(self._files)}")
        array: np.ndarray = np.load(self._files[name], allow_pickle=False)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __repr__(self) -> str:
        return f"<arrays {', '.join(self._files)}>"


class Case:
    """What the function gets of one case: its name; inputs, reference and (of the device) outputs by name; its label,
    whatever the labels file says of it, or its arrays by name where labels are a folder of .npz; None without."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.name: str = told["name"]
        self.inputs, self.reference, self.outputs = (Arrays(told[key]) for key in ("inputs", "reference", "outputs"))
        self.label: Any = Arrays(told["labels"]) if told.get("labels") else told.get("label")

    def __repr__(self) -> str:
        return f"<case {self.name}>"


def values_of(given: Any, function: str) -> dict[str, float]:
    """ "" for the one number, or each by its key.  Raises ValueError, in words for the user."""
    if isinstance(given, Mapping):
        if not given:
            raise ValueError(f"{function} returned an empty dict")
        if len(given) > MOST_VALUES:
            raise ValueError(f"{function} returned {len(given)} numbers; at most {MOST_VALUES} are kept")
        return {_key(name, function): _number(value, f"{function}, key {name!r:.60}") for name, value in given.items()}
    return {"": _number(given, function)}


def _key(name: Any, function: str) -> str:
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{function} returned the key {name!r:.60}: a key is a word, as in task:NAME.KEY")
    return name


def _number(value: Any, what: str) -> float:
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if value is None:
        raise ValueError(f"{what} returned nothing")
    if not isinstance(value, (numbers.Real, np.number)) or isinstance(value, (complex, np.complexfloating)):
        raise ValueError(f"{what} returned a {type(value).__name__}, not a number or a dict of numbers")
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(f"{what} returned {found}")
    return found


def _sha256(function: Any) -> str | None:
    module = sys.modules.get(getattr(inspect.unwrap(function), "__module__", "") or "")
    file = getattr(module, "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file and Path(file).is_file() else None


def misfit(function: Any) -> str:
    """Why it cannot be called with the list of cases, and give a number at once; empty where it can."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return "is async: it has to return a number"
    if inspect.isgeneratorfunction(function):
        return "yields: it has to return a number"
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C: it will say so itself
        return ""
    try:
        signature.bind([])
    except TypeError as error:
        return f"is called with one argument, the list of cases, and takes {signature}: {error}"
    return ""


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    answer: dict[str, Any] = {"values": {}, "code_sha256": None, "error": None}
    user = _beside("user_function_worker")
    ours, log = os.getpid(), os.dup(2)  # the user's function may fork, and may close its streams
    try:
        function = user.find(job["module"], job["function"])
        if not callable(function):
            raise user.unusable(f"{job['function']} is a {type(function).__name__}, and cannot be called")
        answer["code_sha256"] = _sha256(function)
        if wrong := misfit(function):
            raise user.unusable(f"{job['function']} {wrong}")
        if job["cases"] is not None:
            given = function([Case(told) for told in job["cases"]])
            if inspect.iscoroutine(given) or inspect.isgenerator(given):
                raise user.unusable(f"{job['function']} gave a {type(given).__name__}: it has to return a number")
            answer["values"] = values_of(given, job["function"])
    except user.Refused as error:
        answer["error"] = str(error)[:3000]
    except ValueError as error:
        plain = error.__traceback__ is not None and _ours(error)
        answer["error"] = (str(error) if plain else user.raised(error, job["module"]))[:3000]
        _print_trace(log, error)
    except BaseException as error:  # noqa: BLE001  (it is reported: what a user's code raises may be anything)
        _print_trace(log, error)
        answer["error"] = user.raised(error, job["module"])[:3000]
    if os.getpid() == ours:
        Path(sys.argv[2]).write_text(json.dumps(answer), "utf-8")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(0)  # threads and exit handlers of the user's packages are not waited for: some hang


def _ours(error: BaseException) -> bool:
    """Whether it was raised here, over what the function returned."""
    return all(frame.filename == __file__ for frame in traceback.extract_tb(error.__traceback__))


def _print_trace(log: int, error: BaseException) -> None:
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    with contextlib.suppress(OSError):
        os.write(log, "".join(lines).encode("utf-8", "backslashreplace")[-100_000:])


if __name__ == "__main__":
    main()
