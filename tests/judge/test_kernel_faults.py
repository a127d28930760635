"""Which of MNN's faults may be held responsible for what, by version and machine."""

from __future__ import annotations

import numpy as np
import pytest

from edgequant.archive.types import DeviceCapture, FileFacts, HostFacts
from edgequant.compare.metrics import compare
from edgequant.compare.summary import OutputSummary, summarize
from edgequant.judge.kernel_faults import Faults, host_is_worse, i8mm_remark, known_faults, pool_remark
from edgequant.judge.limits import default_limits
from edgequant.judge.types import NOTHING, JudgedOutput
from edgequant.judge.verdict import Verdict, judge_output

ALL = FileFacts(static_tensors=4, half_tiles=("fc",), max_pools=("pool",), tails=("sum",))


def device(arch: str = "aarch64", mnn: str | None = "3.6.1", **kernels: bool) -> DeviceCapture:
    return DeviceCapture(uri="ssh://board", arch=arch, mnn=mnn, facts={"mnn_kernels": kernels})


@pytest.mark.parametrize(
    ("there", "host", "host_mnn", "i8mm", "tails", "pools"),
    [
        (device(i8mm=True), "x86_64", "3.6.1", True, True, True),
        (device(i8mm=True), "AMD64", "3.4.0", True, True, True),
        (device(i8mm=True), "aarch64", "3.6.1", True, True, False),
        (device(i8mm=False), "x86_64", "3.6.1", False, True, True),
        (device(i8mm=True, sme2=True), "x86_64", "3.6.1", False, True, True),
        (device("x86_64", i8mm=True), "x86_64", "3.6.1", False, False, True),
        # Of an MNN that nobody has looked at, nothing is claimed, and so nothing is excused.
        (device(mnn="3.7.0", i8mm=True), "x86_64", "3.7.0", False, False, False),
        (device(mnn=None, i8mm=True), "x86_64", "of a branch", False, False, False),
        (device(), "x86_64", "3.6.1", False, True, True),
    ],
)
def test_who_has_the_fault(
    there: DeviceCapture, host: str, host_mnn: str, i8mm: bool, tails: bool, pools: bool
) -> None:
    found = known_faults(ALL, there, HostFacts(arch=host, mnn=host_mnn))
    assert (found.i8mm, found.tails, found.pools) == (i8mm, tails, pools)


def summary(noise: float) -> OutputSummary:
    reference = np.linspace(-1, 1, 1000, dtype=np.float32)
    random = np.random.default_rng(1).standard_normal(1000).astype(np.float32)
    return summarize({"case": compare(reference, reference + noise * random)})


def judged(noise: float) -> JudgedOutput:
    found = summary(noise)
    return JudgedOutput(found, judge_output(found, default_limits("weight", "float")))


def test_only_a_device_that_is_nearer_in_every_output_is_excused() -> None:
    near, far = {"y": judged(0.01), "z": judged(0.01)}, {"y": judged(0.01), "z": judged(0.5)}
    host = {"y": summary(0.1), "z": summary(0.1)}
    assert host_is_worse(["y", "z"], near, host)
    assert not host_is_worse(["y", "z"], far, host)
    assert host_is_worse(["y"], far, host)
    assert not host_is_worse(["y"], near, {"y": summary(0.001)})
    # What was not measured excuses nobody.
    assert not host_is_worse(["y"], near, {})
    assert not host_is_worse(["y"], {}, host)
    lost = summarize({"case": compare(np.ones(3), None)})
    assert not host_is_worse(["y"], {"y": JudgedOutput(lost, judge_output(lost, ()))}, host)
    assert not host_is_worse([], near, host)


def test_what_a_device_cannot_show_is_said_of_those_alone() -> None:
    (finding,) = i8mm_remark(Faults(ALL, False, False, True), device(i8mm=False)).findings
    assert (finding.code, finding.severity, finding.where) == ("STATIC_I8MM_UNSEEN", "warn", "fc")
    assert i8mm_remark(Faults(ALL, True, True, True), device(i8mm=True)) == NOTHING
    assert i8mm_remark(Faults(FileFacts(static_tensors=4), False, False, False), device(i8mm=False)) == NOTHING
    assert i8mm_remark(Faults(ALL, False, False, False), device(mnn="3.7.0", i8mm=True)) == NOTHING
    assert i8mm_remark(Faults(ALL, False, False, True), device("x86_64", i8mm=False)) != NOTHING


def test_the_host_is_suspected_where_it_breaks_a_limit_itself() -> None:
    faults = Faults(ALL, False, False, True)
    (finding,) = pool_remark(faults, is_host=True, verdict=Verdict.FAIL).findings
    assert (finding.code, finding.where) == ("STATIC_POOL_ON_X86", "pool")
    assert pool_remark(faults, is_host=True, verdict=Verdict.PASS) == NOTHING
    assert pool_remark(faults, is_host=False, verdict=Verdict.FAIL) == NOTHING
    assert pool_remark(Faults(ALL, True, True, False), is_host=True, verdict=Verdict.FAIL) == NOTHING
