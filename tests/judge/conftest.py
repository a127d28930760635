"""All that the judge says in these tests is held against what is kept of it: tests/golden.py."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests import golden

WRITTEN: dict[Path, dict[str, Any]] = {}


def pytest_sessionfinish() -> None:
    for path, told in WRITTEN.items():
        golden.save(path, told)


@cache
def _kept(path: Path) -> dict[str, Any]:
    return golden.read(path)


@cache
def _functions(module: ModuleType) -> list[str]:
    return golden.functions_of(module, "edgequant.judge")


@cache
def _chance(module: ModuleType) -> dict[str, Mapping[str, Any]]:
    """The generators of random numbers in a module, and their state when it was loaded."""
    found = {name: each for name, each in vars(module).items() if isinstance(each, np.random.Generator)}
    return {name: each.bit_generator.state for name, each in found.items()}


@pytest.fixture(autouse=True)
def same_numbers(request: pytest.FixtureRequest) -> None:
    """Whatever ran before this test."""
    for name, state in _chance(request.module).items():
        getattr(request.module, name).bit_generator.state = state


@pytest.fixture(autouse=True)
def golden_judgements(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever this test, or what helps it, has asked of the judge."""
    values = getattr(getattr(request.node, "callspec", None), "indices", {})
    # hypothesis: other calls each time.
    if hasattr(request.function, "hypothesis") or max(values.values(), default=0) >= golden.MOST_VALUES:
        yield
        return
    told: list[Any] = []
    helpers = [module for name, module in sys.modules.items() if name.startswith("tests.judge.")]
    for module in (request.module, *helpers):
        for name in _functions(module):
            monkeypatch.setattr(module, name, golden.recording(getattr(module, name), told))
    private = str(request.getfixturevalue("tmp_path")) if "tmp_path" in request.fixturenames else ""
    yield
    now = golden.told_by(told, private)
    path = golden.kept_in(request.path)
    found = list(golden.differences(_kept(path).get(request.node.name, []), now))
    match os.environ.get(golden.WRITES):
        case "all":
            WRITTEN.setdefault(path, {})[request.node.name] = now
        case "what is the same again":
            WRITTEN.setdefault(path, dict(_kept(path)))
            if request.node.name in _kept(path):
                WRITTEN[path][request.node.name] = golden.agreeing(_kept(path)[request.node.name], now)
        case told_where if found and (request.node.name in _kept(path) or not now):
            # Which of two equal cases is the worse one, the last bit of a sum decides, and that the CPU.
            if told_where == "plain" or not golden.same_without_this_cpu(request.node.nodeid, request.config.rootpath):
                pytest.fail("\n".join([*found[:20], f"{len(found)} differences; if so meant: python -m tests.golden"]))
