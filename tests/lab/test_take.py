"""What becomes of the other cases where one is refused, or kills the runner: with the real runner on this host."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgequant.archive.arrays import MemoryArrays
from edgequant.archive.types import Capture, Role
from edgequant.cases.case import Case
from edgequant.errors import RunnerError
from edgequant.lab.probes.engaged import NormalProbe
from edgequant.lab.probes.repeat import RepeatProbe
from edgequant.lab.session import DeviceOptions, Session, open_session
from edgequant.lab.take import HOST_DEATHS, ModelFile, Place, Taking, each_case, take
from edgequant.spec import RunOptions
from tests.beds.models import ModelByName
from tests.waiting import ended

GOOD, REFUSED = (1, 3, 32, 32), (1, 5, 32, 32)
"""Sizes of conv_cnn's input: with five channels MNN refuses it."""


def case(name: str, shape: tuple[int, ...] = GOOD) -> Case:
    return Case(name, {"x": np.ones(shape, np.float32)}, "made here")


@pytest.fixture
def model(generated_model: ModelByName, as_mnn: Callable[..., Path]) -> ModelFile:
    return ModelFile(as_mnn(generated_model("conv_cnn")), "normal")


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    options = DeviceOptions(work_dir=str(tmp_path / "work"))
    with open_session("local:", options, RunOptions(threads=1), log=tmp_path / "runner.log") as found:
        yield found


class Deadly(list[Case]):
    """Cases; the runner is killed just before it is given one that is called `kill...`."""

    def __init__(self, session: Session, cases: list[Case]) -> None:
        super().__init__(cases)
        self.session = session

    def __iter__(self) -> Iterator[Case]:
        for each in super().__iter__():
            if each.name.startswith("kill"):
                assert self.session.known_runner is not None
                pid = self.session.known_runner.hello.pid
                os.kill(pid, signal.SIGKILL)
                assert ended(pid)
            yield each


def taken(session: Session, model: ModelFile, cases: list[Case], role: Role) -> Capture:
    return take(session, model, Deadly(session, cases), [RepeatProbe()], MemoryArrays(), trial="t", role=role)


def outcomes(found: Capture) -> dict[str, str | None]:
    """Case -> "" where it was run, else the code of what killed it or None where MNN refused it."""
    return {each.case: "" if each.outputs is not None else each.refused_code for each in found.cases}


def test_a_case_that_mnn_refuses_is_kept_and_the_next_is_run(session: Session, model: ModelFile) -> None:
    for role in ("device", "float-host"):
        found = taken(session, model, [case("a"), case("b", REFUSED), case("c")], role)  # type: ignore[arg-type]
        assert outcomes(found) == {"a": "", "b": None, "c": ""}
        refused = found.cases[1]
        assert refused.refused
        assert refused.outputs is None
        assert found.failure is None
        assert [each.case for each in found.repeated] == ["c"], "probes look at what was run"
        assert found.cases[0].outputs == found.cases[2].outputs


def test_where_every_case_is_refused_nothing_is_probed(session: Session, model: ModelFile) -> None:
    found = taken(session, model, [case("a", REFUSED), case("b", REFUSED)], "device")
    assert outcomes(found) == {"a": None, "b": None}
    assert (found.failure, found.repeated) == (None, ())


def test_a_case_that_kills_a_devices_runner_ends_the_trial(session: Session, model: ModelFile) -> None:
    found = taken(session, model, [case("a"), case("b", REFUSED), case("kill"), case("c")], "device")
    assert outcomes(found) == {"a": "", "b": None}
    assert found.failure is not None
    assert found.failure.code == "RUNNER_DIED"
    assert found.repeated == ()
    assert found.load_ms is not None
    assert found.device is not None
    assert found.device.mnn is not None
    # The next trial has a runner of its own.
    after = taken(session, model, [case("a")], "device")
    assert (outcomes(after), after.failure) == ({"a": ""}, None)


def test_on_this_host_a_new_runner_goes_on_so_many_times(session: Session, model: ModelFile) -> None:
    kills = [case(f"kill{number}") for number in range(HOST_DEATHS)]
    found = taken(session, model, [case("a"), *kills, case("b")], "float-host")
    assert outcomes(found) == {"a": "", **{each.name: "RUNNER_DIED" for each in kills}, "b": ""}
    assert found.failure is None
    assert [each.case for each in found.repeated] == ["b"]
    one_more = taken(session, model, [case("a"), *kills, case("b"), case("kill more"), case("c")], "variant-host")
    assert outcomes(one_more) == {"a": "", **{each.name: "RUNNER_DIED" for each in kills}, "b": ""}
    assert one_more.failure is not None
    assert one_more.failure.code == "RUNNER_DIED"


def test_who_asks_case_by_case_is_told_of_each(session: Session, model: ModelFile) -> None:
    place = Place.load(session, model)
    cases = Deadly(session, [case("a"), case("b", REFUSED), case("kill"), case("kill more")])
    answers = each_case(place, cases, deaths=1)
    told = [(each.name, getattr(answer, "code", None)) for each, answer in (next(answers) for _ in range(3))]
    assert told == [("a", None), ("b", "INFERENCE_FAILED"), ("kill", "RUNNER_DIED")]
    assert place.deaths == 0
    with pytest.raises(RunnerError) as caught:
        next(answers)
    assert (caught.value.code, place.deaths) == ("RUNNER_DIED", 1)


def test_memory_normal_is_run_in_each_case_and_survives_what_it_refuses(session: Session, model: ModelFile) -> None:
    """A death costs that case on this host, and the trial on a device."""
    low = replace(model, memory="low")
    for on_device, asked in ((False, ["a", "b", "kill", "c"]), (True, ["a", "b", "c"])):
        taking = Taking(Place.load(session, low), MemoryArrays(), on_device)
        shapes = {"b": REFUSED}
        taking.done = Deadly(session, [case(name, shapes.get(name, GOOD)) for name in asked])
        NormalProbe().take(taking)
        found = {each.case: each.outputs is not None for each in taking.normal}
        assert found == {name: name in "ac" for name in asked}
        assert next(each.refused_code for each in taking.normal if each.case == "b") is None
        taking.place.unload()  # there may be nothing left to unload
    taking = Taking(Place.load(session, low), MemoryArrays(), on_device=True)
    taking.done = Deadly(session, [case("kill")])
    with pytest.raises(RunnerError) as death:
        NormalProbe().take(taking)
    assert death.value.code == "RUNNER_DIED"
    taking = Taking(Place.load(session, model), MemoryArrays())
    taking.done = [case("a")]
    NormalProbe().take(taking)
    assert taking.normal == [], "a trial with memory normal has it already"
