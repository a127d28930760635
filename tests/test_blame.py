"""One table says whose fault every error is, and what the process exits with: no code is outside of it."""

from __future__ import annotations

import ast
import functools
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgequant import blame
from edgequant.errors import DeviceError, EdgequantError, InputError, RunnerError, ToolError, as_input

ROOT = Path(__file__).parents[1]
CODE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
RAISED = {"EdgequantError", "InputError", "DeviceError", "RunnerError", "ToolError", "Failure", "JobError",
          "JobFailure", "Refused", "_failed"}  # fmt: skip
CHILDREN = [f"{tool}_{how}" for tool in ("CONVERTER", "QUANTIZER", "CALIBRATION", "SEARCH", "TASK")
            for how in ("TIMEOUT", "OUT_OF_MEMORY", "CRASHED", "FAILED")]  # fmt: skip


@functools.cache
def raised() -> tuple[tuple[str, str], ...]:
    return tuple(_raised())


def _raised() -> Iterator[tuple[str, str]]:
    """(class, code) of everything in the source that makes an error."""
    for folder in ("edgequant", "device_scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call):
                    continue
                name = getattr(node.func, "id", None) or getattr(node.func, "attr", "")
                if name not in RAISED:
                    continue
                told = [*node.args[:1], *(word.value for word in node.keywords if word.arg == "code")]
                for each in (part for one in told for part in ast.walk(one)):
                    if isinstance(each, ast.Constant) and isinstance(each.value, str) and CODE.fullmatch(each.value):
                        yield name, each.value


def test_every_code_is_in_the_table() -> None:
    assert sorted({code for _, code in raised()} - set(blame.TABLE)) == []
    assert set(CHILDREN) <= set(blame.TABLE)
    listed = [code for codes in blame._LISTED.values() for code in codes.split()]
    assert len(listed) == len(set(listed)), "a code has two to blame"


def test_classes_agree_with_the_table() -> None:
    for name, code in raised():
        whose = blame.TABLE[code]
        if name == "InputError":
            assert whose in ("user", "model") or code == "LATENCY_UNKNOWN", code
        if name == "DeviceError":
            assert whose in ("device", "host"), code


@pytest.mark.parametrize("code", sorted(blame.TABLE))
def test_the_exit_code_follows_from_the_table_alone(code: str) -> None:
    wanted = {"user": 2, "model": 2, "run": 3, "device": 3, "host": 3}[blame.TABLE[code]]
    for kind in (EdgequantError, DeviceError, RunnerError, ToolError):
        assert kind(code, "x").exit_code == wanted
    assert InputError(code, "x").exit_code == 2
    assert as_input(RunnerError(code, "x"), "h").exit_code == 2


def test_a_code_nobody_knows_is_an_error() -> None:
    assert RunnerError("OF_A_NEWER_RUNNER", "x").exit_code == 3
    assert not blame.models_own("OF_A_NEWER_RUNNER", host_too=True)


def test_what_this_host_cannot_run_either_is_the_models() -> None:
    assert blame.models_own("CONVERTER_CRASHED", host_too=False)
    assert blame.models_own("INFERENCE_FAILED", host_too=True)
    assert not blame.models_own("INFERENCE_FAILED", host_too=False)
    assert not blame.models_own("LINK_LOST", host_too=True)
    for number, own in ((signal.SIGSEGV, True), (signal.SIGKILL, False), (None, False)):
        assert blame.models_own("RUNNER_DIED", host_too=True, evidence={"signal": number}) is own


def test_the_checker_has_the_same_table() -> None:
    found: dict[str, set[str]] = {}
    exec((ROOT / "tools/check_codes.py").read_text(), found)
    assert found["OWN"] == {code for code, whose in blame.TABLE.items() if whose == "model"}
    assert found["RUN"] == {code for code, whose in blame.TABLE.items() if whose == "run"}


def test_the_documentation_has_every_code() -> None:
    text = (ROOT / "docs/codes.md").read_text()
    rows = dict(re.findall(r"^\| `([A-Z0-9_]+)` \| (\w+) \|", text, re.MULTILINE))
    assert rows == blame.TABLE
