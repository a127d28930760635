"""Folders of benches made by hand, as `bench` leaves them: from captures, without a device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgequant.archive.bench import (
    BASELINE,
    PLAN,
    Bench,
    BenchDevice,
    BenchFile,
    BenchPlan,
    BenchSetting,
    block_record,
    device_record,
    open_bench,
)
from edgequant.archive.folder import RunFolder
from edgequant.archive.types import Capture, CaseFacts, Closing, DeviceCapture, Failure, HostFacts, Memory, now
from edgequant.judge.bench_run import baseline_of
from edgequant.spec import RunOptions
from tests.judge.test_disturbed import noted
from tests.judge.test_judge_bench import capture

URI = "ssh://board"
BOARD = DeviceCapture(
    uri=URI, arch="aarch64", cpu="Cortex-A76", features=("dotprod",), mnn="3.6.1", cores=4, ram_mb=4000.0, os="Debian",
    facts={"kernel": "6.1", "python": "3.11.2"},
)  # fmt: skip
SHA = {"float": "a" * 64, "dynamic:8": "b" * 64}


def memory(base: int, grown: int) -> dict[str, Any]:
    """Of a block: the runtime takes `base` KiB, the model `grown` more."""
    at = [base, base + grown, base + 2 * grown]
    before, loaded, first = (Memory(rss=each, rss_peak=each + 9, stage_peak=each + 5, pss=each // 2) for each in at)
    return {"before": before, "loaded": loaded, "first": first}


def blocks(ms: float, count: int, spread: float = 0.002, seed: int = 0, **changed: Any) -> Iterator[Capture]:
    """Captures of so many blocks around `ms`, each of them a little off."""
    draw = np.random.default_rng(seed)
    changed = {"conditions": (noted(0.0), noted(0.05 * ms), noted(0.14 * ms)), **changed}
    for number in range(count):
        made = capture(float(ms * np.exp(spread * draw.standard_normal())), 1000 * seed + number, **changed)
        told = memory(20_000, 1000)
        case = made.cases[0].model_copy(update={"memory": told.pop("first")})
        yield made.model_copy(update={"device": BOARD, "cases": (case,), **told})


def powersave(ms: float = 10.0) -> dict[str, Any]:
    """What a slow governor leaves in every block."""
    return {"conditions": tuple(noted(share * ms, governor="powersave") for share in (0.0, 0.05, 0.14))}


class BenchMade:
    """One that is being made.  settings: name -> milliseconds."""

    def __init__(self, path: Path, **plan: Any) -> None:
        self.folder = RunFolder.create(path, "m.onnx")
        self._plan: dict[str, Any] = {
            "edgequant": "1", "host": HostFacts(arch="x86_64", mnn="3.6.1"), "created": now(), "model": "/m/m.onnx",
            "model_sha256": "c" * 64, "devices": (URI,), "blocks": 7, "runs": 30, "seconds": 1.0,
            "warm_seconds": 8.0, "within": 0.025, "tell": 0.03, "options": RunOptions(), "command": "edgequant bench m",
            **plan,
        }  # fmt: skip

    def device(
        self,
        settings: Mapping[str, Sequence[Capture]],
        *,
        uri: str = URI,
        threads: int = 2,
        shape: Sequence[int] = (1, 8),
        failure: Failure | None = None,
        values: int = 1,
    ) -> BenchMade:
        """What was measured on one.  values: the numbers of its input."""
        ref = self.folder.array_folder.put(np.full(shape, values, np.float32))
        first = next(iter(settings), "")
        found = [
            BenchSetting(
                name=name, file=name, threads=threads, memory="low" if "low" in name else "normal",
                base="" if name == first else first, quantized=name.startswith("dynamic"),
            )
            for name in settings
        ]  # fmt: skip
        case = CaseFacts(name="middle", source="random seed 0", inputs={"x": ref})
        record = BenchDevice(uri=uri, case=case, settings=tuple(found), cpus=4, failure=failure)
        self.folder.save_record(device_record(uri), record)
        for name, captures in settings.items():
            for number, each in enumerate(captures):
                trial = block_record(uri, name, number)
                self.folder.save_capture(trial, each.model_copy(update={"trial": trial, "variant": name}))
        self._plan.setdefault("files", ())
        known = {each.name for each in self._plan["files"]}
        self._plan["files"] += tuple(
            BenchFile(name=name, path=f"models/{len(name)}.mnn", sha256=SHA.get(name, "d" * 64), size=1_000_000,
                      memory="normal")
            for name in settings
            if name not in known
        )  # fmt: skip
        return self

    def close(self, *, ended: bool = True, baseline: Bench | None = None) -> Bench:
        self._plan.setdefault("files", ())
        self.folder.save_record(PLAN, BenchPlan(**self._plan))
        if baseline is not None:
            self.folder.save_record(BASELINE, baseline_of(baseline))
        self.folder.save_closing(Closing(seconds={"bench": 12.5}, ended=ended))
        return open_bench(self.folder.path)


def simple(path: Path, ms: float = 10.0, *, seed: int = 0, baseline: Bench | None = None, **changed: Any) -> Bench:
    """float at `ms`, dynamic:8 twice as fast."""
    settings = {
        "float": list(blocks(ms, 7, seed=seed, **changed)), "dynamic:8": list(blocks(ms / 2, 7, seed=seed + 1)),
    }  # fmt: skip
    return BenchMade(path).device(settings).close(baseline=baseline)
