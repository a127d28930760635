"""What a device makes of activations and normalizations at their limits: each operator that MNN has, by itself."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgequant.errors import RunnerError, ToolError
from edgequant.files import sha256_of
from edgequant.judge.boundaries import Behaviour, behaviour
from edgequant.lab.session import DeviceOptions, Session, open_session
from edgequant.lab.take import DEATHS, ModelFile, Place
from edgequant.models.onnx_write import one_operator
from edgequant.progress import Progress
from edgequant.quantize.child import run_child, tools_argv
from edgequant.reference.activations import OPERATORS, OPSET, VALUES, WIDTH, Operator, rows
from edgequant.spec import MemoryMode, Precision, RunOptions

PRECISIONS: tuple[Precision, ...] = ("normal", "high", "low")
MEMORIES: tuple[MemoryMode, ...] = ("normal", "low")
Mode = tuple[Precision, MemoryMode]
MODES: tuple[Mode, ...] = tuple(itertools.product(PRECISIONS, MEMORIES))
_CONVERT_SECONDS = 120.0
_TAILS = (1.0, -1.0, 0.0, 65504.0, 100.0, -100.0, np.inf, -np.inf, np.nan)
"""Tried in a tensor of three numbers as well, where MNN's kernels have no whole vector to work on."""


@dataclass(frozen=True)
class Found:
    """What one operator does, as it ran with these modes (precision, memory), which all gave the same bits.

    behaviour: None where MNN did not run it; `error` says why.
    """

    operator: str
    modes: tuple[tuple[Precision, MemoryMode], ...]
    behaviour: Behaviour | None = None
    error: str | None = None


@dataclass
class Activations:
    """Of one device.  by_operator: in the order of the table; missing: operators this host's MNN cannot convert."""

    uri: str
    mnn: str
    kernels: dict[str, bool] = field(default_factory=dict)
    emulator: str | None = None
    by_operator: list[Found] = field(default_factory=list)
    missing: tuple[str, ...] = ()


def probe_activations(uri: str, options: DeviceOptions, progress: Progress) -> Activations:
    """Run every operator with inputs at its limits, in each precision and memory mode.

    Raises InputError (a bad URI), ToolError (the converter), DeviceError (the device, as a whole).
    """
    with tempfile.TemporaryDirectory(prefix="edgequant-") as name:
        folder = Path(name)
        progress.say("making a model of each operator")
        models = convert_operators(folder, OPERATORS)
        with open_session(uri, options, RunOptions(), log=None, progress=progress) as session:
            runner = session.runner()
            session.own()
            found = Activations(uri, runner.hello.mnn, dict(runner.facts.mnn_kernels or {}), session.device.emulated)
            found.missing = tuple(each.name for each in OPERATORS if each.name not in models)
            for operator in OPERATORS:
                if operator.name in models:
                    progress.say(f"running {operator.name} on {uri}")
                    found.by_operator += behaviours(session, operator, models[operator.name])
    return found


def convert_operators(folder: Path, operators: Sequence[Operator]) -> dict[str, Path]:
    """A .mnn of each operator, by name; without those that the converter cannot convert.

    Raises ToolError where it makes none of them.
    """
    jobs = {}
    for number, operator in enumerate(operators):
        source = folder / f"{number}.onnx"
        source.write_bytes(one_operator(operator.kind, operator.attributes, operator.constants, OPSET))
        jobs[operator.name] = (source, source.with_suffix(".mnn"))
    log = folder / "converter.log"
    calls = [
        ("mnnconvert", ["-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(out), "--bizCode", "edgequant"])
        for source, out in jobs.values()
    ]
    run_child(tools_argv(*calls), log=log, timeout=_CONVERT_SECONDS, cwd=folder)
    for call, (_, out) in zip(calls, jobs.values(), strict=True):
        if not out.is_file():  # it, or one before it, ended the converter
            run_child(tools_argv(call), log=log, timeout=_CONVERT_SECONDS, cwd=folder)
    made = {name: out for name, (_, out) in jobs.items() if out.is_file()}
    if not made:
        said = log.read_text("utf-8", "replace").splitlines()[-1:] or ["it printed nothing"]
        raise ToolError("CONVERTER_NO_OUTPUT", f"MNN's converter makes no operator at all: {said[0][:300]}")
    return made


def behaviours(session: Session, operator: Operator, model: Path, modes: Sequence[Mode] = MODES) -> Iterator[Found]:
    """What it does, mode by mode; modes that give the same bits are one.  Raises DeviceError."""
    labels, inputs = _inputs(operator)
    digest = sha256_of(model)
    outputs: dict[bytes, tuple[list[Mode], npt.NDArray[np.float32] | str]] = {}
    for precision, memory in modes:
        file = ModelFile(model, memory, digest, precision)
        try:
            got: npt.NDArray[np.float32] | str = _run(session, file, inputs)
        except RunnerError as error:
            if error.code != "INFERENCE_FAILED":
                session.drop_runner()
            if error.code not in (*DEATHS, "INFERENCE_FAILED", "MODEL_LOAD_FAILED"):
                raise
            got = f"{error.code}: {error.message}"
        key = got.encode() if isinstance(got, str) else got.tobytes()
        outputs.setdefault(key, ([], got))[0].append((precision, memory))
    for same, got in outputs.values():
        if isinstance(got, str):
            yield Found(operator.name, tuple(same), error=got)
            continue
        expected, known = operator.expected(inputs)
        halves = None
        if all(precision == "low" for precision, _ in same):
            with np.errstate(over="ignore"):
                halves, _ = operator.expected(inputs.astype(np.float16).astype(np.float32))
        yield Found(operator.name, tuple(same), behaviour(labels, inputs, expected, known, got, halves=halves))


def _inputs(operator: Operator) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Labels, and inputs [labels, WIDTH]; of those that are run three numbers at a time, the first three count."""
    if operator.by_row:
        found = rows()
        return list(found), np.stack(list(found.values()))
    values = np.concatenate([VALUES, np.array(_TAILS, np.float32)])
    labels = [*(f"{value:.8g}" for value in VALUES), *(f"{value:.8g} (last in a tensor)" for value in _TAILS)]
    return labels, np.repeat(values[:, None], WIDTH, axis=1)


def _run(session: Session, model: ModelFile, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The outputs, in the shape of the inputs.  Raises DeviceError."""
    path, _ = session.push(model.path, model.sha256)
    place = Place.load(session, model, path)
    tails = len(_TAILS) if len(inputs) > len(VALUES) else 0
    body = _answer(place, inputs[: len(inputs) - tails])
    ends = [np.repeat(_answer(place, row[None, :3])[:, :1], WIDTH, axis=1) for row in inputs[len(inputs) - tails :]]
    place.unload()
    return np.concatenate([body, *ends])


def _answer(place: Place, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    y = place.runner.run(place.loaded, {"x": np.ascontiguousarray(x)}).outputs.get("y")
    if y is None or y.shape != x.shape or y.dtype != np.float32:
        what = "no y" if y is None else f"{y.dtype} {list(y.shape)}"
        raise RunnerError("INFERENCE_FAILED", f"it answers {what} to float32 {list(x.shape)}")
    return y
