"""Which cores a setting is held to."""

from __future__ import annotations

import pytest

from edgequant.jobs.clusters import choose
from edgequant.runner.laboratory import Cluster

PHONE = [
    Cluster(cpus=[7], capacity=1024, mhz=2841),
    Cluster(cpus=[4, 5, 6], capacity=828, mhz=2419),
    Cluster(cpus=[0, 1, 2, 3], capacity=325, mhz=1804),
]


@pytest.mark.parametrize(
    ("threads", "cores"), [(1, (7,)), (2, (4, 5, 6)), (3, (4, 5, 6)), (4, (0, 1, 2, 3)), (5, None), (8, None)]
)
def test_the_fastest_with_enough_that_are_alike(threads: int, cores: tuple[int, ...] | None) -> None:
    found = choose(PHONE, threads)
    assert found.cores == cores
    assert found.mixed is (cores is None)
    assert "0-3 at 1804 MHz" in found.says


def test_it_is_told_that_fewer_threads_stay_on_faster_cores() -> None:
    assert "up to 1 stay on the fastest" in choose(PHONE, 4).says
    assert "up to" not in choose(PHONE, 1).says


def test_where_all_are_alike_nothing_changes() -> None:
    for threads in (1, 8, 64):
        found = choose([Cluster(cpus=list(range(8)))], threads)
        assert (found.cores, found.says, found.mixed) == (None, "", False)
