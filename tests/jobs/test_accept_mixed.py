"""One release check for a phone, a board with its own Python and two emulated CPUs, in one command."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgequant.archive.acceptance import open_acceptance
from edgequant.judge.acceptance import State
from edgequant.report.acceptance import load_acceptance
from edgequant.report.read import load
from tests.beds.models import ModelByName
from tests.beds.vm import Phone
from tests.cli.command import edgequant
from tests.jobs.accept_specs import write_spec
from tests.jobs.test_arm import board_python as board_python
from tests.jobs.test_arm import board_uri as board_uri
from tools import check_acceptance

pytestmark = [
    pytest.mark.nightly, pytest.mark.adb, pytest.mark.ssh, pytest.mark.arm64, pytest.mark.slow,
    pytest.mark.timeout(1800),
]  # fmt: skip


def test_a_mixed_spec(
    phone: Phone, board_uri: str, board_python: str, generated_model: ModelByName, tmp_path: Path
) -> None:
    write_spec(tmp_path, f"""
models: {{m: {{path: m.onnx, inputs: cases}}}}
variants: ["dynamic:8", fp16]
devices:
  pixel: "{phone.uri}"
  board: {{uri: "{board_uri}", device_options: {{runtime: system, python: "{board_python}"}}, options: {{threads: 2}}}}
  a53: {{uri: "emulated:cortex-a53", tags: [emulated]}}
  a76: {{uri: "emulated:cortex-a76", tags: [emulated]}}
rules:
  - {{rule: "sqnr_db >= 20", variant: "dynamic:*"}}
  - {{rule: "sqnr_db >= 30", variant: fp16}}
  - {{rule: "device.sqnr_db >= 20", device: emulated, variant: "dynamic:*"}}
  - {{rule: "low_memory_engaged == true", variant: "dynamic:*"}}
  - size_mb <= 1
""", model=generated_model("conv_cnn"))  # fmt: skip
    done = edgequant("accept", "gate.yaml", "--run-dir", "run", "--junit", "a.xml", cwd=tmp_path)
    found = load_acceptance(tmp_path / "run" / "acceptance.json")
    told = {each.key: (each.state, [rule.why for rule in each.rules if rule.state is not State.PASS])
            for each in found.trials}  # fmt: skip
    assert len(found.trials) == 8
    assert done.code == 0, (done.err, told)
    assert check_acceptance.check(tmp_path / "run" / "acceptance.json") == []
    runtimes = {}
    plan = open_acceptance(tmp_path / "run").plan()
    for part in {each.part for each in plan.trials}:
        for run in load(tmp_path / "run" / "trials" / part / "attempt-1" / "report.json").runs:
            runtimes[run.device.uri] = (run.device.facts["runtime"], run.options["threads"])
    assert runtimes[board_uri] == ("system", 2)
    assert {uri: runtime for uri, (runtime, _) in runtimes.items() if uri != board_uri} == {
        phone.uri: "pack", "emulated:cortex-a53": "pack", "emulated:cortex-a76": "pack",
    }  # fmt: skip
