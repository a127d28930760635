"""The same model a second time: nothing is converted, and the report says the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgequant.jobs.host_check import HostCheck
from edgequant.quantize import convert, offline
from edgequant.quantize.calibrate import child
from edgequant.report.model import Report
from tests.beds.models import ModelByName
from tests.cli.command import edgequant
from tests.jobs.support import do


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An empty cache; the logs of MNN's tools, and of models run to make others, as they are started."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("EDGEQUANT_NO_CACHE", raising=False)
    found: list[str] = []
    real = convert.run_child

    def counting(*args: Any, **more: Any) -> Any:
        found.append(more["log"].name)
        return real(*args, **more)

    for module in (convert, offline, child):
        monkeypatch.setattr(module, "run_child", counting)
    return found


def samples(folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(5)
    for number in range(4):
        np.savez(folder / f"{number}.npz", x=random.standard_normal((1, 3, 32, 32)).astype(np.float32))
    return str(folder)


def told(report: Report) -> list[dict[str, Any]]:
    """What is the same whenever it is measured."""
    kept = {"variant", "made_as", "steps", "calibration", "sha256", "file", "findings", "outputs", "verdict", "error"}
    return [run.model_dump(mode="json", include=kept) for run in report.runs]


def test_a_second_verify_converts_nothing(generated_model: ModelByName, tmp_path: Path, tools: list[str]) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"schema": "edgequant.recipe/1", "rules": [{"name": "*", "bits": 8, "mode": "static"}]}')
    variants = ("float", "dynamic:8", "weight:4,block=32", "fp16", "kl", "static:8,calib=minmax", f"recipe:{recipe}")
    more = {"calibration": samples(tmp_path / "samples"), "limits": ("sqnr_db>=5",)}
    first = do(generated_model("conv_cnn"), tmp_path / "one", *variants, **more)  # type: ignore[arg-type]
    assert len(tools) > len(variants)
    tools.clear()
    second = do(generated_model("conv_cnn"), tmp_path / "two", *variants, **more)  # type: ignore[arg-type]
    assert tools == [], [(each.code, each.message) for each in first.findings]
    assert told(second) == told(first)
    logs = [{path.name for path in (tmp_path / run / "logs").glob("*.log")} for run in ("one", "two")]
    for run in second.runs:
        assert (tmp_path / "two" / "models" / str(run.file)).is_file()
    assert {name for name in logs[1] if name.startswith(("convert-", "offline-"))} <= logs[0]
    # And without the cache it is made anew, to the same bytes.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEQUANT_NO_CACHE", "1")
        third = do(generated_model("conv_cnn"), tmp_path / "three", "dynamic:8")
    assert tools
    assert third.runs[0].sha256 == first.runs[1].sha256


def test_a_way_that_failed_is_told_again(generated_model: ModelByName, tmp_path: Path, tools: list[str]) -> None:
    """MNN's kl crashes on the loop that a GRU becomes: the steps are those of the first time."""
    first = do(generated_model("gru"), tmp_path / "one", "kl")
    tools.clear()
    second = do(generated_model("gru"), tmp_path / "two", "kl")
    assert tools == []
    assert told(second) == told(first)
    assert len(second.runs[0].steps) > 1
    # What was fallen back to is no answer to somebody who wants nothing else tried.
    (alone,) = do(generated_model("gru"), tmp_path / "alone", "kl", fallback=False).runs
    assert tools
    assert alone.error is not None
    assert alone.error.code == "QUANTIZER_CRASHED"


def test_other_samples_make_another_file(generated_model: ModelByName, tmp_path: Path, tools: list[str]) -> None:
    folder = Path(samples(tmp_path / "samples"))
    variant = "static:8,calib=minmax"
    (one,) = do(generated_model("conv_cnn"), tmp_path / "one", variant, calibration=str(folder)).runs
    np.savez(folder / "0.npz", x=np.full((1, 3, 32, 32), 9, np.float32))
    tools.clear()
    (two,) = do(generated_model("conv_cnn"), tmp_path / "two", variant, calibration=str(folder)).runs
    assert tools
    assert one.sha256 != two.sha256


def test_what_a_function_yields_is_asked_for_again(
    generated_model: ModelByName, tmp_path: Path, tools: list[str]
) -> None:
    function = tmp_path / "data.py"
    function.write_text(
        "import numpy as np\n\n\ndef make():\n    for n in range(2):\n"
        "        yield {'x': np.random.default_rng(n).standard_normal((1, 3, 32, 32)).astype(np.float32)}\n"
    )
    for run in ("one", "two"):
        tools.clear()
        do(generated_model("conv_cnn"), tmp_path / run, "static:8,calib=minmax", calibration=f"{function}:make")
        assert any(name.startswith("convert-static") for name in tools)


def test_what_the_check_on_this_host_depends_on() -> None:
    from edgequant.cases.case import Case

    cases = [Case(name, {"x": np.ones(3, np.float32)}, "test") for name in "abcd"]
    outputs = {name: {"y": np.full(2, float(number))} for number, name in enumerate("abcd")}

    def key(*, arm: bool = False, fallback: bool = True, **changed: np.ndarray) -> str:
        known = {**outputs, **{name: {"y": array} for name, array in changed.items()}}
        return HostCheck(None, cases, known.__getitem__, arm, fallback).key()  # type: ignore[arg-type]

    assert key() == key()
    assert len({key(), key(arm=True), key(fallback=False), key(a=np.zeros(3))}) == 4
    assert key(d=np.zeros(3)) == key()  # only the first three are looked at


def test_list_and_clean(generated_model: ModelByName, tmp_path: Path, tools: list[str]) -> None:
    del tools
    empty = edgequant("cache", "list", "--json")
    assert (empty.json["schema"], empty.json["entries"], empty.json["bytes"]) == ("edgequant.cache-list/1", [], 0)
    assert "No model is kept." in edgequant("cache", "list").out
    do(generated_model("conv_cnn"), tmp_path / "run", "dynamic:8")
    listed = edgequant("cache", "list", "--json").json
    assert {entry["variant"] for entry in listed["entries"]} == {"float", "dynamic:8"}
    assert listed["bytes"] == sum(entry["bytes"] for entry in listed["entries"]) > 0
    assert listed["limit_bytes"] == 2048 * 10**6
    shown = edgequant("cache", "list").out
    assert "dynamic:8" in shown
    assert str(Path(listed["cache"]).parent) in shown.replace("\n", "")
    cleaned = edgequant("cache", "clean", "--json")
    assert cleaned.code == 0
    assert cleaned.json["freed_bytes"] == listed["bytes"]
    assert edgequant("cache", "list", "--json").json["entries"] == []
    assert edgequant("cache", "clean").out.startswith("removed 0.0 MB")
