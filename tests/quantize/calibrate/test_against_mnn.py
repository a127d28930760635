"""Our scales beside those of MNN's own offline quantizer, from the same samples of a plain CNN."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgequant.quantize.calibrate.static import StaticOptions, make_static
from edgequant.quantize.child import run_child, tools_argv
from tests.quantize.calibrate.support import Sample, build, float_mnn, node


def plain(path: Path) -> Path:
    """x [1,3,48,48] -> y [1,8,48,48]: three convolutions with ReLUs between them."""
    rng = np.random.default_rng(11)
    nodes, weights, source = [], {}, "x"
    for number, channels in enumerate((3, 16, 16)):
        weights[f"w{number}"] = rng.standard_normal((16, channels, 3, 3)) * (2 / (9 * channels)) ** 0.5
        weights[f"b{number}"] = rng.standard_normal(16) / 10
        result = "y" if number == 2 else f"c{number}"
        nodes.append(node("Conv", [source, f"w{number}", f"b{number}"], [result], pads=[1] * 4))
        if number < 2:
            nodes.append(node("Relu", [result], [f"r{number}"]))
            source = f"r{number}"
    return build(path, nodes, {"x": [1, 3, 48, 48]}, {"y": [1, 16, 48, 48]}, **weights)


def mnns_scales(model: Path, samples: list[Sample], method: str, folder: Path) -> dict[str, float]:
    """Scale by tensor name, as `mnnquant` writes it."""
    for number, sample in enumerate(samples):
        place = folder / "data" / str(number)
        place.mkdir(parents=True)
        description = {"inputs": [{"name": "x", "shape": list(sample["x"].shape)}], "outputs": ["y"]}
        (place / "input.json").write_text(json.dumps(description))
        np.savetxt(place / "x.txt", sample["x"].reshape(-1), "%.9g")
    config = {
        "path": str(folder / "data"), "used_sample_num": len(samples), "input_type": "sequence",
        "feature_quantize_method": method, "weight_quantize_method": "MAX_ABS", "batch_size": len(samples),
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    argv = tools_argv(
        ("mnnquant", [str(model), str(folder / "q.mnn"), str(folder / "config.json")]),
        ("mnnconvert", ["-f", "MNN", "--modelFile", str(folder / "q.mnn"), "--JsonFile", str(folder / "q.json")]),
    )
    result = run_child(argv, log=folder / "quant.log", timeout=120, cwd=folder)
    assert result.ok, result.log_tail
    dump = json.loads((folder / "q.json").read_text())
    return {dump["tensorName"][each["index"]]: each["quantInfo"]["scale"] for each in dump["extraTensorDescribe"]}


@pytest.mark.parametrize(("method", "calib", "within"), [("KL", "kl", 1.35), ("ADMM", "admm", 1.25)])
def test_scales_are_near_those_of_mnns_own_quantizer(method: str, calib: str, within: float, tmp_path: Path) -> None:
    # MNN's KL has other bin edges; its ADMM looks at the last sample only and stops where no value changes its level.
    rng = np.random.default_rng(4)
    samples = [{"x": rng.standard_normal((1, 3, 48, 48)).astype(np.float32)} for _ in range(8)]
    source = plain(tmp_path / "m.onnx")
    theirs = mnns_scales(float_mnn(source, tmp_path), samples, method, tmp_path)
    options = StaticOptions(calib=calib)  # type: ignore[arg-type]
    made = make_static(source, samples, options, tmp_path / "o.mnn", log_dir=tmp_path / "logs")
    ours = {each.name: each.output_scale for each in made.layers}
    shared = {each.name: name for each in made.layers for name in theirs if name in (each.name, f"r{each.name[1:]}")}
    assert len(shared) == 3
    for name, tensor in shared.items():
        scale = ours[name]
        assert scale is not None
        assert 1 / within < scale / theirs[tensor] < within, (name, scale, theirs[tensor])
