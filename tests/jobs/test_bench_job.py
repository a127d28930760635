"""`bench` on this host.  What it measures depends on what else runs here: only that it is told, and how, is tested."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgequant.archive.bench import open_bench
from edgequant.errors import EdgequantError, InputError
from edgequant.jobs.bench import BenchRequest, BenchResult, bench
from edgequant.jobs.bench_device import Measuring
from edgequant.jobs.rejudge_bench import judge_bench_again
from edgequant.judge.verdict import Verdict
from edgequant.plan.request import Request
from edgequant.spec import RunOptions, Variant
from tests.beds.models import ModelByName
from tools import check_bench

AsMnn = Callable[..., Path]
QUICK = {"blocks": 3, "runs": 3, "seconds": 0.0, "warm_seconds": 0.1, "redo": 0.0}


def measured(model: Path, run_dir: Path, *variants: str, **more: object) -> BenchResult:
    request = Request(
        model,
        variants=tuple(Variant.parse(each) for each in variants or ("dynamic:8",)),
        run_dir=run_dir,
        options=RunOptions(threads=1),
    )
    found = bench(BenchRequest(request, **{**QUICK, **more}))  # type: ignore[arg-type]
    assert check_bench.main(found.folder) == 0
    return found


def test_float_is_measured_beside_what_replaces_it(generated_model: ModelByName, tmp_path: Path) -> None:
    found = measured(generated_model("conv_cnn"), tmp_path / "run", threads=(1, 2))
    (device,) = found.report.devices
    names = [each.name for each in device.settings]
    assert names == ["float, 1 thread", "float, 2 threads", "dynamic:8, 1 thread", "dynamic:8, 2 threads"]
    assert device.rounds == 3
    bases = [(each.base, each.name) for each in device.compared]
    assert bases == [(names[0], names[1]), (names[0], names[2]), (names[1], names[3])]
    for each in device.settings:
        assert len(each.blocks) == 3
        assert each.ms["p50"].value > 0
        assert each.cpu_ms is not None
        assert each.valid or each.why_invalid
        assert each.memory is not None
        assert each.memory.session_mib
        assert set(each.memory.stages) == {"empty", "loaded", "first", "timed"}
        for stage in each.memory.stages.values():
            assert stage.rss
            assert stage.uss
            assert stage.pss
        assert each.memory.peak_mb
        assert each.memory.above_mb
        assert each.memory.peak_mb > each.memory.above_mb > 0
        for _, block in open_bench(found.folder).blocks("local:", each.id or ""):
            (timing,) = block.timings
            assert len(timing.samples_ms) == len(timing.cpu_ms) >= 3
            assert len(timing.conditions) >= 3
            assert timing.warmup >= 1
            # Each block is a process of its own: what it loaded first was measured as such.
            assert block.load_ms
    assert found.verdict in (Verdict.PASS, Verdict.INCONCLUSIVE)
    assert len(sorted((tmp_path / "run" / "captures").rglob("*.json"))) == 12
    again = judge_bench_again(found.folder)
    assert again.changes == ()
    assert again.report == found.report.model_copy(update={"created": again.report.created})


def test_against_a_baseline_the_same_is_the_same_or_not_said(generated_model: ModelByName, tmp_path: Path) -> None:
    """Three blocks on a busy host say little; that the two are the same files on the same device is known."""
    model = generated_model("conv_cnn")
    first = measured(model, tmp_path / "one", "float")
    second = measured(model, tmp_path / "two", "float", baseline=first.folder)
    (device,) = second.report.devices
    assert device.baseline is not None
    (found,) = device.baseline.settings
    if found.says == "not compared":
        assert "not valid" in (found.why or "")
    assert second.report.baseline is not None
    assert second.report.baseline.folder == "one"
    shutil.rmtree(first.folder)
    assert judge_bench_again(second.folder).changes == ()


def test_a_file_beside_a_file(generated_model: ModelByName, as_mnn: AsMnn, tmp_path: Path) -> None:
    first, second = (as_mnn(generated_model("conv_cnn"), "--weightQuantBits", bits) for bits in ("8", "4"))
    found = measured(first, tmp_path / "run", against=(second,))
    (device,) = found.report.devices
    assert [each.name for each in device.settings] == [first.name, str(second)]
    assert device.compared[0].base == first.name


def test_an_emulated_cpu_is_not_measured(generated_model: ModelByName, tmp_path: Path) -> None:
    request = Request(generated_model("conv_cnn"), devices=("emulated:cortex-a53",), run_dir=tmp_path / "run")
    with pytest.raises(InputError, match="says nothing about the CPU"):
        bench(BenchRequest(request, **QUICK))  # type: ignore[arg-type]


def test_what_it_does_not_make(generated_model: ModelByName, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bench makes float"):
        measured(generated_model("conv_cnn"), tmp_path / "run", "static:8")
    assert not (tmp_path / "run").exists()


def test_what_mnn_cannot_run_is_no_time(generated_model: ModelByName, as_mnn: AsMnn, tmp_path: Path) -> None:
    request = Request(
        generated_model("conv_cnn"), variants=(Variant.parse("float"),), run_dir=tmp_path / "run",
        options=RunOptions(threads=1, cores=(4000,)),
    )  # fmt: skip
    found = bench(BenchRequest(request, **QUICK))  # type: ignore[arg-type]
    assert found.verdict is Verdict.ERROR
    assert check_bench.main(found.folder) == 0
    assert found.report.devices[0].settings[0].why_invalid[0].code == "CORES_UNAVAILABLE"


def test_a_device_that_is_not_there_costs_itself(generated_model: ModelByName, tmp_path: Path) -> None:
    request = Request(
        generated_model("conv_cnn"), devices=("ssh://127.0.0.1:1", "local:"), variants=(Variant.parse("float"),),
        run_dir=tmp_path / "run", options=RunOptions(threads=1),
    )  # fmt: skip
    found = bench(BenchRequest(request, **QUICK))  # type: ignore[arg-type]
    assert check_bench.main(found.folder) == 0
    assert list(found.report.failed) == ["ssh://127.0.0.1:1"]
    assert found.verdict is Verdict.ERROR
    assert found.report.devices[0].settings[0].ms


def test_what_this_host_ended_is_not_at_its_end(
    generated_model: ModelByName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a full disk behind blocks that are good: they are fewer than were asked for."""
    measure = Measuring.measure

    def full(self: Measuring) -> None:
        measure(self)
        raise EdgequantError("RUN_DIR_FULL", "no space left")

    monkeypatch.setattr(Measuring, "measure", full)
    with pytest.raises(EdgequantError, match="no space left"):
        measured(generated_model("conv_cnn"), tmp_path / "run")
    assert not open_bench(tmp_path / "run").closing.ended
    assert judge_bench_again(tmp_path / "run").report.verdict is Verdict.INCONCLUSIVE
