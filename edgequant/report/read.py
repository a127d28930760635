"""Reading a report back.  The file may come from anywhere, so it is bounded and checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from edgequant.errors import InputError
from edgequant.files import read_bounded
from edgequant.report.model import LOADING, SCHEMA, Report
from edgequant.spec import first_problem

MAX_BYTES = 64 * 1024 * 1024


def load(path: Path, *, max_bytes: int = MAX_BYTES) -> Report:
    """Read and check a report.  Keys this version does not know are skipped.

    Raises:
        InputError: REPORT_INVALID, with what is wrong: no such file, too big, no JSON, another schema, a wrong value.
    """
    try:
        data = read_bounded(path, max_bytes)
    except FileNotFoundError as error:
        # A folder is given as well, and is looked for its report.
        what = (
            f"{path.parent} has none"
            if path.name == "report.json" and path.parent.is_dir()
            else "no such folder or file"
        )
        hint = "Give the folder that --run-dir named, or the report.json in it."
        raise _invalid(path, what, hint) from error
    except OSError as error:
        raise _invalid(path, error.strerror or str(error)) from error
    return loads(data, where=path)


def loads(data: bytes | str, *, where: Path | None = None) -> Report:
    """The same from memory.  Raises InputError (REPORT_INVALID)."""
    try:
        document = json.loads(data, parse_constant=_no_constant)
    except RecursionError:
        raise _invalid(where, "nested too deeply") from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise _invalid(where, f"not JSON: {error}") from error
    found = document.get("schema") if isinstance(document, dict) else None
    if found != SCHEMA:
        named = f"schema '{found[:60]}'" if isinstance(found, str) else "no schema"
        raise _invalid(where, f"it has {named}, this version reads '{SCHEMA}'")
    try:
        return Report.model_validate(document, context=LOADING)
    except ValidationError as error:
        raise _invalid(where, first_problem(error)) from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _invalid(where: Path | None, why: str, hint: str = "Give the report.json of a run of this version.") -> InputError:
    extra: dict[str, Any] = {} if where is None else {"where": str(where)}
    return InputError("REPORT_INVALID", f"not a report: {why}", hint=hint, **extra)
