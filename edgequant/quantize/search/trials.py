"""Measures models on the cases: the outputs of the float one, and the noise of others against them."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgequant.compare.decibel import power_db
from edgequant.errors import InputError, ToolError
from edgequant.progress import Show
from edgequant.quantize.child import death, run_child
from edgequant.quantize.search.mixture import Choice, Mixture
from edgequant.quantize.work import room_left
from edgequant.spec import MemoryMode, Precision, RunOptions

# Not with -m, which would import from the current directory first: that may be a folder somebody else filled.
_WORKER = """
import sys
sys.path[:] = [entry for entry in sys.path if entry]
from edgequant.quantize.search.worker import main
sys.exit(main(sys.argv[1]))
"""
_MOST_LINE = 1 << 20
_MOST_DEATHS = 3
"""Trials that may crash in one batch; more, and it is not the trials' fault."""


@dataclass(frozen=True)
class Signals:
    """What the reference's outputs hold, and which (case, output) pairs can be judged by their noise.

    Attributes:
        outputs: names in the model's order.
        powers: sum of squares of each case and output, float64 [cases * outputs]; 0 where it cannot be judged: an
            integer output, an empty or all-zero one, one with NaN or Inf.
        values: how many numbers those pairs have in all.
    """

    outputs: tuple[str, ...]
    powers: np.ndarray
    values: int = 0

    @property
    def judged(self) -> list[str]:
        """Names of outputs that can be judged in some case."""
        count = len(self.outputs)
        return [name for place, name in enumerate(self.outputs) if (self.powers[place::count] > 0).any()]

    def sqnr_db(self, noise: np.ndarray, cases: int | None = None) -> dict[str, float]:
        """10 log10(sum ref^2 / sum error^2) of each output in the worst of the (first) cases where it can be judged."""
        found: dict[str, float] = {}
        end = None if cases is None else cases * len(self.outputs)
        for place, (power, lost) in enumerate(zip(self.powers[:end], noise[:end], strict=True)):
            if power <= 0:
                continue
            name = self.outputs[place % len(self.outputs)]
            found[name] = min(found.get(name, math.inf), power_db(power, lost))
        return found


