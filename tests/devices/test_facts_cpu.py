"""Cores: their kinds and names, features, and lists as the kernel writes them."""

from __future__ import annotations

import pytest

from edgequant.devices import facts_cpu
from edgequant.devices.facts_parse import parsed
from tests.devices.facts_texts import (
    CPU,
    PIXEL_VALUES,
    arm_core,
    pixel,
    said,
    values,
)


def test_governors_that_differ_are_all_told() -> None:
    found = {**PIXEL_VALUES, f"{CPU}cpufreq/policy6/scaling_governor": "performance"}
    facts = parsed(pixel(values=values(found)))
    assert facts.governor == "sched_pixel (cores 0-5), performance (cores 6-7)"


def test_sleeping_cores_count() -> None:
    """/proc/cpuinfo leaves them out; what shares a frequency is of one kind."""
    awake = "".join(arm_core(n, 0xD05) for n in range(4)) + arm_core(6, 0xD44)
    facts = parsed(pixel(cpuinfo=awake))
    assert facts.cores == 8
    assert facts.clusters is not None
    assert [(each.cores, each.name) for each in facts.clusters] == [
        ([0, 1, 2, 3], "Cortex-A55"),
        ([4, 5], None),
        ([6, 7], "Cortex-X1"),
    ]
    midr = {**PIXEL_VALUES, f"{CPU}cpu4/regs/identification/midr_el1": "0x00000000414fd0b1"}
    facts = parsed(pixel(cpuinfo=awake, values=values(midr)))
    assert facts.cpu == "2x Cortex-X1 + 2x Cortex-A76 + 4x Cortex-A55"


def test_x86_has_a_policy_for_each_core_and_one_cluster() -> None:
    core = (
        "processor\t: {0}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 142\n"
        "model name\t: Intel(R) Core(TM) i7-8565U CPU @ 1.80GHz\nflags\t\t: fpu sse2 avx2 fma f16c\n\n"
    )
    found = {f"{CPU}present": "0-3", "/sys/class/dmi/id/product_name": "ThinkPad", "/sys/class/dmi/id/sys_vendor": "L"}
    for n in range(4):
        found |= {
            f"{CPU}cpufreq/policy{n}/related_cpus": str(n),
            f"{CPU}cpufreq/policy{n}/cpuinfo_max_freq": "4600000",
            f"{CPU}cpufreq/policy{n}/scaling_governor": "powersave",
        }
    text = "".join(core.format(n) for n in range(4))
    facts = parsed(said(uname="Linux pc 6.1.0 x86_64\n", cpuinfo=text, values=values(found)))
    assert facts.clusters is not None
    assert [each.cores for each in facts.clusters] == [[0, 1, 2, 3]]
    assert facts.cpu == "Intel(R) Core(TM) i7-8565U CPU @ 1.80GHz"
    assert facts.features == ["avx2", "fma", "f16c"]
    assert (facts.model, facts.manufacturer) == ("ThinkPad", "L")


def test_features_are_those_that_every_core_has() -> None:
    text = arm_core(0, 0xD05, "fp asimd") + arm_core(1, 0xD0B, "fp asimd asimddp")
    assert facts_cpu.cpuinfo(text).features == ["asimd"]
    assert facts_cpu.cpuinfo(arm_core(0, 0xD03, "fp")).features == []  # that none matters here is an answer


@pytest.mark.parametrize(
    ("implementer", "part", "name"),
    [
        ("0x41", "0xd03", "Cortex-A53"),
        ("0x41", "0xd0b", "Cortex-A76"),
        ("0x51", "0x804", "Kryo-4xx Gold"),
        ("0x46", "0x001", "A64FX"),
        ("0x41", "0xfff", "ARM part 0x41:0xfff"),
        ("0x99", "0xd03", "ARM part 0x99:0xd03"),
        ("", "0xd03", None),
        ("0x41", "many", None),
        ("0x41", "0x" + "f" * 1000, None),
    ],
)
def test_parts(implementer: str, part: str, name: str | None) -> None:
    assert facts_cpu.part_name(implementer, part) == name


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("0-3", [0, 1, 2, 3]),
        ("0 2 5", [0, 2, 5]),
        ("0-1,4", [0, 1, 4]),
        ("", []),
        ("x", []),
        ("9" * 40, []),
        ("3-1", []),
    ],
)
def test_core_lists(text: str, cores: list[int]) -> None:
    assert facts_cpu.core_list(text) == cores
    if len(cores) > 2:
        assert facts_cpu.core_list(facts_cpu.ranges(cores)) == cores


def test_a_core_list_is_bounded() -> None:
    assert len(facts_cpu.core_list("0-9999")) == 4096
