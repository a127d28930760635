"""Every command line of docs/devices.md, in its order, on the virtual phone and board.

The gate has those that need no machine; test_commands_parse.py has every one of them parsed there.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from tests.beds.models import ModelByName
from tests.beds.vm import Board, Phone
from tests.nightly import all_but

PAGE = Path(__file__).parents[2] / "docs" / "devices.md"
pytestmark = [pytest.mark.arm64, pytest.mark.slow, pytest.mark.timeout(1200)]


def commands(section: str) -> list[list[str]]:
    """The command lines between this heading and the next."""
    text = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    found = [shlex.split(line[2:]) for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    assert found, section
    return found


def run(words: list[str], folder: Path, **environment: str) -> str:
    assert words[0] == "edgequant"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [*words, *(["--threads", "1"] if words[1] == "verify" else [])],
        cwd=folder, env={**os.environ, "PATH": path, "NO_COLOR": "1", **environment},
        capture_output=True, text=True, timeout=1000,
    )  # fmt: skip
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def folder(real_model: ModelByName, tmp_path: Path) -> Path:
    shutil.copy(real_model("ppocr_cls"), tmp_path / "model.onnx")
    return tmp_path


@pytest.mark.nightly
@pytest.mark.adb
def test_a_phone(phone: Phone, folder: Path) -> None:
    for words in commands("A phone, from the box to a verdict"):
        # The bed's server may have other devices than the one attached.
        real = [phone.uri if word in ("adb://", "adb://SERIAL") else word for word in words]
        said = run(real, folder)
        if words[1:] == ["devices", "list"]:
            assert phone.serial in said
        if words[1] == "verify":
            assert "PASS" in said
    assert "clean" in words


@pytest.mark.nightly
@pytest.mark.ssh
def test_a_board(board: Board, folder: Path) -> None:
    (folder / "home" / ".ssh").mkdir(parents=True)
    (folder / "home" / ".ssh" / "config").write_text(board.config.read_text())
    environment = {"HOME": str(folder / "home"), "XDG_CACHE_HOME": platformdirs.user_cache_dir()}
    for words in commands("A board"):
        if "--python" in words:
            continue  # test_arm.py has such an environment there
        run([word.replace("user@board", "board") for word in words], folder, **environment)


@pytest.mark.parametrize("name", all_but("conv_cnn", of=("conv_cnn", "ppocr_cls")))
def test_without_a_device(name: str, folder: Path, generated_model: ModelByName) -> None:
    if name == "conv_cnn":
        shutil.copy(generated_model(name), folder / "model.onnx")
    (words,) = commands("Without a device")
    assert run(words, folder).count("PASS  dynamic:8") >= 3


@pytest.mark.nightly
def test_packs(folder: Path) -> None:
    build, other, listed = commands("The pack")[:3]
    assert "MNN 3.5.0" not in run(build, folder)
    assert "MNN 3.5.0" in run(other, folder)
    shown = run(listed, folder)
    assert "MNN 3.5.0" in shown
    (verify,) = commands("The pack")[3:]
    assert "MNN 3.5.0" in run(verify, folder)


@pytest.mark.nightly
def test_a_pack_by_its_name(folder: Path) -> None:
    run(["edgequant", "pack", "build", "--mnn", "3.5.0"], folder)
    line = next(line for line in run(["edgequant", "pack", "list"], folder).splitlines() if "MNN 3.5.0" in line)
    said = run(["edgequant", "verify", "model.onnx", "--device", "emulated:a76", "--pack", line.split()[0]], folder)
    assert "MNN 3.5.0" in said
