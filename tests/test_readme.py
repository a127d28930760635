"""Every command line of the README, run in its order as a newcomer would."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgequant import zoo
from tests import generated
from tests.beds.sshd import SshServer
from tests.nightly import all_but

ROOT = Path(__file__).parents[1]
MAY_FAIL = ("dynamic:4,block=32,hqq", "edgequant diagnose")
"""Commands with these show a variant that breaks its limits, which is what they are there for."""


def commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [re.sub(r"\s+#.*", "", line) for line in lines]


ALL = len(commands())


@pytest.mark.ssh
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("count", all_but(1, of=(1, ALL)))
def test_every_command_of_the_readme_works(count: int, sshd: SshServer, tmp_path: Path) -> None:
    """The first of them in the gate; tests/docs/test_commands_parse.py has every one of them parsed there."""
    home, here = tmp_path / "home", tmp_path / "here"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    (home / ".ssh" / "config").write_text(sshd.config.read_text().replace("Host bed", "Host board"))
    here.mkdir()
    shutil.copy(zoo.fetch("ppocr_cls"), here / "model.onnx")
    shutil.copy(zoo.fetch("enc"), here / "enc.onnx")
    generated.gru(here / "stream.onnx")
    (here / "cases").mkdir()
    for number in range(2):
        picture = np.random.default_rng(number).uniform(-1, 1, (1, 3, 48, 192)).astype(np.float32)
        np.savez(here / "cases" / f"{number}.npz", x=picture)
    shutil.copy(here / "cases" / "0.npz", here / "case.npz")
    (here / "release.yaml").write_text("devices: ['ssh://board']\ninputs: cases\nlimits: ['sqnr_db>=15']\n")
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(tmp_path / "cache"), "NO_COLOR": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    ran = 0
    for line in commands()[:count]:
        # The board of the README has an account for you; this one has yours.
        words = shlex.split(line.replace("user@board", "board"))
        if any("ssh://board" in word or "--spec" in word for word in words):
            # Not the account's own place, which other tests on this machine are using.
            words += ["--work-dir", str(tmp_path / "board")]
        if any("ssh://board" in word or "--spec" in word for word in words) and "clean" not in words:
            words += ["--python", sys.executable]  # its python3 may be any; this one has MNN
        if words[0] != "edgequant":
            assert words[0] == "make", line
            continue
        done = subprocess.run(words, cwd=here, env=environment, capture_output=True, text=True, timeout=900)
        allowed = (0, 1) if any(variant in line for variant in MAY_FAIL) else (0,)
        assert done.returncode in allowed, f"{line}\n{done.stdout}\n{done.stderr}"
        ran += 1
    if count < ALL:
        assert ran == count
        return
    assert ran >= 10
    assert (here / "out.npz").is_file()
    assert (here / "results" / "report.json").is_file()
