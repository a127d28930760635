"""What a device says of itself takes time and memory in proportion, and costs that device alone."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import pytest
from pydantic import TypeAdapter, ValidationError

from edgequant.devices import facts_cpu
from edgequant.devices.facts_parse import Section, android_properties, parsed
from edgequant.devices.local import LocalDevice
from edgequant.devices.protocol import CommandResult
from edgequant.errors import ToolError
from edgequant.mnn_version import require_supported
from edgequant.problems import first_problem
from edgequant.runner.start_errors import not_started

SIZE = 1 << 18
POLICIES = "".join(f"/sys/devices/system/cpu/cpufreq/policy{number}/related_cpus\t0-4095\n" for number in range(9000))

HOSTILE: dict[str, dict[str, bytes]] = {
    "open properties": {"getprop": b"[k]: [" * (SIZE // 6)},
    "lines of open properties": {"getprop": b"[k]: [\n" * (SIZE // 7)},
    "processors": {"cpuinfo": b"processor\n" + b"\n" * SIZE},
    "blanks behind a processor": {"cpuinfo": (b"processor" + b" " * 4000) * 60},
    "temperatures": {"dumpsys-thermal": b"Temperature{mValue=1, mType=" * (SIZE // 28)},
    "names of an os": {"os-release": b"PRETTY_NAME=" * (SIZE // 12)},
    "policies": {"values": POLICIES.encode()},
    "lists of cores": {"values": ("/sys/devices/system/cpu/present\t" + "0-4095," * 300).encode()},
    "memory": {"meminfo": b"MemTotal: " + b" " * SIZE},
}


def bounded(work: Callable[[], object], *, seconds: float = 5.0, megabytes: float = 100.0) -> object:
    start = time.process_time()
    tracemalloc.start()
    try:
        found = work()
        peak = tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()
    assert peak < megabytes
    assert time.process_time() - start < seconds
    return found


@pytest.mark.parametrize("name", HOSTILE)
def test_facts(name: str) -> None:
    sections = {key: Section(text, 0) for key, text in HOSTILE[name].items()}
    bounded(lambda: parsed(sections))


def test_properties_of_several_lines_are_still_read() -> None:
    text = "[a]: [1]\n[b]: [x\n[c]: [y\nz]\nnoise\n[d]: []\n[e]: [open"
    assert android_properties(text) == {"a": "1", "b": "x\n[c]: [y\nz", "d": ""}


def test_cores_of_two_clusters_are_still_told_apart() -> None:
    values = {
        f"{facts_cpu.CPU}present": "0-3",
        f"{facts_cpu.CPU}cpufreq/policy0/related_cpus": "0 1",
        f"{facts_cpu.CPU}cpufreq/policy2/related_cpus": "2 3",
    }
    assert [each.cores for each in facts_cpu.clusters({}, values)] == [[0, 1], [2, 3]]


def test_a_document_that_is_wrong_throughout_is_not_listed() -> None:
    def work() -> str:
        with pytest.raises(ValidationError) as found:
            TypeAdapter(list[bool]).validate_python(["x"] * 100_000)
        return first_problem(found.value)

    assert bounded(work) == "100000 things in it are wrong"


def test_a_python_that_is_too_old_and_says_no_more() -> None:
    error = not_started(LocalDevice(), CommandResult(1, b"", b""), ["PYTHON_TOO_OLD"], b"", "the runner")
    assert (error.code, error.where) == ("PYTHON_TOO_OLD", "local:")


def test_a_version_that_is_none_is_the_device_s() -> None:
    with pytest.raises(ToolError) as found:
        require_supported("banana", "ssh://board")
    assert (found.value.code, found.value.where) == ("MNN_VERSION_UNKNOWN", "ssh://board")
