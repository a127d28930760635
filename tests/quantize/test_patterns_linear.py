"""Globs of recipes: as fnmatch has them, and never in the product of their lengths."""

from __future__ import annotations

import fnmatch
import itertools
import random
import time

import pytest

from edgequant.errors import InputError
from edgequant.quantize import patterns
from edgequant.quantize.patterns import fits_glob
from edgequant.quantize.recipe import exactly
from tests.quantize.test_recipe import layer, recipe


def test_the_same_as_fnmatch() -> None:
    generator = random.Random(0)
    words = ["".join(word) for size in range(5) for word in itertools.product("a[*", repeat=size)]
    globs = [
        "".join(generator.choices(["a", "*", "[*]", "[[]", "b", "?"], k=generator.randrange(6))) for _ in range(400)
    ]
    for glob in globs:
        for word in generator.sample(words, 40):
            found = fits_glob(glob, word)
            assert found in (None, fnmatch.fnmatchcase(word, glob)), (glob, word)
            if found is None:
                assert "*" in glob


def test_stars_take_time_that_grows_with_the_lengths() -> None:
    start = time.process_time()
    name = "a" * 100_000
    assert fits_glob("*a" * 30_000 + "*", name)
    assert not fits_glob("*aa" * 20_000 + "*b*", name)
    assert time.process_time() - start < 5
    assert fits_glob(exactly("w[0]*?"), "w[0]*?")


def test_a_star_beside_a_question_mark_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 1)
    assert recipe({"name": "*?b[cd]", "bits": 8}).resolve([layer("aabc")])
    with pytest.raises(InputError) as found:
        recipe({"name": "*" + "?a" * 30_000 + "b", "bits": 8}).resolve([layer("a" * 1_000_000)])
    assert found.value.code == "RECIPE_TOO_SLOW"
