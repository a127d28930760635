"""States of streaming models that go wrong: between two steps on the device, or in the file that was made.

`python -m tests.defects.states` runs all of them and as many sound rollouts, and prints both rates; with `--real` those
of the device in DeepFilterNet3's parts, whose GRUs are given their states as inputs.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import onnx
from onnx import TensorProto, helper, numpy_helper

from edgequant.jobs import prepare
from edgequant.reference.runtime import RuntimeReference
from edgequant.spec import RunOptions
from tests import generated, sources
from tests.defects.bench import Procedure
from tests.defects.defect import Defect
from tests.defects.outcome import Fits, Said
from tests.defects.stateful import FAULTS

ROLLED = re.compile("RECURRENT_DRIFT|STATE_")
FITS = Fits(wanted=ROLLED, unwanted=None)
STEPS = 200
MODELS: dict[str, Callable[[Path], Path]] = {
    "gru": lambda folder: generated.gru(folder / "m.onnx"),
    "lstm": lambda folder: generated.lstm(folder / "m.onnx"),
    "streaming": lambda folder: generated.streaming(folder / "m.onnx"),
}
"""No model of DeepFilterNet3 or PP-OCR has a state among its inputs: `REAL` are those of which one is made."""
FRAMES = 2
REAL: dict[str, dict[str, tuple[int, ...]]] = {
    "enc": {"feat_erb": (1, 1, FRAMES, 32), "feat_spec": (1, 2, FRAMES, 96)},
    "erb_dec": {
        "emb": (1, FRAMES, 512), "e3": (1, 64, FRAMES, 8), "e2": (1, 64, FRAMES, 8), "e1": (1, 64, FRAMES, 16),
        "e0": (1, 64, FRAMES, 32),
    },
    "df_dec": {"emb": (1, FRAMES, 512), "c0": (1, 64, FRAMES, 96)},
}  # fmt: skip
"""Model -> its sizes: so many frames in each step."""
HOME = {
    "one_not_fed": "streaming",
    "other_input": "lstm",
    "rotated": "streaming",
    "nan": "streaming",
    "clipped": "lstm",
}


@functools.cache
def bench(model: str) -> Procedure:
    return Procedure(MODELS[model], more={"latency": False, "rollout": STEPS})


def with_state(source: Path, out: Path) -> Path:
    """A real model whose GRUs begin with what is given, and hand out what they end with."""
    model = onnx.load(str(source))
    graph = model.graph
    for number, node in enumerate([each for each in graph.node if each.op_type == "GRU"]):
        hidden = next(helper.get_attribute_value(each) for each in node.attribute if each.name == "hidden_size")
        node.input.extend([""] * (6 - len(node.input)))
        node.input[5] = f"state{number}_in"
        node.output.extend([f"planted_h{number}"] * (2 - len(node.output)))
        graph.node.append(helper.make_node("Identity", [node.output[1]], [f"state{number}_out"]))
        shape = [1, 1, hidden]
        graph.input.append(helper.make_tensor_value_info(f"state{number}_in", TensorProto.FLOAT, shape))
        graph.output.append(helper.make_tensor_value_info(f"state{number}_out", TensorProto.FLOAT, shape))
    onnx.save(model, str(out))
    return out


@functools.cache
def real_bench(model: str) -> Procedure:
    more = {"latency": False, "rollout": 100, "shapes": REAL[model]}
    return Procedure(lambda folder: with_state(sources.real(model), folder / "m.onnx"), more=more)


# ---- the file


Edit = Callable[[onnx.ModelProto], None]


def _before(graph: onnx.GraphProto, kind: str, place: int, operator: str, *rest: str, **attributes: Any) -> None:
    """Another operator between an input of the recurrent node and what feeds it."""
    node = next(each for each in graph.node if each.op_type == kind)
    more = helper.make_node(operator, [node.input[place], *rest], [f"planted{len(graph.node)}"], **attributes)
    node.input[place] = more.output[0]
    graph.node.insert(list(graph.node).index(node), more)


def _constant(graph: onnx.GraphProto, value: float) -> str:
    graph.initializer.append(numpy_helper.from_array(generated.np.asarray(value, "float32"), "planted_value"))
    return "planted_value"


def _arithmetic(operator: str, value: float) -> Edit:
    return lambda model: _before(model.graph, "GRU", 5, operator, _constant(model.graph, value))


def _not_read(model: onnx.ModelProto) -> None:
    """It starts from zeros in every step; the input is still there."""
    _arithmetic("Mul", 0.0)(model)


def _half(model: onnx.ModelProto) -> None:
    _before(model.graph, "GRU", 5, "Cast", to=TensorProto.FLOAT16)
    _before(model.graph, "GRU", 5, "Cast", to=TensorProto.FLOAT)


def _rounded(model: onnx.ModelProto) -> None:
    """To steps of 2^-11, as fp16 has near 1."""
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(generated.np.float32(2048), "planted_steps"))
    _before(graph, "GRU", 5, "Mul", "planted_steps")
    _before(graph, "GRU", 5, "Floor")
    _before(graph, "GRU", 5, "Div", "planted_steps")


def _clipped(model: onnx.ModelProto) -> None:
    for name, value in (("planted_low", -0.3), ("planted_high", 0.3)):
        model.graph.initializer.append(numpy_helper.from_array(generated.np.float32(value), name))
    _before(model.graph, "GRU", 5, "Clip", "planted_low", "planted_high")


def _other_state(model: onnx.ModelProto) -> None:
    node = next(each for each in model.graph.node if each.op_type == "LSTM")
    node.input[5], node.input[6] = node.input[6], node.input[5]


def _not_updated(model: onnx.ModelProto) -> None:
    """What is handed out as the next state is the one that came in."""
    node = next(each for each in model.graph.node if each.op_type == "GRU")
    name, node.output[1] = node.output[1], "planted_unused"
    model.graph.node.append(helper.make_node("Identity", [node.input[5]], [name]))


FILES: dict[str, tuple[str, str, Edit]] = {
    "file_decayed": ("the file loses 1 % of the state in each step", "gru", _arithmetic("Mul", 0.99)),
    "file_clipped": ("the file clips the state to +-0.3", "streaming", _clipped),
    "file_ignored": ("the file does not read the state", "gru", _not_read),
    "file_rounded": ("the file rounds the state to 11 bits", "streaming", _rounded),
    "file_other_state": ("the file reads two states in each other's stead", "lstm", _other_state),
    "file_not_updated": ("the file hands out the state that came in", "gru", _not_updated),
}


@contextmanager
def _held_against(model: Path) -> Iterator[None]:
    """The reference runs this model, whatever MNN converts."""

    def begin(kind: str, _path: Path, log: Path, timeout: float) -> RuntimeReference:
        return RuntimeReference("onnxruntime", model, log, timeout)

    with mock.patch.object(prepare, "begin", begin):
        yield


def in_file(home: str, edit: Edit, procedure: Procedure | None = None) -> Said:
    """MNN's file is made of an edited model, and the reference runs the sound one."""
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        sound = MODELS[home](Path(scratch))

        def planted(folder: Path) -> Path:
            model = onnx.load(str(sound))
            edit(model)
            onnx.save(model, str(folder / "planted.onnx"))
            return folder / "planted.onnx"

        return replace(procedure or bench(home), model=planted).run(around=_held_against(sound))


