"""Recipes as text: read, refused, resolved, written."""

from __future__ import annotations

import difflib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgequant.errors import InputError
from edgequant.quantize import patterns
from edgequant.quantize.recipe import Recipe, Rule, exactly, recipe_of
from edgequant.quantize.weights import Weights


def layer(name: str, subgraph: str = "", type: str = "Convolution", **more: object) -> Weights:
    given = {
        "kept": "float", "bits": 32, "block": None, "sym": False, "payload": 4, "slot": 0, "place": 0, "inputs": (0,),
        "outputs": (1,), "channels": 64, "per_channel": 64, "area": 1, **more,
    }  # fmt: skip
    return Weights(name=name, subgraph=subgraph, type=type, **given)  # type: ignore[arg-type]


LAYERS = [
    layer("/erb/conv0"),
    layer("/erb/conv1", type="ConvolutionDepthwise"),
    layer("/df/conv[0]"),
    layer("gate", "/gru_body"),
    layer("gate"),
]


def recipe(*rules: dict[str, object], **more: object) -> Recipe:
    return Recipe.parse(json.dumps({"schema": "edgequant.recipe/1", "rules": rules, **more}))


def bits(found: Recipe) -> list[int | None]:
    rules = found.resolve(LAYERS)
    return [rules[each.key].bits if each.key in rules else None for each in LAYERS]


def test_the_last_rule_that_fits_decides_alone() -> None:
    found = recipe({"name": "*", "bits": 8, "block": 32}, {"name": "/erb/*", "bits": 4})
    assert bits(found) == [4, 4, 8, 8, 8]
    assert found.resolve(LAYERS)["", "/erb/conv0"].block is None


@pytest.mark.parametrize(
    ("match", "fitting"),
    [
        ({"name": "/erb/conv?"}, [4, 4, None, None, None]),
        ({"regex": "/(erb|df)/conv.*0.?"}, [4, None, 4, None, None]),
        ({"regex": "conv"}, None),  # the whole name
        ({"type": "ConvolutionDepthwise"}, [None, 4, None, None, None]),
        ({"subgraph": "*gru*"}, [None, None, None, 4, None]),
        ({"name": "gate", "subgraph": ""}, [None, None, None, None, 4]),
        ({"name": "/df/conv[0]"}, None),  # a class of characters
        ({"name": exactly("/df/conv[0]")}, [None, None, 4, None, None]),
        ({}, [4, 4, 4, 4, 4]),
    ],
)
def test_matching(match: dict[str, object], fitting: list[int | None] | None) -> None:
    made = recipe({**match, "bits": 4})
    if fitting is None:
        with pytest.raises(InputError) as caught:
            made.resolve(LAYERS)
        assert caught.value.code == "RECIPE_MATCHES_NOTHING"
    else:
        assert bits(made) == fitting


