"""Cases for a user who gives none."""

from __future__ import annotations

import numpy as np
import pytest

from edgequant.cases.case import fit
from edgequant.cases.generate import INTEGER_RANGE, generate, is_image, pin
from edgequant.errors import InputError
from edgequant.tensors import DTYPES, TensorSpec

ENC = (
    TensorSpec("feat_erb", "float32", (1, 1, None, 32), (None, None, "S", None)),
    TensorSpec("feat_spec", "float32", (1, 2, None, 96), (None, None, "S", None)),
)


def shapes(*inputs: TensorSpec) -> list[dict[str, tuple[int, ...]]]:
    return [case.shapes for case in generate(inputs, 0)]


def same(one: object, other: object) -> bool:
    assert isinstance(one, np.ndarray)
    assert isinstance(other, np.ndarray)
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def test_same_seed_same_bytes() -> None:
    first, again, other = generate(ENC, 5), generate(ENC, 5), generate(ENC, 6)
    for case, twin, stranger in zip(first, again, other, strict=True):
        assert (case.name, case.source, case.generated) == (twin.name, "random, seed 5", True)
        for name in case.inputs:
            assert same(case.inputs[name], twin.inputs[name])
            assert not same(case.inputs[name], stranger.inputs[name])


def test_the_bytes_are_those_of_every_machine() -> None:
    (case, _) = generate([TensorSpec("x", "float32", (2,)), TensorSpec("n", "int64", (4,))], 0)
    assert case.inputs["x"].tobytes().hex() == "3521e7be37315e3f"
    assert case.inputs["n"].tolist() == [0, 0, 3, 3]


def test_an_input_more_changes_nothing_for_the_others() -> None:
    for alone, together in zip(generate(ENC[:1], 0), generate(ENC, 0), strict=True):
        assert same(alone.inputs["feat_erb"], together.inputs["feat_erb"])


def test_no_two_tensors_are_alike() -> None:
    inputs = [TensorSpec(name, "float32", (100,)) for name in ("a", "b")]
    tensors = [case.inputs[name] for case in generate(inputs, 0) for name in ("a", "b")]
    assert len({tensor.tobytes() for tensor in tensors}) == 4


def test_three_sizes_with_one_size_per_symbol() -> None:
    cases = generate(ENC, 0)
    assert [case.name for case in cases] == ["small", "middle", "large"]
    lengths = [(case.shapes["feat_erb"][2], case.shapes["feat_spec"][2]) for case in cases]
    assert lengths == [(4, 4), (20, 20), (100, 100)]


def test_fixed_shapes_give_two_cases() -> None:
    cases = generate([TensorSpec("x", "float32", (1, 8))], 0)
    assert [case.name for case in cases] == ["first", "second"]
    assert not same(cases[0].inputs["x"], cases[1].inputs["x"])


def test_a_free_batch_stays_one_unless_nothing_else_varies() -> None:
    assert [s["x"] for s in shapes(TensorSpec("x", "float32", (None, None, 8)))] == [(1, 4, 8), (1, 20, 8), (1, 100, 8)]
    assert [s["x"] for s in shapes(TensorSpec("x", "float32", (None, 8)))] == [(1, 8), (2, 8), (4, 8)]
    assert [s["x"] for s in shapes(TensorSpec("x", "float32", (None,)))] == [(4,), (20,), (100,)]


def test_a_batch_symbol_shared_with_a_vector() -> None:
    inputs = TensorSpec("x", "float32", (None, 8), ("N", None)), TensorSpec("v", "float32", (None,), ("N",))
    assert all(found["x"][0] == found["v"][0] for found in shapes(*inputs))


@pytest.mark.parametrize(
    ("shape", "layout", "dtype", "image"),
    [
        ((1, 3, 224, 224), None, "float32", True),
        ((1, 3, 224, 224), "NCHW", "uint8", True),
        ((1, 224, 224, 3), "NHWC", "float32", True),
        ((1, 224, 224, 3), None, "float32", False),
        ((1, 3, 224, 224), "NHWC", "float32", False),
        ((None, 3, None, None), None, "float16", True),
        ((None, 4, None, None), None, "float32", True),
        ((1, 1, None, None), None, "float32", True),
        ((1, None, None, None), None, "float32", True),
        ((1, 1, None, 32), None, "float32", False),  # a spectrogram
        ((1, 2, None, 96), None, "float32", False),
        ((1, 3, 8, 224), None, "float32", False),
        ((1, 3, 224, 224), None, "int64", False),
        ((3, 224, 224), None, "float32", False),
        ((1, 1, 28, 28), None, "float32", False),
        (None, None, "float32", False),
    ],
)
def test_images(shape: tuple[int | None, ...] | None, layout: str | None, dtype: str, image: bool) -> None:
    assert is_image(TensorSpec("x", dtype, shape, layout=layout)) is image


