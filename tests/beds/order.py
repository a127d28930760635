"""In which order the tests are run and by whom, from how long each took when that was last recorded.

`tests/durations.json` lists those that take a while; `make durations` writes it anew.  A test that is not in it is
taken for a quick one: that costs balance, and nothing else.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

DURATIONS = Path(__file__).parents[1] / "durations.json"
SLOW = 0.3
"""Seconds from which a test is in the file, and `slow`: `make check` leaves it out."""
MACHINES = {"phone_session": "phone", "board_session": "board", "browse": "browser"}
"""Fixtures of which there is one for all workers -> the group that one worker gets whole."""


@cache
def recorded() -> dict[str, float]:
    """Test -> seconds, with its fixtures."""
    return json.loads(DURATIONS.read_text()) if DURATIONS.exists() else {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-durations", action="store_true", help=f"update {DURATIONS.name} from this run")


def pytest_itemcollected(item: pytest.Item) -> None:
    for fixture, group in MACHINES.items():
        if fixture in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group(group))
    if recorded().get(item.nodeid, 0) >= SLOW:
        item.add_marker(pytest.mark.slow)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Longest first where there are several workers, a group as the one piece it is: then all end at the same time."""
    if not hasattr(config, "workerinput"):
        return

    def unit(item: pytest.Item) -> str:
        mark = item.get_closest_marker("xdist_group")
        return mark.args[0] if mark else _plain(item.nodeid)

    seconds: Counter[str] = Counter()
    for item in items:
        seconds[unit(item)] += recorded().get(_plain(item.nodeid), 0)  # type: ignore[assignment]
    items.sort(key=lambda item: -seconds[unit(item)])


def _plain(nodeid: str) -> str:
    """Without the @group that xdist adds."""
    group = nodeid.rfind("@")
    return nodeid[:group] if group > nodeid.rfind("]") else nodeid


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[None]:
    yield
    if config.option.record_durations:
        seconds: Counter[str] = Counter()
        for report in (each for found in terminalreporter.stats.values() for each in found):
            if isinstance(report, pytest.TestReport):
                seconds[_plain(report.nodeid)] += report.duration  # type: ignore[assignment]
        kept = {name: took for name, took in recorded().items() if name not in seconds}
        kept |= {name: round(took, 1) for name, took in seconds.items() if took >= SLOW}
        DURATIONS.write_text(json.dumps(dict(sorted(kept.items())), indent=0) + "\n")
