"""python -m bench.methods: the command works, and counts what it says it counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.methods import Row, agreement, table
from edgequant.archive.folder import RunFolder, device_capture
from edgequant.archive.types import Capture, CaseCapture, HostFacts, Plan
from edgequant.spec import Variant

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quick_run(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    command = [sys.executable, "-m", "bench.methods", "--quick", "--model", "ppocr_cls", "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=850)
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    rows = {row["variant"]: row for row in document["rows"]}
    assert set(rows) == {"kl", "static:8,calib=minmax", "dynamic:8"}
    assert rows["kl"]["alone"]
    assert rows["dynamic:8"]["alone"] is None
    for variant, row in rows.items():
        assert f"| `{variant}` |" in done.stdout
        assert row["verdict"] in ("PASS", "MARGINAL", "FAIL")
        assert 0.1 < row["megabytes"] < 0.4
    assert min(rows["dynamic:8"]["worst"].values()) > 20


def _captured(folder: RunFolder, name: str, *places: int) -> None:
    ref = folder.array_folder.put(np.eye(5, dtype=np.float32)[list(places)][None])
    case = CaseCapture(case="a", outputs={"out": ref})
    folder.save_capture(name, Capture(trial=name, role="device", cases=(case,)))


def test_agreement_counts_steps(tmp_path: Path) -> None:
    got = device_capture("local:", Variant.parse("dynamic:8"))
    folder = RunFolder.create(tmp_path / "run", "m")
    host = HostFacts(arch="x86_64", mnn="3.6.1")
    folder.save_plan(Plan(edgequant="0", host=host, model="m", devices=("local:",), variants=()))
    _captured(folder, "reference", 0, 1, 2, 3)
    assert agreement(folder.path, "dynamic:8") == (4, 0)  # nothing came back
    _captured(folder, got, 0, 1, 2)
    assert agreement(folder.path, "dynamic:8") == (4, 0)  # another shape
    _captured(folder, got, 0, 1, 4, 3)
    assert agreement(folder.path, "dynamic:8") == (4, 3)


def test_the_table_names_the_worst_output_and_what_failed() -> None:
    rows = [
        Row("enc", "kl", "static:8", alone="QUANTIZER_CRASHED (SIGSEGV)", worst={"a": 30.0, "b": 12.5}, megabytes=1.0),
        Row("enc", "admm", "X: a | b\nc"),
        Row("rec", "fp16", "as asked", worst={"y": 40.0}, megabytes=2.0, steps=200, equal=199),
    ]
    text = table(rows)
    assert "| `kl` | QUANTIZER_CRASHED (SIGSEGV) | static:8 | 12.5 dB (b) |  | 1.00 |" in text
    assert "| `admm` |  | X: a \\| b c | none |  |  |" in text
    assert "| `fp16` | 99.50 % of 200 | 40.0 dB | 2.00 |" in text
