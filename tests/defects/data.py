"""Data and references that keep a fault from being seen: what such a run comes to must say so."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from edgequant.archive.open import open_run
from edgequant.jobs.verify import verify
from edgequant.plan.request import Request
from edgequant.spec import RunOptions
from tests import generated, sources
from tests.defects.bench import Cases, Procedure, saved
from tests.defects.defect import Defect
from tests.defects.outcome import Fits
from tests.defects.recordings import RECORDINGS

ONE = RunOptions(threads=1, timeout=120)


def _says(*words: str, marginal: bool = True) -> Fits:
    return Fits(re.compile("|".join(words)), None, marginal=marginal)


CALIBRATION = _says("CALIBRAT", "SAMPLE", "RANGE")
CASES = _says(
    *("CASE", "INPUT", "CONSTANT", "SILEN", "VAR[YI]", "IDENTICAL"),
    *("REFERENCE", "COVER", "REACH", "BRANCH", "NEVER", "ZERO"),
)  # fmt: skip
REFERENCE = _says("REFERENCE", "JUDGED")
LIMIT = Fits(re.compile("LIMIT"), re.compile("LIMIT_EXCEEDED"), marginal=True)


def _cnn(folder: Path) -> Path:
    return generated.conv_cnn(folder / "conv_cnn.onnx")


def _pictures(seed: int, count: int = 4, low: float = -1.0, high: float = 1.0) -> Cases:
    rng = np.random.default_rng([9, seed])
    return {f"c{n}": {"x": rng.uniform(low, high, (1, 3, 32, 32)).astype(np.float32)} for n in range(count)}


def _same(count: int, seed: int = 0) -> Cases:
    first = _pictures(seed)["c0"]
    return {f"c{number}": first for number in range(count)}


def _zeros(cases: Cases, *names: str) -> Cases:
    return {
        case: {name: 0 * array if name in names else array for name, array in inputs.items()}
        for case, inputs in cases.items()
    }


def _sound() -> Cases:
    cases = RECORDINGS["enc"].cases()
    return {name: cases[name] for name in ("a", "b", "d")}


def _lines(only: str | None = None) -> Cases:
    """Lines of text; only: "upright" ones, which are of one class."""
    cases = RECORDINGS["ppocr_cls"].cases()
    if only is None:
        return cases
    session = onnxruntime.InferenceSession(str(sources.real("ppocr_cls")))
    found = {}
    for case, inputs in cases.items():
        (scores,) = session.run(None, inputs)
        rows = inputs["x"][scores.argmax(axis=1) == 0]
        if len(rows):
            found[case] = {"x": rows}
    assert len(found) > 1
    return found


def _calibrated(samples: Callable[[], Cases]) -> Callable[[Path], Mapping[str, Any]]:
    return lambda folder: {"calibration": str(saved(folder / "calibration", samples()))}


def _right(model: Path, cases: Cases) -> Cases:
    """What ONNX Runtime computes."""
    session = onnxruntime.InferenceSession(str(model))
    names = [output.name for output in session.get_outputs()]
    return {case: dict(zip(names, session.run(names, dict(inputs)), strict=True)) for case, inputs in cases.items()}


def _referenced(make: Callable[[Path], Cases]) -> Callable[[Path], Mapping[str, Any]]:
    return lambda folder: {"reference": saved(folder / "reference", make(folder))}


def _own_outputs(folder: Path) -> Cases:
    """What the quantized file itself computes on this host."""
    inputs = saved(folder / "for-reference", _pictures(0))
    request = Request(_cnn(folder), "local:", "dynamic:8", inputs=inputs, options=ONE, latency=False,  # type: ignore[arg-type]
                      run_dir=folder / "own")  # fmt: skip
    verify(request)
    run = open_run(folder / "own")
    capture = run.on_device("local:", run.plan.variants[0])
    assert capture is not None
    return {case: run.outputs(capture, case) or {} for case in _pictures(0)}


def _turned(folder: Path) -> Cases:
    """The outputs of each case under the name of the next."""
    right = _right(_cnn(folder), _pictures(0))
    return dict(zip(right, [*list(right.values())[1:], next(iter(right.values()))], strict=True))


def _first_output(_folder: Path) -> Cases:
    right = _right(sources.real("enc"), _sound())
    return {case: {"e0": outputs["e0"]} for case, outputs in right.items()}


def _table(folder: Path) -> Path:
    """A float .mnn that looks up rows of a table of 16: ids [1,6] -> y [1,6,32]."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w"], ["y"]),
    ]
    ids = helper.make_tensor_value_info("ids", onnx.TensorProto.INT32, [1, 6])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 6, 32])
    weights = [generated._weight("table", 16, 24), generated._weight("w", 24, 32)]
    source = generated.save(folder / "table.onnx", nodes, [ids], [y], weights)
    return sources.convert(source, folder / "table.mnn")


def _ids(*rows: tuple[int, ...]) -> Callable[[], Cases]:
    return lambda: {f"c{n}": {"ids": np.array([row], np.int32)} for n, row in enumerate(rows)}


def _branches(folder: Path) -> Path:
    return generated.branches(folder / "branches.onnx")


def _ways(*deep: bool) -> Callable[[], Cases]:
    rng = np.random.default_rng(3)

    def cases() -> Cases:
        return {
            f"c{n}": {"x": rng.standard_normal((1, 4)).astype(np.float32), "deep": np.array(each)}
            for n, each in enumerate(deep)
        }

    return cases


