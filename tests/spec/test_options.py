"""What users write: limits, cores, shapes, run options.  Variants have a test of their own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from edgequant.errors import InputError
from edgequant.spec import METRICS, Limit, RunOptions, first_problem, parse_cores, parse_shape


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("0", (0,)),
        ("4-7", (4, 5, 6, 7)),
        ("0,2,4-5", (0, 2, 4, 5)),
        (" 1 , 3 ", (1, 3)),
        ("3-3", (3,)),
        ("7,0", (7, 0)),
    ],
)
def test_cores(text: str, cores: tuple[int, ...]) -> None:
    assert parse_cores(text) == cores
    assert RunOptions(cores=cores).cores == cores


@pytest.mark.parametrize("text", ["", ",", "a", "1,", "-1", "3-1", "1-2-3", "1.0", "0x1", "12345", "1 2", "\u0663"])
def test_bad_cores(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_cores(text)
    assert caught.value.code == "CORES_INVALID"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("sqnr_db>=30", (None, "sqnr_db", ">=", 30.0)),
        ("max_abs<=1e-3", (None, "max_abs", "<=", 1e-3)),
        ("lsnr:cosine>=0.99", ("lsnr", "cosine", ">=", 0.99)),
        ("x:0:cosine>=0.99", ("x:0", "cosine", ">=", 0.99)),
        ("/enc/out put.1: rel_max <= 0", ("/enc/out put.1", "rel_max", "<=", 0.0)),
        ("a>=b:cosine>=-1", ("a>=b", "cosine", ">=", -1.0)),
    ],
)
def test_limits(text: str, limit: tuple[str | None, str, str, float]) -> None:
    found = Limit.parse(text)
    assert (found.output, found.metric, found.op, found.value) == limit
    assert Limit.parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cosine",
        "cosine>=",
        "cosine>0.9",
        "cosine==1",
        "cosine<=0.9",  # would pass what is bad
        "max_abs>=1",
        "speed>=1",
        "cosine>=nan",
        "cosine>=inf",
        "cosine>=0.9x",
        ":cosine>=0.9",
        "cosine>=0.9,",
        ">=1",
    ],
)
def test_bad_limits(text: str) -> None:
    with pytest.raises(InputError) as caught:
        Limit.parse(text)
    assert caught.value.code == "LIMIT_INVALID"
    assert f"'{text}'" in str(caught.value)
    assert caught.value.hint


@given(
    st.none() | st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=10),
    st.sampled_from(sorted(METRICS)),
    st.integers(0, 999999),
)
def test_a_limit_is_written_as_it_is_read(output: str | None, metric: str, value: int) -> None:
    value = -value if METRICS[metric] == ">=" else value
    limit = Limit(output=output, metric=metric, op=METRICS[metric], value=value)
    assert Limit.parse(str(limit)) == limit


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("x=1,3,48,160", ("x", (1, 3, 48, 160))),
        ("x= 1 , 2 ", ("x", (1, 2))),
        ("scalar=", ("scalar", ())),
        ("a=b=4", ("a=b", (4,))),
        ("x:0=1", ("x:0", (1,))),
        ("/in/put.1=1", ("/in/put.1", (1,))),
    ],
)
def test_shapes(text: str, shape: tuple[str, tuple[int, ...]]) -> None:
    assert parse_shape(text) == shape


@pytest.mark.parametrize(
    "text", ["", "x", "=1", "x=0", "x=-1", "x=1,,2", "x=1,", "x=?", "x=1.5", "x=1x3", "x=9999999999"]
)
def test_bad_shapes(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_shape(text)
    assert caught.value.code == "SHAPE_INVALID"


@pytest.mark.parametrize(
    "options",
    [
        {"memory": "lo"},
        {"memory": 2},
        {"precision": "fp16"},
        {"threads": 0},
        {"threads": 257},
        {"threads": "four"},
        {"cores": ()},
        {"cores": (1, 1)},
        {"cores": (-1,)},
        {"cores": (4096,)},
        {"dynamic_quant_option": 3},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"warmup": -1},
        {"repeat": 0},
        {"seed": -1},
        {"seed": 2**63},
        {"unknown": 1},
    ],
    ids=str,
)
def test_bad_run_options(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RunOptions.model_validate(options)


def test_run_options_leave_open_what_is_not_said() -> None:
    options = RunOptions()
    assert (options.memory, options.threads, options.cores, options.dynamic_quant_option) == (None, None, None, None)
    with pytest.raises(ValidationError):
        options.threads = 4


def test_first_problem() -> None:
    class Inner(BaseModel):
        size: int

    class Outer(BaseModel):
        parts: list[Inner]

    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"parts": [{"size": 1}, {"size": "x"}]})
    assert first_problem(caught.value).startswith("parts.1.size: ")


@pytest.mark.parametrize("text", ["cosine>=0_9", "sqnr_db>=１０"])
def test_what_only_python_takes_for_a_number_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        Limit.parse(text)
    assert "is not a number" in str(caught.value)


@pytest.mark.parametrize("text", ["cosine>=1.5", "sqnr_db>=201", "max_abs<=-1", "mismatch<=-0.1"])
def test_a_limit_nothing_can_keep_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        Limit.parse(text)
    assert caught.value.code == "LIMIT_INVALID"
    assert "nothing can keep it" in str(caught.value)
