"""How `auto` asks a device, where the fastest model is searched for there."""

from __future__ import annotations

from pathlib import Path

from edgequant.compare.decibel import SQNR_CAP_DB
from edgequant.compare.metrics import compare
from edgequant.errors import InputError, RunnerError
from edgequant.jobs.prepare import Prepared
from edgequant.judge.latency import latency_summary
from edgequant.lab.session import Session
from edgequant.lab.take import ModelFile, Place, each_case, feed
from edgequant.quantize.evaluation import Evaluation
from edgequant.quantize.search.cache import cases_digest, digest
from edgequant.spec import MemoryMode, RunOptions

_IDENTITY = (
    "model",
    "manufacturer",
    "soc",
    "build",
    "kernel",
    "hostname",
    "arch",
    "cpu",
    "cores",
    "features",
    "ram_mb",
)
"""Facts that tell devices of one URI apart: "adb://" is whatever phone is attached."""
_SECONDS = 5.0
"""At most so long is one model timed during a search."""


class OnDevice:
    """Runs a file on a device, every case, and times the middle one.  The device is this process's from now on."""

    def __init__(self, device: Session | None, prepared: Prepared, options: RunOptions) -> None:
        """Raises InputError (LATENCY_UNKNOWN), DeviceError (DEVICE_BUSY)."""
        if device is None or device.device.emulated is not None:
            raise InputError(
                "LATENCY_UNKNOWN",
                "the fastest model is searched for on the first device, and that cannot be timed",
                hint="Give a real device, or --budget size.",
            )
        self._device = device
        self._prepared = prepared
        self._options = options
        device.own()

    def key(self) -> str:
        """What its answers depend on besides the file."""
        runner, facts = self._device.living_runner(), self._device.facts
        identity = None if facts is None else facts.model_dump(mode="json", include=set(_IDENTITY))
        references = [self._prepared.expected.get(case.name) or {} for case in self._prepared.usual]
        return digest(
            self._device.uri, identity, runner.hello.mnn, self._options.model_dump_json(), cases_digest(references)
        )

    def __call__(self, path: Path, memory: MemoryMode) -> Evaluation:
        place = Place.load(self._device, ModelFile(path, memory), self._device.push(path)[0])
        found: dict[str, float] = {}
        for case, result in each_case(place, self._prepared.usual):
            if isinstance(result, RunnerError):
                raise result
            expected = self._prepared.expected.get(case.name)
            assert expected is not None
            for name, reference in expected.items():
                each = compare(reference, result.outputs.get(name))
                # Neither a number nor nothing: it is as wrong as can be.
                value = each.sqnr_db if each.problem is None else -SQNR_CAP_DB
                if value is not None:
                    found[name] = min(found.get(name, SQNR_CAP_DB), value)
        middle = self._prepared.usual[len(self._prepared.usual) // 2]
        timing = place.runner.time(
            place.loaded,
            feed(place.loaded, middle.inputs),
            warmup=self._options.warmup,
            repeat=self._options.repeat,
            max_seconds=_SECONDS,
        )
        place.unload()
        summary = latency_summary(timing.samples, timing.warmup, None, None, why_invalid=[])
        return Evaluation(found, None if summary is None else summary.p50)
