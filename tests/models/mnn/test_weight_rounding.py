"""Weights of made files held against those of the float model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgequant.errors import InputError
from edgequant.models.mnn.net import convolution, open_net
from edgequant.models.mnn.rounding import FAR, Rounded, rounded
from edgequant.models.mnn.schema import Convolution2D
from edgequant.models.mnn.unpack import Values, values
from edgequant.models.mnn.weights import read_weights
from edgequant.quantize.convert import convert
from edgequant.quantize.encode import Form, encode
from edgequant.spec import Variant
from tests import generated

VARIANTS = ("weight:8", "weight:3,sym", "weight:4,block=32,hqq", "fp16")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The float model and what becomes of it, by variant."""
    folder = tmp_path_factory.mktemp("rounding")
    base = convert(
        generated.conv_cnn(folder / "cnn.onnx"), Variant.parse("float"), folder / "float.mnn", log_dir=folder
    )
    made = {"float": base.path}
    for number, variant in enumerate(VARIANTS):
        made[variant] = convert(base.path, Variant.parse(variant), folder / f"{number}.mnn", log_dir=folder).path
    return made


def numbers(path: Path) -> list[Values | None]:
    with open_net(path) as net:
        return [values(net, layer) for layer in read_weights(path)]


def edited(path: Path, to: Path, field: object, edit: Callable[[np.ndarray], None]) -> Path:
    """A float model with other numbers in its second layer."""
    layer = read_weights(path)[1]
    data = bytearray(path.read_bytes())
    with open_net(path) as net:
        parameter = convolution(net.at(layer.place))
        assert parameter is not None
        start, count = parameter.extent(field)  # type: ignore[arg-type]
    edit(np.frombuffer(data, "<f4", count, start).reshape(layer.channels, -1))
    to.write_bytes(data)
    return to


def test_what_is_unpacked_is_what_the_converter_rounded_it_to(files: dict[str, Path]) -> None:
    for was, has in zip(numbers(files["float"]), numbers(files["weight:3,sym"]), strict=True):
        assert was is not None
        assert has is not None
        assert has.low is not None
        assert has.scale is not None
        encoded = encode(was.weights, len(was.weights), 1, Form(3, None, True))
        assert np.array_equal(has.scale, encoded.scales)
        lost = float(((was.weights.astype(np.float64) - has.weights) ** 2).sum())
        assert lost == pytest.approx(encoded.error, rel=1e-5)
        assert np.array_equal(has.bias, was.bias)


@pytest.mark.parametrize("variant", VARIANTS)
def test_rounding_moves_a_weight_by_half_a_step(files: dict[str, Path], variant: str) -> None:
    found = rounded(files["float"], files[variant])
    assert found is not None
    assert len(found) == len(read_weights(files["float"]))
    for each in found:
        assert each.scale == pytest.approx(1, abs=1e-6)
        assert each.error <= (0.6 if "hqq" in variant else 0.5001)
        assert each.bias == 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_wrong_scale_of_a_row_or_a_layer_is_seen_at_any_bits(
    files: dict[str, Path], tmp_path: Path, variant: str
) -> None:
    def row(weights: np.ndarray) -> None:
        weights[5] /= 1.1

    def layer(weights: np.ndarray) -> None:
        weights /= 1.03

    for edit, factor in ((row, 1.1), (layer, 1.03)):
        other = edited(files["float"], tmp_path / "other.mnn", Convolution2D.weight, edit)
        found = rounded(other, files[variant])
        assert found is not None
        if variant == "fp16":
            assert found[1].error > 10
        else:
            assert found[1].scale == pytest.approx(factor, rel=1e-4)
        assert edit is layer or found[1].row == 5
        assert found[0].error < 0.6


def test_a_lost_bias_and_other_float_weights_are_seen(files: dict[str, Path], tmp_path: Path) -> None:
    def gone(numbers: np.ndarray) -> None:
        numbers[3] = 0

    other = edited(files["float"], tmp_path / "bias.mnn", Convolution2D.bias, gone)
    found = rounded(other, files["weight:8"])
    assert found is not None
    assert found[1].bias > 0.005
    assert found[1].error <= 0.5001
    other = edited(files["float"], tmp_path / "row.mnn", Convolution2D.weight, gone)
    found = rounded(files["float"], other)
    assert found is not None
    assert (found[1].kept, found[1].row, found[1].error) == ("float", 3, FAR)


def test_a_row_next_to_nothing_is_written_as_one_value(tmp_path: Path) -> None:
    float_model = convert(
        generated.conv_cnn(tmp_path / "c.onnx"), Variant.parse("float"), tmp_path / "f.mnn", log_dir=tmp_path
    )

    def faint(weights: np.ndarray) -> None:
        weights[2] *= 1e-4 / np.abs(weights[2]).max()

    base = edited(float_model.path, tmp_path / "base.mnn", Convolution2D.weight, faint)
    for variant in ("weight:8", "weight:8,sym"):
        made = convert(base, Variant.parse(variant), tmp_path / "q.mnn", log_dir=tmp_path)
        found = rounded(base, made.path)
        assert found is not None
        assert max(each.error for each in found) <= 0.5001


def test_weights_that_are_no_numbers_are_told_as_such_or_left_out(files: dict[str, Path], tmp_path: Path) -> None:
    def broken(numbers: np.ndarray) -> None:
        numbers[3] = np.nan

    other = edited(files["float"], tmp_path / "nan.mnn", Convolution2D.weight, broken)
    found = rounded(files["float"], other)
    assert found is not None
    assert (found[1].row, found[1].error) == (3, FAR)
    found = rounded(other, files["weight:8"])
    assert found is not None
    assert len(found) == len(read_weights(other)) - 1


def test_another_model_is_held_against_nothing(files: dict[str, Path], tmp_path: Path) -> None:
    other = convert(
        generated.small_cnn(tmp_path / "s.onnx"), Variant.parse("float"), tmp_path / "s.mnn", log_dir=tmp_path
    )
    assert rounded(other.path, files["weight:8"]) is None


def test_packed_weights_that_are_damaged_are_an_error(files: dict[str, Path], tmp_path: Path) -> None:
    layer = read_weights(files["weight:8"])[1]
    data = bytearray(files["weight:8"].read_bytes())
    with open_net(files["weight:8"]) as net:
        parameter = convolution(net.at(layer.place))
        assert parameter is not None
        quant = parameter.table(Convolution2D.quan_parameter)
        assert quant is not None
        from edgequant.models.mnn.schema import IDSTQuan

        start, _ = quant.extent(IDSTQuan.buffer)
    for place, value in ((start, 9), (start + 1, 255)):
        broken = tmp_path / "broken.mnn"
        broken.write_bytes(data[:place] + bytes([value]) + data[place + 1 :])
        with pytest.raises(InputError) as caught:
            rounded(files["float"], broken)
        assert caught.value.code == "MODEL_BROKEN"


def test_the_record_in_an_archive_has_the_same_fields() -> None:
    from edgequant.archive.types import LayerRounding

    assert set(LayerRounding.model_fields) - {"equalized"} == {field.name for field in dataclasses.fields(Rounded)}
