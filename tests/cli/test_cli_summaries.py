"""--summary: what a CI's step has there already stays, and no name is no name."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgequant.report.write import write_file
from tests.cli.command import edgequant
from tests.recorded import unpacked


def test_the_summary_of_a_step_is_added_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary, other = tmp_path / "step", tmp_path / "other.md"
    for path in (summary, other):
        path.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    for path in (summary, other):
        write_file("after\n", path, "--summary")
    assert summary.read_text() == "before\n\nafter\n"
    assert other.read_text() == "after\n"
    write_file("page\n", summary, "--html")
    assert summary.read_text() == "page\n"


def test_from_the_command_line(tmp_path: Path) -> None:
    run_dir, summary = unpacked("cnn", tmp_path), tmp_path / "step"
    summary.write_text("before\n")
    edgequant("report", str(run_dir), "--summary", str(summary), GITHUB_STEP_SUMMARY=str(summary))
    assert summary.read_text().startswith("before\n\n#")


@pytest.mark.parametrize("command", ["report RUN", "accept SPEC"])
def test_an_empty_name_is_told_as_one(command: str, tmp_path: Path) -> None:
    run_dir = unpacked("cnn", tmp_path)
    given = [{"RUN": str(run_dir), "SPEC": str(tmp_path / "gate.yaml")}.get(each, each) for each in command.split()]
    done = edgequant(*given, "--summary", "")
    assert done.code == 2
    assert "--summary: an empty name" in done.err