def test_sizes_of_images() -> None:
    nchw = shapes(TensorSpec("x", "float32", (None, 3, None, None)))
    assert [found["x"] for found in nchw] == [(1, 3, 32, 64), (1, 3, 64, 160), (1, 3, 96, 320)]
    nhwc = shapes(TensorSpec("x", "float32", (None, None, None, 3), layout="NHWC"))
    assert [found["x"] for found in nhwc] == [(1, 32, 64, 3), (1, 64, 160, 3), (1, 96, 320, 3)]
    assert shapes(TensorSpec("x", "float32", (1, None, None, None)))[0]["x"] == (1, 3, 32, 64)
    assert shapes(TensorSpec("x", "float32", (1, 3, 48, None)))[0]["x"] == (1, 3, 48, 64)


def test_values_of_images() -> None:
    picture = generate([TensorSpec("x", "float32", (1, 3, 64, 64))], 0)[0].inputs["x"]
    assert picture.min() >= -1
    assert picture.max() <= 1
    assert abs(picture.std() - 3**-0.5) < 0.02
    raw = generate([TensorSpec("x", "uint8", (1, 3, 64, 64))], 0)[0].inputs["x"]
    assert (raw.min(), raw.max()) == (0, 255)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (50, 50)], ids=str)
def test_every_type_and_rank(dtype: str, shape: tuple[int, ...]) -> None:
    spec = TensorSpec("x", dtype, shape)
    for case in generate([spec], 0):
        array = case.inputs["x"]
        assert isinstance(array, np.ndarray)
        assert (array.dtype.name, array.shape) == (dtype, shape)
        assert np.isfinite(array).all()
        if array.size == 2500:
            values = set(np.unique(array).tolist())
            if dtype == "bool":
                assert values == {False, True}
                assert 0.4 < array.mean() < 0.6
            elif array.dtype.kind in "iu":
                assert values == set(range(INTEGER_RANGE))
            else:
                assert abs(array.astype(float).std() - 1) < 0.1
        fit("again", case.inputs, [spec], "itself")


def test_unknown_rank_needs_the_user() -> None:
    with pytest.raises(InputError) as caught:
        generate([TensorSpec("x", "float32", None)], 0)
    assert caught.value.code == "INPUT_RANK_UNKNOWN"
    assert "--shape x=" in str(caught.value.hint)
    (pinned,) = pin([TensorSpec("x", "float32", None)], {"x": (2, 3)})
    assert generate([pinned], 0)[0].shapes == {"x": (2, 3)}


@pytest.mark.parametrize("shape", [(100_000, 100_000), (10**9, 10**9, 10**9), (2**32, 2**32)], ids=str)
def test_too_large(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError) as caught:
        generate([TensorSpec("x", "float32", shape)], 0)
    assert caught.value.code == "INPUT_TOO_LARGE"


# ---- --shape


def test_pin_propagates_symbols() -> None:
    pinned = pin(ENC, {"feat_spec": (1, 2, 7, 96)})
    assert [spec.shape for spec in pinned] == [(1, 1, 7, 32), (1, 2, 7, 96)]
    assert [case.name for case in generate(pinned, 0)] == ["first", "second"]
    assert pin(ENC, {}) == ENC


def test_pin_leaves_other_symbols_open() -> None:
    inputs = [
        TensorSpec("x", "float32", (None, None), ("N", "S")),
        TensorSpec("y", "float32", (None, None), ("N", "T")),
        TensorSpec("z", "float32", (None, None)),
    ]
    assert [spec.shape for spec in pin(inputs, {"x": (2, 9)})] == [(2, 9), (2, None), (None, None)]


def test_a_pinned_input_keeps_its_values_elsewhere() -> None:
    free = generate(ENC, 0)[1]
    assert free.shapes["feat_erb"] == (1, 1, 20, 32)


@pytest.mark.parametrize(
    ("given", "code", "text"),
    [
        ({"nope": (1,)}, "INPUT_UNKNOWN", "nope"),
        ({"feat_erb": (1, 1, 7)}, "INPUT_SHAPE", r"\[1, 1, S, 32\]"),
        ({"feat_erb": (2, 1, 7, 32)}, "INPUT_SHAPE", r"\[2, 1, 7, 32\]"),
        ({"feat_erb": (1, 1, 7, 32), "feat_spec": (1, 2, 8, 96)}, "INPUT_SHAPE", "'S' is given as 7 and as 8"),
    ],
)
def test_pins_that_contradict(given: dict[str, tuple[int, ...]], code: str, text: str) -> None:
    with pytest.raises(InputError, match=text) as caught:
        pin(ENC, given)
    assert caught.value.code == code
    assert "--shape" in str(caught.value)


def test_a_symbol_twice_in_one_shape() -> None:
    square = [TensorSpec("x", "float32", (None, None), ("N", "N"))]
    assert pin(square, {"x": (3, 3)})[0].shape == (3, 3)
    with pytest.raises(InputError, match="'N' is given as 3 and as 4"):
        pin(square, {"x": (3, 4)})
    assert all(found["x"][0] == found["x"][1] for found in shapes(*square))
