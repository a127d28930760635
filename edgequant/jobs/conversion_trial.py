"""A part of a source on its own: cut out, converted alone, fed with the source's own inner tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgequant.cases.case import Case
from edgequant.errors import DeviceError, EdgequantError, RunnerError
from edgequant.jobs.conversion_likeness import Likeness, liken, same
from edgequant.lab.session import Session
from edgequant.lab.take import ModelFile, Place, feed
from edgequant.models import ModelGraph, read_model
from edgequant.models.onnx_cut import Cut, Declared, OnnxFile, Value
from edgequant.quantize.convert import convert
from edgequant.reference.inside import Inside, LiteInside
from edgequant.reference.lite_file import LiteFile
from edgequant.reference.reference import CaseRefused
from edgequant.runner.client import Loaded, MnnRunner
from edgequant.spec import Variant

FLOAT = Variant(method="float")
Arrays = dict[str, np.ndarray]
_SHAPE_MAKERS = ("Shape", "Size", "SHAPE", "RANK")


@dataclass(frozen=True)
class Trial:
    """What came of a part.  source, mnn: its files.  failure: why it could not be converted or run, if it could not."""

    part: Cut
    source: Path
    mnn: Path
    inputs: Arrays
    expected: Arrays
    got: Arrays
    alike: Mapping[str, Likeness]
    failure: EdgequantError | None = None

    @property
    def died(self) -> bool:
        """MNN died of it."""
        return self.failure is not None and self.failure.code == "RUNNER_DIED"

    @property
    def refused(self) -> bool:
        """MNN has the file, and cannot run it."""
        return self.failure is not None and self.failure.code in ("INFERENCE_FAILED", "MODEL_LOAD_FAILED")

    @property
    def departs(self) -> bool:
        return any(each.kind != "same" for each in self.alike.values())


class Bench:
    """Tries parts of a source, with one case's inner tensors.

    work: a folder of its own.  runs: how many more parts may be converted.
    """

    def __init__(
        self,
        graph: ModelGraph,
        file: OnnxFile | LiteFile,
        inside: Inside | LiteInside,
        host: Session,
        case: Case,
        work: Path,
        *,
        runs: int,
        timeout: float,
    ) -> None:
        self.file, self.inside, self.case = file, inside, case
        self.runs = runs
        self.used = 0
        self.host, self._work, self._timeout = host, work, timeout
        self._count = 0
        self._known: Arrays = dict(case.inputs)
        self._sized = self._of_sizes()
        self._varying = self._sizes_that_vary(graph)

    @property
    def varies(self) -> bool:
        """Whether the source leaves sizes open."""
        return bool(self._varying)

    def inputs_of(self, nodes: Iterable[int]) -> list[str]:
        """What a part reads that it does not make and that is no constant."""
        places = set(nodes)
        made = {name for place in places for name in self.file.nodes[place].makes}
        reads = (name for place in sorted(places) for name in self.file.nodes[place].reads)
        return [name for name in dict.fromkeys(reads) if name not in made and name not in self.file.constant]

    def value(self, names: Iterable[str]) -> Arrays:
        """Inner tensors of the source; what cannot be had is left out."""
        wanted = list(names)
        missing = [name for name in wanted if name not in self._known]
        self._known |= self.inside.values(missing, self.case)
        return {name: self._known[name] for name in wanted if name in self._known}

    def attempt(self, nodes: Iterable[int], outputs: Iterable[str], *, loose: bool = False) -> Trial | None:
        """Cut, convert and run; None where it cannot be cut, or no run of the converter is left.

        loose: sizes that vary in the source stay open in the part.  Raises DeviceError where this host's runner
        cannot be kept alive.
        """
        reads, wanted = self.inputs_of(nodes), list(outputs)
        values = self.value([*reads, *wanted])
        if self.runs <= 0 or any(name not in values for name in (*reads, *wanted)):
            return None
        # Whole numbers that are computed become constants, as they are to most converters; inputs stay inputs.
        plain = {
            name
            for name in reads
            if name in self.case.inputs or (name not in self._sized and values[name].dtype.kind == "f")
        }
        running = plain or {name for name in reads if name not in self._sized} or set(reads)
        part = Cut(
            tuple(sorted(nodes)),
            {name: self._declared(values[name], loose=loose) for name in reads if name in running},
            {name: values[name] for name in reads if name not in running},
            {name: (values[name].dtype.name, (None,) * values[name].ndim) for name in wanted},
        )
        if not part.inputs:
            return None
        return self.convert(part, {name: values[name] for name in part.inputs})

    def convert(self, part: Cut, inputs: Arrays) -> Trial | None:
        """Convert a part and run it; None where the reference refuses it."""
        expected = self.expected(part, inputs)
        if expected is None:
            return None
        self._count += 1
        name = f"part{self._count}"
        source, mnn = self._work / f"{name}{self.file.suffix}", self._work / f"{name}.mnn"
        self.file.cut(part, source)
        self.runs -= 1
        self.used += 1
        try:
            convert(read_model(source), FLOAT, mnn, log_dir=self._work, timeout=self._timeout)
            got = self.mnn(mnn, inputs)
        except EdgequantError as error:
            return Trial(part, source, mnn, inputs, expected, {}, {}, error)
        alike = {name: liken(array, got.get(name)) for name, array in expected.items()}
        return Trial(part, source, mnn, inputs, expected, got, alike)

    def again(self, trial: Trial, inputs: Arrays) -> bool:
        """Whether it still departs with other inputs of other sizes; the same file is run."""
        expected = self.expected(trial.part, inputs)
        if expected is None or any(array.size == 0 for array in expected.values()):
            return False
        try:
            got = self.mnn(trial.mnn, inputs)
        except EdgequantError:
            return False
        return not all(same(array, got.get(name)) for name, array in expected.items())

    def expected(self, part: Cut, inputs: Arrays, changed: Mapping[str, Value | None] | None = None) -> Arrays | None:
        """What the source's runtime makes of a part; changed: with other attributes of its last node."""
        # LiteRT takes other sizes only where a file leaves them open, so that it gets those it is run with.
        exact = isinstance(self.file, LiteFile)
        loose: dict[str, Declared] = {
            name: (array.dtype.name, array.shape if exact else (None,) * array.ndim) for name, array in inputs.items()
        }
        copy = self._work / f"reference{self.file.suffix}"
        outputs = {name: (dtype, (None,) * len(sizes)) for name, (dtype, sizes) in part.outputs.items()}
        try:
            self.file.cut(Cut(part.nodes, loose, part.fixed, outputs, changed or {}), copy)
            return self.inside.run(copy, inputs)
        except (EdgequantError, CaseRefused):
            return None

    def mnn(self, path: Path, inputs: Arrays) -> Arrays:
        """Float MNN's outputs.  Raises EdgequantError; the host has a new runner where this one died."""
        place: Place | None = None
        try:
            place = Place.load(self.host, ModelFile(path, "normal", None, "normal"))
            found = place.runner.run(place.loaded, feed(place.loaded, inputs)).outputs
        except DeviceError as error:
            if place is None or error.code != "INFERENCE_FAILED":
                self.host.drop_runner()
            else:
                let_go(self.host, place.runner, place.loaded)
            raise
        let_go(self.host, place.runner, place.loaded)
        return found

    def _declared(self, array: np.ndarray, *, loose: bool) -> Declared:
        sizes = (None if loose and size in self._varying else size for size in array.shape)
        return array.dtype.name, tuple(sizes)

    def _of_sizes(self) -> set[str]:
        """Tensors that are computed of others' sizes alone: to a converter they are constants, in all but name."""
        found = set[str]()
        for node in self.file.nodes:
            if node.kind in _SHAPE_MAKERS or (
                any(name in found for name in node.reads)
                and all(name in found or name in self.file.constant for name in node.reads)
            ):
                found.update(node.makes)
        return found

    def _sizes_that_vary(self, graph: ModelGraph) -> set[int]:
        """Sizes this case has where the source leaves them open; none of a TFLite file, whose parts have all sizes."""
        found = set[int]()
        for spec in () if isinstance(self.file, LiteFile) else graph.inputs or ():
            array = self.case.inputs.get(spec.name)
            if array is not None and spec.shape is not None:
                found.update(size for size, said in zip(array.shape, spec.shape, strict=False) if said is None)
        return found


