"""Recipes as text: read, refused, resolved, written."""

from __future__ import annotations

import difflib
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgequant.errors import InputError
from edgequant.models.mnn.weights import Weights
from edgequant.quantize import patterns
from edgequant.quantize.recipe import Recipe, Rule, exactly, recipe_of


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
        # JSON
        ("", "the file is empty"),
        (" \n\t", "the file is empty"),
        ("{", "it is not JSON: it ends (line 1, column 2) before all that was opened is closed"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"rules": [{"bits": 8},]}', "it is not JSON: line 1, column 24: a comma before the closing ']'"),
        ('{"rules": [{"bits": 8,}]}', "it is not JSON: line 1, column 23: a comma before the closing '}'"),
        ('{"memory": "low", // all\n "rules": []}', "it is not JSON: line 1, column 19: a comment, which JSON has not"),
        ('# all\n{"rules": []}', "it is not JSON: line 1, column 1: a comment, which JSON has not"),
        ("{'rules': []}", "it is not JSON: line 1, column 2: single quotes where JSON has double ones"),
        ("{rules: []}", 'it is not JSON: line 1, column 2: a key in double quotes is missing before "rules: []}"'),
        ('{"memory": low}', 'it is not JSON: line 1, column 12: "low}" is no value; text stands in double quotes'),
        ('{"rules": [] "memory": "low"}', "line 1, column 14: a comma or a closing bracket is missing before"),
        ('{"rules" []}', 'line 1, column 10: a colon is missing before "[]}"'),
        ('{"rules": []} and', 'line 1, column 15: something follows its end: "and"'),
        ('{"memory": "lo\nw"}', "a line break or control character inside quotes"),
        ('schema: edgequant.recipe/1\nrules:\n  - {name: "*", bits: 8}\n', "it is not JSON: it looks like YAML"),
        ("---\nrules: []\n", "it is not JSON: it looks like YAML"),
        ('{"rules": [{"bits": 8, "bits": 4}]}', "rule 1: 'bits' is given twice"),
        ('{"rules": [{"bits": 8}, {"bits": 8, "name": "a", "name": "b"}]}', "rule 2: 'name' is given twice"),
        ('{"rules": [{"bits": 8}], "rules": [{"bits": 4}]}', "recipe: 'rules' is given twice"),
        (f'{{"rules": [{{"bits": {"9" * 5000}}}]}}', "it has a number of 5000 digits"),
        # keys
        ("[]", "recipe: must be keys and values, not a list"),
        ('{"memory": "low"}', "rules: it is missing"),
        ('{"rules": []}', "rules: must have at least 1, and has 0"),
        ('{"rules": {"name": "*"}}', "rules: must be a list, not keys and values"),
        ('{"rules": ["*"]}', 'rule 1: must be keys and values, not "*"'),
        (
            '{"schema": "edgequant.recipe/2", "rules": [{"bits": 8}]}',
            "schema: must be 'edgequant.recipe/1', not \"edge",
        ),
        ('{"constant": "fp16", "rules": [{"bits": 8}]}', "constant: there is no such key; did you mean 'constants'?"),
        ('{"constants": "half", "rules": [{"bits": 8}]}', "constants: must be 'float' or 'fp16', not \"half\""),
        ('{"memory": "high", "rules": [{"bits": 8}]}', "memory: must be 'low' or 'normal', not \"high\""),
        ('{"memory": ["low"], "rules": [{"bits": 8}]}', "memory: must be 'low' or 'normal', not a list"),
        # rules
        ('{"rules": [{"bits": 8, "blok": 32}]}', "rule 1: blok: there is no such key; did you mean 'block'?"),
        ('{"rules": [{"name": "a"}]}', "rule 1: bits: it is missing"),
        (
            '{"rules": [{"bits": 8}, {"bits": 9}]}',
            "rule 2: bits: must be 0 (float), 2 to 8, or 16 (half precision), not 9",
        ),
        ('{"rules": [{"bits": 1}]}', "2 to 8, or 16 (half precision), not 1"),
        ('{"rules": [{"bits": -1}]}', "2 to 8, or 16 (half precision), not -1"),
        ('{"rules": [{"bits": 99}]}', "2 to 8, or 16 (half precision), not 99"),
        ('{"rules": [{"bits": "eight"}]}', 'rule 1: bits: must be a whole number, not "eight"'),
        ('{"rules": [{"bits": 8.5}]}', "rule 1: bits: must be a whole number, not 8.5"),
        ('{"rules": [{"bits": NaN}]}', "rule 1: bits: must be a whole number, not NaN"),
        ('{"rules": [{"bits": true}]}', "rule 1: bits: must be a whole number, not true"),
        ('{"rules": [{"bits": null}]}', "rule 1: bits: must be a whole number, not null"),
        ('{"rules": [{"bits": [8]}]}', "rule 1: bits: must be a whole number, not a list"),
        ('{"rules": [{"bits": 8, "block": 24}]}', "rule 1: block: must be a multiple of 16, from 16 to 65536, not 24"),
        ('{"rules": [{"bits": 8, "block": 0}]}', "from 16 to 65536, not 0"),
        ('{"rules": [{"bits": 8, "block": 70000}]}', "from 16 to 65536, not 70000"),
        ('{"rules": [{"bits": 8, "sym": "maybe"}]}', 'rule 1: sym: must be true or false, not "maybe"'),
        ('{"rules": [{"bits": 8, "name": 5}]}', "rule 1: name: must be text, not 5"),
        (f'{{"rules": [{{"bits": 8, "regex": "{"a" * 2001}"}}]}}', "rule 1: regex: must have at most 2000 characters"),
        ('{"rules": [{"bits": 8, "mode": "dynamc"}]}', "not \"dynamc\"; did you mean 'dynamic'?"),
        ('{"rules": [{"bits": 0, "block": 32}]}', "rule 1: bits 0 is not quantized"),
        ('{"rules": [{"bits": 8, "hqq": true, "sym": true}]}', "zero point"),
        ('{"rules": [{"bits": 4, "mode": "static"}]}', "static int8 has 8 bits"),
        ('{"rules": [{"bits": 4, "regex": "("}]}', "rule 1: regex: no regular expression"),
        ('{"rules": [{"bits": 4, "regex": "a", "name": "a"}]}', "rule 1: name and regex are two ways"),
        ('{"rules": [{"bits": 4, "type": "Conv"}]}', "ConvolutionDepthwise"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        Recipe.parse(text)
    assert caught.value.code == "RECIPE_INVALID"
    assert said in str(caught.value)
    # None of the words of those who read it for us.
    told = f"{caught.value} {caught.value.hint}"
    assert not re.search(r"Input should|type=|pydantic|https?:|valid (dict|tuple|integer)|Expecting|char \d", told), (
        told
    )
    assert "\n" not in told


def test_the_keys_there_are_stand_beside_an_unknown_one() -> None:
    for text, known in (
        ('{"zzz": 1, "rules": [{"bits": 8}]}', "schema, memory, constants, rules"),
        ('{"rules": [{"bits": 8, "zzz": 1}]}', "name, regex, type, subgraph, bits, block, sym, hqq, mode"),
    ):
        with pytest.raises(InputError) as caught:
            Recipe.parse(text)
        assert caught.value.hint == f"Keys there: {known}."


def test_what_is_no_mistake(tmp_path: Path) -> None:
    """A mark in front, as some editors leave it; and a schema that is left out is this one."""
    (tmp_path / "r.json").write_bytes(b'\xef\xbb\xbf{"rules": [{"name": "*", "bits": 8}]}')
    assert Recipe.read(tmp_path / "r.json") == recipe({"name": "*", "bits": 8})


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
