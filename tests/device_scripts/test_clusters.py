"""Cores that are alike, from trees that were made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgequant.device_scripts import clusters
from tests.device_scripts.trees import Tree


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    monkeypatch.setenv("EDGEQUANT_SYSTEM_ROOT", str(tmp_path))
    return Tree(tmp_path, [])


def cores(tree: Tree, *sorts: tuple[int, dict[str, object]]) -> list[tuple[list[int], int | None]]:
    """So many of each sort, in order; the groups with their capacity, fastest first."""
    cpu = 0
    for count, files in sorts:
        for _ in range(count):
            for name, text in files.items():
                tree.write(f"sys/devices/system/cpu/cpu{cpu}/{name}", str(text))
            cpu += 1
    return [(each["cpus"], each["capacity"]) for each in clusters.read(range(cpu))]


def sort(mhz: int | None = None, capacity: int | None = None, part: str | None = None) -> dict[str, object]:
    files = {"cpufreq/cpuinfo_max_freq": mhz and mhz * 1000, "cpu_capacity": capacity,
             "regs/identification/midr_el1": part}  # fmt: skip
    return {name: value for name, value in files.items() if value is not None}


def test_a_phone_with_three_sorts(tree: Tree) -> None:
    found = cores(tree, (4, sort(1804, 325)), (3, sort(2419, 828)), (1, sort(2841, 1024)))
    assert found == [([7], 1024), ([4, 5, 6], 828), ([0, 1, 2, 3], 325)]


def test_by_frequency_where_the_kernel_tells_no_capacity(tree: Tree) -> None:
    found = cores(tree, (4, sort(1200)), (4, sort(2000)))
    assert [each for each, _ in found] == [[4, 5, 6, 7], [0, 1, 2, 3]]


def test_by_part_where_all_have_one_frequency(tree: Tree) -> None:
    found = cores(tree, (2, sort(1800, None, "0x410fd034")), (2, sort(1800, None, "0x410fd0b1")))
    assert sorted(each for each, _ in found) == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    "alike",
    [
        [(8, {})],
        [(8, sort(1800, 1024, "0x410fd034"))],
        [(2, sort(5300)), (6, sort(5100))],  # x86 lets its best cores run a little faster
        [(4, sort(None, 1024)), (4, {})],  # not told of all
    ],
    ids=["nothing told", "one sort", "favoured cores", "half told"],
)
def test_a_machine_whose_cores_are_alike_is_one(alike: list[tuple[int, dict[str, object]]], tree: Tree) -> None:
    found = cores(tree, *alike)
    assert [each for each, _ in found] == [list(range(8))]


def test_of_those_that_may_be_used_alone(tree: Tree) -> None:
    cores(tree, (4, sort(1200)), (4, sort(2000)))
    assert [each["cpus"] for each in clusters.read([2, 3, 5])] == [[5], [2, 3]]


def test_this_machine() -> None:
    found = clusters.read()
    assert found
    assert all(each["cpus"] for each in found)
