"""Acceptance specs on this host, quick enough for the gate."""

from __future__ import annotations

import textwrap
from pathlib import Path

from edgequant.archive.acceptance import AcceptFolder
from edgequant.jobs.accept import accept
from edgequant.judge.disturbed import CAUSES, SIGNS
from edgequant.progress import Progress
from edgequant.report.acceptance import Acceptance, RuleReport
from tests.jobs.fault_cases import save_cases

FUNCTIONS = Path(__file__).with_name("metric_functions.py")
QUICK = f"""
options: {{threads: 1, repeat: 2, warmup: 1}}
latency: false
bench: {{blocks: 3, runs: 3, seconds: 0, warm_up: 0.1, within: 100, allow: [{", ".join((*CAUSES, *SIGNS))}]}}
"""
"""Whatever else runs here, it is measured once."""


class Said(Progress):
    """What was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def write_spec(folder: Path, text: str, *, model: Path | None = None, cases: int = 3, name: str = "gate.yaml") -> Path:
    """A spec; a model is linked as m.onnx beside it, with cases for conv_cnn in cases/."""
    if model is not None and not (folder / "m.onnx").exists():
        (folder / "m.onnx").symlink_to(model)
        if cases:
            save_cases(folder / "cases", cases)
    path = folder / name
    path.write_text(QUICK + textwrap.dedent(text))
    return path


def accepted(spec: Path, run_dir: Path, baseline: Path | None = None) -> tuple[Acceptance, AcceptFolder]:
    return accept(spec, run_dir=run_dir, baseline=baseline)


def rules(found: Acceptance, variant: str | None = None) -> dict[str, RuleReport]:
    """By their text, of the only trial or that of a variant."""
    trials = [each for each in found.trials if not each.informative and variant in (None, each.variant)]
    assert len(trials) == 1
    return {each.rule: each for each in trials[0].rules}
