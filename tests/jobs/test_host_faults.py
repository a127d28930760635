"""Disks and caches of this host that take nothing more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.beds.models import ModelByName
from tests.jobs.fault_cases import save_cases
from tests.waiting import LONG

EDGEQUANT = str(Path(sys.executable).with_name("edgequant"))


@pytest.mark.parametrize("size", ["100k", "700k", "1200k"])
def test_the_disk_of_the_run_is_full(size: str, generated_model: ModelByName, tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs a mount namespace: run as root")
    model, disk = generated_model("conv_cnn"), tmp_path / "disk"
    disk.mkdir()
    script = f'mount -t tmpfs -o size={size} small {disk} && exec "$@"'
    done = subprocess.run(
        [
            *("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"),
            *(EDGEQUANT, "verify", str(model), "--device", "local:", "--threads", "1", "--no-latency", "--json"),
            *("--inputs", str(save_cases(tmp_path / "inputs", 150)), "--run-dir", str(disk / "run")),
        ],
        capture_output=True,
        text=True,
        timeout=4 * LONG,
    )
    assert done.returncode == 3, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert "INTERNAL_ERROR" not in done.stderr
    document = json.loads(done.stdout)
    assert document["error"]["code"] in ("DISK_FULL", "RUN_DIR_FULL", "RUN_DIR_UNWRITABLE")
    assert document["error"]["hint"]
    last = [line for line in done.stderr.splitlines() if line.startswith("edgequant: ")]
    assert len(last) == 1


def test_a_cache_that_cannot_be_written(generated_model: ModelByName, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    command = [
        EDGEQUANT,
        "verify",
        str(generated_model("conv_cnn")),
        "--device",
        "local:",
        "--run-dir",
        f"{tmp_path}/run",
    ]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=4 * LONG)
    assert done.returncode == 3
    assert "CACHE_UNWRITABLE" in done.stderr
    assert "XDG_CACHE_HOME" in done.stderr
    assert "Traceback" not in done.stderr