@dataclass
class Bench:
    """Runs models over one set of cases on this host.

    Attributes:
        folder: private; its owner removes it.
        inputs: names, in one order for all cases.
        count: number of cases.
        options: how models are run; memory is said with each call.
        timeout: seconds one inference of one model may take.
        runs: models run so far.
    """

    folder: Path
    inputs: tuple[str, ...]
    count: int
    options: RunOptions
    log_dir: Path
    timeout: float
    memory_limit: int | None = None
    runs: int = 0
    _jobs: int = field(default=0, repr=False)

    @classmethod
    def of(cls, cases: Sequence[Mapping[str, np.ndarray]], folder: Path, **more: Any) -> Bench:
        """Put the cases on disk.

        Raises:
            InputError: CASES_EMPTY.
        """
        if not cases:
            raise InputError("CASES_EMPTY", "there are no cases to measure on", hint="Give at least one with --inputs.")
        names = tuple(cases[0])
        for number, case in enumerate(cases):
            arrays = {str(place): np.asarray(case[name]) for place, name in enumerate(names)}
            np.savez(folder / f"case-{number}.npz", **arrays)  # type: ignore[arg-type]
        return cls(folder, names, len(cases), **more)

    def reference(self, model: Path, given: Sequence[Mapping[str, np.ndarray]] | None = None) -> Signals:
        """Outputs of the float model, in full precision; or those given, for outputs of these names.

        Raises:
            InputError: REFERENCE_REFUSED: MNN cannot run the float model on a case; REFERENCE_USELESS: no output can be
                judged by its noise.
            ToolError: SEARCH_CRASHED, SEARCH_TIMEOUT, SEARCH_OUT_OF_MEMORY, SEARCH_FAILED, DISK_FULL.
        """
        powers: list[float] = []
        count = 0
        for number, values in enumerate(self.outputs(model, "normal", "high")):
            if given is not None and number < len(given):
                values = {name: _like(given[number].get(name), own) for name, own in values.items()}
                path = self.folder / f"reference-{number}.npz"
                arrays = {str(place): array for place, array in enumerate(values.values())}
                np.savez(path, **arrays)  # type: ignore[arg-type]
            names = tuple(values)
            powers += [_power(array) for array in values.values()]
            count += sum(array.size for array in values.values() if _power(array) > 0)
        if not any(power > 0 for power in powers):
            raise InputError(
                "REFERENCE_USELESS",
                "no output of the float model can be judged by its noise: all are integers, empty, zero, NaN or Inf",
                hint="Give other inputs.",
                where=str(model),
            )
        return Signals(names, np.asarray(powers), count)

    def outputs(
        self, model: Path, memory: MemoryMode, precision: Precision | None = None
    ) -> list[dict[str, np.ndarray]]:
        """The outputs of a model file for each case; they stay in the folder as what others are held against.

        Raises:
            InputError: REFERENCE_REFUSED; ToolError: as `reference`.
        """
        lines, died = self._run("reference", model, memory, precision, {})
        if died is not None:
            raise died
        said = lines[0] if lines else {}
        if "outputs" not in said:
            raise InputError(
                "REFERENCE_REFUSED",
                f"MNN cannot run the float model: {str(said.get('refused', 'it does not say why'))[:500]}",
                hint="Try `edgequant verify` with --variant float on it.",
                where=str(model),
            )
        found = []
        for number in range(self.count):
            with np.load(self.folder / f"reference-{number}.npz", allow_pickle=False) as arrays:
                found.append({str(name): arrays[str(place)] for place, name in enumerate(said["outputs"])})
        return found

    def mixtures(
        self,
        mixture: Mixture,
        choices: Sequence[Choice],
        memory: MemoryMode,
        signals: Signals,
        into: list[np.ndarray],
        *,
        halved: bool,
        show: Show | None = None,
    ) -> None:
        """Run mixtures.  Appends to `into` the noise of each, float64 [cases * outputs]; inf where it crashed or an
        output came back broken.  What was measured is there even when this is interrupted.

        Args:
            halved: constants in half precision.
            show: told now and then how many of them were run.

        Raises:
            ToolError: SEARCH_CRASHED and the like, where nothing of it can be run.
        """
        mixture.add((key, form) for choice in choices for key, form in choice.items())
        base = mixture.halved if halved else mixture.base
        trials = [mixture.pieces(choice) for choice in choices]
        self._trials(base, mixture.library, trials, memory, signals, into, show)

    def models(self, paths: Sequence[Path], memory: MemoryMode, signals: Signals) -> list[np.ndarray]:
        """The noise of model files as they are; in the same form."""
        found: list[np.ndarray] = []
        for path in paths:
            self._trials(path, Path(os.devnull), [[]], memory, signals, found)
        return found

    def _trials(
        self,
        base: Path,
        library: Path,
        trials: Sequence[Sequence[Sequence[int]]],
        memory: MemoryMode,
        signals: Signals,
        into: list[np.ndarray],
        show: Show | None = None,
    ) -> None:
        deaths = 0
        width = self.count * len(signals.outputs)
        goal = len(into) + len(trials)
        while len(into) < goal:
            left = trials[len(trials) - (goal - len(into)) :]
            lines: list[dict[str, Any]] = []
            try:
                more = {"trials": left, "outputs": list(signals.outputs), "library": str(library)}
                tell = None if show is None else _further(show, len(trials) - len(left))
                _, died = self._run("trials", base, memory, None, more, lines, tell)
            finally:
                into += [_noise(line, width) for line in lines[: len(left)]]
                self.runs += min(len(lines), len(left))
            if len(into) >= goal:
                return
            deaths += 1
            if died is None or died.code == "SEARCH_TIMEOUT" or deaths > _MOST_DEATHS:
                raise died or ToolError("SEARCH_FAILED", "the process that runs the models ended early")
            into.append(np.full(width, math.inf))

    def _run(
        self,
        job: str,
        model: Path,
        memory: MemoryMode,
        precision: Precision | None,
        more: Mapping[str, Any],
        lines: list[dict[str, Any]] | None = None,
        show: Show | None = None,
    ) -> tuple[list[dict[str, Any]], ToolError | None]:
        """(the lines it wrote, how it died); `lines` is filled even when this is interrupted.  `show` is told how many
        there are."""
        self._jobs += 1
        path, out = self.folder / f"job-{self._jobs}.json", self.folder / f"job-{self._jobs}.lines"
        options = {
            "threads": self.options.threads or 1,
            "memory": memory,
            "precision": precision or self.options.precision,
            "dynamic_quant_option": self.options.dynamic_quant_option,
        }
        content = {
            "job": job,
            "model": str(model),
            "folder": str(self.folder),
            "inputs": list(self.inputs),
            "cases": self.count,
            "options": options,
            "out": str(out),
            "timeout": self.timeout,
            **more,
        }
        path.write_text(json.dumps(content), encoding="utf-8")
        log = self.log_dir / f"search-{self.folder.name.lstrip('.')}-{self._jobs}.log"
        found = lines if lines is not None else []
        timeout = self.timeout * (1 + self.count * len(more.get("trials", ())))
        try:
            result = run_child(
                [sys.executable, "-c", _WORKER, str(path)], log=log, timeout=timeout, memory_limit=self.memory_limit,
                watch=None if show is None else _Written(out, show),
            )  # fmt: skip
            if not result.ok:
                room_left(self.folder)  # a full disk explains everything else
        finally:
            found += _read(out)
            path.unlink()
            out.unlink(missing_ok=True)
            Path(str(out) + ".mnn").unlink(missing_ok=True)
        died = death(
            result,
            doing="running the float model" if job == "reference" else "running a quantized model",
            prefix="SEARCH",
            timeout=timeout,
            memory_limit=self.memory_limit,
            where=str(model),
            hint="Try `edgequant verify` on the float model.",
        )
        if died is None:
            log.unlink(missing_ok=True)
        return found, died


