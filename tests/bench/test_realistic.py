"""The benches' own data: the same everywhere, of the models' shapes, and not noise."""

from __future__ import annotations

import numpy as np
import pytest

from bench import realistic
from edgequant.cases.case import fit
from edgequant.models import read_model
from tests.beds.models import ModelByName


@pytest.mark.parametrize("name", realistic.SOURCES)
def test_samples_fit_their_model(name: str, real_model: ModelByName) -> None:
    inputs = read_model(real_model(name)).inputs
    assert inputs is not None
    for sample in realistic.samples(name, 2, 5):
        fit("sample", sample, inputs, name)  # raises where a name, type or shape is wrong
        assert all(np.isfinite(array).all() and array.std() > 0 for array in sample.values())


@pytest.mark.parametrize("name", ["enc", "ppocr_cls", "ppocr_rec"])
def test_a_seed_decides_all(name: str) -> None:
    first, again, other = (realistic.samples(name, 3, seed) for seed in (7, 7, 8))
    for one, two in zip(first, again, strict=True):
        assert all(np.array_equal(one[key], two[key]) for key in one)
    assert any(one[key].shape != two[key].shape or (one[key] != two[key]).any()
               for one, two in zip(first, other, strict=True) for key in one)  # fmt: skip


def test_the_bands_are_those_of_deepfilternet() -> None:
    widths = realistic.erb_widths()
    assert widths[:10] == (2,) * 10
    assert sum(widths) == 481
    assert len(widths) == 32
    assert widths[-1] > 60  # a band as wide as the ear's at 24 kHz


def test_a_tone_is_found_in_its_bin() -> None:
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(48_000) / 48_000)
    found = realistic.features(tone)
    power = (found["feat_spec"][0] ** 2).sum(0)
    assert (power.argmax(-1) == 20).all()  # 1000 Hz, 50 Hz per bin
    edges = np.cumsum(realistic.erb_widths())
    assert int(np.searchsorted(edges, 20, side="right")) == int(found["feat_erb"][0, 0, -1].argmax())
