"""Faults planted into single layers of quantized files: does a diagnosis name the layer, and why?

`python -m tests.defects.layers [FLOAT.mnn=QUANTIZED.mnn:low ...]` plants all of them and prints the rates: right layer,
right cause, and how many sound twins were blamed.  Each limit is 3 dB below what the sound file has, so that what
breaks is what was planted.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgequant.archive.layers import LayerCapture
from edgequant.cases.case import Case
from edgequant.cases.generate import generate
from edgequant.compare.metrics import compare
from edgequant.jobs.diagnose_layers import Looking, key_of
from edgequant.judge.diagnosis import Diagnosis, diagnose
from edgequant.lab.probes.layers import once
from edgequant.lab.session import DeviceOptions, Session, open_session
from edgequant.lab.take import ModelFile
from edgequant.models import read_model
from edgequant.models.flat import Table
from edgequant.models.mnn.net import convolution, open_net
from edgequant.models.mnn.schema import Convolution2D, IDSTQuan, Net, TensorDescribe, TensorQuantInfo
from edgequant.models.mnn.weights import Weights, read_weights
from edgequant.spec import Limit, MemoryMode, RunOptions
from tests import generated, sources

Edit = Callable[[bytearray, Table, Weights], bool]
"""Changes a layer's bytes in place; false where it has nothing to be changed."""


def _quant(op: Table) -> Table | None:
    layer = convolution(op)
    return None if layer is None else layer.table(Convolution2D.quan_parameter)


def _scales(data: bytearray, op: Table, layer: Weights, change: Callable[[np.ndarray], None]) -> bool:
    """Change the weights' scales: [channels, blocks], the steps alone and not the least values."""
    quant = _quant(op)
    start, count = quant.extent(IDSTQuan.alpha) if quant is not None else (0, 0)
    if not count or layer.channels < 2:
        return False
    alpha = np.frombuffer(data, "<f4", count, start).copy()
    if layer.sym:
        steps = alpha.reshape(layer.channels, -1)
        change(steps)
    else:
        pairs = alpha.reshape(layer.channels, -1, 2)
        whole = np.ascontiguousarray(pairs.reshape(layer.channels, -1))
        change(whole)
        alpha = whole.reshape(-1)
    data[start : start + 4 * count] = alpha.astype("<f4").tobytes()
    return True


def _times(factor: float, part: float) -> Edit:
    def edit(data: bytearray, op: Table, layer: Weights) -> bool:
        def change(rows: np.ndarray) -> None:
            rows[: max(1, int(part * rows.shape[0]))] *= np.float32(factor)

        return _scales(data, op, layer, change)

    return edit


def _swapped(data: bytearray, op: Table, layer: Weights) -> bool:
    """The codes of half of the channels are their neighbours' (of a byte each); so are their scales."""
    quant = _quant(op)
    start, count = quant.extent(IDSTQuan.buffer) if quant is not None else (0, 0)
    size = layer.per_channel * layer.area
    if layer.bits != 8 or layer.channels < 4 or count < layer.channels * size or size < 4:
        return False
    first = start + count - layer.channels * size
    rows = np.frombuffer(data, np.uint8, layer.channels * size, first).reshape(layer.channels, size).copy()
    order = np.arange(layer.channels)
    order[0:2], order[2:4] = (1, 0), (3, 2)
    data[first : first + rows.size] = rows[order].tobytes()

    def change(scales: np.ndarray) -> None:
        scales[:] = scales[order]

    return _scales(data, op, layer, change)