def test_a_rule_that_fits_nothing_names_what_is_close() -> None:
    with pytest.raises(InputError) as caught:
        recipe({"name": "*", "bits": 8}, {"name": "/erb/conv9*", "bits": 4}).resolve(LAYERS)
    assert caught.value.code == "RECIPE_MATCHES_NOTHING"
    assert "rule 2" in str(caught.value)
    assert "/erb/conv0" in str(caught.value.hint)
    with pytest.raises(InputError) as caught:
        recipe({"subgraph": "lstm", "bits": 4}).resolve(LAYERS)
    assert "/gru_body" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[]", "dictionary"),
        ('{"schema": "edgequant.recipe/2", "rules": [{"bits": 8}]}', "schema"),
        ('{"rules": []}', "rules"),
        ('{"rules": [{"bits": 8, "bit": 4}]}', "rules.0.bit: there is no such key"),
        ('{"rules": [{"name": "a"}]}', "rules.0.bits"),
        ('{"rules": [{"bits": 9}]}', "2 to 8"),
        ('{"rules": [{"bits": 1}]}', "2 to 8"),
        ('{"rules": [{"bits": 8, "bits": 4}]}', "'bits' is given twice"),
        ('{"rules": [{"bits": 8, "block": 20}]}', "multiple of 16"),
        ('{"rules": [{"bits": 0, "block": 32}]}', "not quantized"),
        ('{"rules": [{"bits": 8, "hqq": true, "sym": true}]}', "zero point"),
        ('{"rules": [{"bits": 4, "mode": "static"}]}', "static int8 has 8 bits"),
        ('{"rules": [{"bits": 4, "regex": "("}]}', "no regular expression"),
        ('{"rules": [{"bits": 4, "regex": "a", "name": "a"}]}', "give one"),
        ('{"rules": [{"bits": 4, "type": "Conv"}]}', "ConvolutionDepthwise"),
        ("[" * 100_000, "recipe"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        Recipe.parse(text)
    assert caught.value.code == "RECIPE_INVALID"
    assert said in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("missing", "binary"):
        with pytest.raises(InputError) as caught:
            Recipe.read(tmp_path / name)
        assert caught.value.code == "RECIPE_UNREADABLE"


_RULES = st.builds(
    lambda match, action: Rule.model_validate({**match, **action}),
    st.sampled_from([{}, {"name": "a*"}, {"regex": "a+"}, {"type": "Convolution"}, {"name": "ü", "subgraph": "b"}]),
    st.sampled_from([
        {"bits": 0}, {"bits": 16}, {"bits": 4, "block": 32}, {"bits": 8, "sym": True}, {"bits": 5, "hqq": True},
        {"bits": 8, "mode": "static"},
    ]),
)  # fmt: skip


@given(st.lists(_RULES, min_size=1, max_size=6), st.sampled_from(["low", "normal"]), st.sampled_from(["float", "fp16"]))
def test_what_is_written_reads_the_same(rules: list[Rule], memory: str, constants: str) -> None:
    made = Recipe.model_validate({"memory": memory, "constants": constants, "rules": rules})
    assert Recipe.parse(made.text()) == made
    assert Recipe.parse(made.text()).text() == made.text()


def test_one_rule_changed_is_one_line_of_diff(tmp_path: Path) -> None:
    before = recipe({"name": "*", "bits": 8}, {"name": "a", "bits": 4})
    after = recipe({"bits": 8, "name": "*"}, {"bits": 5, "name": "a"})
    lines = list(difflib.unified_diff(before.text().splitlines(), after.text().splitlines(), n=0, lineterm=""))
    assert lines[3:] == ['-  {"name": "a", "bits": 4}', '+  {"name": "a", "bits": 5}']
    before.write(tmp_path / "r.json")
    assert Recipe.read(tmp_path / "r.json") == before


def test_a_made_model_described() -> None:
    made = [
        layer("a", kept="quantized", bits=8),
        layer("b", kept="quantized", bits=8),
        layer("c[1]", kept="quantized", bits=4, block=32, sym=True),
        layer("d", "loop", kept="static", bits=8, sym=True),
        layer("e", kept="fp16", bits=16),
    ]
    found = recipe_of(made, "normal")
    assert found.rules[0] == Rule(name="*", bits=8)
    rules = found.resolve(made)
    assert [rules[each.key].action for each in made] == [
        {"bits": 8},
        {"bits": 8},
        {"bits": 4, "block": 32, "sym": True},
        {"bits": 8, "mode": "static"},
        {"bits": 16},
    ]


def test_regexes_that_never_end_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 1)
    with pytest.raises(InputError) as caught:
        recipe({"regex": ".*", "bits": 8}, {"regex": "(a+)+b", "bits": 4}).resolve([layer("a" * 100)])
    assert caught.value.code == "RECIPE_TOO_SLOW"
    assert "rule 2" in str(caught.value)


@pytest.mark.parametrize("regex", ["a{4294967295}", "(" * 900 + ")" * 900, "("])
def test_no_regexes(regex: str) -> None:
    with pytest.raises(InputError) as caught:
        recipe({"regex": regex, "bits": 8})
    assert caught.value.code == "RECIPE_INVALID"
    assert "no regular expression" in str(caught.value)


def test_files_without_an_end_are_not_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(1 << 30)
    for path in (pipe, Path("/dev/zero"), large, tmp_path):
        with pytest.raises(InputError) as caught:
            Recipe.read(path)
        assert caught.value.code == "RECIPE_UNREADABLE"


def test_a_memory_mode_it_would_not_be_run_in() -> None:
    with pytest.raises(InputError) as caught:
        recipe({"bits": 8}, memory="high")
    assert caught.value.code == "RECIPE_INVALID"


def test_long_names_are_told_and_longer_ones_refused() -> None:
    layers = [layer("*" * 3000), layer("b" * 3000, bits=8, kept="quantized"), layer("c")]
    again = Recipe.parse(recipe_of(layers).text()).resolve(layers)
    assert [again[each.key].bits for each in layers] == [0, 8, 0]
    with pytest.raises(InputError) as caught:
        recipe_of([*layers, layer("d" * 70_000, bits=8, kept="quantized")])
    assert caught.value.code == "NAME_TOO_LONG"
