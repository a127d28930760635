"""Whole searches on small models, and on a real one."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from edgequant import zoo
from edgequant.errors import EdgequantError, InputError
from edgequant.progress import Progress
from edgequant.quantize.by_recipe import make_recipe
from edgequant.quantize.convert import convert
from edgequant.quantize.evaluation import Evaluation
from edgequant.quantize.recipe import Recipe
from edgequant.quantize.search.auto import search
from edgequant.quantize.search.front import AutoResult, pareto
from edgequant.quantize.search.options import AutoOptions
from edgequant.spec import Limit, MemoryMode, Variant
from tests import generated
from tests.nightly import all_but
from tests.quantize.search.support import bench_of, cases_of, float_model


def find(source: Path, folder: Path, *targets: str, **more: Any) -> AutoResult:
    limits = [Limit.parse(text) for text in targets or ("sqnr_db>=30",)]
    given = {"cases": cases_of(source), "log_dir": folder / "logs", "cache": folder / "cache", **more}
    return search(source, given.pop("cases"), limits, folder / "best.mnn", **given)


def fails(code: str, source: Path, folder: Path, *targets: str, **more: Any) -> EdgequantError:
    with pytest.raises(InputError) as caught:
        find(source, folder, *targets, **more)
    assert caught.value.code == code, caught.value.as_dict()
    assert not (folder / "best.mnn").exists()
    return caught.value


def check(found: AutoResult, source: Path, folder: Path) -> dict[str, float]:
    """Measure what was written again, apart from the search; its size and hash are what was said."""
    assert found.best is not None
    path = folder / "best.mnn"
    assert path.stat().st_size == found.best.size
    place = folder / "again"
    place.mkdir()
    bench = bench_of(source, place)
    signals = bench.reference(float_model(source, place))
    sqnr = signals.sqnr_db(bench.models([path], found.best.memory, signals)[0])
    assert {name: pytest.approx(db, abs=0.01) for name, db in sqnr.items()} == found.best.sqnr_db
    return sqnr


@pytest.fixture
def cnn(tmp_path: Path) -> Path:
    return generated.conv_cnn(tmp_path / "cnn.onnx")


@pytest.mark.nightly
def test_a_real_model_meets_30_db_and_is_smaller_than_8_bits(tmp_path: Path) -> None:
    source = zoo.fetch("enc")
    found = find(source, tmp_path, options=AutoOptions(rounds=1))
    assert all(db >= 30 for db in check(found, source, tmp_path).values())
    plain = convert(source, Variant.parse("dynamic:8"), tmp_path / "8.mnn", log_dir=tmp_path / "logs")
    assert found.best is not None
    assert found.best.size < plain.size
    assert found.converter_runs <= 4
    assert found.complete
    assert found.deviations > 0


@pytest.mark.parametrize("memory", all_but("low", of=["low", "normal"]))
def test_a_second_search_converts_and_runs_nothing(tmp_path: Path, memory: MemoryMode) -> None:
    source = generated.gru(tmp_path / "gru.onnx")
    options = AutoOptions(memories=(memory,), rounds=0)
    first = find(source, tmp_path, "sqnr_db>=35", options=options)
    check(first, source, tmp_path)
    written = (tmp_path / "best.mnn").read_bytes()
    (tmp_path / "best.mnn").unlink()
    second = find(source, tmp_path, "sqnr_db>=35", options=options)
    assert first.converter_runs > 0 < first.model_runs
    assert (second.converter_runs, second.model_runs) == (0, 0)
    assert (tmp_path / "best.mnn").read_bytes() == written
    assert second.best == first.best
    assert [point.size for point in second.front] == [point.size for point in first.front]
    # Other cases are another question.
    other = [{name: array * np.float32(0.5) for name, array in case.items()} for case in cases_of(source)]
    third = find(source, tmp_path, "sqnr_db>=35", options=options, cases=other)
    assert third.model_runs > 0


def test_a_cache_that_was_damaged_is_made_anew(cnn: Path, tmp_path: Path) -> None:
    options = AutoOptions(memories=("normal",), rounds=0)
    first = find(cnn, tmp_path, options=options)
    for path in (tmp_path / "cache").rglob("*.*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    second = find(cnn, tmp_path, options=options)
    assert first.best is not None
    assert second.best is not None
    assert second.best.sha256 == first.best.sha256
    assert second.converter_runs == first.converter_runs


def test_a_cache_that_takes_nothing_costs_time_alone(cnn: Path, tmp_path: Path) -> None:
    def spoil(text: str) -> bool:
        for folder in (tmp_path / "cache").glob("*"):
            if folder.is_dir():
                shutil.rmtree(folder)
                folder.write_bytes(b"")
        return False

    options = AutoOptions(memories=("normal",), rounds=0)
    found = find(cnn, tmp_path, options=options, progress=_Interrupting(spoil))
    check(found, cnn, tmp_path)
    assert any("could not be kept" in note for note in found.notes)


def test_a_source_that_changes_meanwhile_is_not_kept_for_another(cnn: Path, tmp_path: Path) -> None:
    first = cnn.read_bytes()
    other = generated.gru(tmp_path / "gru.onnx").read_bytes()

    def swap(text: str) -> bool:
        if text.startswith("converting to a float"):
            cnn.write_bytes(other)
        return False

    fails("MODEL_CHANGED", cnn, tmp_path, progress=_Interrupting(swap), cases=cases_of(cnn))
    cnn.write_bytes(first)
    found = find(cnn, tmp_path, options=AutoOptions(memories=("normal",), rounds=0))
    check(found, cnn, tmp_path)


ON_SMALL_DISK = """
import json, subprocess, sys
from pathlib import Path
from edgequant.errors import EdgequantError
from edgequant.quantize.search.auto import search
from edgequant.quantize.search.options import AutoOptions
from edgequant.spec import Limit
from tests.quantize.search.support import cases_of
source, disk, free = map(Path, sys.argv[1:4])
found = {}
for kilobytes in map(int, sys.argv[4:]):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", disk], check=True)
    try:
        options = AutoOptions(memories=("normal",), rounds=0)
        result = search(source, cases_of(source), [Limit.parse("sqnr_db>=30")], disk / "out.mnn", log_dir=free / "logs",
                        cache=free / "cache", options=options)
        found[kilobytes] = result.best.sha256
    except EdgequantError as error:
        found[kilobytes] = error.code
    assert [path.name for path in disk.iterdir()] == ["out.mnn"] * (found[kilobytes] != "DISK_FULL"), found
    subprocess.run(["umount", disk], check=True)