def _coarse(data: bytearray, op: Table, layer: Weights) -> bool:
    """Codes that lost their lower bits."""
    quant = _quant(op)
    start, count = quant.extent(IDSTQuan.buffer) if quant is not None else (0, 0)
    size = layer.channels * layer.per_channel * layer.area
    if layer.bits != 8 or count < size or not size:
        return False
    first = start + count - size
    codes = np.frombuffer(data, np.uint8, size, first)
    data[first : first + size] = ((codes // 64) * 64 + 32).astype(np.uint8).tobytes()
    return True


def _no_bias(data: bytearray, op: Table, layer: Weights) -> bool:
    parameter = convolution(op)
    start, count = parameter.extent(Convolution2D.bias) if parameter is not None else (0, 0)
    bias = np.frombuffer(data, "<f4", count, start)
    if not count or float(np.abs(bias).max()) < 1e-3:
        return False
    data[start : start + 4 * count] = bytes(4 * count)
    return True


def _output_scale(factor: float) -> Edit:
    """The fixed scale of the layer's output tensor."""

    def edit(data: bytearray, op: Table, layer: Weights) -> bool:
        del op
        if layer.kept != "static" or layer.subgraph:
            return False
        net = _root(data)
        for described in net.tables(Net.extra_tensor_describe):
            info = described.table(TensorDescribe.quant_info)
            if info is None or described.number(TensorDescribe.index) != layer.outputs[0]:
                continue
            place = info.place(TensorQuantInfo.scale)
            if place is None:
                return False
            value = np.frombuffer(data, "<f4", 1, place) * np.float32(factor)
            data[place : place + 4] = value.astype("<f4").tobytes()
            return True
        return False

    return edit


def _root(data: bytearray) -> Table:
    from edgequant.models.flat import FlatFile

    return FlatFile(bytes(data)).root()


EDITS: dict[str, tuple[Edit, tuple[str, ...]]] = {
    "scales of a quarter of the channels times 3": (_times(3.0, 0.25), ("WEIGHT_SCALE_WRONG",)),
    "scales of half of the channels 0": (_times(0.0, 0.5), ("ZERO_SCALE",)),
    "channels exchanged": (_swapped, ("WEIGHTS_MISPLACED",)),
    "weights of two bits": (_coarse, ("WEIGHT_ROUNDED_BADLY", "WEIGHT_SCALE_WRONG")),
    "bias gone": (_no_bias, ("BIAS_LOST",)),
    "output clipped": (_output_scale(1 / 8), ("RANGE_CLIPPED",)),
    "output's scale too wide": (_output_scale(40.0), ("RANGE_TOO_WIDE",)),
}
"""What is planted -> how, and the causes that name it."""


@dataclass(frozen=True)
class Subject:
    """A sound file and what it was made from.  floor: SQNR by output, of the worst case, against float MNN."""

    name: str
    plain: Path
    made: Path
    memory: MemoryMode
    cases: tuple[Case, ...]
    expected: Mapping[str, Mapping[str, np.ndarray]]
    floor: Mapping[str, float]


def subject(name: str, plain: Path, made: Path, memory: MemoryMode, host: Session, *, cases: int = 2) -> Subject:
    graph = read_model(plain)
    assert graph.inputs is not None
    drawn = tuple(generate(graph.inputs, seed=1)[:cases])
    expected, got = (
        once(host, ModelFile(path, how, precision="normal"), drawn) for path, how in ((plain, "normal"), (made, memory))
    )
    assert isinstance(expected, dict)
    assert isinstance(got, dict)
    floor = {
        output: min(
            (db for case in expected if (db := compare(expected[case][output], got[case][output]).sqnr_db) is not None),
            default=200.0,
        )
        for output in next(iter(expected.values()))
    }
    return Subject(name, plain, made, memory, drawn, expected, floor)


def planted(of: Subject, layer: Weights, edit: Edit, out: Path) -> bool:
    """Write the file with one layer changed; false where this layer has nothing of the kind."""
    data = bytearray(of.made.read_bytes())
    with open_net(of.made) as net:
        if not edit(data, net.at(layer.place), layer):
            return False
    out.write_bytes(data)
    return True


def breaks(of: Subject, made: Path, host: Session) -> list[str]:
    """Outputs that a file breaks."""
    got = once(host, ModelFile(made, of.memory), of.cases)
    if not isinstance(got, dict):
        return list(of.floor)
    return [
        output
        for output, floor in of.floor.items()
        if any(
            (found := compare(of.expected[case][output], got[case][output])).problem is not None
            or (found.sqnr_db is not None and found.sqnr_db < floor - 3)
            for case in got
        )
    ]


def look(of: Subject, made: Path, host: Session, work: Path, failing: Sequence[str]) -> tuple[LayerCapture, Diagnosis]:
    limits = {name: (Limit(metric="sqnr_db", op=">=", value=floor - 3),) for name, floor in of.floor.items()}
    capture = Looking(
        variant="planted",
        uri="local:",
        plain=of.plain,
        made=made,
        memory=of.memory,
        precision="normal",
        stage="quantization" if failing else None,
        cases=of.cases,
        expected=lambda case: of.expected[case],
        limits=limits,
        host=host,
        work=work,
        failing=failing,
    ).capture()
    return capture, diagnose(capture, tuple(of.floor))


@dataclass(frozen=True)
class Result:
    """A planted fault: what was named."""

    subject: str
    fault: str
    layer: str
    named: tuple[str, ...]
    cause: str
    right_layer: bool
    right_cause: bool
    proof: str | None


def run(of: Subject, host: Session, *, layers: Sequence[str] | None = None, most: int = 3) -> Iterator[Result]:
    """Plant every kind into up to `most` layers each in which it breaks something."""
    made = [each for each in read_weights(of.made) if each.kept in ("quantized", "static")]
    rng = np.random.default_rng(len(made))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "planted.mnn"
        for fault, (edit, causes) in EDITS.items():
            done = 0
            for number in rng.permutation(len(made)):
                layer = made[number]
                if done >= most or (layers is not None and layer.name not in layers):
                    continue
                if not planted(of, layer, edit, out) or not (failing := breaks(of, out, host)):
                    continue
                done += 1
                _, found = look(of, out, host, Path(folder), failing)
                key, cause = key_of(layer.key), "" if found.cause is None else found.cause.code
                right = found.blame.layers[:1] == (key,)
                yield Result(
                    of.name, fault, key, found.blame.layers, cause, right, right and cause in causes, found.blame.proof
                )


@contextlib.contextmanager
def this_host(log: Path | None = None) -> Iterator[Session]:
    with open_session("local:", DeviceOptions(), RunOptions(threads=2), log=log) as host:
        host.runner()
        yield host


FLAGS: dict[str, tuple[str, ...]] = {
    "dynamic:8": ("--weightQuantBits", "8", "--weightQuantAsymmetric=1"),
    "dynamic:4": ("--weightQuantBits", "4", "--weightQuantAsymmetric=1"),
}


def generated_subject(kind: str, variant: str, folder: Path, host: Session) -> Subject:
    """Of a model that is made here: conv_cnn, small_cnn, gru or lstm."""
    source = getattr(generated, kind)(folder / f"{kind}.onnx")
    plain = sources.convert(source, folder / f"{kind}.mnn")
    made = sources.convert(source, folder / f"{kind}-{variant.replace(':', '')}.mnn", *FLAGS[variant])
    return subject(f"{kind} {variant}", plain, made, "low", host)


def rates(results: Sequence[Result]) -> str:
    total = max(len(results), 1)
    layer, cause = sum(each.right_layer for each in results), sum(each.right_cause for each in results)
    proven = sum(each.proof == "proven" for each in results)
    return (
        f"{len(results)} planted: right layer {layer} ({100 * layer / total:.0f} %), right cause {cause} "
        f"({100 * cause / total:.0f} %), proven {proven}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", help="FLOAT.mnn=QUANTIZED.mnn:low or :normal")
    parser.add_argument("--most", type=int, default=2)
    given = parser.parse_args()
    results: list[Result] = []
    blamed = sound = 0
    with tempfile.TemporaryDirectory() as folder, this_host() as host:
        subjects = [
            generated_subject(kind, variant, Path(folder), host)
            for kind, variant in (("conv_cnn", "dynamic:8"), ("small_cnn", "dynamic:4"), ("gru", "dynamic:8"))
        ] if not given.files else []  # fmt: skip
        for text in given.files:
            plain, _, rest = text.partition("=")
            made, _, memory = rest.rpartition(":")
            how: MemoryMode = "low" if memory == "low" else "normal"
            subjects.append(subject(Path(made).stem, Path(plain), Path(made), how, host))
        for each in subjects:
            sound += 1
            _, twin = look(each, each.made, host, Path(folder), breaks(each, each.made, host))
            blamed += twin.stage is not None
            start, before = time.monotonic(), len(results)
            for found in run(each, host, most=given.most):
                results.append(found)
                if not found.right_cause:
                    print(f"  {found}", flush=True)
            print(f"{each.name}: {rates(results[before:])}, {time.monotonic() - start:.0f} s", flush=True)
    print(f"{rates(results)}; sound files blamed: {blamed} of {sound}")
    return int(any(not each.right_layer for each in results) or blamed > 0)


if __name__ == "__main__":
    sys.exit(main())