class _Written:
    """Counts the lines a worker has written; called now and then while it runs."""

    def __init__(self, path: Path, show: Show) -> None:
        self._path, self._show, self._read, self._lines = path, show, 0, 0

    def __call__(self, _log: bytes) -> None:
        if not self._path.exists():
            return
        with open(self._path, "rb") as file:
            file.seek(self._read)
            new = file.read(_MOST_LINE)
        self._read += len(new)
        self._lines += new.count(b"\n")
        self._show(self._lines)


def _further(show: Show, before: int) -> Show:
    """Of a batch that is gone on with, behind those that were run before."""
    return lambda done: show(before + done)


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    found = []
    with open(path, encoding="utf-8") as file:
        while line := file.readline(_MOST_LINE):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                break  # cut off by the end of the process
            if not isinstance(value, dict):
                break
            found.append(value)
    return found


def _noise(line: Mapping[str, Any], width: int) -> np.ndarray:
    values = line.get("noise")
    if not isinstance(values, list) or len(values) != width:
        return np.full(width, math.inf)
    return np.asarray([math.inf if value is None else float(value) for value in values])


def _power(array: np.ndarray) -> float:
    if array.dtype.kind != "f" or not array.size or not np.isfinite(array).all():
        return 0.0
    return float((array.astype(np.float64) ** 2).sum())


def _like(given: np.ndarray | None, own: np.ndarray) -> np.ndarray:
    """A reference given from outside where it has the model's own shape; else the model's."""
    return np.asarray(given) if given is not None and np.asarray(given).shape == own.shape else own
