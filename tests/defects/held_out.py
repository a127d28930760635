"""Faults in networks in which no rule was tuned (`networks.py`): does a diagnosis name stage, layer and cause?

`python -m tests.defects.held_out [NETWORK...]` plants one operator that computes something else in the conversion, in
the quantized file and on the device, and single faulty layers, each with a sound twin; and prints what was named.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgequant.cases.case import Case
from edgequant.cases.generate import generate
from edgequant.jobs.departure import Departure
from edgequant.jobs.diagnose_conversion import first_departing
from edgequant.judge.diagnosis import Diagnosis
from edgequant.lab.session import Session
from edgequant.models import read_model
from edgequant.models.flat import Table
from edgequant.models.mnn.net import convolution
from edgequant.models.mnn.schema import Convolution2D, IDSTQuan
from edgequant.models.mnn.weights import Weights, read_weights
from tests import sources
from tests.defects import layer_devices as devices
from tests.defects.layer_edits import EDITS, Edit, planted, scaled
from tests.defects.layer_subjects import FLAGS, Subject, breaks, look, model_subject, this_host
from tests.defects.layers import blamed, key_of
from tests.defects.network_edits import planted_operators
from tests.defects.networks import NETWORKS, network


@dataclass(frozen=True)
class Planted:
    """named: the layers of a diagnosis, and the tensors the first makes; right: each of stage, layer, cause."""

    network: str
    stage: str
    fault: str
    where: str
    named: tuple[str, ...]
    cause: str
    right: tuple[bool, bool, bool]
    proof: str | None

    def __str__(self) -> str:
        told = " ".join(
            what if ok else what.upper() for what, ok in zip(("stage", "layer", "cause"), self.right, strict=True)
        )
        return (
            f"{'ok   ' if all(self.right) else 'WRONG'} {self.network}: {self.stage}, {self.fault} in {self.where}: "
            f"{told}; {self.named} {self.cause} ({self.proof})"
        )


# ---- one layer's bytes


def _codes(change: object) -> Edit:
    """Of a byte each: [channels, weights of one]."""

    def edit(data: bytearray, op: Table, layer: Weights) -> bool:
        parameter = convolution(op)
        quant = None if parameter is None else parameter.table(Convolution2D.quan_parameter)
        start, count = quant.extent(IDSTQuan.buffer) if quant is not None else (0, 0)
        size = layer.per_channel * layer.area
        if layer.bits != 8 or layer.channels < 4 or count < layer.channels * size or size < 4:
            return False
        first = start + count - layer.channels * size
        rows = np.frombuffer(data, np.uint8, layer.channels * size, first).reshape(layer.channels, size).copy()
        data[first : first + rows.size] = change(rows, layer).astype(np.uint8).tobytes()  # type: ignore[operator]
        return True

    return edit


def _flipped_bits(rows: np.ndarray, _layer: Weights) -> np.ndarray:
    hit = np.random.default_rng(3).random(rows.shape) < 0.05
    return np.where(hit, rows ^ 0x40, rows)


def _negated(data: bytearray, op: Table, layer: Weights) -> bool:
    """Of a quarter of the channels.  The least value is not among the scales of a symmetric layer."""

    def change(steps: np.ndarray) -> None:
        steps[: max(1, len(steps) // 4)] *= -1

    return scaled(data, op, layer, change)


def _bias_moved(data: bytearray, op: Table, layer: Weights) -> bool:
    del layer
    parameter = convolution(op)
    start, count = parameter.extent(Convolution2D.bias) if parameter is not None else (0, 0)
    bias = np.frombuffer(data, "<f4", count, start).copy()
    if count < 4 or float(np.abs(bias).max()) < 1e-3:
        return False
    data[start : start + 4 * count] = np.roll(bias, 1).astype("<f4").tobytes()
    return True


_MISPLACED = ("WEIGHTS_MISPLACED", "WEIGHT_ROUNDED_BADLY")
MORE_EDITS: dict[str, tuple[Edit, tuple[str, ...]]] = {
    "bits flipped in one of 20 weights": (_codes(_flipped_bits), ("WEIGHT_ROUNDED_BADLY",)),
    "sign of a quarter of the channels": (_negated, ("WEIGHT_SCALE_WRONG",)),
    "kernels back to front": (_codes(lambda rows, _: rows[:, ::-1]), _MISPLACED),
    "codes moved by a byte": (_codes(lambda rows, _: np.roll(rows.ravel(), 1).reshape(rows.shape)), _MISPLACED),
    "biases moved by a channel": (_bias_moved, ("BIAS_LOST",)),
}
OLD = ("scales of half of the channels 0", "zero point of weights 12 steps off", "all scales 5 % too large",
       "bias a fifth too small", "channels exchanged")  # fmt: skip


def in_layers(of: Subject, name: str, host: Session, work: Path) -> Iterator[Planted]:
    """Into one layer for each kind, drawn by chance, in which it breaks something."""
    made = [each for each in read_weights(of.made) if each.kept in ("quantized", "static")]
    rng = np.random.default_rng([5, *name.encode()])
    out = work / "planted.mnn"
    for fault, (edit, causes) in {**MORE_EDITS, **{each: EDITS[each] for each in OLD}}.items():
        for number in rng.permutation(len(made)):
            if planted(of.made, made[number], edit, out) and (failing := breaks(of, out, host)):
                _, found = look(of, out, host, work, failing)
                key = key_of(made[number].key)
                yield _told(name, "quantization", fault, key, found, lambda first, key=key: first == key, causes)  # type: ignore[misc]
                break


def _told(
    name: str, stage: str, fault: str, where: str, found: Diagnosis, right: object, causes: Sequence[str]
) -> Planted:
    cause = "" if found.cause is None else found.cause.code
    first = next(iter(found.blame.layers), "")
    layer = right(first)  # type: ignore[operator]
    return Planted(name, stage, fault, where, found.blame.layers[:3], cause,
                   (found.stage == stage, bool(layer), cause in causes), found.blame.proof)  # fmt: skip


# ---- one operator

_ON_DEVICE = ("KERNEL_DIFFERS", "INT8_KERNEL_DIFFERS", "DATA_MOVED", "INT8_SATURATION", "STUCK_OUTPUT")
_IN_FILE = ("HOST_KERNEL_DIFFERS", "CAUSE_UNKNOWN", "DATA_MOVED", "WEIGHTS_MISPLACED", "BIAS_LOST", "INT8_SATURATION",
            "WEIGHT_ROUNDED_BADLY")  # fmt: skip


def _is_it(first: str, near: Collection[str], made_by: Mapping[str, tuple[str, ...]], where: str) -> bool:
    """Whether the layer named first is the operator, or what MNN made of it: an activation fused into the layer in
    front, an LSTM's loop and the product in front of it."""
    made = {*made_by.get(first, ()), first, first.removesuffix("__matmul_converted")}
    return bool(made & {*near}) or first == where or (where == "lstm" and not first.endswith("__matmul_converted"))


