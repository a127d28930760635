"""Runs that an earlier version recorded are opened, moved, judged to the same, and found sound."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgequant.archive.open import open_run
from edgequant.jobs.rejudge import judge
from edgequant.report.read import load
from edgequant.report.write import to_json
from tests import recorded
from tests.jobs.support import check_folder


@pytest.fixture(params=recorded.MODELS)
def run_dir(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return recorded.unpacked(request.param, tmp_path / "moved")


def undated(text: str) -> list[str]:
    return [line for line in text.splitlines() if '"created"' not in line]


def test_judged_again_it_says_the_same(run_dir: Path) -> None:
    """Byte for byte but for its date.  Where a report says more than it did: `python -m tests.recorded --judge`."""
    found = judge(run_dir)
    assert found.changes == ()
    assert undated(to_json(found.report)) == undated((run_dir / "report.json").read_text("utf-8"))
    check_folder(run_dir)


def test_it_is_of_three_cpus_and_has_all_its_outputs(run_dir: Path) -> None:
    run = open_run(run_dir)
    assert run.plan.devices == recorded.DEVICES
    for uri in run.plan.devices:
        for variant in run.plan.variants:
            capture = run.on_device(uri, variant)
            assert capture is not None
            assert bool(capture.timings) == (uri == "local:")
            for case in run.source.cases:
                outputs = run.outputs(capture, case.name)
                assert outputs is not None
                assert outputs.keys() == run.source.kinds.keys()


def test_by_other_limits_it_is_otherwise(run_dir: Path) -> None:
    stored = load(run_dir / "report.json")
    strict = judge(run_dir, ["sqnr_db>=190"]).report
    assert {run.verdict for run in strict.runs} == {"FAIL"}
    assert {run.verdict for run in stored.runs} != {"FAIL"}
    assert strict.verdict == "FAIL"


def test_they_are_small() -> None:
    sizes = [path.stat().st_size for path in recorded.RUNS.iterdir()]
    assert len(sizes) == len(recorded.MODELS)
    assert sum(sizes) < 300_000
