"""stdout and stderr that are full or closed, and names no file system takes: named errors, no traceback, no 120."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.beds.models import ModelByName
from tests.cli.command import EDGEQUANT
from tests.waiting import LONG


def said(command: str, tmp_path: Path, redirection: str) -> tuple[int, str]:
    line = f"exec {EDGEQUANT} {command} {redirection}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path, timeout=LONG, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("command", "redirection", "code", "word"),
    [
        ("--version", ">/dev/full", 3, "STDOUT_UNWRITABLE"),
        ("report --schema", ">/dev/full", 3, "STDOUT_UNWRITABLE"),
        ("--version", ">&-", 0, ""),
        ("report nope --json", ">/dev/full", 2, "REPORT_INVALID"),
        ("report nope", "2>/dev/full", 2, ""),
        ("report nope", "2>&- <&-", 2, ""),
    ],
)
def test_streams(tmp_path: Path, command: str, redirection: str, code: int, word: str) -> None:
    found, text = said(command, tmp_path, redirection)
    assert (found, "Traceback" in text, "INTERNAL" in text) == (code, False, False)
    assert word in text


@pytest.mark.parametrize("command", ["report {}", "verify --resume {}"])
def test_names_that_are_none(tmp_path: Path, command: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    name = "loop" if command.startswith("report") else "n" * 300
    code, text = said(command.format(name), tmp_path, "")
    assert (code, "INTERNAL" in text) == (2, False), text


def test_inspect_of_many_inputs_shows_some(generated_model: ModelByName, tmp_path: Path) -> None:
    model = generated_model("many_inputs")
    code, text = said(f"inspect {model} --json 2>&1 >/dev/null", tmp_path, "")
    assert code == 0
    shown = text.count("float32")
    document = json.loads(said(f"inspect {model} --json 2>/dev/null", tmp_path, "")[1])
    assert shown <= 62
    assert len(document["inputs"]) > 30
    assert f"and {len(document['inputs']) - 30} more (-v shows them)" in text
