"""Fixtures: models by name, made or fetched once per test process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import generated, sources

ModelByName = Callable[[str], Path]


@pytest.fixture(scope="session")
def real_model() -> ModelByName:
    """real_model("enc"): a real model's path.  Fetched on first use, then kept in the user's cache."""
    return sources.real


@pytest.fixture(scope="session")
def generated_model(tmp_path_factory: pytest.TempPathFactory) -> ModelByName:
    """generated_model("gru"): the path of a model of tests.generated, not to be changed."""
    folder = tmp_path_factory.mktemp("generated")

    def get(name: str) -> Path:
        path = folder / f"{name}.onnx"
        return path if path.exists() else generated.ONNX_MODELS[name](path)

    return get


@pytest.fixture(scope="session")
def as_mnn(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """as_mnn(source, *flags): ``source`` converted; the same call gives the same file, not to be changed."""
    folder = tmp_path_factory.mktemp("mnn")
    made: dict[tuple[str, ...], Path] = {}

    def get(source: Path, *flags: str) -> Path:
        key = (str(source), *flags)
        if key not in made:
            made[key] = sources.convert(source, folder / f"{len(made)}-{source.stem}.mnn", *flags)
        return made[key]

    return get
