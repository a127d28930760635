"""An operator of a .mnn as a model of its own: the same to the bit, or an error that says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgequant.errors import ToolError
from edgequant.models import read_model
from edgequant.models.mnn.schema import DataFormat
from edgequant.models.mnn.weights import read_weights
from edgequant.quantize.convert import convert
from edgequant.quantize.cut import Feed, Part, cut, part_of
from edgequant.spec import Variant
from tests import generated


def test_a_layer_is_cut_out_with_its_weights_alone(tmp_path: Path) -> None:
    source = read_model(generated.conv_cnn(tmp_path / "m.onnx"))
    whole = convert(source, Variant(method="dynamic", bits=8), tmp_path / "m.mnn", log_dir=tmp_path).path
    layer = read_weights(whole)[0]
    part = part_of(whole, layer.name)
    assert part is not None
    feeds = {name: Feed("float32", (1, 3, 32, 32), DataFormat.NC4HW4) for name in part.inputs}
    out = tmp_path / "part.mnn"
    cut(whole, layer.name, feeds, out)
    found = read_model(out)
    assert [(spec.name, spec.shape) for spec in found.inputs or ()] == [(part.inputs[0], (1, 3, 32, 32))]
    assert tuple(spec.name for spec in found.outputs or ()) == part.outputs
    (alone,) = read_weights(out)
    assert (alone.name, alone.bits, alone.payload) == (layer.name, layer.bits, layer.payload)
    assert out.stat().st_size < whole.stat().st_size / 4
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.stem == "part") == [".mnn"], "nothing else is left"


def test_what_cannot_be_cut_is_said(tmp_path: Path) -> None:
    whole = convert(read_model(generated.conv_cnn(tmp_path / "m.onnx")), Variant(method="float"), tmp_path / "m.mnn",
                    log_dir=tmp_path).path  # fmt: skip
    assert part_of(whole, "no such operator") is None
    name = read_weights(whole)[0].name
    assert isinstance(part_of(whole, name), Part)
    for operator in ("no such operator", name):
        with pytest.raises(ToolError) as caught:
            cut(whole, operator, {}, tmp_path / "part.mnn")
        assert caught.value.code == "CUT_IMPOSSIBLE"
    damaged = tmp_path / "damaged.mnn"
    damaged.write_bytes(whole.read_bytes()[:200])
    with pytest.raises(ToolError) as caught:
        part_of(damaged, name)
    assert caught.value.code == "CUT_IMPOSSIBLE"
