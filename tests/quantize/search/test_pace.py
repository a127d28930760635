"""What a search says of how far it is: counted, by a clock of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgequant.progress import Progress, Show
from edgequant.quantize.search.auto import search
from edgequant.quantize.search.options import AutoOptions
from edgequant.quantize.search.pace import Pace, spoken
from edgequant.spec import Limit
from tests import generated
from tests.quantize.search.support import cases_of


class Heard(Progress):
    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.counts: list[tuple[int | None, list[int]]] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    @contextmanager
    def counting(self, label: str, total: int | None) -> Iterator[Show]:
        self.counts.append((total, []))
        yield self.counts[-1][1].append


def run(pace: Pace, heard: Heard, count: int, seconds: float, start: float = 0.0) -> None:
    """A batch: a process that takes its time to start, and models that take theirs."""
    with pace.measuring(count) as show:
        heard.now += start
        for done in range(1, count + 1):
            heard.now += seconds
            show(done)


def test_the_rest_is_reckoned_from_what_was_measured() -> None:
    heard = Heard()
    pace = Pace(heard, lambda: heard.now)
    pace.ahead([2, 100, 60], more=300, settings=4)
    pace.announce(14, 6, ("low", "normal"), 3, 9)
    assert heard.lines == [
        "auto: 14 layers, up to 6 forms each, memory low and normal, with and without hqq, on 9 cases (3 given, 6 "
        "varied copies of them): about 162 models to measure, then at most 300 for each of up to 4 settings"
    ]
    pace.begin("plain")
    run(pace, heard, 2, 0.5, start=5.0)
    assert heard.lines[1:] == ["plain"]  # two tell nothing yet
    pace.begin("sensitivity")
    run(pace, heard, 30, 0.5, start=5.0)
    # As soon as nine are there: 91 of this stage and 60 of the next, half a second each.  Starting takes no model's.
    assert heard.lines[3] == (
        "auto: 11 models measured, 16 s gone; 76 s to 11 min to go, by how many settings are worth refining"
    )
    pace.skip(70)  # known from before, or not needed
    run(pace, heard, 0, 0.0)
    pace.begin("the last but refining")
    run(pace, heard, 40, 1.0)
    assert heard.lines[-2:] == [
        "auto: 45 models measured, 39 s gone; 47 s to 21 min to go, by how many settings are worth refining",
        "auto: 65 models measured, 59 s gone; 27 s to 20 min to go, by how many settings are worth refining",
    ]
    pace.ahead([300])
    pace.begin("refining")
    run(pace, heard, 50, 2.0)
    assert heard.lines[-1] == "auto: 107 models measured, 2 min gone; at most about 9 min to go"


def test_no_log_is_flooded() -> None:
    heard = Heard()
    pace = Pace(heard, lambda: heard.now)
    pace.ahead([100_000])
    pace.begin("refining")
    run(pace, heard, 72_000, 0.1)  # two hours
    lines = [line for line in heard.lines if line.startswith("auto:")]
    assert 100 < len(lines) < 140
    # And where it is soon over there is one.
    heard.lines.clear()
    pace = Pace(heard, lambda: heard.now)
    pace.ahead([60])
    pace.begin("refining")
    run(pace, heard, 50, 0.1)
    assert len(heard.lines) == 2


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0, "1 s"), (1.4, "1 s"), (89.4, "89 s"), (90, "2 min"), (3000, "50 min"), (5400, "1.5 h"), (36_000, "10.0 h")],
)
def test_time_as_one_says_it(seconds: float, said: str) -> None:
    assert spoken(seconds) == said


def test_a_search_says_what_is_ahead_before_it_measures(tmp_path: Path) -> None:
    source = generated.conv_cnn(tmp_path / "cnn.onnx")
    heard = Heard()
    options = AutoOptions(memories=("normal",), rounds=1)
    found = search(
        source, cases_of(source), [Limit.parse("sqnr_db>=30")], tmp_path / "best.mnn", log_dir=tmp_path / "logs",
        cache=tmp_path / "cache", options=options, progress=heard,
    )  # fmt: skip
    (ahead,) = [line for line in heard.lines if "to measure" in line]
    assert heard.lines.index(ahead) < heard.lines.index("plain variants, memory normal")
    assert ahead.startswith("auto: ")
    assert "memory normal, with and without hqq, on" in ahead
    assert "for each of up to 2 settings" in ahead
    # Each batch is counted to its end, all of them together are the models that were run, the chosen one aside.
    assert all(total == counts[-1] for total, counts in heard.counts)
    assert sum(total or 0 for total, _ in heard.counts) == found.model_runs - 1
    # (What it foretells is tested above, by a clock that does not depend on how busy this machine is.)
    # Nothing is left to measure the second time, and nothing is foretold from nothing.
    again = Heard()
    search(
        source, cases_of(source), [Limit.parse("sqnr_db>=30")], tmp_path / "best.mnn", log_dir=tmp_path / "logs",
        cache=tmp_path / "cache", options=options, progress=again,
    )  # fmt: skip
    assert not [line for line in again.lines if " to go" in line]
