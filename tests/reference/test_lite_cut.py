"""Operators that are cut out of a TFLite file compute what they compute in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from edgequant.reference.lite_cut import LiteParts
from tests import generated_tflite as lite


def answers(path: Path, x: np.ndarray, times: int = 1) -> list[np.ndarray]:
    """Of the same input several times, which differ where there is a state."""
    runner = Interpreter(str(path), num_threads=1)
    runner.allocate_tensors()
    found = []
    for _ in range(times):
        runner.set_tensor(runner.get_input_details()[0]["index"], x)
        runner.invoke()
        found.append(np.array(runner.get_tensor(runner.get_output_details()[0]["index"])))
    return found


def test_an_operator_in_int8_keeps_its_scales(tmp_path: Path) -> None:
    given = lite.options("Pool2DOptions", strideW=2, strideH=2, filterWidth=2, filterHeight=2)
    whole = lite.one_operator(tmp_path / "whole.tflite", "MAX_POOL_2D", given, dtype="int8", y=(1, 4, 5, 3), scale=0.1)
    LiteParts(whole).cut([0], {"x": lite.X}, {}, ["y"], {}, tmp_path / "part.tflite")
    x = np.random.default_rng(0).integers(-128, 127, lite.X).astype(np.int8)
    ((want,), (got,)) = answers(whole, x), answers(tmp_path / "part.tflite", x)
    np.testing.assert_array_equal(want, got)
    part = Interpreter(str(tmp_path / "part.tflite"))
    assert part.get_output_details()[0]["quantization"] == (np.float32(0.1), 0)


def test_an_operator_with_a_state_keeps_it(tmp_path: Path) -> None:
    """SVDF: features [units, inputs], times [units, memory], a bias, and a state [1, units * memory]."""
    rng = np.random.default_rng(0)
    constants = [rng.normal(size=shape).astype(np.float32) for shape in ((4, 3), (4, 5), (4,), (1, 20))]
    whole = lite.one_operator(
        tmp_path / "whole.tflite", "SVDF", lite.options("SVDFOptions", rank=1), constants, x=(1, 3), y=(1, 4)
    )
    model: Any = lite.schema.ModelT.InitFromPackedBuf(whole.read_bytes())
    state = model.subgraphs[0].tensors[4]
    state.isVariable, state.buffer = True, 0
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    whole.write_bytes(bytes(builder.Output()))
    LiteParts(whole).cut([0], {"x": (1, 3)}, {}, ["y"], {}, tmp_path / "part.tflite")
    x = rng.normal(size=(1, 3)).astype(np.float32)
    want, got = answers(whole, x, 3), answers(tmp_path / "part.tflite", x, 3)
    assert not np.array_equal(want[0], want[1])
    np.testing.assert_array_equal(want, got)