def let_go(host: Session, runner: MnnRunner, loaded: Loaded) -> None:
    """Unload a model; some wrong conversions write where they must not, and the runner only dies of it here."""
    try:
        runner.unload(loaded)
    except RunnerError:
        host.drop_runner()


def shrink(bench: Bench, trial: Trial, most: int = 48) -> Trial:
    """The same part with the smallest inputs that were found to show it still: halves along each dimension, the
    dimensions of one size together.  One more run of the converter proves it."""
    inputs, tries = dict(trial.inputs), most
    sizes = sorted({size for array in inputs.values() for size in array.shape if size > 1}, reverse=True)
    for size in sizes:
        places = [(name, axis) for name, array in inputs.items() for axis, n in enumerate(array.shape) if n == size]
        groups = [places] if len(places) == 1 else [places, *([place] for place in places)]
        for group in groups:
            group = [(name, axis) for name, axis in group if inputs[name].shape[axis] == size]
            left = size
            while group and left > 1 and tries > 0:
                for start in (0, left - left // 2):
                    smaller = dict(inputs)
                    for name, axis in group:
                        cut = [slice(None)] * inputs[name].ndim
                        cut[axis] = slice(start, start + left // 2)
                        smaller[name] = np.ascontiguousarray(inputs[name][tuple(cut)])
                    tries -= 1
                    if bench.again(trial, smaller):
                        inputs = smaller
                        break
                else:
                    break
                left = left // 2
    if all(inputs[name].shape == trial.inputs[name].shape for name in inputs):
        return trial
    loose = any(None in sizes for _, sizes in trial.part.inputs.values())
    declared = {
        name: trial.part.inputs[name] if loose else (array.dtype.name, array.shape) for name, array in inputs.items()
    }
    part = Cut(trial.part.nodes, declared, trial.part.fixed, trial.part.outputs)
    found = bench.convert(part, inputs)
    return found if found is not None and found.departs else trial
