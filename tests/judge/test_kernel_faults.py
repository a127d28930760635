"""Which of MNN's faults may be held responsible for what, by version and machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgequant.archive.types import DeviceCapture, FileFacts, HostFacts
from edgequant.compare.metrics import compare
from edgequant.compare.summary import OutputSummary, summarize
from edgequant.findings import Finding
from edgequant.judge.kernel_faults import (
    AVOID,
    Faults,
    explained,
    host_is_worse,
    i8mm_remark,
    known_faults,
    pool_finding,
    pool_remark,
    resize_remark,
    some,
)
from edgequant.judge.limits import default_limits
from edgequant.judge.types import NOTHING, JudgedOutput, Observed
from edgequant.judge.verdict import Verdict, judge_output
from tests.judge.archives import BOARD, HOST, Archive

ALL = FileFacts(static_tensors=4, half_tiles=("fc",), max_pools=("pool",), tails=("sum",), resizes=("up",))
_NAMES = tuple(f"l{number}" for number in range(1002))
MANY = FileFacts(static_tensors=4, half_tiles=_NAMES, max_pools=_NAMES, tails=_NAMES)


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
    assert found.resizes == tails, "any ARM64"


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
    assert i8mm_remark(Faults(ALL, False, False, True), device(i8mm=False)) == Observed(
        (
            Finding(
                code="STATIC_I8MM_UNSEEN",
                severity="warn",
                where="fc",
                message="1 int8 layer(s) of this file come out wrong on ARM CPUs with i8mm (ARMv8.6, v9), where they "
                "have an odd number of output positions; this device runs other kernels and cannot show it",
                evidence={"layers": ["fc"]},
                remedy=f"Run it on emulated:max as well.  {AVOID}",
            ),
        )
    )
    (finding,) = i8mm_remark(Faults(MANY, False, False, True), device(i8mm=False)).findings
    assert len(finding.evidence["layers"]) == 1000
    assert i8mm_remark(Faults(ALL, True, True, True), device(i8mm=True)) == NOTHING
    assert i8mm_remark(Faults(FileFacts(static_tensors=4), False, False, False), device(i8mm=False)) == NOTHING
    assert i8mm_remark(Faults(ALL, False, False, False), device(mnn="3.7.0", i8mm=True)) == NOTHING
    assert i8mm_remark(Faults(ALL, False, False, True), device("x86_64", i8mm=False)) != NOTHING


def test_what_another_cpu_than_arm_cannot_show_is_said_of_resizes() -> None:
    (finding,) = resize_remark(Faults(ALL, False, False, True), device("x86_64")).findings
    assert (finding.code, finding.severity, finding.where) == ("STATIC_RESIZE_UNSEEN", "warn", "up")
    assert resize_remark(Faults(ALL, False, False, True, resizes=True), device()) == NOTHING
    assert resize_remark(Faults(FileFacts(static_tensors=4), False, False, False), device("x86_64")) == NOTHING
    assert resize_remark(Faults(ALL, False, False, False), device("x86_64", mnn="3.7.0")) == NOTHING


def test_the_host_is_suspected_where_it_breaks_a_limit_itself() -> None:
    faults = Faults(ALL, False, False, True)
    assert pool_remark(faults, is_host=True, verdict=Verdict.FAIL) == Observed(
        (
            Finding(
                code="STATIC_POOL_ON_X86",
                severity="warn",
                where="pool",
                message="1 max pool(s) of this file may run in int8, which MNN computes wrong on x86: an ARM device "
                "may do better than this host",
                evidence={"max_pools": ["pool"]},
                remedy="Run it on emulated:cortex-a76, or on the device itself.",
            ),
        )
    )
    (finding,) = pool_remark(Faults(MANY, False, False, True), is_host=True, verdict=Verdict.FAIL).findings
    assert len(finding.evidence["max_pools"]) == 1000
    assert pool_remark(faults, is_host=True, verdict=Verdict.PASS) == NOTHING
    assert pool_remark(faults, is_host=False, verdict=Verdict.FAIL) == NOTHING
    assert pool_remark(Faults(ALL, True, True, False), is_host=True, verdict=Verdict.FAIL) == NOTHING


def test_a_host_that_cannot_judge_is_told_of_with_the_numbers() -> None:
    faults = Faults(ALL, True, False, True)
    assert pool_finding(faults, {"y": 12.3456, "z": 9.8765, "x": 11.0}) == Finding(
        code="HOST_MISCOMPUTES",
        severity="error",
        where="z",
        message="this host, not the device, is off: only 9.877 dB SQNR between them in z, worst case, and the device "
        "is nearer to the reference; MNN's int8 max pool on x86 takes negative numbers for the larger ones (pool); "
        "MNN's int8 kernel for i8mm is known to get these layers wrong where they have an odd number of output "
        "positions: fc",
        evidence={"device_sqnr_db": {"y": 12.3456, "z": 9.8765, "x": 11.0}, "max_pools": ["pool"]},
        remedy="What this host says of this file (the quantization error, too) is worthless.  Judge the file by its "
        "device's error against the reference, and accept the difference with --limit 'device_sqnr_db>=-100'; or take "
        "dynamic:8, which pools in float.",
    )
    assert len(pool_finding(Faults(MANY, True, False, True), {"y": 1.0}).evidence["max_pools"]) == 1000


def test_what_is_known_of_a_device_explains_it() -> None:
    i8mm = (
        "; MNN's int8 kernel for i8mm is known to get these layers wrong where they have an odd number of output "
        "positions: fc"
    )
    tails = (
        "; MNN's int8 arithmetic on ARM is known to leave the end of these unwritten where their size is no multiple "
        "of four: sum"
    )
    assert explained(Faults(ALL, True, False, True)) == i8mm
    assert explained(Faults(ALL, False, True, True)) == tails
    assert explained(Faults(ALL, True, True, False)) == i8mm + tails
    assert explained(Faults(ALL, False, False, True)) == ""
    assert some([str(number) for number in range(8)]) == "0, 1, 2, 3, 4, 5, 6, 7"
    assert some([str(number) for number in range(10)]) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"
    assert AVOID == (
        "It is a fault of MNN, not of the model: keep these layers float (skip=NAME), or take dynamic:8, whose kernels "
        "are right."
    )


def test_a_device_that_told_nothing_has_no_known_fault() -> None:
    silent = DeviceCapture(uri="ssh://board", arch="aarch64", mnn="3.6.1")
    assert not known_faults(ALL, silent, HostFacts(arch="x86_64", mnn="3.6.1")).i8mm
    assert not known_faults(FileFacts(), device(i8mm=True), HostFacts(arch="x86_64", mnn="3.6.1")).of_the_device
    assert not known_faults(FileFacts(), device(i8mm=True), HostFacts(arch="x86_64", mnn="3.6.1")).pools


LESS = FileFacts(less=("below",))
TELLS = np.sign(np.sin(np.arange(64, dtype=np.float32)))
TURNED = {"a": {"y": -TELLS}, "b": {"y": TELLS}}
RIGHT = {"a": {"y": TELLS}, "b": {"y": TELLS}}


CODES = ("CONVERSION_ERROR", "HOST_MISCOMPUTES", "LIMIT_EXCEEDED", "LESS_ON_X86", "DEVICE_BEYOND_ROUNDING")


def less_than(path: Path, uri: str, there: dict, arch: str = "x86_64") -> Archive:
    """A file with a < b, which this host gets wrong, and a device that gives `there`."""
    archive = Archive(
        path, "weight:8", devices=(uri,), reference=RIGHT, float_host=TURNED, host=HostFacts(arch=arch, mnn="3.6.1")
    )
    archive.made("weight:8", facts=LESS)
    archive.on_host("weight:8", TURNED)
    archive.on_device(uri, "weight:8", there)
    return archive


def said(archive: Archive) -> tuple[Verdict, dict[str, str]]:
    """The verdict, and what is said of it, but for the forms that the error has."""
    found = archive.judged()
    findings = [*found.findings, *(each for trial in found.trials for each in trial.findings)]
    return found.verdict, {each.code: each.severity for each in findings if each.code in CODES}


def test_a_comparison_that_this_host_gets_wrong_is_no_conversion_error(tmp_path: Path) -> None:
    verdict, codes = said(less_than(tmp_path / "board", BOARD, RIGHT))
    assert verdict is Verdict.INCONCLUSIVE
    assert codes == {"CONVERSION_ERROR": "warn", "HOST_MISCOMPUTES": "error"}
    (trial,) = less_than(tmp_path / "words", BOARD, RIGHT).judged().trials
    (host,) = [each for each in trial.findings if each.code == "HOST_MISCOMPUTES"]
    assert "MNN's `<` of floats on x86" in host.message
    assert host.evidence["less"] == ["below"]
    # On this host it is wrong indeed, and named.
    verdict, codes = said(less_than(tmp_path / "here", HOST, TURNED))
    assert verdict is Verdict.FAIL
    assert codes == {"CONVERSION_ERROR": "warn", "LIMIT_EXCEEDED": "fail", "LESS_ON_X86": "warn"}
    # A device that is as wrong, and a host of which nothing is known.
    verdict, codes = said(less_than(tmp_path / "wrong", BOARD, TURNED))
    assert verdict is Verdict.FAIL
    verdict, codes = said(less_than(tmp_path / "arm", BOARD, RIGHT, arch="aarch64"))
    assert verdict is Verdict.FAIL
    assert codes["CONVERSION_ERROR"] == "fail"
