"""auto and recipe: through the main job, on this host and with the clock of a device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgequant.errors import InputError
from edgequant.files import sha256_of
from edgequant.lab.session import DeviceOptions
from edgequant.spec import RunOptions
from tests.beds.models import ModelByName
from tests.beds.sshd import ALIAS, SshServer
from tests.jobs.support import Listener, check_numbers, codes, do, ssh_home

NORMAL = RunOptions(threads=1, memory="normal")
"""Half of the search: the other memory mode is searched in the same way."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.nightly
@pytest.mark.slow
def test_auto_meets_its_target_and_can_be_made_again(generated_model: ModelByName, tmp_path: Path) -> None:
    model, first = generated_model("big_mlp"), tmp_path / "first"
    heard = Listener()
    auto, plain = do(model, first, "auto", "dynamic:8", goals=("sqnr_db>=30",), progress=heard).runs
    check_numbers(first, auto)
    assert auto.verdict in ("PASS", "MARGINAL")
    assert all((output.sqnr_db or 0) >= 30 for output in auto.outputs.values())
    assert (auto.made_as or "").startswith("auto ")
    assert {"AUTO_CHOSEN", "CHOSEN_ON_CASES"} <= codes(auto)
    assert auto.memory_mb is not None
    assert plain.memory_mb is not None
    # Whatever dynamic:8 comes to on this CPU: its file, with memory normal, is computed in float and keeps the target.
    assert (auto.memory_mb.model_file or 1) <= 1.15 * (plain.memory_mb.model_file or 0)
    found = json.loads((first / "auto" / "auto.json").read_text())
    assert found["schema"] == "edgequant.auto/1"
    assert found["complete"] is True
    assert found["converter_runs"] > 0
    assert (first / "auto" / "front.svg").read_text().startswith("<svg")
    assert any(line.startswith(">") for line in heard.lines)  # the front is shown, the chosen one marked

    # Again: from the cache, without the converter.
    (again,) = do(model, tmp_path / "again", "auto", goals=("sqnr_db>=30",)).runs
    assert again.sha256 == auto.sha256
    assert json.loads((tmp_path / "again" / "auto" / "auto.json").read_text())["converter_runs"] == 0

    # And by its recipe, which is the same model.
    recipe = first / "auto" / "recipe.json"
    (made,) = do(model, tmp_path / "recipe", f"recipe:{recipe}").runs
    assert {name: output.sqnr_db for name, output in made.outputs.items()} == pytest.approx(
        {name: output.sqnr_db for name, output in auto.outputs.items()}
    )
    assert made.options["memory"] == auto.options["memory"]


PRESSED = """
import os, signal, sys
from edgequant.cli import console
from edgequant.cli.app import main
say, when = console.CliProgress.say, sys.argv[1]
def pressed(self, text):
    say(self, text)
    if text.startswith(when):
        os.kill(os.getpid(), signal.SIGINT)
console.CliProgress.say = pressed
sys.argv[:2] = ["edgequant"]
main()
"""
"""The command line, where the user presses ctrl-C as soon as it says something."""


def press(when: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PRESSED, when, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=280)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["quantize", "verify"])
def test_ctrl_c_ends_the_search_and_is_never_taken_for_success(
    command: str, generated_model: ModelByName, tmp_path: Path
) -> None:
    model, out, run_dir = generated_model("conv_cnn"), tmp_path / "out.mnn", tmp_path / "run"
    where = ["-o", out] if command == "quantize" else ["--device", "local:", "--no-latency", "--memory", "normal"]
    words = ["--variant", "auto", "--target", "sqnr_db>=30", "--run-dir", run_dir]
    done = press("refining", command, model, *where, *words)
    assert done.returncode == 130, done.stderr
    assert "edgequant: interrupted" in done.stderr
    assert "AUTO_INCOMPLETE" in done.stdout
    (run,) = json.loads((run_dir / "report.json").read_text())["runs"]
    assert run["verdict"] in ("PASS", "MARGINAL")
    if command == "quantize":
        assert f"{out}: " in done.stdout.replace("\n", "")
        assert sha256_of(out) == run["sha256"]


def test_ctrl_c_before_anything_meets_the_target(generated_model: ModelByName, tmp_path: Path) -> None:
    out = tmp_path / "out.mnn"
    done = press("plain variants", "quantize", generated_model("conv_cnn"), "-o", out, "--variant", "auto", "--target",
                 "sqnr_db>=30", "--run-dir", tmp_path / "run")  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert not out.exists()