def _procedure(model: Callable[[Path], Path], variant: str, cases: Callable[[], Cases], **more: Any) -> Procedure:
    return Procedure(model, variant, cases, device=False, more={"latency": False} | more)


STATIC = replace(
    _procedure(_cnn, "static:8,calib=minmax", lambda: _pictures(0)), files=_calibrated(lambda: _pictures(1, 8))
)
DYNAMIC = _procedure(_cnn, "dynamic:8", lambda: _pictures(0))
GIVEN = replace(DYNAMIC, files=_referenced(lambda folder: _right(_cnn(folder), _pictures(0))))
ENC = _procedure(RECORDINGS["enc"].model, "dynamic:8", _sound)
ENC_GIVEN = replace(ENC, files=_referenced(lambda _folder: _right(sources.real("enc"), _sound())))
CLS = _procedure(RECORDINGS["ppocr_cls"].model, "float", _lines)
TABLE = _procedure(_table, "float", _ids((0, 3, 15, 7, 2, 2), (9, 1, 4, 4, 12, 0)))
BRANCHES = _procedure(_branches, "float", _ways(True, False, True, False))
NOTHING_BREAKS = ("sqnr_db>=-200", "cosine>=-1", "rel_max<=1e9")

ROWS: dict[str, tuple[str, Procedure, Procedure, bool, Fits]] = {
    "calibration_to_255": (
        "samples from 0 to 255, inputs from -1 to 1",
        replace(STATIC, files=_calibrated(lambda: _pictures(1, 8, 0, 255))), STATIC, False, CALIBRATION),
    "calibration_to_1": (
        "samples from 0 to 1, inputs from -1 to 1",
        replace(STATIC, files=_calibrated(lambda: _pictures(1, 8, 0, 1))), STATIC, False, CALIBRATION),
    "calibration_quiet": (
        "inputs are 20 times as loud as the samples",
        replace(STATIC, files=_calibrated(lambda: _pictures(1, 8, -0.05, 0.05))), STATIC, False, CALIBRATION),
    "calibration_of_zeros": (
        "samples are zeros",
        replace(STATIC, files=_calibrated(lambda: _zeros(_pictures(1, 8), "x"))), STATIC, False, CALIBRATION),
    "calibration_is_cases": (
        "the samples are the cases under other names",
        replace(STATIC, files=_calibrated(lambda: {f"s{k}": v for k, v in _pictures(0).items()})), STATIC, False,
        CALIBRATION),
    "calibration_of_one": (
        "eight samples, all the same", replace(STATIC, files=_calibrated(lambda: _same(8, 1))), STATIC, False,
        CALIBRATION),
    "inputs_silent": (
        "every input is zero", replace(ENC, cases=lambda: _zeros(_sound(), "feat_erb", "feat_spec")), ENC, True, CASES),
    "one_input_silent": (
        "one of two inputs is always zero", replace(ENC, cases=lambda: _zeros(_sound(), "feat_spec")), ENC, True,
        CASES),
    "cases_identical": ("four cases, all the same", replace(DYNAMIC, cases=lambda: _same(4)), DYNAMIC, False, CASES),
    "one_class_only": (
        "all references are of one class of two", replace(CLS, cases=lambda: _lines("upright")), CLS, True,
        _says("CLASS", "REFERENCE", "CASE", "COVER", "REACH", "NEVER")),
    "output_constant": (
        "an output that never varies", _procedure(lambda f: generated.constant_output(f / "c.onnx"), "float",
        lambda: {f"c{n}": {"x": np.full((1, 8), n, np.float32)} for n in range(3)}),
        _procedure(lambda f: generated.nan_swallowed(f / "c.onnx"), "float",
        lambda: {f"c{n}": {"x": np.arange(1, 9, dtype=np.float32)[None] + n} for n in range(3)}), False, CASES),
    "branch_not_taken": (
        "one of two branches is never taken", replace(BRANCHES, cases=_ways(True, True, True)), BRANCHES, False, CASES),
    "reference_is_own_output": (
        "the reference is what the file itself computes", replace(DYNAMIC, files=_referenced(_own_outputs)), GIVEN,
        False, REFERENCE),
    "reference_of_next_case": (
        "each case has the reference of the next", replace(DYNAMIC, files=_referenced(_turned)), GIVEN, False,
        REFERENCE),
    "reference_of_one_output": (
        "the reference knows one output of seven", replace(ENC, files=_referenced(_first_output)), ENC_GIVEN, True,
        REFERENCE),
    "limits_nothing_breaks": (
        "two bits, and limits that nothing can break",
        replace(ENC, variant="dynamic:2", more={"latency": False, "limits": NOTHING_BREAKS}), ENC, True, LIMIT),
    "ids_beyond_table": (
        "ids beyond the table read what lies behind it",
        replace(TABLE, cases=_ids((0, 3, 17, 7, 2, 2), (9, 40, 4, 4, 12, 0))),
        TABLE, False, _says("INPUT", "EMBED", "INDEX", "IDS", "TABLE", "RANGE")),
    "precision_low_on_x86": (
        "half precision, judged where there is none",
        replace(ENC, options=RunOptions(threads=1, timeout=120, precision="low")), ENC, True, _says("PRECISION")),
}  # fmt: skip


def defects() -> list[Defect]:
    found = []
    for name, (what, wrong, right, real, fits) in ROWS.items():
        healthy: Any = functools.partial(getattr, right, "healthy")
        found.append(Defect(name, "data", what, "live", "host", real, wrong.run, healthy, fits))
    return found
