"""Bytecode: the same bytes every time, loadable, and never checked against a source that is not there."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from edgequant.errors import ToolError
from edgequant.pack import bytecode

VERSION = ".".join(map(str, sys.version_info[:2]))
SOURCES = {
    "package/__init__.py": b"from package.inner import answer\n",
    # Sets and repeated strings are what makes bytecode differ from run to run.
    "package/inner.py": b"def answer(x='repeated'):\n    return x in {'a', 'b', 'c', 'repeated', 'd', 'e'}\n",
}


def test_two_compilations_give_the_same_bytes() -> None:
    compiler = bytecode.find_host_compiler(VERSION)
    assert compiler is not None
    assert compiler.version == f"CPython {platform.python_version()}"
    first = bytecode.compile_sources(SOURCES, compiler)
    second = bytecode.compile_sources({**dict(reversed(SOURCES.items())), "more.py": b"x = 'repeated'"}, compiler)
    assert sorted(first) == ["package/__init__.pyc", "package/inner.pyc"]
    assert {name: second[name] for name in first} == first
    assert bytecode.compile_sources({}, compiler) == {}


def test_it_loads_without_its_source(tmp_path: Path) -> None:
    compiler = bytecode.find_host_compiler(VERSION)
    assert compiler is not None
    for name, data in bytecode.compile_sources(SOURCES, compiler).items():
        assert data[4:8] == b"\x01\0\0\0"  # a hash, which nobody checks
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import package; print(package.answer())"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n", done.stderr


def test_a_version_this_host_lacks() -> None:
    assert bytecode.find_host_compiler("3.2") is None


def test_a_shim_without_a_python_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shim = tmp_path / "python3.2"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert bytecode.find_host_compiler("3.2") is None


@pytest.mark.parametrize("command", ["/nonexistent/python", "/bin/false", "/bin/true"])
def test_a_compiler_that_does_not_work(command: str) -> None:
    with pytest.raises(ToolError) as caught:
        bytecode.compile_sources(SOURCES, bytecode.Compiler((command,), "?"))
    assert caught.value.code == "PACK_COMPILE_FAILED"


def test_a_source_that_does_not_compile() -> None:
    compiler = bytecode.find_host_compiler(VERSION)
    assert compiler is not None
    with pytest.raises(ToolError, match="SyntaxError"):
        bytecode.compile_sources({"bad.py": b"def"}, compiler)
