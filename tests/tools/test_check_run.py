"""The checker of run folders notices whatever is changed in one: a thousand mutations, always the same."""

from __future__ import annotations

import ast
import contextlib
import copy
import hashlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgequant.judge.verdict import Verdict
from tests import generated
from tests.jobs.support import do
from tests.nightly import all_but
from tools import check_run

CHECKER = Path(check_run.__file__)
MUTATIONS = 1000
SHARES = {
    "record": 400,  # a value of a record, and the journal made to fit: only what it means gives it away
    "report": 250,
    "unsealed": 110,  # a value of a record, whatever it is, and nothing else
    "verdict": 40,
    "byte": 70,
    "missing": 70,
    "swapped": 50,
    "journal": 10,
}

NOTHING_FOLLOWS = {
    # Where the journal was made to fit, these are not noticed: they are in one place only, and no number, no verdict
    # and nothing else in the folder follows from them.
    r"(plan|captures/.*)\.json:(created|started)$": "when something was done",
    r"plan\.json:(rollout|feedback|decides)$": "there is none of it: source.json says what came of it",
    r"plan\.json:diagnose$": "what FAILs is looked into or not; what was found stands beside it",
    r"captures/.*\.json:(rollout|settings)$": "no rollout was asked for",
    r"captures/.*\.json:(sustained|operators|timings\.\d+\.(energy|readied))$": "of a bench alone",
    r"captures/.*\.json:(witness|timings\.\d+\.threads)$": "of this host nobody is asked",
    r"artifacts/.*:artifact\.log$": "where the converter's words are; that they are there is held, where it says so",
    r"plan\.json:(convert_timeout|budget|reach)\b": "how a file is made and a device reached, not what comes of it",
    r"source\.json:(inputs|declared)\.\d+\.(dims|layout)\b": "names of sizes, order of axes: cases have both",
    r"artifacts/.*:artifact\.(seconds|float_layers|quantized_layers)$": "only whether any layer is quantized decides",
    r"artifacts/.*:artifact\.facts\.(weights|static_tensors|less)$": "they matter on other devices, and in words",
    r"artifacts/.*:artifact\.(scales|equalized|rounding\.\d+\.equalized)\b": "of static int8 alone, which none is",
    r"captures/local.*:(cases|repeated|normal|timings)\.\d+\.(ms|memory)\b": "one of many readings, see TELLING",
    r"captures/local.*:timings\.\d+\.(looped|seconds|apart_ms)\b": "what fits a clock leaves nothing in the report",
    r"captures/local.*:(before|loaded)\.(pss|rss_peak|stage_peak|uss|swap)$": "the same",
    r"captures/(float-host|reference)\.json:cases\.\d+\.(ms|memory|taps|refused_code)\b": "they are not a trial",
    r"captures/(float-host|reference)\.json:(before|loaded)\.(stage_peak|uss|swap)$": "nor are these, of a bench alone",
    r"captures/reference\.json:moved\b": "what rounding has to cost decides where something is far beyond it",
    r"captures/float-host\.json:(device|memory_mode)\b": "this host as it was then; what is reported is a trial's",
}
TELLING = r"captures/local.*:(cases\.0\.ms$|timings\.\d+\.memory\.rss_peak$)"
WORDS = r"report\.json:(created$|runs\.\d+\.(outputs\..*|latency_ms)\.why_null\.)"
"""Sentences that judging makes: that there is one is checked, and not which."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of two runs."""
    where = tmp_path_factory.mktemp("runs")
    for name in ("conv_cnn", "gru"):
        model = getattr(generated, name)(where / f"{name}.onnx")
        do(model, where / name, "dynamic:8", "fp16", latency=True, limits=("sqnr_db>=15",))
        # Its manifest would give all of it away: that is `edgequant`'s own check (tests/jobs/test_integrity.py).
        (where / name / "manifest.json").unlink()
        journal = where / name / "journal.jsonl"
        kept = [line for line in journal.read_text().splitlines(keepends=True) if "closed" not in json.loads(line)]
        journal.write_text("".join(kept))
    return [where / "conv_cnn", where / "gru"]


def somewhere(document: Any, chance: random.Random) -> tuple[str | int, ...]:
    """A place in it, from the top down.  How many latencies there are must not decide what comes after it."""
    path: tuple[str | int, ...] = ()
    while isinstance(document, (dict, list)) and document and not (path and chance.random() < 0.1):
        keys = list(document) if isinstance(document, dict) else list(range(len(document)))
        path = (*path, keys[int(chance.random() * len(keys))])
        document = document[path[-1]]
    return path


