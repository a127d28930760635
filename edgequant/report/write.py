"""A report as JSON: what is written, how, and the schema of it."""

from __future__ import annotations

import json
import math
import os
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from edgequant.files import append, atomic_write, same_file
from edgequant.report.model import Report
from edgequant.text import json_escaped

DIGITS = 12
"""Significant digits of a number: with fewer, a cosine of 0.99999996 would be written as 1."""


def to_json(report: Report) -> str:
    """The report as indented JSON with a final newline.  Never holds NaN or Infinity, which JSON does not have."""
    return json_escaped(json.dumps(as_plain(report), indent=2, ensure_ascii=False, allow_nan=False)) + "\n"


def as_plain(value: Any) -> Any:
    """Dicts, lists, strings, numbers and None only, with numbers rounded to DIGITS significant digits.

    The typed fields of a report cannot be NaN or infinite; free evidence can, and is written as the string "NaN",
    "Infinity" or "-Infinity": losing a report at the end of a long run over it would be worse.
    """
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {fields[name].alias or name: as_plain(getattr(value, name)) for name in fields}
    if isinstance(value, Enum):
        return as_plain(value.value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        # A lone surrogate (a file name that is not UTF-8) cannot be encoded.
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, float):
        if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {as_plain(str(key)): as_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((as_plain(item) for item in value), key=str)
    if hasattr(value, "tolist"):
        return as_plain(value.tolist())  # NumPy's scalars and arrays
    return as_plain(str(value))


def write(report: Report, path: Path) -> Path:
    """Write the report so that a reader sees the old file or the whole new one, and never less.

    Returns the path.  Raises OSError where the directory cannot be written.
    """
    return write_text(to_json(report), path)


def write_text(text: str, path: Path) -> Path:
    """Write UTF-8 whole or not at all; makes the directory where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))
    return path


def write_file(text: str, path: Path, option: str) -> Path:
    """The file that an option names.  A CI's summary, $GITHUB_STEP_SUMMARY, is added to: a step may have several
    commands.  Raises OSError."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if option == "--summary" and summary and same_file(path, Path(summary)) and path.stat().st_size:
        append(path, f"\n{text}".encode())
        return path
    return write_text(text, path)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of report.json."""
    return open_schema(Report, "edgequant.report/1", "created")


def open_schema(model: type[BaseModel], name: str, *required: str) -> dict[str, Any]:
    """The JSON Schema of a document.  It allows unknown keys: a later version may add some.  required: keys which it
    always has, though reading does not ask for them."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    for part in (schema, *schema.get("$defs", {}).values()):
        if part.get("additionalProperties") is False:
            del part["additionalProperties"]
    schema["required"] = sorted({*schema.get("required", []), "schema", *required})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": name, **schema}
