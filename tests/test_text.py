"""Text from models, files and devices: escaped and cut at one border."""

from __future__ import annotations

import json

import pytest

from edgequant.cells import cell
from edgequant.errors import EdgequantError
from edgequant.findings import Finding
from edgequant.plain import name
from edgequant.report.write import as_plain
from edgequant.text import MESSAGE, bounded, json_escaped, printable, shortened

LONG = "n" * 8_000_000
ODD = "a\u202eb\u0085c\u200bd\u2066e\x9bf\U000e0001g"


def test_an_error_and_a_finding_cut_what_they_are_given() -> None:
    error = EdgequantError(
        "X", f"output '{LONG}' is wrong", hint=LONG, where=LONG, evidence={"a": LONG, "b": [LONG] * 3, LONG: 1}
    )
    assert len(str(error)) < 3 * MESSAGE
    assert error.message.endswith("is wrong")  # what is said stands around the name
    assert len(json.dumps(error.as_dict())) < 40_000
    finding = Finding(code="X", severity="warn", message=LONG, where=LONG, remedy=LONG, evidence={"names": [LONG]})
    assert len(finding.model_dump_json()) < 20_000
    assert len(bounded({"a": list(range(10**6))})["a"]) <= 10_000


def test_two_long_names_never_look_the_same() -> None:
    one, other = "x" * 2000 + "1" + "x" * 2000, "x" * 2000 + "2" + "x" * 2000
    assert name(one) != name(other)
    assert len(name(one)) <= 300
    assert shortened("x" * MESSAGE) == "x" * MESSAGE


@pytest.mark.parametrize("character", sorted(set(ODD) - set("abcdefg")))
def test_what_is_not_seen_is_escaped_in_json_csv_and_on_the_console(character: str) -> None:
    text = f"a{character}b"
    document = json_escaped(json.dumps(as_plain({text: text}), ensure_ascii=False))
    assert character not in document
    assert json.loads(document) == {text: text}
    assert character not in cell(text)
    assert character not in printable(text)


def test_what_is_seen_stays() -> None:
    text = "Größe 日本語 é 🙂 \\n"
    assert json_escaped(json.dumps(text, ensure_ascii=False)) == json.dumps(text, ensure_ascii=False)
    assert cell(text) == text