print(json.dumps(found))
"""


def test_a_full_disk_is_named(cnn: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    sizes = ["40", "700", "1400", "2500", "40000"]
    command = [sys.executable, "-c", ON_SMALL_DISK, cnn, tmp_path / "disk", tmp_path, *sizes]
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    done = subprocess.run([*unshare, *command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert [found[size] for size in sizes[:3]] == ["DISK_FULL"] * 3
    assert len(found["40000"]) == 64


def test_what_is_saved(cnn: Path, tmp_path: Path) -> None:
    found = find(cnn, tmp_path, options=AutoOptions(memories=("normal",), rounds=1))
    assert found.best is not None
    folder = tmp_path / "saved"
    folder.mkdir()
    found.write(folder)
    assert AutoResult.model_validate_json((folder / "auto.json").read_text()) == found
    assert json.loads((folder / "auto.json").read_text())["schema"] == "edgequant.auto/1"
    rows = list(csv.DictReader((folder / "front.csv").open()))
    assert [int(row["bytes"]) for row in rows] == [point.size for point in found.front]
    drawing = ET.fromstring((folder / "front.svg").read_text())
    assert len(drawing.findall(".//{*}circle")) == len(found.front)
    # The recipe that was saved makes the very file that was written.
    made = make_recipe(cnn, Recipe.read(folder / "recipe.json"), tmp_path / "by_recipe.mnn", log_dir=tmp_path / "logs")
    assert made.file.sha256 == found.best.sha256
    assert found.table().count("\n>") + found.table().startswith(">") == 1
    sizes, margins = ([getattr(point, key) for point in found.front] for key in ("size", "margin_db"))
    assert sizes == sorted(sizes)
    assert margins == sorted(margins)
    assert pareto(found.front) == found.front


def test_names_nobody_has_vetted_in_what_is_saved(tmp_path: Path) -> None:
    names = ["=cmd|' /C calc'!A0", "\x1b[31m\x07<b>&\r", "a" * 3000]
    nodes = [helper.make_node("MatMul", ["x", f"w{number}"], [name]) for number, name in enumerate(names)]
    weights = [generated._weight(f"w{number}", 32, 32) for number in range(len(names))]
    outputs = [generated._value(name, [2, 32]) for name in names]
    source = generated.save(tmp_path / "evil.onnx", nodes, [generated._value("x", [2, 32])], outputs, weights)
    found = find(source, tmp_path, "sqnr_db>=25", options=AutoOptions(memories=("normal",), rounds=1))
    folder = tmp_path / "saved"
    folder.mkdir()
    found.write(folder)
    rows = list(csv.reader((folder / "front.csv").open(newline="")))
    assert len(rows) == 1 + len(found.front)
    assert not any(cell.startswith("=") or "\x1b" in cell for row in rows for cell in row)
    assert ET.fromstring((folder / "front.svg").read_text()).findall(".//{*}title")
    made = make_recipe(
        source, Recipe.read(folder / "recipe.json"), tmp_path / "by_recipe.mnn", log_dir=tmp_path / "logs"
    )
    assert found.best is not None
    assert made.file.sha256 == found.best.sha256


def test_where_nothing_is_quantized_nothing_is_quantized_at_run_time(cnn: Path, tmp_path: Path) -> None:
    found = find(cnn, tmp_path, "sqnr_db>=70", options=AutoOptions(rounds=0))
    assert found.best is not None
    assert {rule.bits for rule in found.best.recipe.rules} == {16}
    assert found.best.memory == found.best.recipe.memory == "normal"


def test_a_target_as_low_as_one_likes(cnn: Path, tmp_path: Path) -> None:
    found = find(cnn, tmp_path, "sqnr_db>=-1e9", options=AutoOptions(memories=("normal",), rounds=0))
    assert found.best is not None
    assert found.best.meets


def test_outputs_without_a_target_are_told(tmp_path: Path) -> None:
    source = generated.argmax_ints(tmp_path / "ints.onnx")
    found = find(source, tmp_path, "sqnr_db>=20", options=AutoOptions(memories=("normal",), rounds=0))
    assert "on every output that has one" in found.why
    assert any("best" in note for note in found.notes)


@pytest.mark.nightly
def test_an_output_may_have_a_target_of_its_own(tmp_path: Path) -> None:
    source = generated.gru(tmp_path / "gru.onnx")
    options = AutoOptions(memories=("normal",), rounds=1)
    strict = find(source, tmp_path, "sqnr_db>=40", options=options)
    loose = find(source, tmp_path, "sqnr_db>=40", "y:sqnr_db>=15", "stateN:sqnr_db>=10", options=options)
    assert strict.best is not None
    assert loose.best is not None
    assert loose.target == {"y": 15.0, "stateN": 10.0}
    assert loose.best.size < strict.best.size


@pytest.mark.nightly
def test_a_target_nothing_can_meet_names_the_best(cnn: Path, tmp_path: Path) -> None:
    error = fails("TARGET_UNREACHABLE", cnn, tmp_path, "sqnr_db>=199", options=AutoOptions(rounds=0))
    assert "'y' needs 199 dB and has" in str(error)
    best = error.evidence["best"]["sqnr_db"]["y"]
    assert 30 < best < 199
    assert f"{best:.1f} dB" in str(error)


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("cosine>=0.99", "TARGET_UNSUPPORTED"),
        ("z:sqnr_db>=30", "TARGET_OUTPUT_UNKNOWN"),
    ],
)
def test_targets_that_make_no_sense(cnn: Path, tmp_path: Path, target: str, code: str) -> None:
    fails(code, cnn, tmp_path, target)


def test_no_cases_and_no_layers(cnn: Path, tmp_path: Path) -> None:
    fails("CASES_EMPTY", cnn, tmp_path, cases=[])
    plain = generated.many_outputs(tmp_path / "plain.onnx")
    fails("NOTHING_TO_CHOOSE", plain, tmp_path)


def test_the_evaluator_has_the_last_word(cnn: Path, tmp_path: Path) -> None:
    """A device that is worse than this host: the next model has to be better by what was missing."""
    bench = bench_of(cnn, tmp_path)
    signals = bench.reference(float_model(cnn, tmp_path))
    asked: list[float] = []

    def device(path: Path, memory: MemoryMode) -> Evaluation:
        here = signals.sqnr_db(bench.models([path], memory, signals)[0])
        asked.append(here["y"])
        return Evaluation({"y": here["y"] - 6.0})

    options = AutoOptions(memories=("normal",), rounds=0)
    found = find(cnn, tmp_path, options=options, evaluate=device, evaluator="worse")
    assert found.best is not None
    assert found.best.sqnr_db["y"] >= 30
    assert len(asked) >= 2
    assert asked[-1] >= 36
    # Nothing is told that the device did not say.
    assert found.best in found.front
    assert all(point.made for point in found.front)
    assert found.table().count("\n>") + found.table().startswith(">") == 1


@pytest.mark.nightly
def test_the_fastest(cnn: Path, tmp_path: Path) -> None:
    bench = bench_of(cnn, tmp_path)
    signals = bench.reference(float_model(cnn, tmp_path))

    asked: list[Path] = []

    def device(path: Path, memory: MemoryMode) -> Evaluation:
        asked.append(path)
        here = signals.sqnr_db(bench.models([path], memory, signals)[0])
        # A device on which larger files are faster, so that the choice shows which of the two was asked for.
        return Evaluation(here, latency_ms=1e6 / path.stat().st_size)

    options = AutoOptions(budget="latency", memories=("normal",), rounds=0)
    found = find(cnn, tmp_path, options=options, evaluate=device, evaluator="odd")
    made = [point for point in found.front if point.made]
    assert found.best is not None
    assert found.best.latency_ms == min(point.latency_ms for point in made if point.latency_ms is not None)
    assert found.best.size == max(point.size for point in made)
    assert f"of {len(asked)} models timed" in found.why
    with pytest.raises(EdgequantError) as caught:
        find(cnn, tmp_path, options=options)
    assert caught.value.code == "LATENCY_UNKNOWN"


def test_the_fastest_is_on_the_front_though_others_are_smaller_and_better(cnn: Path, tmp_path: Path) -> None:
    sizes: list[int] = []

    def device(path: Path, memory: MemoryMode) -> Evaluation:
        sizes.append(path.stat().st_size)
        return Evaluation({"y": 100.0 - sizes[-1] / 1e4}, latency_ms=1e6 / sizes[-1])

    options = AutoOptions(budget="latency", memories=("normal",), rounds=0)
    found = find(cnn, tmp_path, options=options, evaluate=device, evaluator="odd")
    assert found.best in found.front
    assert found.best is not None
    assert found.best.size == max(sizes) > min(sizes) == found.front[0].size


class _Interrupting(Progress):
    """Presses Ctrl-C when the search says a certain thing."""

    def __init__(self, when: Callable[[str], bool]) -> None:
        self._when = when

    def say(self, text: str) -> None:
        if self._when(text):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.nightly
def test_ctrl_c_leaves_the_best_so_far(cnn: Path, tmp_path: Path) -> None:
    found = find(cnn, tmp_path, progress=_Interrupting(lambda text: text.startswith("refining")))
    assert not found.complete
    assert "interrupted" in found.why
    assert all(db >= 30 for db in check(found, cnn, tmp_path).values())
    # What was measured is not measured again.
    again = find(cnn, tmp_path)
    assert again.complete
    assert again.best is not None
    assert found.best is not None
    assert again.best.size <= found.best.size


def test_ctrl_c_before_there_is_anything(cnn: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        find(cnn, tmp_path, progress=_Interrupting(lambda text: text.startswith("plain")))
    assert not (tmp_path / "best.mnn").exists()
    assert not list(tmp_path.glob(".edgequant-convert-*"))
