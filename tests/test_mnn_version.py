from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

from edgequant.errors import ToolError
from edgequant.mnn_version import host_mnn_version, parse_version, require_supported


def test_the_host_version_is_read_without_importing_mnn() -> None:
    code = (
        "import sys; from edgequant.mnn_version import host_mnn_version as v; print(v());"
        "print([m for m in sys.modules if m.split('.')[0] in ('MNN', '_tools', '_mnncengine')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split("\n")[:2] == [host_mnn_version(), "[]"]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("3.6.1", (3, 6, 1)), ("3.1", (3, 1, 0)), ("v3.0.1rc2", (3, 0, 1)), ("4", (4, 0, 0)), (" 3.10.2+cpu", (3, 10, 2))],
)
def test_parse(text: str, numbers: tuple[int, int, int]) -> None:
    assert parse_version(text) == numbers


@pytest.mark.parametrize("text", ["", "unknown", "x3.1", "-1"])
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(ToolError) as caught:
        parse_version(text)
    assert caught.value.code == "MNN_VERSION_UNKNOWN"


@pytest.mark.parametrize("version", ["3.0.1", "3.0.2", "3.10.0", "4.0"])
def test_new_enough(version: str) -> None:
    require_supported(version)


@pytest.mark.parametrize("version", ["3.0.0", "2.9.6", "0.0.8", "3.0"])
def test_too_old(version: str) -> None:
    with pytest.raises(ToolError) as caught:
        require_supported(version, "ssh://board")
    assert caught.value.code == "MNN_TOO_OLD"
    assert version in str(caught.value)
    assert "3.0.1" in str(caught.value)
    assert str(caught.value).startswith("ssh://board")


def test_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", none)
    with pytest.raises(ToolError) as caught:
        host_mnn_version()
    assert caught.value.code == "MNN_MISSING"
    assert "pip install MNN" in (caught.value.hint or "")
