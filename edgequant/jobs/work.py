"""Work of a model on an emulated CPU, and of two of them against each other."""

from __future__ import annotations

import statistics
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from edgequant.cases.case import Case
from edgequant.cases.generate import generate
from edgequant.cases.load import load_cases
from edgequant.errors import InputError
from edgequant.models import ModelGraph, read_model
from edgequant.models.mnn.net import graphs, open_net
from edgequant.pack import WantedPack, default_cache, unpacked
from edgequant.progress import Progress
from edgequant.spec import MemoryMode, Precision
from edgequant.work.count import Emulator, Work
from edgequant.work.plugin import compiled, qemu_with_plugins

SAME = 0.0005
"""The same file in two processes differs by less."""


@dataclass(frozen=True)
class Compared:
    """share: so much more the first takes, of the second, in the middle of inferences that are taken in pairs (what
    MNN does every few inferences, both do).  sure: that is more than pairs differ by, and more than `SAME`."""

    share: float
    sure: bool
    operators: tuple[tuple[str, str, int, int], ...]
    """Name or kind, type, instructions of the first and the second; those that differ, the largest difference first."""


def work(
    models: list[Path], device: str, *, inputs: Path | None = None, memory: MemoryMode = "low",
    precision: Precision = "normal", seed: int = 0, qemu: str | None = None, progress: Progress | None = None,
) -> list[Work]:  # fmt: skip
    """Count each, with the same inputs.

    Raises InputError (OPTION_INVALID, what reading a model or inputs raises), DeviceError (WORK_QEMU_MISSING,
    WORK_COMPILER_MISSING, what a pack raises), RunnerError (WORK_FAILED).
    """
    from edgequant.devices.emulated import SCHEME, EmulatedDevice

    progress = progress or Progress()
    if not device.startswith(SCHEME):
        raise InputError(
            "OPTION_INVALID", f"{device}: work is counted on emulated CPUs", hint="Of a device, measure time: bench."
        )
    cpu = EmulatedDevice(device).cpu
    graphs_ = [_model(path) for path in models]
    case = _case(graphs_[0], inputs, seed)
    found = []
    with tempfile.TemporaryDirectory(prefix="edgequant-work-") as name:
        folder = Path(name)
        # The compiler and QEMU first: a pack may take minutes.
        binary, plugin = qemu_with_plugins(qemu), compiled(folder)
        pack = WantedPack().get(progress, default_cache())
        python = pack.command(str(unpacked(pack, default_cache())))
        emulator = Emulator(binary, cpu, python, plugin)
        for path in models:
            progress.say(f"counting instructions of {path}")
            found.append(
                emulator.count(path, case, folder, memory=memory, precision=precision, operators=not _loops(path))
            )
    return found


def compare(one: Work, other: Work) -> Compared:
    """Operators by name where both have the same names, else by type."""
    shares = [a / max(b, 1) - 1 for a, b in zip(one.counted, other.counted, strict=True)]
    share = statistics.median_low(shares)
    apart = max(abs(each - share) for each in shares)
    same = [each.name for each in one.operators] == [each.name for each in other.operators]
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for side, work_ in enumerate((one, other)):
        for each in work_.operators:
            sums[each.name if same else each.type, each.type][side] += each.instructions
    rows = [(name, kind, a, b) for (name, kind), (a, b) in sums.items() if a != b]
    rows.sort(key=lambda row: -abs(row[2] - row[3]))
    return Compared(share, abs(share) > max(apart, SAME), tuple(rows))


def _model(path: Path) -> ModelGraph:
    graph = read_model(path)
    if graph.format != "mnn":
        raise InputError(
            "OPTION_INVALID", f"{path}: work is counted of .mnn files",
            hint="Make one: edgequant quantize MODEL --variant float -o model.mnn",
        )  # fmt: skip
    return graph


def _case(graph: ModelGraph, inputs: Path | None, seed: int) -> Case:
    if inputs is not None:
        return load_cases(inputs, graph.inputs or ())[0]
    drawn = generate(graph.inputs or (), seed)
    return drawn[len(drawn) // 2]


def _loops(path: Path) -> bool:
    """Only MNN's Interpreter tells operators, and it runs no subgraphs."""
    with open_net(path) as net:
        return len(list(graphs(net))) > 1
