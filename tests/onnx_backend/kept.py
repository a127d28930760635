"""Outcomes that are kept, so that a count can be gone on with: one file each, for one state of the product."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from pathlib import Path

import onnx
import platformdirs

from edgequant.mnn_version import host_mnn_version
from tests.onnx_backend.examples import Example
from tests.onnx_backend.outcome import ROOT, Outcome, Truth, outcome


@functools.cache
def _home() -> Path:
    digest = hashlib.sha256(f"{host_mnn_version()} {onnx.__version__}".encode())
    folders = (ROOT / "edgequant", ROOT / "device_scripts", Path(__file__).parent)
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    home = platformdirs.user_cache_path("edgequant-tests") / "onnx-backend-outcomes" / digest.hexdigest()[:16]
    home.mkdir(parents=True, exist_ok=True)
    return home


def kept_outcome(example: Example, truth: Truth, *, reference: bool) -> Outcome:
    """As `outcome` has it, or had it."""
    path = _home() / f"{example.name}.{'given' if reference else 'own'}.json"
    if path.exists():
        return Outcome(**json.loads(path.read_text("utf-8")))
    found = outcome(example, truth, reference=reference)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(dataclasses.asdict(found)), "utf-8")
    part.replace(path)
    return found
