"""Channels that get the same range, and a model that computes the same."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgequant.errors import InputError, ToolError
from edgequant.models import read_model
from edgequant.models.flat import FlatFile
from edgequant.models.mnn.net import convolution
from edgequant.models.mnn.schema import Convolution2D, Net
from edgequant.quantize.calibrate import static as static_module
from edgequant.quantize.calibrate.equalize import Joint, equalized, find_joints, gather_channels
from edgequant.quantize.calibrate.layers import read_layers
from edgequant.quantize.calibrate.outputs import fidelity, run_outputs
from tests.quantize.calibrate.support import build, float_mnn, images, node, runs_over, static

LOUDNESS = np.array([1.0, 0.5, 0.1, 0.01, 2.0, 0.03, 0.3, 1.0])
"""Of the eight channels between the layers."""


def two_layers(path: Path, between: str | None = "Relu", **more: Any) -> Path:
    """x [1,3,h,w] -> conv 3x3 -> a, of uneven channels -> activation -> conv 1x1 -> y [1,8,h,w]."""
    rng = np.random.default_rng(1)
    weights = {
        "v": rng.standard_normal((8, 3, 3, 3)) / 5 * LOUDNESS[:, None, None, None],
        "b": rng.standard_normal(8) / 10 * LOUDNESS,
        "w": rng.standard_normal((8, 8, 1, 1)) / LOUDNESS[None, :, None, None],
        "c": rng.standard_normal(8),
    }
    nodes = [node("Conv", ["x", "v", "b"], ["a"], pads=[1] * 4)]
    nodes += [node(between, ["a", *(["low", "high"] if between == "Clip" else [])], ["r"])] if between else []
    nodes += [node("Conv", ["r" if between else "a", "w", "c"], ["y"])]
    nodes += more.pop("nodes", [])
    outputs = {"y": [1, 8, "h", "w"], **more.pop("outputs", {})}
    clip = {"low": 0.0, "high": 6.0} if between == "Clip" else {}
    return build(path, nodes, {"x": [1, 3, "h", "w"]}, outputs, **{**weights, **clip, **more})


def joints_of(source: Path, folder: Path) -> tuple[Path, list[Joint]]:
    model = float_mnn(source, folder)
    return model, find_joints(read_model(model), read_layers(model))


@pytest.mark.parametrize(
    ("between", "found"), [(None, ["a"]), ("Relu", ["r"]), ("Clip", []), ("HardSwish", []), ("Sigmoid", [])]
)
def test_only_what_scales_with_its_layer_is_a_joint(between: str | None, found: list[str], tmp_path: Path) -> None:
    _, joints = joints_of(two_layers(tmp_path / "m.onnx", between), tmp_path)
    assert [joint.tensor for joint in joints] == found
    assert all(len(joint.readers) == 1 for joint in joints)


def test_what_somebody_else_reads_is_none(tmp_path: Path) -> None:
    """Another operator, or whoever uses the model."""
    other = {"nodes": [node("Exp", ["r"], ["z"])], "outputs": {"z": [1, 8, "h", "w"]}}
    assert joints_of(two_layers(tmp_path / "other.onnx", **other), tmp_path)[1] == []
    shown = {"outputs": {"r": [1, 8, "h", "w"]}}
    assert joints_of(two_layers(tmp_path / "shown.onnx", **shown), tmp_path)[1] == []


def all_kinds(path: Path) -> Path:
    """x -> conv -> r, which a depthwise and a plain convolution read; behind the depthwise one comes another."""
    rng = np.random.default_rng(2)
    return build(
        path,
        [
            node("Conv", ["x", "v", "b"], ["a"], pads=[1] * 4),
            node("Relu", ["a"], ["r"]),
            node("Conv", ["r", "d"], ["e"], pads=[1] * 4, group=8),
            node("Conv", ["e", "w", "c"], ["y"]),
            node("Conv", ["r", "u", "c"], ["z"]),
        ],
        {"x": [1, 3, "h", "w"]},
        {"y": [1, 8, "h", "w"], "z": [1, 8, "h", "w"]},
        v=rng.standard_normal((8, 3, 3, 3)) * LOUDNESS[:, None, None, None],
        b=rng.standard_normal(8) * LOUDNESS,
        d=rng.standard_normal((8, 1, 3, 3)),
        w=rng.standard_normal((8, 8, 1, 1)),
        u=rng.standard_normal((8, 8, 1, 1)),
        c=rng.standard_normal(8),
    )


def test_the_model_computes_the_same_and_its_channels_are_equal(tmp_path: Path) -> None:
    source = all_kinds(tmp_path / "m.onnx")
    model, joints = joints_of(source, tmp_path)
    assert {joint.tensor: len(joint.readers) for joint in joints} == {"r": 2, "e": 1}
    runs = runs_over(source, images(3), tmp_path)
    before, unreadable = gather_channels(model, ["r", "e"], runs)
    assert unreadable == {}
    assert before["r"].max() / before["r"].min() > 30
    assert equalized(model, joints, before, tmp_path / "equal.mnn") == 2
    after, _ = gather_channels(tmp_path / "equal.mnn", ["r", "e"], runs)
    for name in ("r", "e"):
        lifted = np.minimum(before[name] * 256, before[name].max())
        assert after[name] == pytest.approx(lifted, rel=1e-3)
    want, have = (run_outputs(path, runs, "a model", 3) for path in (model, tmp_path / "equal.mnn"))
    assert all(each.worst_db > 110 for each in fidelity(want, have).values())
    assert read_model(tmp_path / "equal.mnn").outputs == read_model(model).outputs


def test_the_slow_and_obvious_way(tmp_path: Path) -> None:
    source = two_layers(tmp_path / "m.onnx")
    model, (joint,) = joints_of(source, tmp_path)
    ranges = np.array([4, 2, 1, 0, 4, 0.5, 1e-6, 4], np.float32)
    assert equalized(model, [joint], {"r": ranges}, tmp_path / "equal.mnn") == 1
    was, now = model.read_bytes(), (tmp_path / "equal.mnn").read_bytes()
    scales = [1, 0.5, 0.25, 1, 1, 0.125, 2.0**-8, 1]  # a dead channel stays, and none is lifted by more than 256

    def numbers(data: bytes, place: tuple[int, int]) -> np.ndarray:
        return np.frombuffer(data, "<f4", place[1], place[0])

    maker, (reader,) = joint.maker, joint.readers
    for channel, scale in enumerate(scales):
        for place in (maker.weight_at, maker.bias_at):
            old, new = (numbers(data, place).reshape(8, -1)[channel] for data in (was, now))
            assert new == pytest.approx(old / scale, rel=1e-6)
        old, new = (numbers(data, reader.weight_at).reshape(8, 8, -1)[:, channel] for data in (was, now))
        assert new == pytest.approx(old * scale, rel=1e-6)
    assert numbers(was, reader.bias_at) == pytest.approx(numbers(now, reader.bias_at), abs=0)
    assert len(was) == len(now)


@pytest.mark.parametrize("ranges", [np.zeros(8), np.full(8, np.nan), np.ones(7), np.full(8, np.inf)])
def test_ranges_that_mean_nothing_change_nothing(ranges: np.ndarray, tmp_path: Path) -> None:
    model, joints = joints_of(two_layers(tmp_path / "m.onnx"), tmp_path)
    assert equalized(model, joints, {"r": ranges.astype(np.float32)}, tmp_path / "equal.mnn") == 0
    assert equalized(model, joints, {}, tmp_path / "equal.mnn") == 0
    assert (tmp_path / "equal.mnn").read_bytes() == model.read_bytes()


def test_numbers_that_would_overflow_stay(tmp_path: Path) -> None:
    source = two_layers(tmp_path / "m.onnx", v=np.full((8, 3, 3, 3), 1e37))
    model, joints = joints_of(source, tmp_path)
    ranges = np.array([1e-6, 1, 1, 1, 1, 1, 1, 1], np.float32)
    assert equalized(model, joints, {"r": ranges}, tmp_path / "equal.mnn") == 0


def test_quiet_channels_beside_loud_ones_are_what_it_is_for(tmp_path: Path) -> None:
    source = two_layers(tmp_path / "m.onnx")
    found = {}
    for equalize in (False, True):
        (folder := tmp_path / str(equalize)).mkdir()
        made = static(source, images(4), folder, calib="minmax", sym=False, equalize=equalize)
        found[equalize] = min(each.worst_db for each in made.fidelity.values())
        assert made.calib == "minmax,asym" + ",equalize" * equalize
    assert found[True] > found[False] + 6


def test_both_are_tried_where_nothing_is_said(tmp_path: Path) -> None:
    made = static(two_layers(tmp_path / "m.onnx"), images(4), tmp_path, calib="best", sym=None, equalize=None)
    assert made.calib.endswith(",equalize")
    assert any(not name.endswith("equalize") for name in made.tried)


def test_nothing_to_equalize(tmp_path: Path) -> None:
    source = two_layers(tmp_path / "m.onnx", "Sigmoid")
    with pytest.raises(InputError) as caught:
        static(source, images(2), tmp_path, calib="mse", equalize=True)
    assert caught.value.code == "NOTHING_TO_EQUALIZE"
    made = static(source, images(2), tmp_path, calib="best", sym=True, equalize=None)
    assert not any("equalize" in name for name in made.tried)


@pytest.mark.parametrize("code", ["CALIBRATION_CRASHED", "DISK_FULL"])
def test_what_works_without_is_not_lost(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equalizing is a try; only what would stop everything else stops it."""

    def crash(*_given: object, **_more: object) -> None:
        raise ToolError(code, "it crashed")

    source = two_layers(tmp_path / "m.onnx")
    monkeypatch.setattr(static_module, "gather_channels", crash)
    wanted = {"calib": "best", "sym": True, "equalize": None}
    if code == "DISK_FULL":
        with pytest.raises(ToolError, match="it crashed"):
            static(source, images(2), tmp_path, **wanted)
        return
    made = static(source, images(2), tmp_path, **wanted)
    assert made.tried
    assert not any("equalize" in name for name in made.tried)


