"""The folder of an acceptance is what it was, or says what is not; and it is in the history."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgequant.archive.manifest import MANIFEST
from edgequant.jobs.integrity import check
from tests.beds.models import ModelByName
from tests.cli.command import edgequant
from tests.jobs.accept_specs import write_spec

SPEC = """
models: {m: {path: m.onnx, inputs: cases}}
variants: ["dynamic:8"]
devices: {host: "local:"}
rules: ["sqnr_db >= 10", "size_mb <= 9", "latency_ms.p50 <= 1000"]
"""


@pytest.fixture(scope="module")
def ended(generated_model: ModelByName, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with run/, begun with a history."""
    folder = tmp_path_factory.mktemp("kept")
    write_spec(folder, SPEC, model=generated_model("conv_cnn"))
    done = edgequant("accept", "gate.yaml", "--run-dir", "run", "--history", "h.sqlite", "--html", "run/gate.html",
                     cwd=folder)  # fmt: skip
    assert done.code in (0, 4), done.err
    assert "not in the history" not in done.err
    return folder


def test_it_is_unaltered_wherever_it_is_moved(ended: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ended / "run", copy)
    found = check(copy)
    assert (found.differences, found.notes, found.listed) == ((), (), True)
    assert edgequant("judge", str(copy), "--write", "--quiet").code in (0, 4)
    assert edgequant("report", str(copy), "--summary", str(copy / "gate.md"), "--quiet").code in (0, 4)
    part = next((copy / "trials").glob("*/attempt-1"))
    assert edgequant("report", str(part), "--html", str(part / "page.html"), "--quiet").code == 0
    assert check(copy).differences == ()


def _replaced(text: str, by: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(path.read_text().replace(text, by, 1))


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("acceptance.json", _replaced('"state": "PASS"', '"state": "FAIL"')),
        ("spec.yaml", _replaced("9", "8")),
        ("accept.json", _replaced('"retries": 0', '"retries": 1')),
        ("journal.jsonl", _replaced("ended", "Ended")),
        ("bench/*/attempt-1/measured.json", _replaced("[", "[ ")),
        ("bench/*/attempt-1/bench-plan.json", Path.unlink),
        ("trials/*/attempt-1/report.json", _replaced("PASS", "FAIL")),
        ("trials/*/attempt-1", shutil.rmtree),
        (MANIFEST, Path.unlink),
    ],
)
def test_what_was_altered_is_named(ended: Path, tmp_path: Path, file: str, change: Callable[[Path], object]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ended / "run", copy)
    change(next(copy.glob(file)))
    name = file.replace("*", next(copy.glob(file.split("/")[0] + "/*")).name if "*" in file else "")
    assert any(each.file.startswith(name) for each in check(copy).differences), check(copy)


def test_rules_are_evaluated_anew_where_the_manifest_was_written_anew(ended: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ended / "run", copy)
    (copy / MANIFEST).unlink()
    journal = copy / "journal.jsonl"
    journal.write_text("".join(line for line in journal.open() if "closed" not in line))
    assert [each.file for each in check(copy).differences] == []
    assert check(copy).notes
    path = copy / "acceptance.json"
    document = json.loads(path.read_text())
    document["trials"][0]["rules"][-1]["bound"] = 1001.0
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    (found,) = check(copy).differences
    assert found.file == "acceptance.json"
    assert "not what judging gives" in found.why


def test_the_history_has_it_with_its_rules_and_numbers(ended: Path) -> None:
    listed = edgequant("history", "list", "--db", "h.sqlite", "--json", cwd=ended).json
    kinds = sorted(each["kind"] for each in listed["runs"])
    assert kinds == ["accept", "bench", "verify"]
    before = listed["count"]
    assert edgequant("history", "add", "run", "--db", "h.sqlite", cwd=ended).code == 0
    assert edgequant("history", "list", "--db", "h.sqlite", "--json", cwd=ended).json["count"] == before
    run = next(each["id"] for each in listed["runs"] if each["kind"] == "accept")
    shown = edgequant("history", "show", run[:12], "--db", "h.sqlite", "--json", cwd=ended).json
    (trial,) = shown["run"]["trials"] if "run" in shown else shown["trials"]
    assert "sqnr_db >= 10" in json.dumps(trial)
    metrics = {each["metric"] for each in trial["numbers" if "numbers" in trial else "values"]}
    assert {"sqnr_db", "size_mb", "memory_session_mb"} <= metrics