def at(document: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def other(value: Any, chance: random.Random) -> Any:
    """Something else of the same kind, or of another where there is nothing."""
    if value is None:
        return chance.choice([7, "seven", True])
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return chance.choice([value + 1, value * 2 + 3, None, -value - 1])
    if isinstance(value, str):
        return chance.choice([f"x{value}", f"{value}x", "", None])
    return None


def rewritten(path: Path, data: bytes) -> None:
    """Files are hard links: never write into one."""
    path.unlink()
    path.write_bytes(data)


def change(root: Path, name: str, chance: random.Random, allowed: Callable[[str], bool]) -> str:
    """Change or drop something in a JSON file."""
    document = json.loads((root / name).read_bytes())
    while not allowed(f"{name}:{'.'.join(map(str, path := somewhere(document, chance)))}"):
        pass
    *above, key = path
    parent = at(document, tuple(above))
    before = parent[key]
    if isinstance(before, (dict, list)) or chance.random() < 0.25:
        del parent[key]
        what = "dropped"
    else:
        parent[key] = other(before, chance)
        what = f"{before!r} -> {parent[key]!r}"
    rewritten(root / name, json.dumps(document).encode())
    return f"{name}: {'.'.join(map(str, (*above, key)))}: {what}"


def seal(root: Path) -> None:
    """Make the journal fit its records."""
    journal = root / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        line["sha256"] = hashlib.sha256((root / line["file"]).read_bytes()).hexdigest()
    rewritten(journal, "".join(json.dumps(line) + "\n" for line in lines).encode())


def records(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.json") if path.name != "report.json")


def mutate(root: Path, kind: str, chance: random.Random) -> str:
    """Do one thing to a run's folder; returns what."""
    if kind == "record":
        said = change(root, chance.choice(records(root)), chance, follows)
        seal(root)
        return said
    if kind == "unsealed":
        return change(root, chance.choice(records(root)), chance, lambda _: True)
    if kind == "report":
        return change(root, "report.json", chance, lambda where: not re.match(WORDS, where))
    if kind == "verdict":
        document = json.loads((root / "report.json").read_bytes())
        run = chance.choice(document["runs"])
        output = chance.choice(list(run["outputs"].values()))
        held = chance.choice([document, run, output, chance.choice(output["limits"])])
        held["verdict"] = chance.choice([each.value for each in Verdict if each != held["verdict"]])
        rewritten(root / "report.json", json.dumps(document).encode())
        return f"a verdict is {held['verdict']}"
    if kind == "byte":
        path = chance.choice(sorted([*root.glob("arrays/*"), *root.glob("models/*")]))
        data = bytearray(path.read_bytes())
        place = chance.randrange(len(data))
        data[place] ^= 1 << chance.randrange(8)
        rewritten(path, bytes(data))
        return f"{path.name}: byte {place}"
    if kind == "missing":
        path = chance.choice(sorted(path for path in root.rglob("*") if path.is_file() and "logs" not in path.parts))
        path.unlink()
        if chance.random() < 0.5 and path.suffix == ".json" and path.name not in ("closing.json", "report.json"):
            lines = (root / "journal.jsonl").read_text().splitlines(keepends=True)
            kept = [line for line in lines if json.loads(line)["file"] != path.relative_to(root).as_posix()]
            rewritten(root / "journal.jsonl", "".join(kept).encode())
            return f"{path.relative_to(root)} and its line are missing"
        return f"{path.relative_to(root)} is missing"
    if kind == "swapped":
        folder = chance.choice(["arrays/*", "cases/*", "artifacts/*", "captures/local*/*", "models/*"])
        one, two = chance.sample(sorted(root.glob(folder)), 2)
        first, second = one.read_bytes(), two.read_bytes()
        rewritten(one, second)
        rewritten(two, first)
        seal(root)
        return f"{one.name} and {two.name} are swapped"
    lines = (root / "journal.jsonl").read_text().splitlines(keepends=True)
    gone = lines.pop(chance.randrange(len(lines)))
    rewritten(root / "journal.jsonl", "".join(lines).encode())
    return f"the journal does not say {gone}"


def follows(where: str) -> bool:
    return bool(re.match(TELLING, where)) or not any(re.match(pattern, where) for pattern in NOTHING_FOLLOWS)


def checked(root: Path) -> tuple[int, str]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = check_run.main(root)
    return code, said.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("every", all_but(4, of=(4, 1)), ids="every {}".format)
def test_each_of_a_thousand_mutations_is_noticed(every: int, runs: list[Path], tmp_path: Path) -> None:
    """In the gate each fourth of them, of all kinds."""
    assert sum(SHARES.values()) == MUTATIONS
    missed = []
    kinds = [kind for kind, count in SHARES.items() for _ in range(count)]
    for number, kind in list(enumerate(kinds))[::every]:
        chance = random.Random(number)
        copied = tmp_path / str(number)
        shutil.copytree(chance.choice(runs), copied, copy_function=os.link)
        done = mutate(copied, kind, chance)
        if checked(copied)[0] == 0:
            missed.append(f"{number} {kind}: {done}")
        shutil.rmtree(copied)
    assert not missed, f"{len(missed)} missed:\n" + "\n".join(missed)
    assert all(checked(run)[0] == 0 for run in runs)  # nobody wrote through a link


def test_from_the_command_line(runs: list[Path], tmp_path: Path) -> None:
    def run(path: Path) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-I", str(CHECKER), str(path)], capture_output=True, text=True, timeout=300, cwd=tmp_path
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout

    assert run(runs[0]) == (0, "")
    moved = tmp_path / "moved"
    shutil.copytree(runs[0], moved)
    document = json.loads((moved / "report.json").read_text())
    changed = copy.deepcopy(document)
    changed["runs"][0]["outputs"]["y"]["sqnr_db"] += 0.01
    changed["runs"][1]["outputs"]["y"]["verdict"] = "FAIL"
    (moved / "report.json").write_text(json.dumps(changed))
    code, said = run(moved)
    assert code == 1
    lines = said.splitlines()
    assert len(lines) == 2
    assert "runs[0].outputs.y.sqnr_db" in said
    assert "runs[1].outputs.y.verdict: 'FAIL', should be 'PASS'" in said
    code, said = run(tmp_path / "nowhere")
    assert code == 2
    assert "cannot be read" in said


def test_it_knows_nothing_of_edgequant() -> None:
    found: set[str] = set()
    for path in CHECKER.parent.glob("check_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                found.add(node.module or ".")
            elif isinstance(node, ast.Import):
                found |= {each.name for each in node.names}
    own = {path.stem for path in CHECKER.parent.glob("check_*.py")}
    assert found - own - {"numpy"} <= sys.stdlib_module_names
    assert all(len(path.read_text().splitlines()) <= 300 for path in CHECKER.parent.glob("check_*.py"))
