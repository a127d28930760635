"""MNN's faulty int8 kernels, named by layer from tensors alone: the list of known faults is no part of a diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from edgequant.archive.open import open_run
from edgequant.cases.case import Case
from edgequant.jobs.diagnose_layers import Looking
from edgequant.judge.diagnosis import Diagnosis, diagnose
from edgequant.lab.session import DeviceOptions, open_session
from edgequant.spec import RunOptions
from tests.defects.layer_subjects import this_host
from tests.jobs.test_arm_static import (
    ANYTHING,
    I8MM,
    SDOT,
    filled_memory,
    half_tile,
    pooled,
    samples,
    static,
    tailed,
    taken_at_its_word,
)  # fmt: skip

__all__ = ["filled_memory", "half_tile", "pooled", "tailed"]
pytestmark = [pytest.mark.arm64, pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(900)]


def looked_into(run_dir: Path, uri: str, work: Path) -> Diagnosis:
    """What a file of a run does on an emulated CPU, whatever the verdict was."""
    run = open_run(run_dir)
    making = run.making(run.plan.variants[0])
    assert making is not None
    assert making.artifact is not None
    assert run.float_file is not None
    cases = [Case(each.name, run.inputs(each.name), each.source) for each in run.source.cases]
    with this_host() as host, open_session(uri, DeviceOptions(), RunOptions(threads=1), log=None) as device:
        capture = Looking(
            variant="static:8", uri=uri, plain=run.float_file, made=run.path / making.artifact.path, memory="normal",
            precision="normal", stage="device", cases=cases, expected=lambda name: {}, limits={}, host=host,
            work=work, device=device,
        ).capture()  # fmt: skip
    return diagnose(capture, tuple(run.source.kinds))


def named(found: Diagnosis) -> tuple[str, Sequence[str]]:
    assert found.cause is not None, found
    return found.cause.code, found.blame.layers[:1]


def test_the_i8mm_kernel_of_an_odd_number_of_channel_groups(half_tile: Path, tmp_path: Path) -> None:
    cases, run_dir = samples(tmp_path / "cases", 1, 8, 1, 5), tmp_path / "run"
    static(half_tile, cases, run_dir, taken_at_its_word(tmp_path), "local:", limits=ANYTHING)
    assert named(looked_into(run_dir, I8MM, tmp_path)) == ("KERNEL_DIFFERS", ("a",))


@pytest.mark.usefixtures("filled_memory")
def test_the_last_elements_of_int8_sums(tailed: Path, tmp_path: Path) -> None:
    cases, run_dir = samples(tmp_path / "cases", 1, 7, 8), tmp_path / "run"
    static(tailed, cases, run_dir, "kl", "local:", limits=ANYTHING)
    code, layers = named(looked_into(run_dir, SDOT, tmp_path))
    assert code in ("KERNEL_DIFFERS", "STALE_MEMORY")
    assert layers == ("p",)


def test_max_pools_of_an_x86_host_are_the_hosts_fault(pooled: Path, tmp_path: Path) -> None:
    cases, run_dir = samples(tmp_path / "cases", 1, 3, 16, 16), tmp_path / "run"
    static(pooled, cases, run_dir, "static:8,calib=mse,asym,skip=y", "local:")
    assert named(looked_into(run_dir, SDOT, tmp_path)) == ("HOST_KERNEL_DIFFERS", ("p",))
