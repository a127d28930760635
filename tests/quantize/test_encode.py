"""Weights packed here against the converter's own bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgequant import zoo
from edgequant.models.flat import FlatFile, Table
from edgequant.models.mnn.schema import Convolution2D, IDSTQuan, IDSTQuanType, Op
from edgequant.models.mnn.weights import read_weights
from edgequant.quantize.convert import convert
from edgequant.quantize.encode import Form, encode, pack, to_half, usable_block
from edgequant.spec import Variant
from tests import generated


def stored(path: Path) -> dict[tuple[str, str], tuple[bytes, np.ndarray, int, bool]]:
    """By layer: buffer, scales, float weights' number, whether kept as sparse."""
    data = path.read_bytes()
    found = {}
    for each in read_weights(path):
        layer = Table(FlatFile(data), each.place).table(Op.main)
        quant = layer.table(Convolution2D.quan_parameter) if layer is not None else None
        assert quant is not None
        sparse = quant.number(IDSTQuan.type) == IDSTQuanType.SPARSE
        found[each.key] = (
            quant.raw(IDSTQuan.buffer),
            np.frombuffer(quant.raw(IDSTQuan.alpha), "<f4"),
            each.bits,
            sparse,
        )
    return found


def floats(path: Path) -> dict[tuple[str, str], tuple[np.ndarray, int, int]]:
    data = path.read_bytes()
    found = {}
    for each in read_weights(path):
        parameter = Table(FlatFile(data), each.place).table(Op.main)
        assert parameter is not None
        found[each.key] = (np.frombuffer(parameter.raw(Convolution2D.weight), "<f4"), each.channels, each.area)
    return found


@pytest.fixture(scope="module", params=["enc", "conv_cnn"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    source = zoo.fetch("enc") if request.param == "enc" else generated.conv_cnn(folder / "cnn.onnx")
    return convert(source, Variant.parse("float"), folder / "float.mnn", log_dir=folder).path


@pytest.mark.parametrize(
    ("variant", "form"),
    [(f"weight:{bits}", Form(bits)) for bits in range(2, 9)]
    + [
        ("weight:8,sym", Form(8, None, True)),
        ("weight:4,sym", Form(4, None, True)),
        ("weight:4,block=32", Form(4, 32)),
    ],
)
def test_bytes_are_the_converters(base: Path, tmp_path: Path, variant: str, form: Form) -> None:
    made = convert(base, Variant.parse(variant), tmp_path / "q.mnn", log_dir=tmp_path).path
    kept = stored(made)
    assert kept
    for key, (weights, channels, area) in floats(base).items():
        buffer, scales, bits, sparse = kept[key]
        assert not sparse
        assert bits == form.bits
        encoded = encode(weights, channels, area, form)
        assert encoded.buffer == buffer
        assert np.array_equal(encoded.scales, scales)


def test_hqq_is_close_to_the_converters(base: Path, tmp_path: Path) -> None:
    made = convert(base, Variant.parse("weight:4,block=32,hqq"), tmp_path / "q.mnn", log_dir=tmp_path).path
    kept = stored(made)
    for key, (weights, channels, area) in floats(base).items():
        buffer, scales, _, _ = kept[key]
        encoded = encode(weights, channels, area, Form(4, 32, False, True))
        differ = np.frombuffer(buffer, np.uint8) != np.frombuffer(encoded.buffer, np.uint8)
        assert differ.mean() < 0.01
        # Where a weight lies between two codes and falls to the other, its group's zero point moves a little.
        close = np.isclose(scales, encoded.scales, rtol=1e-3, atol=1e-5)
        assert close.mean() > 0.98
        assert np.allclose(scales, encoded.scales, rtol=0.05, atol=1e-3)


@given(st.lists(st.integers(0, 255), max_size=200), st.integers(2, 8))
def test_packed_codes_come_back(codes: list[int], bits: int) -> None:
    values = np.asarray(codes, np.uint8) & (2**bits - 1)
    packed = pack(values, bits)
    assert len(packed) == (len(values) * bits + 7) // 8
    text = "".join(f"{byte:08b}" for byte in packed)
    assert [int(text[bits * n : bits * n + bits], 2) for n in range(len(values))] == values.tolist()


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=8, max_size=64).filter(lambda x: len(x) % 4 == 0),
    st.integers(2, 8),
    st.booleans(),
)
def test_error_is_within_half_a_step(values: list[float], bits: int, sym: bool) -> None:
    weights = np.asarray(values, np.float32)
    rows = weights.reshape(4, -1)
    encoded = encode(weights, 4, 1, Form(bits, None, sym))
    reach = 2 * np.abs(rows).max(axis=1) if sym else np.ptp(rows, axis=1)
    step = reach.astype(np.float64) / (2**bits - (2 if sym else 1))
    # Scales below 1e-6 count as none: then all of the row is lost but its least value.
    step = np.where(step < 1.1e-6, 2.0**bits * 2.2e-6, step)
    assert encoded.error <= rows.shape[1] * float(((step / 2 * 1.01 + 1e-5) ** 2).sum())


def test_constant_rows_and_zeros() -> None:
    encoded = encode(np.asarray([3.0] * 8 + [0.0] * 8, np.float32), 2, 1, Form(8))
    assert encoded.error == 0
    assert encoded.scales.tolist() == [3.0, 0.0, 0.0, 0.0]


def test_halves_are_rounded_to_the_nearest_and_finite() -> None:
    values = np.asarray([1.0 + 2**-11 + 2**-13, 1e6, -1e6, 0.1], np.float32)
    assert to_half(values).tolist() == [1.0 + 2**-10, 65504.0, -65504.0, float(np.float16(0.1))]


@pytest.mark.parametrize(("block", "channels", "used"), [(32, 64, 32), (32, 48, None), (24, 48, None), (64, 64, None)])
def test_blocks_as_mnn_takes_them(block: int, channels: int, used: int | None) -> None:
    assert usable_block(block, channels) == used