def defects() -> list[Defect]:
    found = []
    for name, (what, _) in FAULTS.items():
        if name != "healthy":
            home = HOME.get(name, "gru")
            run = functools.partial(bench(home).run, "state", name)
            found.append(_defect(f"state_{name}", what, home, run, FITS))
    for name, (what, home, edit) in FILES.items():
        found.append(_defect(f"state_{name}", what, home, functools.partial(in_file, home, edit), FITS))
    return found


def _defect(name: str, what: str, home: str, run: Callable[[], Said], fits: Fits) -> Defect:
    twin = functools.partial(lambda home: bench(home).healthy, home)
    return Defect(name, "state", what, "live", f"rolled {home}", False, run, twin, fits)


# ---- sound rollouts


SOUND = [
    (home, variant, seed)
    for home in MODELS
    for variant in ("float", "fp16", "dynamic:8", "weight:8")
    for seed in (1, 2)
][:20]


def sound(home: str, variant: str, seed: int) -> Said:
    """A rollout with nothing planted."""
    options = RunOptions(threads=1, timeout=120, seed=seed)
    return replace(bench(home), variant=variant, options=options).run()


def main_real(only: Sequence[str]) -> int:
    """Faults of one state and of two, in turn over the real models, and each model once with nothing planted."""
    wrong = 0
    names = [name for name in FAULTS if name != "healthy" and (not only or name in only)]
    for number, name in enumerate(names):
        model = ("df_dec", "erb_dec")[number % 2] if name in ("one_not_fed", "other_input") else [*REAL][number % 3]
        said = real_bench(model).run("state", name)
        caught = [code for code, severity in said.findings if severity == "fail" and ROLLED.search(code)]
        wrong += not caught
        print(f"{'caught' if caught else 'MISSED'} {name} in {model}: {said.verdict} {caught[:2]}", flush=True)
    for model in REAL:
        said = real_bench(model).healthy
        blamed = [code for code, severity in said.findings if ROLLED.search(code)]
        wrong += bool(blamed)
        print(f"{'BLAMED' if blamed else 'nobody blamed'} {model}: {said.verdict} {blamed} {said.grave}", flush=True)
    return int(wrong > 0)


def main() -> int:
    if "--real" in sys.argv[1:]:
        return main_real([each for each in sys.argv[1:] if each != "--real"])
    outcomes = []
    for defect in defects():
        outcomes.append(each := defect.outcome())
        print(f"{each.result:<10} {each.name:<24} {each.verdict:<13} {each.code or ''}", flush=True)
    blamed = []
    for row in SOUND:
        said = sound(*row)
        blamed += [] if said.healthy and not any(ROLLED.search(code) for code, _ in said.findings) else [(row, said)]
    caught = sum(each.result == "caught" for each in outcomes)
    print(f"found {caught} of {len(outcomes)} planted; blamed {len(blamed)} of {len(SOUND)} sound rollouts")
    for row, said in blamed:
        print(f"  {row}: {said.verdict} {said.grave}")
    return int(caught < len(outcomes) or bool(blamed))


if __name__ == "__main__":
    sys.exit(main())
