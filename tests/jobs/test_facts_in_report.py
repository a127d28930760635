"""Facts of the device in a report: read once, complete, and never the reason why a run fails."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from edgequant.devices import facts as facts_room
from edgequant.devices.facts_model import FACTS
from edgequant.errors import DeviceError
from edgequant.lab.session import DeviceOptions, open_session
from edgequant.spec import RunOptions
from tests.beds.models import ModelByName
from tests.jobs.support import do

OLD = {"emulator", "kernel", "model", "mnn_kernels", "page_size", "governor", "python", "numpy", "threads"}
ABOVE = {"arch", "cpu", "features", "cores", "ram_mb", "os"}


def test_in_the_report(generated_model: ModelByName, tmp_path: Path) -> None:
    access = DeviceOptions(work_dir=str(tmp_path / "work"))
    do(generated_model("gru"), tmp_path / "run", "float", access=access)
    document = json.loads((tmp_path / "run" / "report.json").read_text())
    device: dict[str, Any] = document["runs"][0]["device"]
    assert OLD | set(FACTS) - ABOVE | {"usable_cores", "why_null"} <= device["facts"].keys()
    assert device["arch"] == os.uname().machine
    assert device["cores"] == os.cpu_count()
    assert device["facts"]["kernel"] == f"Linux {os.uname().release}"
    assert device["facts"]["work_dir"] == str(tmp_path / "work")
    for name in FACTS:
        value = device[name] if name in ABOVE else device["facts"][name]
        assert (value is None) == (name in device["facts"]["why_null"]), name


def test_where_they_cannot_be_read(
    generated_model: ModelByName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:
        raise DeviceError("LINK_LOST", "the link was lost", transient=True)

    monkeypatch.setattr(facts_room, "read", lost)
    (run,) = do(generated_model("gru"), tmp_path / "run", "float").runs
    assert run.verdict == "PASS"
    assert run.device.cpu is None
    assert "LINK_LOST" in run.device.facts["why_null"]["cpu"]
    assert run.device.arch == os.uname().machine  # that the runner knows by itself
    assert "arch" not in run.device.facts["why_null"]


def test_they_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, calls = facts_room.read, []

    def counted(*given: Any) -> Any:
        calls.append(given)
        return read(*given)

    monkeypatch.setattr(facts_room, "read", counted)
    with open_session("local:", DeviceOptions(str(tmp_path / "work")), RunOptions(), log=None) as session:
        assert calls == []
        session.runner()
        session.drop_runner()
        session.runner()
        assert len(calls) == 1
        assert session.facts is not None
        assert session.facts.arch == os.uname().machine
