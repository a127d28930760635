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
        ("kl", "kl", "kl"),
        ("ema,samples=32", "ema,samples=32", "ema,samples=32"),
        (
            "admm,skip=/a/Conv,skip=b,weights=admm,clamp=120,skip=b",
            "admm,weights=admm,clamp=120,skip=/a/Conv,skip=b",
            "admm,weights=admm,clamp=120,skip=/a/Conv,skip=b",
        ),
        ("static:8", "static:8", "static:8"),
        ("static:8,sym", "static:8,sym", "static:8,sym"),
        ("static:8,calib=kl,sym", "static:8,calib=kl", "static:8,calib=kl"),
        ("static:8,equalize,asym", "static:8,asym,equalize", "static:8,asym,equalize"),
        (
            "static:8,asym,calib=percentile,percent=99.90",
            "static:8,calib=percentile,percent=99.9,asym",
            "static:8,calib=percentile,percent=99.9,asym",
        ),
        (
            "static:8,calib=mse,rnn=float,keep=3,skip=x",
            "static:8,calib=mse,rnn=float,keep=3,skip=x",
            "static:8,calib=mse,rnn=float,keep=3,skip=x",
        ),
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
        "weight:8,", "int8", "kl:8", "static", "static:4", "static:8,block=32",
        "static:8,calib", "static:8,calib=best", "static:8,percent=99", "static:8,calib=percentile,percent=nan",
        "static:8,calib=percentile,percent=10", "static:8,keep=0", "static:8,keep=-1", "kl,skip", "kl,skip=",
        "kl,equalize", "dynamic:8,equalize", "kl,clamp=0", "kl,clamp=128", "kl,samples=0", "kl,calib=kl", "ema,asym",
        "dynamic:8,skip=x", "float,samples=3", "static:8,skip",
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_what_can(text: str) -> None:
    with pytest.raises(InputError) as caught:
        Variant.parse(text)
    assert caught.value.code == "VARIANT_INVALID"
    assert f"'{text}'" in str(caught.value)
    assert "dynamic:N" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("static:8,keep", "keep needs a whole number, such as keep=4"),
        ("static:8,keep=0.5", "keep needs a whole number, such as keep=4, not '0.5'"),
        ("weight:8,block", "block needs a whole number, such as block=32"),
        ("kl,clamp=x", "clamp needs a whole number, such as clamp=100, not 'x'"),
        ("kl,samples=", "samples needs a whole number, such as samples=32"),
        ("static:8,calib=percentile,percent=x", "percent needs a number above 50 and up to 100, such as percent=99.9"),
        ("static:8,calib", "calib needs one of minmax, ema, percentile, kl, mse, admm"),
        ("static:8,rnn=int8", "rnn needs one of weight, float, not 'int8'"),
        ("kl,weights", "weights needs one of max_abs, admm"),
        ("kl,skip", "skip needs the name of a layer: skip=NAME"),
        ("static:8,equalize=yes", "equalize takes no value, not 'yes'"),
    ],
)
def test_what_an_option_needs_is_said(text: str, says: str) -> None:
    """It said that there is no such option."""
    with pytest.raises(InputError) as caught:
        Variant.parse(text)
    assert f"variant '{text}': {says}" in str(caught.value)
    assert "is not an option" not in str(caught.value)
    if "such as" in says:
        # What it says is possible is.
        example = says.partition("such as ")[2].partition(", not")[0]
        Variant.parse(f"{text.rpartition(',')[0]},{example}")


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("static:8,equalise", "equalize"),
        ("static:8,equal", "equalize"),
        ("static:8,kep=4", "keep"),
        ("dynamic:8,blok=32", "block"),
        ("kl,Samples=4", "samples"),
        ("kl,equalize", None),
        ("float,samples=3", None),
    ],
)
def test_an_unknown_option_names_the_near_one(text: str, near: str | None) -> None:
    with pytest.raises(InputError) as caught:
        Variant.parse(text)
    method, _, option = text.partition(",")
    said = f"'{option}' is not an option of {method.partition(':')[0]}"
    end = "" if near is None else f"; did you mean '{near}'?"
    assert str(caught.value) == f"variant '{text}': {said}{end}"


def test_an_unknown_method_names_the_near_one() -> None:
    with pytest.raises(InputError, match="unknown method 'dynamix'; did you mean 'dynamic'"):
        Variant.parse("dynamix:8")


def test_which_need_calibration_data() -> None:
    assert {text: Variant.parse(text).calibrated for text in ("kl", "static:8", "dynamic:8", "fp16")} == {
        "kl": True,
        "static:8": True,
        "dynamic:8": False,
        "fp16": False,
    }


def test_only_a_dynamic_variant_means_memory_low() -> None:
    assert Variant.parse("dynamic:8").default_memory == "low"
    assert Variant.parse("weight:8").default_memory == Variant.parse("float").default_memory == "normal"