def test_channels_that_are_silent_are_not_called_unfit(tmp_path: Path) -> None:
    """The layers would do: it is the samples that say nothing."""
    source = two_layers(tmp_path / "m.onnx", b=np.full(8, -1.0))
    quiet = [{"x": np.zeros((1, 3, 16, 20), np.float32)}]
    with pytest.raises(InputError) as caught:
        static(source, quiet, tmp_path, calib="mse", equalize=True)
    assert caught.value.code == "NOTHING_TO_EQUALIZE"
    assert "'r': it is 0 in all samples" in str(caught.value)
    assert "convolutions alone" not in str(caught.value)


def test_numbers_that_layers_share_stay(tmp_path: Path) -> None:
    """MNN's converter writes each layer's own; a file made elsewhere may keep equal ones once."""
    model, joints = joints_of(all_kinds(tmp_path / "m.onnx"), tmp_path)
    assert [joint.tensor for joint in joints] == ["r", "e"]
    data = bytearray(model.read_bytes())
    ops = list(filter(None, map(convolution, FlatFile(data).root().tables(Net.oplists))))
    # Those of w, which reads e, and of u, which reads r beside the depthwise one.
    first, last = (op for op in ops if op.count(Convolution2D.weight) == 64)
    slot, start = last.place(Convolution2D.weight), first.extent(Convolution2D.weight)[0] - 4
    assert slot is not None
    # Offsets lead forwards only: the one in front takes what lies behind it.
    if start < slot:
        slot, start = first.place(Convolution2D.weight), last.extent(Convolution2D.weight)[0] - 4
        assert slot is not None
    struct.pack_into("<I", data, slot, start - slot)
    model.write_bytes(data)
    assert find_joints(read_model(model), read_layers(model)) == []