def test_a_target_nothing_can_meet(generated_model: ModelByName, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        do(generated_model("conv_cnn"), tmp_path / "run", "auto", goals=("sqnr_db>=150",), options=NORMAL)
    assert caught.value.code == "TARGET_UNREACHABLE"
    assert "'y'" in str(caught.value)
    assert " dB" in str(caught.value)


@pytest.mark.slow
@pytest.mark.ssh
def test_the_fastest_by_the_clock_of_a_device(
    generated_model: ModelByName, sshd: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in ssh_home(sshd, tmp_path).items():
        monkeypatch.setenv(key, value)
    access = DeviceOptions(work_dir=str(tmp_path / "work"), python=sys.executable)
    (run,) = do(
        generated_model("conv_cnn"), tmp_path / "run", "auto", devices=(f"ssh://{ALIAS}",), access=access,
        goals=("sqnr_db>=25",), budget="latency", latency=True, options=NORMAL,
    ).runs  # fmt: skip
    assert run.error is None
    found = json.loads((tmp_path / "run" / "auto" / "auto.json").read_text())
    assert found["budget"] == "latency"
    assert found["best"]["latency_ms"] > 0
    timed = [point["latency_ms"] for point in found["front"] if point["latency_ms"] is not None]
    assert found["best"]["latency_ms"] <= min(timed)


@pytest.mark.arm64
def test_an_emulator_has_no_clock(
    generated_model: ModelByName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")  # where the pack is
    with pytest.raises(InputError) as caught:
        do(generated_model("conv_cnn"), tmp_path / "run", "auto", devices=("emulated:a76",), budget="latency")
    assert caught.value.code == "LATENCY_UNKNOWN"


def test_recipes_that_cannot_be_used(generated_model: ModelByName, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.json"
    nothing.write_text('{"schema": "edgequant.recipe/1", "rules": [{"name": "conv_99", "bits": 8}]}')
    broken = tmp_path / "broken.json"
    broken.write_text('{"schema": "edgequant.recipe/1", "rules": [{"name": "*", "bits": 9}]}')
    for file, code in ((nothing, "RECIPE_MATCHES_NOTHING"), (broken, "RECIPE_INVALID")):
        with pytest.raises(InputError) as caught:
            do(generated_model("conv_cnn"), tmp_path / f"run-{code}", f"recipe:{file}")
        assert caught.value.code == code
    with pytest.raises(InputError) as caught:
        do(generated_model("conv_cnn"), tmp_path / "run", f"recipe:{tmp_path / 'missing.json'}")
    assert "missing.json" in str(caught.value) or caught.value.where


def test_a_recipe_says_how_it_is_run(generated_model: ModelByName, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed.json"
    mixed.write_text(
        '{"schema": "edgequant.recipe/1", "memory": "normal", "rules": [{"name": "*", "bits": 4, "block": 32}]}'
    )
    (run,) = do(generated_model("big_mlp"), tmp_path / "run", f"recipe:{mixed}", limits=("sqnr_db>=5",)).runs
    assert run.options["memory"] == "normal"
    assert run.low_memory_engaged is None
    check_numbers(tmp_path / "run", run)


@pytest.mark.parametrize("rule", ['"bits": 16', '"bits": 0', '"bits": 8, "mode": "static"'])
def test_a_recipe_with_nothing_to_quantize_at_run_time_is_judged_all_the_same(
    generated_model: ModelByName, tmp_path: Path, rule: str
) -> None:
    file = tmp_path / "recipe.json"
    file.write_text(f'{{"schema": "edgequant.recipe/1", "rules": [{{"name": "*", {rule}}}]}}')
    (run,) = do(generated_model("conv_cnn"), tmp_path / "run", f"recipe:{file}", limits=("sqnr_db>=5",)).runs
    assert run.verdict in ("PASS", "MARGINAL", "FAIL")
    assert run.options["memory"] == "normal"
    assert "RECIPE_MEMORY_UNUSED" in codes(run)
    check_numbers(tmp_path / "run", run)


def test_a_recipe_that_cannot_be_read_leaves_no_folder(generated_model: ModelByName, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(InputError) as caught:
        do(generated_model("conv_cnn"), tmp_path / "run", f"recipe:{broken}")
    assert caught.value.code == "RECIPE_INVALID"
    assert not (tmp_path / "run").exists()


def test_blocks_that_no_layer_can_have_are_told(generated_model: ModelByName, tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    file.write_text('{"schema": "edgequant.recipe/1", "rules": [{"name": "*", "bits": 8, "block": 64}]}')
    (run,) = do(generated_model("conv_cnn"), tmp_path / "run", f"recipe:{file}", limits=("sqnr_db>=5",)).runs
    (found,) = [each for each in run.findings if each.code == "RECIPE_BLOCK_UNUSED"]
    assert "c1" in found.evidence["layers"]
    assert "c2" not in found.evidence["layers"] or found.evidence["layers"]["c2"] != 64


def test_what_the_report_says_of_a_search(generated_model: ModelByName, tmp_path: Path) -> None:
    heard = Listener()
    model = generated_model("conv_cnn")
    (run,) = do(model, tmp_path / "run", "auto", goals=("sqnr_db>=25",), options=NORMAL, progress=heard).runs
    # A memory mode that was asked for is the one searched in.
    assert run.options["memory"] == "normal"
    found = json.loads((tmp_path / "run" / "auto" / "auto.json").read_text())
    assert {point["memory"] for point in [found["best"], *found["front"]]} == {"normal"}
    assert run.outputs["y"].sqnr_db == pytest.approx(found["best"]["sqnr_db"]["y"], abs=0.01)
    # It has the seconds.
    (chosen,) = [each for each in run.findings if each.code == "AUTO_CHOSEN"]
    assert chosen.evidence["seconds"] == round(found["seconds"], 1) > 0
    timing = json.loads((tmp_path / "run" / "report.json").read_text())["timing_s"]
    assert found["seconds"] <= timing["search"]
    # What is ahead is told before anything is measured.
    (ahead,) = [place for place, line in enumerate(heard.lines) if "models to measure" in line]
    assert heard.lines.index("plain variants, memory normal") > ahead
