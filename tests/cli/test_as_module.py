"""`python -m edgequant` is the command."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.command import edgequant


@pytest.mark.parametrize("arguments", [("--version",), ("inspect", "nowhere.onnx")])
def test_the_same_words_and_exit_code(arguments: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-m", "edgequant", *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == edgequant(*arguments)
