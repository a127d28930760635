"""The written form of variants."""

from __future__ import annotations

import pytest

from edgequant.errors import InputError
from edgequant.spec import Variant


@pytest.mark.parametrize(
    ("text", "written", "file"),
    [
        ("float", "float", "float"),
        ("fp16", "fp16", "fp16"),
        ("dynamic:8", "dynamic:8", "weight:8"),
        (" dynamic:4 , block=32 , hqq ", "dynamic:4,block=32,hqq", "weight:4,block=32,hqq"),
        ("weight:8,sym", "weight:8,sym", "weight:8,sym"),
        ("weight:8,asym", "weight:8", "weight:8"),
        ("weight:8,hqq,asym", "weight:8,hqq", "weight:8,hqq"),
    ],
)
def test_what_is_written_is_read(text: str, written: str, file: str) -> None:
    variant = Variant.parse(text)
    assert str(variant) == written
    assert variant.file_key == file
    assert Variant.parse(written) == variant


@pytest.mark.parametrize(
    "text",
    [
        "", "dynamic", "dynamic:", "dynamic:1", "dynamic:9", "dynamic:x", "dynamic:-4", "dynamic:8.0", "float:8",
        "fp16,hqq", "float,asym", "weight:8,block=24", "weight:8,block=0", "weight:8,block", "weight:8,block=x",
        "weight:8,sym,asym", "weight:8,sym,hqq", "weight:8,hqq,hqq", "weight:8,block=32,block=64", "weight:8,what",
        "weight:8,", "int8", "kl",
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_what_can(text: str) -> None:
    with pytest.raises(InputError) as caught:
        Variant.parse(text)
    assert caught.value.code == "VARIANT_INVALID"
    assert f"'{text}'" in str(caught.value)
    assert "dynamic:N" in (caught.value.hint or "")


def test_only_a_dynamic_variant_means_memory_low() -> None:
    assert Variant.parse("dynamic:8").default_memory == "low"
    assert Variant.parse("weight:8").default_memory == Variant.parse("float").default_memory == "normal"
