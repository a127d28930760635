"""From what verify, bench and tasks report to the facts that rules are held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgequant.judge.acceptance import Facts, TrialFacts, Value
from edgequant.judge.bench import BenchJudgement
from edgequant.report.model import Report, Run
from edgequant.spec.accept import TrialKey


def facts_of(
    run: Run,
    bench: Mapping[str, Any] | BenchJudgement | None = None,
    tasks: Mapping[str, Value] | None = None,
    *,
    setting: str | None = None,
    session: str = "",
) -> Facts:
    """The facts of one trial.

    Args:
        run: of verify's report.
        bench: a bench.json's entry of one device, or what it was made from, which has the blocks too.
        tasks: by name.
        setting: which of bench's settings is this trial's; by default the run's variant.
        session: names the bench session, so that what was measured in one is compared block by block.
    """
    raise NotImplementedError


def trial_facts(
    key: TrialKey,
    report: Report,
    run: Run,
    bench: Mapping[str, Any] | BenchJudgement | None = None,
    tasks: Mapping[str, Value] | None = None,
    *,
    setting: str | None = None,
    session: str = "",
    identity: Mapping[str, str] | None = None,
) -> TrialFacts:
    """One attempt.  identity: what the report does not tell, such as the hash of the cases."""
    raise NotImplementedError


def not_run(key: TrialKey, why: str) -> TrialFacts:
    """An attempt that came to no report at all: ERROR."""
    raise NotImplementedError
