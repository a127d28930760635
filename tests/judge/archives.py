"""Run folders and captures made by hand: all that a run can leave behind, in milliseconds and without MNN."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgequant.archive.arrays import ArraySink
from edgequant.archive.folder import FLOAT_HOST, REFERENCE, RunFolder, device_capture, host_capture
from edgequant.archive.open import open_run
from edgequant.archive.types import (
    Artifact,
    Capture,
    CaseCapture,
    CaseFacts,
    Closing,
    DeviceCapture,
    Failure,
    HostFacts,
    Making,
    Plan,
    ReferenceFacts,
    Source,
    TensorFacts,
)
from edgequant.compare.metrics import compare
from edgequant.compare.summary import OutputSummary, summarize
from edgequant.judge.run import judge
from edgequant.judge.types import Judgement, TrialJudgement
from edgequant.spec import Limit, Variant

Outputs = Mapping[str, np.ndarray]
Cases = Mapping[str, "Outputs | str"]
"""Case -> its outputs, or what MNN said when it refused it."""

WAVE = np.sin(np.arange(64, dtype=np.float32))
TRUE: dict[str, dict[str, np.ndarray]] = {"a": {"y": WAVE}, "b": {"y": 2 * WAVE}}
HOST, BOARD = "local:", "ssh://board"
CREATED = "2026-01-02T03:04:05Z"


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def off(array: np.ndarray, db: float) -> np.ndarray:
    """The array with an error of so many dB SQNR, of the same size in each element, and of a sign by chance: no pattern
    that another array has too."""
    size = float(np.sqrt(np.mean(np.square(array, dtype=np.float64)))) * 10 ** (-db / 20)
    chance = np.random.default_rng(list(array.tobytes()[:64])).permutation(np.resize([1, -1], array.size))
    return array + (size * chance.reshape(array.shape)).astype(array.dtype)


def all_off(cases: Mapping[str, Outputs], db: float) -> dict[str, dict[str, np.ndarray]]:
    return {case: {name: off(array, db) for name, array in outputs.items()} for case, outputs in cases.items()}


def summary(db: float | None, reference: np.ndarray = WAVE) -> OutputSummary:
    """Of one case that is so far off; None: it never came."""
    return summarize({"a": compare(reference, None if db is None else off(reference, db))})


def failed(code: str = "RUNNER_DIED", message: str = "it is gone", **more: Any) -> Failure:
    return Failure(code=code, message=message, **more)


def captured(arrays: ArraySink, cases: Cases) -> tuple[CaseCapture, ...]:
    return tuple(
        CaseCapture(case=case, refused=told)
        if isinstance(told, str)
        else CaseCapture(case=case, outputs={name: arrays.put(array) for name, array in told.items()}, ms=1.0)
        for case, told in cases.items()
    )


def capture(
    arrays: ArraySink, cases: Cases = TRUE, *, repeated: Cases | None = None, normal: Cases | None = None, **more: Any
) -> Capture:
    return Capture(
        **{"trial": "t", "role": "device", "started": CREATED}
        | {"cases": captured(arrays, cases), "repeated": captured(arrays, repeated or {})}
        | {"normal": captured(arrays, normal or {})}
        | more
    )


def artifact(variant: str, **more: Any) -> Artifact:
    """One that is what was asked for, with one quantized layer."""
    asked = Variant.parse(variant)
    made = {"path": Path(f"models/{asked.method}.mnn"), "sha256": sha(variant), "size": 1000, "source_sha256": sha("m")}
    return Artifact(**made | {"asked": asked, "run_as": asked, "quantized_layers": 1, "log": "convert.log"} | more)


def parsed(limits: tuple[str, ...] | list[str]) -> tuple[Limit, ...]:
    return tuple(Limit.parse(text) for text in limits)


def plan(*variants: str, devices: tuple[str, ...] = (HOST,), limits: tuple[str, ...] = (), **more: Any) -> Plan:
    return Plan(
        **{"edgequant": "0.1", "host": HostFacts(arch="x86_64", mnn="3.6.1"), "created": CREATED, "model": "/m.onnx"}
        | {"devices": devices, "variants": tuple(map(Variant.parse, variants)), "limits": parsed(limits)}
        | {"goals": parsed(more.pop("goals", ()))}
        | more
    )


def told_by(uri: str, **more: Any) -> DeviceCapture:
    return DeviceCapture(**{"uri": uri, "is_host": uri == HOST, "arch": "x86_64", "mnn": "3.6.1"} | more)


class Archive:
    """A run folder to fill: by default, one whose float MNN computes what the reference does."""

    def __init__(
        self,
        path: Path,
        *variants: str,
        reference: Mapping[str, Outputs] = TRUE,
        float_host: Cases | None = None,
        source: Mapping[str, Any] | None = None,
        **asked: Any,
    ) -> None:
        self.folder = RunFolder.create(path / "run", "m.onnx")
        self.arrays = self.folder.array_folder
        self.plan = plan(*variants, **asked)
        self.folder.save_plan(self.plan)
        kinds = {
            name: "int" if array.dtype.kind in "iub" else "float"
            for outputs in reference.values()
            for name, array in outputs.items()
        }
        x = [self.arrays.put(np.arange(number, number + 3, dtype=np.float32)[None]) for number in range(len(reference))]
        facts = {
            "path": "/m.onnx",
            "format": "onnx",
            "sha256": sha("m"),
            "size": 5000,
            "inputs": (TensorFacts(name="x", dtype="float32", shape=(1, None)),),
            "declared": (TensorFacts(name="y", dtype="float32"),),
            "cases": tuple(
                CaseFacts(name=name, source="random", inputs={"x": of}) for name, of in zip(reference, x, strict=True)
            ),
            "reference": ReferenceFacts(kind="onnxruntime", version="1.2"),
            "kinds": kinds,
        }
        self.folder.save_source(Source(**facts | dict(source or {})))
        self.save(REFERENCE, "reference", reference)
        self.save(FLOAT_HOST, "float-host", reference if float_host is None else float_host)

    def save(self, name: str, role: str, cases: Cases, **more: Any) -> None:
        self.folder.save_capture(name, capture(self.arrays, cases, role=role, **more))

    def made(self, variant: str, **more: Any) -> None:
        self.folder.save_making(Making(variant=Variant.parse(variant), artifact=artifact(variant, **more)))

    def not_made(self, variant: str, failure: Failure) -> None:
        self.folder.save_making(Making(variant=Variant.parse(variant), failure=failure))

    def on_host(self, variant: str, cases: Cases, **more: Any) -> None:
        took = {"artifact_sha256": sha(variant)}
        self.save(host_capture(Variant.parse(variant)), "variant-host", cases, **took | more)

    def on_device(self, uri: str, variant: str, cases: Cases = TRUE, **more: Any) -> None:
        """With `cases` also as what came out the second time."""
        took = {"artifact_sha256": sha(variant), "device": told_by(uri), "memory_mode": "low", "repeated": cases}
        here = host_capture(Variant.parse(variant))
        if uri != HOST and not (self.folder.path / "captures" / f"{here}.json").exists():
            self.on_host(variant, cases)  # which comes first, always
        self.save(device_capture(uri, Variant.parse(variant)), "device", cases, **took | more)

    def tried(self, uri: str, variant: str, cases: Cases = TRUE, **more: Any) -> None:
        """Made and run, with other outputs where memory is normal."""
        self.made(variant)
        self.on_device(uri, variant, cases, **{"normal": all_off(TRUE, 30)} | more)

    def close(self, **more: Any) -> None:
        self.folder.save_closing(Closing(**{"ended": True, "source_now": sha("m")} | more))

    def judged(self, **other: Any) -> Judgement:
        """Closed and judged; other: what the plan it is judged by says instead."""
        if not (self.folder.path / "closing.json").exists():
            self.close()
        asked = self.plan.model_copy(update=other)
        return judge(open_run(self.folder.path), asked if other else None)


NOISE = np.random.default_rng(2).standard_normal((2, 64)).astype(np.float32)
RANDOM = {"a": {"y": NOISE[0]}, "b": {"y": 2 * NOISE[0]}}


def codes(trial: TrialJudgement) -> list[str]:
    return [finding.code for finding in trial.findings]


def only(archive: Archive, **other: Any) -> TrialJudgement:
    (trial,) = archive.judged(**other).trials
    return trial


def on_board(path: Path, there: Any, here: Any, variant: str = "weight:8", **more: Any) -> Archive:
    """One variant that has been run on a board and on this host."""
    archive = Archive(path, variant, devices=(BOARD,), **more)
    archive.made(variant)
    archive.on_host(variant, here)
    archive.on_device(BOARD, variant, there)
    return archive


def sqnr(trial: TrialJudgement, stage: str) -> Any:
    return {
        name: pytest.approx(each.values["sqnr_db"], abs=1e-3) for name, each in getattr(trial.stages, stage).items()
    }
