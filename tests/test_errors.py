from __future__ import annotations

import json

import pytest

from edgequant import errors
from edgequant.errors import DeadlineExceeded, DeviceError, EdgequantError, InputError, RunnerError, ToolError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("A", "b"), 2),
        (DeviceError("A", "b"), 3),
        (DeadlineExceeded("b"), 3),
        (RunnerError("A", "b"), 3),
        (ToolError("A", "b"), 3),
    ],
)
def test_exit_codes(error: EdgequantError, code: int) -> None:
    assert error.exit_code == code
    assert isinstance(error, EdgequantError)


def test_exit_codes_are_those_of_the_contract() -> None:
    names = ("PASS", "FAIL", "USAGE", "ERROR", "INCONCLUSIVE", "INTERRUPTED")
    assert [getattr(errors, f"EXIT_{name}") for name in names] == [0, 1, 2, 3, 4, 130]


@pytest.mark.parametrize(
    ("message", "where", "text"),
    [
        ("it broke", None, "it broke"),
        ("it broke", "ssh://board", "ssh://board: it broke"),
        ("it broke", "local:", "local: it broke"),
        ("ssh://board broke", "ssh://board", "ssh://board broke"),
        ("it broke", "", "it broke"),
    ],
)
def test_text(message: str, where: str | None, text: str) -> None:
    assert str(InputError("A", message, where=where)) == text


def test_as_dict_is_json() -> None:
    error = DeviceError("A", "b", hint="c", where="d", evidence={"e": [1, None]}, transient=True)
    assert json.loads(json.dumps(error.as_dict())) == {
        "code": "A",
        "message": "b",
        "hint": "c",
        "where": "d",
        "evidence": {"e": [1, None]},
    }
    assert error.transient
    assert InputError("A", "b").as_dict()["evidence"] == {}


def test_transient() -> None:
    assert not DeviceError("A", "b").transient
    assert DeadlineExceeded("b").transient
    assert not DeadlineExceeded("b", transient=False).transient
    assert DeadlineExceeded("b").code == "TIMEOUT"
    assert DeadlineExceeded("b", code="STALLED").code == "STALLED"
