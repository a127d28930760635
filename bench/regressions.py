"""Does a gate find what a release has lost against the last one, each by its own rule, and does it cry wolf?

    python -m bench.regressions [--repeats 50] [--timed]

Real parts on this host: a small CNN is made, quantized, run and judged by `accept`, as the last release.  Then releases
that have lost something against it: accuracy (two bits less), size (weights more), memory (a larger tensor in the
middle), with --timed latency too (a layer more).  Then the same release again, --repeats times, which has lost nothing.
Prints what each rule said; the exit code is 1 where a loss is missed or told by another rule alone, or something is
found in what is the same.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from edgequant.jobs.accept import accept
from edgequant.judge.disturbed import CAUSES, SIGNS

RULES = {
    "accuracy": "sqnr_db >= baseline - 2",
    "size": "size_mb <= baseline + 1",
    "memory": "memory_mb.session <= baseline + 1",
}
LATENCY = "latency_ms.p50 <= baseline + 5 %"
SIDE, CHANNELS = 48, 32


def model(path: Path, *, heavy: int = 0, wide: int = 0, slow: int = 0) -> Path:
    """A CNN, with branches that cost something and add nothing to the result: their last weights are 0.

    heavy: channels of one behind the pooling, which weighs, and takes hardly any time.  wide: channels of a depthwise
    one in the middle: large when it runs, and of few weights.  slow: channels of a 3x3 convolution in the middle.
    """
    draw, nodes, weights = np.random.default_rng(0), [], []

    def conv(source: str, name: str, ins: int, outs: int, kernel: int, *, group: int = 1, zero: bool = False) -> str:
        shape = (outs, ins // group, kernel, kernel)
        scale = 0.0 if zero else np.sqrt(2 / np.prod(shape[1:]))
        weights.append(numpy_helper.from_array((draw.standard_normal(shape) * scale).astype(np.float32), f"{name}.w"))
        pads = [kernel // 2] * 4
        nodes.append(helper.make_node("Conv", [source, f"{name}.w"], [f"{name}.y"], pads=pads, group=group, name=name))
        nodes.append(helper.make_node("Relu", [f"{name}.y"], [name], name=f"{name}.relu"))
        return name

    def branch(source: str, name: str, channels: int, kernel: int, group: int = 1) -> str:
        inner = conv(source, name, CHANNELS, channels, kernel, group=group)
        nothing = conv(inner, f"{name}.back", channels, CHANNELS, 1, zero=True)
        nodes.append(helper.make_node("Add", [source, nothing], [f"{name}.sum"], name=f"{name}.add"))
        return f"{name}.sum"

    at = conv("x", "first", 3, CHANNELS, 3)
    for number in range(4):
        at = conv(at, f"conv{number}", CHANNELS, CHANNELS, 3)
    at = branch(at, "wide", wide, 3, CHANNELS) if wide else at
    at = branch(at, "slow", slow, 3) if slow else at
    nodes.append(helper.make_node("GlobalAveragePool", [at], ["pooled"], name="pool"))
    at = branch("pooled", "heavy", heavy, 1) if heavy else "pooled"
    nodes.append(helper.make_node("Flatten", [at], ["y"], name="flat"))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", T.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", T.FLOAT, [1, CHANNELS])], weights,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def spec(folder: Path, source: Path, variant: str, *, timed: bool) -> Path:
    """The gate of one release."""
    rules = [*RULES.values(), *([LATENCY] if timed else [])]
    borne = ", ".join((*CAUSES, *SIGNS))  # it is the rules that are asked here, and not the machine
    text = (
        "options: {threads: 1, repeat: 2, warmup: 1}\nlatency: false\n"
        f"bench: {{blocks: 7, runs: 20, seconds: 0.2, warm_up: 0.5, within: 100, allow: [{borne}]}}\n"
        f"models: {{m: {{path: {source}, inputs: {folder / 'cases'}}}}}\n"
        f'variants: [{{variant: "{variant}", name: shipped}}]\ndevices: {{host: "local:"}}\n'
        "rules:\n" + "".join(f'  - {{rule: "{rule}"}}\n' for rule in rules)
    )
    path = folder / f"{source.stem}-{variant.replace(':', '')}.yaml"
    path.write_text(text)
    return path


def said(gate: Path, run_dir: Path, baseline: Path | None) -> dict[str, tuple[str, float | None, float | None]]:
    """What each rule came to: state, value, bound."""
    found, _ = accept(gate, run_dir=run_dir, baseline=baseline)
    return {each.rule: (str(each.state), each.value, each.bound) for each in found.trials[0].rules}  # type: ignore[misc]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--timed", action="store_true", help="latency too: on a quiet machine only")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        return run(Path(name), asked.repeats, timed=asked.timed)


def run(folder: Path, repeats: int, *, timed: bool) -> int:
    (folder / "cases").mkdir()
    draw = np.random.default_rng(1)
    for number in range(4):
        np.savez(folder / "cases" / f"c{number}.npz", x=draw.standard_normal((1, 3, SIDE, SIDE)).astype(np.float32))
    plain = model(folder / "plain.onnx")
    last = folder / "last"
    said(spec(folder, plain, "dynamic:8", timed=timed), last, None)
    lost = {
        "accuracy": (plain, "dynamic:6"),
        "size": (model(folder / "heavy.onnx", heavy=18_000), "dynamic:8"),
        "memory": (model(folder / "wide.onnx", wide=8 * CHANNELS), "dynamic:8"),
    }
    rules = dict(RULES)
    if timed:
        lost["latency"], rules["latency"] = (model(folder / "slow.onnx", slow=CHANNELS), "dynamic:8"), LATENCY
    wrong = 0
    for what, (source, variant) in lost.items():
        found = said(spec(folder, source, variant, timed=timed), folder / what, last)
        print(f"lost {what} ({source.stem}, {variant}):")
        for rule in rules.values():
            print(f"  {found[rule][0]:<12} {rule}: {found[rule][1]}, bound {found[rule][2]}")
        told = {kind for kind, rule in rules.items() if found[rule][0] == "FAIL"}
        # Weights are memory as well, and a larger tensor takes time.
        also = {"size": {"memory"}, "memory": {"latency"}}.get(what, set())
        wrong += what not in told or bool(told - {what} - also)
    states: Counter[tuple[str, str]] = Counter()
    gate = spec(folder, plain, "dynamic:8", timed=timed)
    for number in range(repeats):
        states.update((rule, state) for rule, (state, _, _) in said(gate, folder / f"again-{number}", last).items())
    for rule in rules.values():
        told = {state: count for (name, state), count in sorted(states.items()) if name == rule}
        print(f"the same {repeats} times: {rule}: {told}")
        wrong += told.get("FAIL", 0)
    print("nothing was missed, and nothing was cried" if not wrong else f"{wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
