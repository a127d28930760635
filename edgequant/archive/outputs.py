"""Outputs of many cases, kept on disk, and their comparison case by case, so that memory does not grow with cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from edgequant.archive.folder import RunDirectory
from edgequant.cases.load import read_npz
from edgequant.compare.metrics import TensorComparison, compare
from edgequant.compare.summary import OutputSummary, summarize
from edgequant.errors import InputError, ToolError

Outputs = Mapping[str, np.ndarray]

_CACHE_BYTES = 256 << 20
_MAX_BYTES = 16 << 30


class OutputStore:
    """Outputs by case under captures/<name>/; the most recent ones also in memory."""

    def __init__(self, run_dir: RunDirectory, name: str) -> None:
        self._run_dir = run_dir
        self._folder = f"captures/{name}"
        self._paths: dict[str, Path] = {}
        self._cache: dict[str, Outputs] = {}
        self._cached_bytes = 0

    @classmethod
    def kept(cls, run_dir: RunDirectory, name: str, cases: Iterable[str]) -> OutputStore:
        """What an earlier store of this name has kept of these cases."""
        store = cls(run_dir, name)
        paths = {case: run_dir.arrays(store._folder, case) for case in cases}
        store._paths = {case: path for case, path in paths.items() if path.is_file()}
        return store

    def put(self, case: str, outputs: Outputs) -> None:
        self._paths[case] = self._run_dir.save_arrays(self._folder, case, outputs)
        size = sum(array.nbytes for array in outputs.values())
        if self._cached_bytes + size <= _CACHE_BYTES:
            self._cache[case] = outputs
            self._cached_bytes += size

    def get(self, case: str) -> Outputs | None:
        """The outputs of a case, None where there are none."""
        if case in self._cache:
            return self._cache[case]
        path = self._paths.get(case)
        if path is None:
            return None
        try:
            return read_npz(path, max_bytes=_MAX_BYTES)
        except InputError as error:
            # We wrote it: whatever is wrong with it is not the user's mistake.
            raise ToolError(
                "CAPTURE_UNREADABLE", str(error), hint="Something else changed the run directory."
            ) from None

    def __contains__(self, case: str) -> bool:
        return case in self._paths


class Comparisons:
    """One stage's comparisons: output -> case -> how far it is from what it should be."""

    def __init__(self) -> None:
        self._by_output: dict[str, dict[str, TensorComparison]] = {}

    def add(self, case: str, expected: Outputs, got: Outputs | None) -> None:
        """Compare one case; `got` None means that nothing came back."""
        for name, reference in expected.items():
            found = compare(reference, None if got is None else got.get(name))
            self._by_output.setdefault(name, {})[case] = found

    def summaries(self) -> dict[str, OutputSummary]:
        return {name: summarize(cases) for name, cases in self._by_output.items()}

    def __bool__(self) -> bool:
        return bool(self._by_output)
