"""A defect planted into a copy of a recording: what the device brought back is changed, with the right hashes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgequant.archive.arrays import ArrayFolder
from edgequant.archive.folder import device_capture
from edgequant.archive.open import Run, open_run
from edgequant.archive.types import ArrayRef
from edgequant.spec import Variant
from tests.defects.mechanisms import Arrays, At, Effect

Document = dict[str, Any]


def copied(recording: Path, target: Path, uri: str, variant: str) -> Path:
    """A copy of a recording in which this variant is all that was asked for, on this device alone."""
    shutil.copytree(recording, target, copy_function=os.link, ignore=shutil.ignore_patterns("report*.json", "logs"))
    change_record(target, "plan", lambda plan: plan | {"devices": [uri], "variants": _asked(plan, variant)})
    return target


def _asked(plan: Document, variant: str) -> list[Any]:
    wanted = Variant.parse(variant)
    return [each for each in plan["variants"] if Variant.model_validate(each) == wanted]


def change_record(folder: Path, name: str, how: Callable[[Document], Document]) -> None:
    """Rewrite a record, and say so in the journal."""
    path = folder / f"{name}.json"
    data = json.dumps(how(json.loads(path.read_bytes())), indent=1).encode()
    path.unlink()  # it is a link to the recording's
    path.write_bytes(data)
    journal = folder / "journal.jsonl"
    line = json.dumps({"file": f"{name}.json", "sha256": hashlib.sha256(data).hexdigest()}) + "\n"
    before = journal.read_bytes()
    journal.unlink()
    journal.write_bytes(before + line.encode())


def capture_name(uri: str, variant: str) -> str:
    return f"captures/{device_capture(uri, Variant.parse(variant))}"


def plant(folder: Path, uri: str, variant: str, effect: Effect) -> int:
    """Change what came back of every inference; returns how many came back otherwise than they were."""
    run = open_run(folder)
    arrays = ArrayFolder(folder / "arrays")
    changed = 0

    def how(capture: Document) -> Document:
        nonlocal changed
        earlier: list[Arrays] = []
        for part, record in _inferences(capture):
            right = {name: arrays.get(ArrayRef.model_validate(ref)) for name, ref in record["outputs"].items()}
            low = capture["memory_mode"] == "low" and "normal" not in part
            got = effect(dict(right), At(len(earlier), _inputs(run, record["case"]), tuple(earlier), low))
            earlier.append(right)
            changed += any(not _same(got[name], array) for name, array in right.items())
            record["outputs"] = {name: arrays.put(array).model_dump(mode="json") for name, array in got.items()}
        return capture

    change_record(folder, capture_name(uri, variant), how)
    return changed


def _inferences(capture: Document) -> Iterator[tuple[str, Document]]:
    """(part of the capture, what is kept of one inference), wherever a capture keeps some; those of the cases first."""
    parts = sorted(capture.items(), key=lambda item: item[0] != "cases")
    for part, held in parts:
        for record in held if isinstance(held, list) else [held]:
            if isinstance(record, dict) and record.get("outputs") and "case" in record:
                yield part, record


def _inputs(run: Run, case: str) -> Arrays:
    return run.inputs(case)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
