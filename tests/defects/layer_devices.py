"""Devices whose kernels compute something else in one layer: this host once more, with a faulty file in place of the
one that is sent, or with tensors that are changed on their way back."""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgequant.archive.layers import LayerCapture
from edgequant.device_scripts import tensor_stats
from edgequant.lab.session import Session
from edgequant.runner.answers import TapsAnswer
from edgequant.runner.client import RunResult
from edgequant.spec import MemoryMode

Effect = Callable[[np.ndarray, int], np.ndarray]
"""A tensor, and the how manieth inference it is, to what comes back."""


@dataclass
class Device:
    """What `Looking.device` is, or `Looking.host` where the host is faulty, on top of a session with this host.

    Attributes:
        file: that it really runs; None: that which is sent.
        low_only: it runs that one with memory low alone.
        memory: that it really takes.
        mnn: the version it claims.
        effect, tensors: what happens to these; half: only where precision is low.
        spared: a file whose tensors stay as they are.
    """

    real: Session
    file: Path | None = None
    low_only: bool = False
    memory: MemoryMode | None = None
    mnn: str | None = None
    effect: Effect | None = None
    tensors: Collection[str] = ()
    half: bool = False
    spared: Path | None = None
    count: int = 0
    touched: set[int] = field(default_factory=set)

    @property
    def device(self) -> Any:
        return self.real.device

    def push(self, model: Path, sha256: str | None = None) -> tuple[str, int]:
        return (str(model), 0) if self.real.device.is_host else self.real.push(model, sha256)

    def living_runner(self) -> Any:
        return _Runner(self, self.real.living_runner())

    def runner(self) -> Any:
        return _Runner(self, self.real.runner())

    def drop_runner(self) -> None:
        self.real.drop_runner()


class _Runner:
    def __init__(self, of: Device, real: Any) -> None:
        self.of, self.real = of, real

    @property
    def hello(self) -> Any:
        return types.SimpleNamespace(mnn=self.of.mnn or self.real.hello.mnn)

    def load(
        self, path: str, memory: MemoryMode, *, precision: Any = None, outputs: Sequence[str] | None = None
    ) -> Any:  # fmt: skip
        spared = self.of.spared is not None and Path(path) == self.of.spared.resolve()
        faulty = self.of.file is not None and not spared and not (self.of.low_only and memory != "low")
        loaded = self.real.load(
            str(self.of.file) if faulty else path, self.of.memory or memory, precision="normal", outputs=outputs
        )
        if self.of.effect is not None and not spared and (not self.of.half or precision in ("low", None)):
            self.of.touched.add(loaded.handle)
        return loaded

    def unload(self, loaded: Any) -> None:
        self.of.touched.discard(loaded.handle)
        self.real.unload(loaded)

    def run(self, loaded: Any, inputs: Mapping[str, np.ndarray]) -> RunResult:
        found = self.real.run(loaded, inputs)
        self.of.count += 1
        effect = self.of.effect
        if effect is None or loaded.handle not in self.of.touched:
            return found
        changed = {
            name: effect(array, self.of.count) if name in self.of.tensors and array.dtype.kind == "f" else array
            for name, array in found.outputs.items()
        }
        return RunResult(changed, found.ms, found.memory)

    def taps(
        self, loaded: Any, inputs: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray],
        whole: Sequence[str] = (),
    ) -> tuple[TapsAnswer, dict[str, np.ndarray]]:  # fmt: skip
        arrays = self.run(loaded, inputs).outputs
        floats = {name: array for name, array in arrays.items() if array.dtype.kind == "f"}
        answer = TapsAnswer.model_validate(
            {
                "stats": {name: tensor_stats.stats(array) for name, array in floats.items()},
                "apart": {
                    name: tensor_stats.apart(expected[name], array)
                    for name, array in floats.items()
                    if name in expected
                },
            }
        )
        return answer, {name: arrays[name] for name in whole if name in arrays}


def behind(capture: LayerCapture, tensor: str) -> list[str]:
    """A tensor and all that is computed of it, in order."""
    found = {tensor: None}
    for layer in capture.layers:
        if not layer.subgraph and any(name in found for name in layer.inputs):
            found.update(dict.fromkeys(layer.outputs))
    return list(found)


# ---- effects


def shorter(array: np.ndarray, number: int) -> np.ndarray:
    """One less along the last axis that has several."""
    del number
    axis = max((axis for axis, length in enumerate(array.shape) if length > 1), default=None)
    return array if axis is None else np.ascontiguousarray(np.delete(array, -1, axis))


def restless(array: np.ndarray, number: int) -> np.ndarray:
    """What an earlier inference left is in every seventh number."""
    changed = array.copy()
    changed.reshape(-1)[::7] *= array.dtype.type(1 + 0.05 * (number % 5))
    return changed


def nan(array: np.ndarray, number: int) -> np.ndarray:
    del number
    changed = array.copy()
    changed.reshape(-1)[:3] = np.nan
    return changed


def shifted(array: np.ndarray, number: int) -> np.ndarray:
    del number
    axis = max((axis for axis, length in enumerate(array.shape) if length > 3), default=0)
    return np.ascontiguousarray(np.roll(array, 1, axis))


def reordered(array: np.ndarray, number: int) -> np.ndarray:
    """Rows along its longest axis, in another order."""
    del number
    axis = int(np.argmax(array.shape))
    order = np.arange(array.shape[axis])
    order[: len(order) // 3 * 3] = order[: len(order) // 3 * 3].reshape(-1, 3)[:, [1, 2, 0]].reshape(-1)
    return np.ascontiguousarray(np.take(array, order, axis))


def clipped(array: np.ndarray, number: int) -> np.ndarray:
    """At a third of the largest."""
    del number
    most = array.dtype.type(np.abs(array).max() / 3)
    return np.clip(array, -most, most)


def stuck(array: np.ndarray, number: int) -> np.ndarray:
    del number
    return np.full_like(array, array.reshape(-1)[:1] if array.size else 0)


def halved(array: np.ndarray, number: int) -> np.ndarray:
    """As a long sum in half precision: next to nothing is left of it."""
    del number
    scale = np.float32(np.sqrt(np.mean(np.square(array, dtype=np.float64))) / 2 or 1)
    return (np.round(array / scale) * scale).astype(array.dtype)


def last_channels(array: np.ndarray, number: int) -> np.ndarray:
    """The last four channels are lost, as in a tile that is not full."""
    del number
    changed = array.copy()
    axis = 1 if array.ndim > 2 else array.ndim - 1
    place = [slice(None)] * array.ndim
    place[axis] = slice(-min(4, array.shape[axis] // 2 or 1), None)
    changed[tuple(place)] = 0
    return changed
