"""Inner tensors of a source, by its own runtime, in batches of bounded size; and parts cut out of it.

One child process serves all of it, one model after another.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgequant.cases.case import Case
from edgequant.errors import EdgequantError, InputError
from edgequant.models import ModelGraph
from edgequant.models.onnx_cut import OnnxFile
from edgequant.reference.reference import CaseRefused, Outputs
from edgequant.reference.runtime import RuntimeReference, available
from edgequant.tensors import SHAPE

BATCH_BYTES = 64 << 20
"""Of inner tensors that are held at once."""
_MOST_BYTES = 8  # of an element
_KINDS = ("onnxruntime", "onnx")


class Inside:
    """An ONNX source and its runtime: ONNX Runtime, or ONNX's evaluator for what that cannot load.  Context manager.

    folder: for the copies it makes, its own.  Raises InputError MODEL_INVALID where neither can load the source.
    """

    def __init__(self, graph: ModelGraph, file: OnnxFile, folder: Path, log: Path, timeout: float) -> None:
        self._graph, self._file, self._folder, self._log, self._timeout = graph, file, folder, log, timeout
        self._runtime: RuntimeReference | None = None
        self._ran: Case | None = None
        folder.mkdir(exist_ok=True)
        self._beside(folder)
        refused: InputError | None = None
        for kind in filter(available, _KINDS):
            self.name = kind
            try:
                self._living(graph.path)
                return
            except InputError as error:
                refused = refused or error
        raise refused or InputError("MODEL_INVALID", "no runtime for ONNX sources is installed (extra 'onnx')")

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._runtime is not None:
            self._runtime.close()

    def sizes(self, names: Iterable[str], case: Case) -> dict[str, tuple[int, ...]]:
        """The sizes of inner tensors; what cannot be asked for is left out.  Raises CaseRefused."""
        wanted = list(names)
        found = self._opened((), wanted, case)
        return {name: tuple(int(size) for size in found[name + SHAPE]) for name in wanted if name + SHAPE in found}

    def values(self, names: Iterable[str], case: Case) -> dict[str, np.ndarray]:
        """Inner tensors, or outputs; what cannot be asked for is left out.  Raises CaseRefused."""
        wanted = list(names)
        found = self._opened(wanted, (), case)
        return {name: found[name] for name in wanted if name in found}

    def run(self, model: Path, inputs: Mapping[str, np.ndarray]) -> Outputs:
        """A part that was cut out of it.  Raises EdgequantError, CaseRefused."""
        runtime = self._living(model)
        return runtime.run(Case("part", inputs, "inner tensors"))

    def _opened(self, names: Sequence[str], sizes: Sequence[str], case: Case) -> Outputs:
        if not names and not sizes:
            return {}
        copy = self._folder / "opened.onnx"
        self._file.open_tensors(names, sizes, copy)
        try:
            return self._living(copy).run(case)
        except (EdgequantError, CaseRefused):
            # Sequences have no shape, and words cannot be handed out: what can be is found by halving.
            self._require(case)
            asked = names or sizes
            if len(asked) == 1:
                return {}
            found: Outputs = {}
            for part in (asked[: len(asked) // 2], asked[len(asked) // 2 :]):
                found |= self._opened(part if names else (), () if names else part, case)
            return found

    def _require(self, case: Case) -> None:
        """Raises CaseRefused where the source itself cannot run it."""
        if case is not self._ran:
            self._living(self._graph.path).run(case)
            self._ran = case

    def _living(self, model: Path) -> RuntimeReference:
        """The runtime with this model in it; a new one where it died."""
        if self._runtime is not None:
            try:
                self._runtime.load(model)
                return self._runtime
            except EdgequantError as error:
                if not error.code.startswith("RUNNER_"):
                    raise
                self._runtime.close()
                self._runtime = None
        started = RuntimeReference(self.name, model, self._log, self._timeout)
        started.ready()
        self._runtime = started
        return started

    def _beside(self, folder: Path) -> None:
        """External weights where a copy in this folder looks for them.  Runtimes refuse symbolic links."""
        root = self._graph.path.parent.resolve()
        for external in self._graph.external_files:
            there = folder / external.relative_to(root)
            there.parent.mkdir(parents=True, exist_ok=True)
            if not there.exists():
                try:
                    os.link(external, there)
                except OSError:
                    there.write_bytes(external.read_bytes())


class LiteInside:
    """A TFLite source in LiteRT, which keeps every tensor.  Context manager."""

    def __init__(self, graph: ModelGraph, log: Path, timeout: float) -> None:
        self.name = "litert"
        self._graph = graph
        self._runtime = RuntimeReference("litert-inner", graph.path, log, timeout)

    def __enter__(self) -> LiteInside:
        self._runtime.ready()
        return self

    def __exit__(self, *exc: object) -> None:
        self._runtime.close()

    def sizes(self, names: Iterable[str], case: Case) -> dict[str, tuple[int, ...]]:
        """See `Inside.sizes`."""
        wanted = list(names)
        if not wanted:
            return {}
        self._runtime.load(self._graph.path, [f"{name}{SHAPE}" for name in wanted])
        found = self._runtime.run(case)
        return {name: tuple(int(size) for size in found[name + SHAPE]) for name in wanted if name + SHAPE in found}

    def values(self, names: Iterable[str], case: Case) -> dict[str, np.ndarray]:
        """See `Inside.values`."""
        wanted = list(names)
        if not wanted:
            return {}
        self._runtime.load(self._graph.path, wanted)
        return self._runtime.run(case)

    def run(self, model: Path, inputs: Mapping[str, np.ndarray]) -> Outputs:
        """See `Inside.run`."""
        self._runtime.load(model)
        return self._runtime.run(Case("part", inputs, "inner tensors"))

    def cut(self, part: Mapping[str, object], fixed: Mapping[str, np.ndarray]) -> None:
        """See `lite_file.LiteFile.cut`."""
        self._runtime.cut({"source": str(self._graph.path.resolve()), **part}, fixed)


def batches(sizes: Mapping[str, tuple[int, ...]], most: int = BATCH_BYTES) -> Iterator[list[str]]:
    """Names in order, as many at once as `most` bytes hold; one at least."""
    batch: list[str] = []
    held = 0
    for name, shape in sizes.items():
        need = _MOST_BYTES * int(np.prod(shape, dtype=np.int64))
        if batch and held + need > most:
            yield batch
            batch, held = [], 0
        batch.append(name)
        held += need
    if batch:
        yield batch