def in_operators(of: Subject, source: Path, name: str, variant: str, host: Session, work: Path) -> Iterator[Planted]:
    graph = read_model(source)
    reads = {op.name: tuple(op.outputs) for op in graph.ops}
    reading = {op.outputs[0]: tuple(op.inputs) for op in graph.ops if op.outputs}
    behind = {op.inputs[0]: tuple(op.outputs) for op in graph.ops if op.inputs}
    for number, (fault, (where, write)) in enumerate(planted_operators(name).items()):
        changed = work / f"altered{number}{source.suffix}"
        tensors = write(source, changed)
        # What MNN fuses into the operator in front has that one's name and this one's tensor, or the other way about.
        near = {*tensors, *(each for tensor in tensors for each in behind.get(tensor, ()))}
        near |= {*reading.get(tensors[0], ())} if "activation" in fault else set()
        plain, made = work / f"altered{number}.mnn", work / f"altered{number}-made.mnn"
        sources.convert(changed, plain)
        sources.convert(changed, made, *FLAGS[variant])
        departed: Departure | None = first_departing(graph, plain, host, source_cases(source), work / f"inner{number}")
        node = "" if departed is None else departed.node
        yield Planted(
            name, "conversion", fault, where, (node,), "" if departed is None else str(departed.cause),
            (departed is not None, node == where or bool({*reads.get(node, ())} & {*tensors}), True),
            None if departed is None else "proven" if departed.proven else "suspicion",
        )  # fmt: skip
        made_by = {op.name: tuple(op.outputs) for op in read_model(made).ops}
        if [*made_by] != [op.name for op in read_model(of.made).ops]:
            continue  # MNN numbers its own tensors anew: one name is two tensors then, which no single file has

        right = functools.partial(_is_it, near=near, made_by=made_by, where=where)
        if failing := breaks(of, made, host):
            _, found = look(of, made, host, work, failing)
            yield _told(name, "quantization", fault, where, found, right, _IN_FILE)
        device = devices.Device(host, file=made)
        _, found = look(of, of.made, host, work, [], device=device, stage="device")
        yield _told(name, "device", fault, where, found, right, _ON_DEVICE)


def source_cases(source: Path) -> tuple[Case, ...]:
    """As the source takes them: MNN has int32 where it has int64."""
    return tuple(generate(read_model(source).inputs or (), seed=5)[:2])


def twins(of: Subject, source: Path, host: Session, work: Path) -> Iterator[str]:
    """Who is blamed where nothing is planted."""
    _, found = look(of, of.made, host, work, breaks(of, of.made, host))
    yield f"{found.blame} {found.cause}" if blamed(found) else ""
    _, found = look(of, of.made, host, work, [], device=devices.Device(host), stage="device")
    yield f"{found.blame} {found.cause}" if blamed(found) else ""
    departed = first_departing(read_model(source), of.plain, host, source_cases(source), work / "inner")
    yield "" if departed is None else str(departed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--variant", choices=tuple(FLAGS), default="dynamic:8")
    given = parser.parse_args()
    found: list[Planted] = []
    wrong: list[str] = []
    looks = 0
    with tempfile.TemporaryDirectory() as name, this_host() as host:
        for each in given.networks:
            work = Path(name) / each
            work.mkdir()
            source = network(each, work)
            of = model_subject(source, given.variant, work, host, seed=5)
            for said in twins(of, source, host, work):
                looks += 1
                wrong += [f"{each}: {said}"] if said else []
            operators = in_operators(of, source, each, given.variant, host, work)
            for one in itertools.chain(in_layers(of, each, host, work), operators):
                found.append(one)
                print(one, flush=True)
    for number, what in enumerate(("stage", "layer", "cause")):
        print(f"right {what}: {sum(each.right[number] for each in found)} of {len(found)}")
    print(f"sound twins blamed: {len(wrong)} of {looks}", *wrong, sep="\n  ")
    return int(bool(wrong) or any(not all(each.right) for each in found))


if __name__ == "__main__":
    sys.exit(main())
