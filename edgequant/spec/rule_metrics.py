"""What rules of a release can name: a row for each metric."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from typing import Literal

from edgequant.spec.limits import DEVICE_METRIC, METRICS, SQNR_CAP_DB

Op = Literal[">=", "<=", "=="]
Source = Literal["verify", "bench", "task"]
"""Who measures it: verify, bench, or a function of the user's."""
Kind = Literal["number", "flag", "version", "presence"]
Alike = Literal["nothing", "accuracy", "timing"]
"""What has to be the same before a number may be held against that of another run."""


@dataclass(frozen=True)
class Metric:
    """One thing that a rule can name.

    Attributes:
        unit: as it may be written behind a bound; empty where it has none.
        better: the direction that is good, and so the operator; None where all three can be meant.
        per_output: ``OUTPUT:`` may stand in front; without it every output that has the metric is meant.
        relative: whether `float` and `baseline` make sense in its bound.
        scaled: whether it may be multiplied: decibels and versions may not.
        least, most: of its values, so that a bound that nothing or everything keeps is refused.
        never_least: nothing that was measured ever is `least`: no inference takes no time, no file has no bytes.
    """

    name: str
    says: str
    unit: str = ""
    better: Literal[">=", "<="] | None = None
    source: Source = "verify"
    kind: Kind = "number"
    per_output: bool = False
    relative: bool = True
    scaled: bool = True
    alike: Alike = "nothing"
    least: float = -math.inf
    most: float = math.inf
    never_least: bool = False


def _accuracy() -> list[Metric]:
    rows = []
    for name, better in METRICS.items():
        least, most, scaled, unit = _RANGE.get(name, (0.0, math.inf, True, ""))
        says = "device against this host" if name == DEVICE_METRIC else "device against the reference, the worst case"
        rows.append(
            Metric(name, f"{name}: {says}", unit, better, per_output=True, scaled=scaled, alike="accuracy",
                   least=least, most=most)
        )  # fmt: skip
    stages = {
        "conversion": "source against float MNN, on this host",
        "quantization": "float MNN against the quantized file, on this host",
        "device": "the quantized file on this host against the device",
    }
    for stage, says in stages.items():
        for name in ("sqnr_db", "cosine", "max_abs", "mismatch"):
            least, most, scaled, unit = _RANGE.get(name, (0.0, math.inf, True, ""))
            rows.append(
                Metric(f"{stage}.{name}", f"{name}: {says}", unit, METRICS[name], per_output=True, scaled=scaled,
                       alike="accuracy", least=least, most=most)
            )  # fmt: skip
    return rows


_RANGE: dict[str, tuple[float, float, bool, str]] = {
    "sqnr_db": (-SQNR_CAP_DB, SQNR_CAP_DB, False, "dB"),
    DEVICE_METRIC: (-SQNR_CAP_DB, SQNR_CAP_DB, False, "dB"),
    "cosine": (-1.0, 1.0, True, ""),
    "mismatch": (0.0, 1.0, True, ""),
}


def _timing() -> list[Metric]:
    rows = [
        Metric(f"latency_ms.{name}", says, "ms", "<=", "bench", alike="timing", least=0, never_least=True)
        for name, says in {
            "p50": "median of one inference",
            "p90": "of ten inferences one takes longer",
            "p99": "of a hundred inferences one takes longer",
            "mean": "mean of one inference",
            "min": "the fastest inference",
            "max": "the slowest inference",
            "first": "the first inference, which resizes and packs",
            "load": "reading the model",
        }.items()
    ]
    return [*rows, Metric("cpu_ms", "CPU time of all threads for one inference", "ms", "<=", "bench", alike="timing",
                          least=0, never_least=True)]  # fmt: skip


def _memory() -> list[Metric]:
    says = {
        "session": "what MNN says that its session holds",
        "rss_peak": "highest resident memory of the process",
        "pss_peak": "highest proportional memory of the process",
        "model_file": "the file that runs",
    }
    rows = []
    for name, text in says.items():
        alike: Alike = "nothing" if name == "model_file" else "timing"
        rows.append(Metric(f"memory_mb.{name}", text, "MB", "<=", alike=alike, least=0, never_least=True))
    return rows


_OTHERS = [
    Metric("drift.breaks_at", "first step of a rollout that breaks its limit; steps that were not run are not told",
           "", ">=", per_output=True, scaled=False, relative=False, alike="accuracy", least=1),
    Metric("size_mb", "the file that runs, 10^6 bytes", "MB", "<=", least=0, never_least=True),
    Metric("int8_share.layers", "of the layers with weights, those kept in 8 bits or fewer", "", ">=", least=0, most=1),
    Metric("int8_share.weights", "of all weights, those kept in 8 bits or fewer", "", ">=", least=0, most=1),
    Metric("independent_cases", "cases of the user's own that differ", "", ">=", scaled=False, least=0),
    Metric("failing_share_95", "of all inputs, that may fail although no case did (95 %)", "", "<=", least=0, most=1),
    Metric("mnn", "version of MNN on the device", kind="version", relative=False, scaled=False),
    Metric("low_memory_engaged", "dynamic quantization took place", kind="flag", relative=False, scaled=False),
]  # fmt: skip

TABLE: dict[str, Metric] = {each.name: each for each in [*_accuracy(), *_timing(), *_memory(), *_OTHERS]}
"""Every metric by name; `finding:CODE` and `task:NAME` come on top, see `metric_of`."""

FINDING, TASK = "finding:", "task:"
VERDICT, INPUTS = "verdict", "inputs"
"""Metrics of the rules that every trial has: nobody writes them down."""


def metric_of(name: str) -> Metric:
    """The row of a metric.  Raises ValueError naming the nearest one."""
    if re.fullmatch(r"finding:[A-Z][A-Z0-9_]{0,99}", name):
        return Metric(name, "a finding with this code", kind="presence", relative=False, scaled=False)
    if re.fullmatch(r"task:[A-Za-z_][\w-]{0,99}(\.[\w.-]{1,100})?", name):
        return Metric(name, "a function of the user's", source="task", alike="accuracy")
    if name in TABLE:
        return TABLE[name]
    near = difflib.get_close_matches(name, TABLE, n=1, cutoff=0.5)
    families = list(dict.fromkeys(key.partition(".")[0] for key in TABLE))
    raise ValueError(
        f"unknown metric '{name[:100]}'"
        + (f"; did you mean '{near[0]}'?" if near else f"; there are {', '.join(families)}, finding:CODE, task:NAME")
    )
