"""--image on the command line, and what a terminal shows while samples are counted."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.beds.models import ModelByName
from tests.cli.command import EDGEQUANT, edgequant
from tests.nightly import all_but


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(8):
        Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{number}.png")
    return folder


def test_pictures_from_the_command_line(generated_model: ModelByName, pictures: Path, tmp_path: Path) -> None:
    done = edgequant(
        "quantize", str(generated_model("conv_cnn")), "-o", "out.mnn", "--variant", "static:8,calib=minmax",
        "--calibration", str(pictures), "--image", "format=BGR mean=127.5", "--image", "normal=0.00784",
        "--threads", "1", "--json", cwd=tmp_path,
    )  # fmt: skip
    assert done.code in (0, 1), done.err
    (run,) = done.json["runs"]
    assert run["calibration"]["images"].startswith("BGR, (pixel - 127.5) * 0.00784")
    assert run["calibration"]["samples"] == 8
    assert "0/8" not in done.err
    # Cases too, in run and inspect.
    ran = edgequant(
        "run", "out.mnn", "--device", "local:", "--inputs", str(pictures), "--image", "mean=127.5", "--threads", "1",
        "-o", "outputs", cwd=tmp_path,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == [f"{n}.npz" for n in range(8)]
    looked = edgequant("inspect", str(generated_model("conv_cnn")), "--inputs", str(pictures), cwd=tmp_path)
    assert looked.code == 0, looked.err
    assert "Activations" in looked.out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--image", "std=1"], "IMAGE_OPTION_INVALID", "did you mean normal"),
        (["--image", "size=0x0"], "IMAGE_OPTION_INVALID", "size"),
        (["--image", "mean=1"], "OPTION_UNUSED", "--image"),
    ],
)
@pytest.mark.parametrize("command", [["inspect"], ["run", "--device", "local:"], ["quantize", "-o", "x.mnn"]])
def test_mistakes_are_told(
    command: list[str], arguments: list[str], code: str, says: str, generated_model: ModelByName, tmp_path: Path
) -> None:
    done = edgequant(command[0], str(generated_model("conv_cnn")), *command[1:], *arguments, cwd=tmp_path)
    assert done.code == 2
    assert code in done.errors[0]
    assert says in done.errors[0]


def on_a_terminal(*arguments: str, cwd: Path) -> str:
    """What it writes to stderr where that is a terminal."""
    here, there = pty.openpty()
    child = subprocess.Popen(
        [EDGEQUANT, *arguments], cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=there,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "150"},
    )  # fmt: skip
    os.close(there)
    said = b""
    try:
        while part := _read(here):
            said += part
    finally:
        child.kill()
        child.wait()
        os.close(here)
    return said.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # nobody writes any more
        return b""


@pytest.mark.parametrize(
    "variant", all_but("static:8,calib=minmax,keep=1", "kl", of=["static:8,calib=minmax,keep=1", "ema", "kl"])
)
def test_samples_and_layers_are_counted_on_a_terminal(
    variant: str, generated_model: ModelByName, pictures: Path, tmp_path: Path
) -> None:
    arguments = ["quantize", str(generated_model("conv_cnn")), "-o", "out.mnn", "--variant", variant]
    arguments += ["--calibration", str(pictures), "--threads", "1", "--image", "mean=127.5 normal=0.008"]
    said = on_a_terminal(*arguments, cwd=tmp_path)
    assert "reading calibration data: samples" in said
    assert "/8" in said
    if variant.startswith("static"):
        assert "running the float model: samples" in said
        assert "layers tried alone" in said
    else:
        assert f"MNN's {variant}: samples" in said


@pytest.mark.parametrize("silent", all_but("--json", of=["--json", "--quiet"]))
def test_nothing_is_counted_where_nobody_wants_it(
    silent: str, generated_model: ModelByName, pictures: Path, tmp_path: Path
) -> None:
    arguments = ["quantize", str(generated_model("conv_cnn")), "-o", "out.mnn", "--variant", "static:8,calib=minmax"]
    said = on_a_terminal(*arguments, "--calibration", str(pictures), "--threads", "1", silent, cwd=tmp_path)
    assert "reading calibration data" not in said
    assert "/8" not in said
