"""Small models and cases the search is tried on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgequant.cases.generate import generate
from edgequant.models import read_model
from edgequant.quantize.convert import convert
from edgequant.quantize.search.trials import Bench
from edgequant.spec import RunOptions, Variant

Arrays = dict[str, np.ndarray]


def cases_of(source: Path) -> list[Arrays]:
    return [dict(case.inputs) for case in generate(read_model(source).inputs or (), 0)]


def float_model(source: Path, folder: Path) -> Path:
    return convert(source, Variant.parse("float"), folder / "float.mnn", log_dir=folder / "logs").path


def bench_of(source: Path, folder: Path) -> Bench:
    place = folder / "bench"
    place.mkdir()
    return Bench.of(cases_of(source), place, options=RunOptions(), log_dir=folder / "logs", timeout=240.0)
