"""What the tests of a room make it say, whole, and kept: python -m tests.golden [FILE ...] writes it, to be reviewed.

A test asserts what it is about.  All else that comes out of the same call (every finding with its words, its evidence
and its remedy, every number, every order) is held against what is kept in `golden/NAME.json` beside it, so that no
change of it goes unseen.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from pydantic import BaseModel

from edgequant.compare.metrics import TensorComparison
from edgequant.compare.summary import OutputSummary
from edgequant.errors import EdgequantError

ROOMS = ("tests/judge",)
WRITES = "EDGEQUANT_GOLDEN"
GIVEN = {
    "Artifact", "Bench", "Bound", "Capture", "LayerCapture", "LayerFacts", "Plan", "Run", "Source", "TrialFacts",
}  # fmt: skip
"""What a judgement only passes on."""
PLAIN = {"NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR", "OPENBLAS_CORETYPE": "Prescott"}
"""What makes NumPy and OpenBLAS add up in the same order on every x86-64 CPU: so what is kept was written."""
WITHIN = 1e-4
"""Relative; sums of float32 are not the same on all CPUs, and most that is told differs by no more."""
NUMBER = re.compile(r"(\d+\.\d+)")
ANYTHING = "~"
"""Kept in place of what is not the same each time."""
MOST = 64
"""Numbers of an array that are kept."""
LONGEST = 12_000
"""Characters that are kept of one test; the calls behind them are left out."""
MOST_VALUES = 10
"""Values of a parameter of which something is kept: hundreds of seeds say no more."""


def plain(value: Any, private: str) -> Any:
    """Of anything, what JSON can say of it; private: a folder that is another one each time."""
    match value:
        case Enum():
            return plain(value.value, private)
        case None | bool() | int():
            return value
        case str() | Path():
            return str(value).replace(private, "TMP") if private else str(value)
        case float() | np.floating():
            return float(f"{value:.6g}") if math.isfinite(value) else str(float(value))
        case np.generic():
            return plain(value.item(), private)
        case np.ndarray():
            some = value.ravel()[:MOST].tolist()
            return {"dtype": str(value.dtype), "shape": list(value.shape), "values": plain(some, private)}
        case TensorComparison():
            return f"{value.sqnr_db or 0:.2f} dB"
        case OutputSummary():
            return f"{value.cases} cases, {value.values.get('sqnr_db') or 0:.2f} dB"
        case EdgequantError():
            told = [value.code, value.message, value.hint, value.where, value.evidence]
            return {type(value).__name__: plain(told, private)}
        case Exception():
            return {type(value).__name__: plain(str(value), private)}
        case Mapping():
            return {str(plain(key, private)): plain(each, private) for key, each in value.items()}
        case set() | frozenset():
            return sorted((plain(each, private) for each in value), key=str)
        case Sequence():
            return [plain(each, private) for each in value]
    if type(value).__name__ in GIVEN:
        return f"<{type(value).__name__}>"
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        usual = {name: each.get_default(call_default_factory=True) for name, each in fields.items()}
        return {name: plain(each, private) for name in fields if (each := getattr(value, name)) != usual[name]}
    if dataclasses.is_dataclass(value):
        held = {each: getattr(value, each.name) for each in dataclasses.fields(value)}
        return {each.name: plain(one, private) for each, one in held.items() if not _is_default(one, each)}
    return f"<{type(value).__name__}>"


def _is_default(value: Any, field: dataclasses.Field[Any]) -> bool:
    if field.default_factory is not dataclasses.MISSING:
        return type(value) is type(made := field.default_factory()) and bool(value == made)
    return field.default is not dataclasses.MISSING and (value is field.default or (
        type(value) is type(field.default) and bool(value == field.default)))  # fmt: skip


def recording(function: Callable[..., Any], told: list[Any]) -> Callable[..., Any]:
    """The function, which notes in `told` what it gives back or raises, whenever it is called."""

    @wraps(function)
    def noting(*args: Any, **kwargs: Any) -> Any:
        try:
            found = function(*args, **kwargs)
            if inspect.isgenerator(found):
                found = list(found)
        except Exception as error:
            told.append((function.__name__, error))
            raise
        told.append((function.__name__, found))
        return iter(found) if inspect.isgeneratorfunction(function) else found

    return noting


def functions_of(module: ModuleType, room: str) -> list[str]:
    """Names in a module that stand for functions of a room."""
    return [
        name
        for name, each in vars(module).items()
        if inspect.isfunction(each) and each.__module__.startswith(room) and "tests" not in each.__module__
    ]


def told_by(calls: Sequence[tuple[str, Any]], private: str) -> list[Any]:
    """As JSON has it."""
    found, room = [], LONGEST
    for name, each in calls:
        text = json.dumps([name, plain(each, private)])
        room -= len(text)
        if room < 0:
            break
        found.append(json.loads(text))
    return found


def differences(kept: Any, now: Any, where: str = "") -> Iterator[str]:
    """Where two of what `plain` makes are not the same, in words."""
    if kept == ANYTHING:
        return
    if isinstance(kept, Mapping) and isinstance(now, Mapping):
        if list(kept) != list(now):
            yield f"{where}: keys {list(kept)} are now {list(now)}"
        for key in kept.keys() & now.keys():
            yield from differences(kept[key], now[key], f"{where}.{key}")
    elif isinstance(kept, list) and isinstance(now, list):
        if len(kept) != len(now):
            yield f"{where}: {len(kept)} are now {len(now)}"
        for number, (old, new) in enumerate(zip(kept, now, strict=False)):
            yield from differences(old, new, f"{where}[{number}]")
    elif not _alike(kept, now):
        yield f"{where}: {kept!r} is now {now!r}"


def agreeing(kept: Any, now: Any) -> Any:
    """What is kept, as far as it is the same now."""
    if isinstance(kept, Mapping) and isinstance(now, Mapping) and list(kept) == list(now):
        return {key: agreeing(each, now[key]) for key, each in kept.items()}
    if isinstance(kept, list) and isinstance(now, list) and len(kept) == len(now):
        return [agreeing(old, new) for old, new in zip(kept, now, strict=True)]
    return kept if not any(differences(kept, now)) else ANYTHING


def _alike(kept: Any, now: Any) -> bool:
    if isinstance(kept, float) and isinstance(now, float):
        return math.isclose(kept, now, rel_tol=WITHIN, abs_tol=1e-9)
    if isinstance(kept, str) and isinstance(now, str) and kept != now:
        old, new = NUMBER.split(kept), NUMBER.split(now)
        return old[::2] == new[::2] and all(map(_rounded_alike, old[1::2], new[1::2]))
    return type(kept) is type(now) and bool(kept == now)


def _rounded_alike(kept: str, now: str) -> bool:
    """Up to one in the last digit."""
    digits = len(kept.partition(".")[2])
    return digits == len(now.partition(".")[2]) and round(abs(float(kept) - float(now)) * 10**digits) <= 1


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.exists() else {}


def save(path: Path, told: Mapping[str, Any]) -> None:
    """A line for each call, so that a change of one is a change of one line."""
    path.parent.mkdir(exist_ok=True)
    tests = (
        f"{json.dumps(name)}: [\n" + ",\n".join(json.dumps(call, separators=(",", ":")) for call in calls) + "\n]"
        for name, calls in sorted(told.items())
        if calls
    )
    path.write_text("{\n" + ",\n".join(tests) + "\n}\n")


def same_without_this_cpu(test: str, root: Path) -> bool:
    """The test once more, by instructions that all CPUs have; without x86-64 there are none: taken as so."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    return (
        _pytest([str(root / test.partition("::")[0]) + "::" + test.partition("::")[2]], "plain", PLAIN, cwd=root) == 0
    )


def _pytest(what: Sequence[str], writes: str, around: Mapping[str, str], **options: Any) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", *what]
    return subprocess.run(command, env={**os.environ, **around, WRITES: writes}, check=False, **options).returncode


def kept_in(test: Path) -> Path:
    """What is kept of the tests of a file."""
    return test.parent / "golden" / f"{test.stem.removeprefix('test_')}.json"


def main() -> int:
    """Run three times: what comes out otherwise the second time, or with all that this CPU has, is not kept."""
    what = sys.argv[1:] or ROOMS
    for each in map(Path, what):
        # With what is in it of tests that are gone.
        for path in (each / "golden").glob("*.json") if each.is_dir() else [kept_in(each)]:
            path.unlink(missing_ok=True)
    again = "what is the same again"
    return _pytest(what, "all", PLAIN) or _pytest(what, again, PLAIN) or _pytest(what, again, {})


if __name__ == "__main__":
    sys.exit(main())
