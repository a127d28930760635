"""What a device says that it is, held against what its shell saw of the runner: by the judge and by the checker."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from edgequant.archive.arrays import MemoryArrays
from edgequant.archive.types import Capture, TimingCapture
from edgequant.archive.witness import Library, Thread, Witness
from edgequant.judge.claims import claims
from edgequant.judge.latency import latency_of
from edgequant.judge.verdict import Verdict
from edgequant.spec import RunOptions
from tests.judge.archives import BOARD, HOST, Archive, capture, only, sha, told_by

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import check_claims

AARCH64, ARM, X86_64 = 183, 40, 62
SHA, OTHER = sha("library"), sha("another library")


def library(**more: Any) -> Library:
    return Library(**{"path": "/site/_mnncengine.so", "sha256": SHA, "machine": AARCH64, "has_version": True} | more)


def seen(**more: Any) -> Witness:
    known = {"machine": "aarch64", "cores": 4, "allowed": (0, 1, 2, 3), "libraries": (library(),)}
    return Witness(**known | more)


def board(**facts: Any) -> dict[str, Any]:
    kernels = {"i8sdot": True, "fp16": True, "i8mm": False}
    top = {key: facts.pop(key) for key in ("arch", "mnn", "cores", "features") if key in facts}
    known = {"mnn_kernels": kernels, "usable_cores": 4} | facts
    return {"arch": "aarch64", "cores": 4, "features": ("asimd", "asimdhp", "asimddp"), "facts": known} | top


def took(witness: Witness | None, device: dict[str, Any] | None = None, **more: Any) -> Capture:
    told = told_by(BOARD, **(board() if device is None else device))
    return capture(MemoryArrays(), **{"device": told, "threads": 2, "witness": witness} | more)


def found(taken: Capture, **options: Any) -> dict[str, str]:
    """Code -> severity; the independent checker has to say the same."""
    asked = RunOptions(**options)
    looks = claims(taken, asked)
    for look in looks:
        (finding,) = look.findings
        assert finding.remedy
        assert look.verdict is (Verdict.INCONCLUSIVE if finding.severity == "error" else Verdict.PASS)
    said = {finding.code: finding.severity for look in looks for finding in look.findings}
    checked = check_claims.claims(taken.model_dump(mode="json"), asked.model_dump(mode="json"))
    assert {each["code"]: each["severity"] for _, each in checked} == said
    assert [verdict for verdict, _ in checked] == [look.verdict.name for look in looks]
    return said


def error(code: str) -> dict[str, str]:
    return {code: "error"}


@pytest.mark.parametrize(
    ("device", "witness"),
    [
        ({}, {}),
        # A kernel of 64 bits with programs of 32, under either name.
        ({"arch": "armv8l"}, {"libraries": (library(machine=ARM),)}),
        ({}, {"libraries": (library(machine=ARM),)}),
        ({"arch": "arm64"}, {}),
        # What nobody could see contradicts nothing.
        ({"features": ()}, {"machine": None, "cores": None, "allowed": (), "libraries": ()}),
        ({}, {"libraries": (library(machine=None, has_version=None, sha256=None),)}),
        ({"cores": 3}, {}),  # one is asleep
        # MNN for Android takes these from a table of CPUs where an old kernel does not tell.
        ({"features": ("asimd",), "android": "9"}, {}),
        # One of several packages fits, and of what was built by hand nothing is listed.
        ({}, {"libraries": (library(recorded=(OTHER, SHA), packages=("2.0", "3.6.1")),)}),
        ({}, {"libraries": (library(has_version=False), library(path="/site/libMNN.so"))}),
        ({"mnn": "3.6.1+board"}, {"libraries": (library(recorded=(SHA,), packages=("3.6.1",)),)}),
        ({"mnn": None}, {"libraries": (library(has_version=False),)}),
        # An x86 machine and what MNN says of it there.
        ({"arch": "x86_64", "features": ("avx2",), "mnn_kernels": {"i8sdot": False, "i8mm": False}},
         {"machine": "x86_64", "libraries": (library(machine=X86_64),)}),
        ({"arch": "mips"}, {}),
    ],
)  # fmt: skip
def test_what_may_be(device: dict[str, Any], witness: dict[str, Any]) -> None:
    assert found(took(seen(**witness), board(**device))) == {}


@pytest.mark.parametrize(
    ("device", "witness", "code"),
    [
        ({"arch": "x86_64", "mnn_kernels": {}}, {}, "ARCH_CONTRADICTED"),
        ({}, {"machine": "x86_64"}, "ARCH_CONTRADICTED"),
        ({}, {"libraries": (library(machine=X86_64),)}, "ARCH_CONTRADICTED"),
        ({"features": ("asimd",)}, {}, "KERNELS_CONTRADICTED"),
        ({"features": ("asimd",), "android": "13", "mnn_kernels": {"i8mm": True}}, {}, "KERNELS_CONTRADICTED"),
        ({"arch": "x86_64", "features": ("asimdhp", "asimddp")},
         {"machine": "x86_64", "libraries": (library(machine=X86_64),)}, "KERNELS_CONTRADICTED"),
        ({"cores": 64}, {}, "CORES_CONTRADICTED"),
        ({"usable_cores": 5}, {}, "CORES_CONTRADICTED"),
        ({"mnn": "3.4.1"}, {"libraries": (library(has_version=False),)}, "MNN_VERSION_CONTRADICTED"),
        ({"mnn": "3.4.1"}, {"libraries": (library(recorded=(SHA,), packages=("3.6.1",)),)},
         "MNN_VERSION_CONTRADICTED"),
        ({}, {"libraries": (library(recorded=(OTHER,), sent=True),)}, "MNN_LIBRARY_OTHER"),
    ],
)  # fmt: skip
def test_what_cannot_be(device: dict[str, Any], witness: dict[str, Any], code: str) -> None:
    said = found(took(seen(**witness), board(**device)))
    if code == "ARCH_CONTRADICTED":
        said.pop("KERNELS_CONTRADICTED", None)  # of the CPU that one of them names
    assert said == error(code)


def test_a_library_of_ones_own_is_a_warning() -> None:
    built = library(recorded=(OTHER,), packages=("3.5.0",))
    assert found(took(seen(libraries=(built,)))) == {"MNN_LIBRARY_OTHER": "warn"}


@pytest.mark.parametrize(
    ("asked", "allowed", "ran", "wrong"),
    [
        ((0, 1), (0, 1), (0, 1), False),
        ((0, 1), (0, 1), (0, None), False),
        ((7,), (0, 1, 2, 3), (0, 1), True),
        ((0, 1), (0, 1, 2), (0, 1), True),
        ((0, 1), (0, 1), (0, 3), True),
        ((0, 1), (), (0, 3), False),
    ],
)
def test_cores_it_is_bound_to(asked: tuple[int, ...], allowed: tuple[int, ...], ran: Any, wrong: bool) -> None:
    threads = tuple(Thread(seconds=1.0, core=core) for core in ran)
    merely_woken = Thread(seconds=0.04, core=2)
    timed = TimingCapture(case="a", samples_ms=(1.0,), threads=(*threads, merely_woken))
    said = found(took(seen(allowed=allowed), timings=(timed,)), cores=asked)
    assert said == (error("CORES_CONTRADICTED") if wrong else {})


@pytest.mark.parametrize(
    ("seconds", "wrong"),
    [
        ((1.0, 0.9), False),
        ((1.0, 0.01, 0.0), False),
        ((1.0, 0.001), True),
        ((1.0,), True),
        ((0.09,), False),
        ((), False),
    ],
)
def test_threads_that_were_asked_for(seconds: tuple[float, ...], wrong: bool) -> None:
    threads = tuple(Thread(seconds=each) for each in seconds)
    expected = error("THREADS_NOT_RUN") if wrong else {}
    timed = TimingCapture(case="a", samples_ms=(1.0,) * 20, complete=True, threads=threads)
    taken = took(seen(), timings=(timed,))
    assert found(taken) == expected
    latency = latency_of(taken, RunOptions(warmup=0))
    assert latency is not None
    assert latency.valid is not wrong


def test_a_device_whose_shell_sees_nothing_is_told() -> None:
    assert found(took(Witness(why="its shell does not see the process"))) == {"CLAIMS_UNCHECKED": "warn"}
    assert found(took(None)) == {}, "an older run"


def test_it_costs_the_verdict(tmp_path: Path) -> None:
    for name, device, verdict in (("a", board(), Verdict.PASS), ("b", board(cores=64), Verdict.INCONCLUSIVE)):
        archive = Archive(tmp_path / name, "weight:8", devices=(BOARD,))
        archive.made("weight:8")
        archive.on_device(BOARD, "weight:8", device=told_by(BOARD, **device), witness=seen(), threads=2)
        assert only(archive).verdict is verdict
    archive = Archive(tmp_path / "host", "weight:8")
    archive.made("weight:8")
    archive.on_device(HOST, "weight:8")
    assert only(archive).verdict is Verdict.PASS
