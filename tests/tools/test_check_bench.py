"""The checker of a bench's folder agrees with edgequant, and notices what was changed in a report."""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgequant.judge.bench_run import judge_folder
from edgequant.report.bench import rounded, write
from edgequant.report.bench_build import build_bench
from tests.judge.benches import BenchMade, blocks, powersave, simple
from tools import check_bench


def judged(bench: Any) -> Path:
    write(rounded(build_bench(bench, judge_folder(bench))), bench.path / "bench.json")
    return Path(bench.path)


def checked(folder: Path) -> tuple[int, str]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = check_bench.main(folder)
    return code, said.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("benches")
    return judged(simple(where / "now", 10.8, seed=4, baseline=simple(where / "before")))


def test_it_agrees(folder: Path, tmp_path: Path) -> None:
    assert checked(folder) == (0, "")
    assert checked(judged(simple(tmp_path / "a", **powersave()))) == (0, "")
    few = {"float": list(blocks(10.0, 2)), "dynamic:8": list(blocks(5.0, 2, spread=0.3))}
    assert checked(judged(BenchMade(tmp_path / "b").device(few).close(ended=False))) == (0, "")


NUMBERS = (
    "devices.0.settings.0.ms.p50.value", "devices.0.settings.1.ms.p99.low", "devices.0.settings.0.ms.trimmed.high",
    "devices.0.settings.0.spread.stdev", "devices.0.settings.0.rss_peak_kb", "devices.0.compared.0.ratio",
    "devices.0.compared.0.low", "devices.0.baseline.settings.0.ratio", "devices.0.baseline.settings.1.high",
    "devices.0.settings.0.blocks.3.ms.p50", "files.0.mb",
)  # fmt: skip
WORDS = {
    "verdict": "INCONCLUSIVE", "devices.0.verdict": "FAIL", "devices.0.compared.0.says": "same", "interrupted": True,
    "devices.0.baseline.settings.0.says": "same", "devices.0.settings.0.blocks.2.used": False,
    "devices.0.settings.0.valid": False, "devices.0.settings.0.threads": 9,
}  # fmt: skip


def changed(document: Any, place: str, value: Any) -> None:
    *path, last = place.split(".")
    for key in path:
        document = document[int(key)] if isinstance(document, list) else document[key]
    document[last] = document[last] * (1 + 1e-6) if value is None else value


@pytest.mark.parametrize("place", [*NUMBERS, *WORDS])
def test_what_was_changed_is_noticed(place: str, folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(folder, copied)
    document = json.loads((copied / "bench.json").read_text())
    changed(document, place, WORDS.get(place))
    (copied / "bench.json").write_text(json.dumps(document))
    code, said = checked(copied)
    assert (code, bool(said)) == (1, True)


def test_a_sample_that_was_changed_is_noticed(folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(folder, copied)
    path = random.Random(0).choice(sorted((copied / "captures").rglob("*.json")))
    capture = json.loads(path.read_text())
    capture["timings"][0]["samples_ms"] = [1.01 * each for each in capture["timings"][0]["samples_ms"]]
    path.write_text(json.dumps(capture))
    assert checked(copied)[0] == 1
