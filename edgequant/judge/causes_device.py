"""Causes that a device tells: right inputs, and an output that is another than this host's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edgequant.archive.layers import Rerun
from edgequant.compare.decibel import power_db
from edgequant.judge.cause import At, Told, better, finite, shown
from edgequant.judge.layers import JUMP

HALF_MAX, STEP, HALF_LEAST = 65504.0, 6e-8, 6e-7
"""The largest number of half precision, its least step, and ten of these: below, three of its eleven bits are left."""
_PRECISION = "Run with --precision normal."
_CANCELS = 100.0
"""A sum so many times smaller than what it is made of has lost seven of the eleven bits of half precision."""


def not_engaged(reruns: Iterable[Rerun]) -> Told | None:
    """Memory low was asked for, and the device computes what this host computes with memory normal."""
    for rerun in reruns:
        if rerun.what == "host memory=normal" and better(rerun.before_db, rerun.sqnr_db):
            evidence = {"low_db": rerun.before_db, "normal_db": rerun.sqnr_db}
            message = (
                "memory low had no effect on the device: it agrees with memory normal on this host to "
                f"{shown(rerun.sqnr_db)}, with memory low to {shown(rerun.before_db)}"
            )
            return (
                "LOW_MEMORY_NOT_ENGAGED",
                message,
                evidence,
                "Use a build of MNN with MNN_LOW_MEMORY (--runtime pack).",
            )
    return None


def _cancelled(at: At) -> Told | None:
    """A sum of large numbers that comes to little."""
    if at.layer.weights is not None:
        return None
    largest = max((tap.plain.rms for tap in at.taps_before if tap.plain is not None and tap.plain.rms), default=0.0)
    for tap in at.taps:
        if (
            tap.plain is not None
            and tap.plain.rms
            and largest > _CANCELS * tap.plain.rms
            and at.layer.type == "BinaryOp"
        ):
            evidence = {"tensor": tap.tensor, "inputs_rms": largest, "output_rms": tap.plain.rms}
            message = (
                f"numbers of about {largest:.3g} cancel to about {tap.plain.rms:.3g}, which is less than half "
                "precision tells apart"
            )
            return "FP16_CANCELLATION", message, evidence, _PRECISION
    return None


def _jumps_here(at: At) -> bool:
    """Whether this host's own error jumps in this layer, against float MNN."""
    after = max((at.graph.share(name, "quantization") or 0.0 for name in at.layer.outputs), default=0.0)
    before = [at.graph.share(name, "quantization") or 0.0 for name in at.graph.seen_before(at.layer)]
    return bool(before) and after > JUMP * max(before) and after > 1e-6


def _db(at: At, tensors: Iterable[str]) -> str:
    """This host against float MNN, of the worst of some tensors."""
    share = max((at.graph.share(name, "quantization") or 0.0 for name in tensors), default=0.0)
    return shown(power_db(1.0, share))


def beyond(at: At, least: float = STEP) -> Told | None:
    """Numbers that half precision does not have, where the device runs in it.  least: what is smaller is lost."""
    if at.capture.precision != "low":
        return None
    own = {tap.tensor for tap in at.taps}
    for tap in [*at.taps, *at.taps_before]:
        what = f"its {'output' if tap.tensor in own else 'input'} '{tap.tensor}'"
        if tap.plain is None or tap.plain.rms is None:
            continue
        most = max(abs(tap.plain.min or 0), abs(tap.plain.max or 0))
        evidence: dict[str, Any] = {"tensor": tap.tensor, "case": tap.case, "range": [tap.plain.min, tap.plain.max]}
        if most > HALF_MAX:
            message = f"numbers of {what} go up to {most:.3g}, and half precision ends at {HALF_MAX:.0f}"
            return "FP16_OVERFLOW", message, evidence, _PRECISION
        if 0 < tap.plain.rms < least:
            small = "less than the least step" if tap.plain.rms < STEP else "only a few of the least steps"
            message = f"numbers of {what} are about {tap.plain.rms:.2g}, {small} of half precision (6e-08)"
            return "FP16_UNDERFLOW", message, evidence, _PRECISION
    return None


def half(at: At) -> Told | None:
    if at.capture.precision != "low":
        return None
    loop = f" in the loop '{at.layer.name}'" if at.layer.type == "While" else ""
    rerun = next((each for each in at.capture.reruns if each.what == "precision=normal"), None)
    mends = rerun is not None and better(rerun.before_db, rerun.sqnr_db)
    unknown = rerun is None or rerun.before_db is None or rerun.sqnr_db is None
    if (told := beyond(at, HALF_LEAST if mends or unknown else STEP)) is not None:
        return told
    if rerun is None or not mends:
        return None
    if (told := _cancelled(at)) is not None:
        return told
    evidence = {"low_db": rerun.before_db, "normal_db": rerun.sqnr_db}
    message = (
        f"rounding to half precision{loop}: with precision normal the device's outputs agree with this "
        f"host's to {shown(rerun.sqnr_db)} instead of {shown(rerun.before_db)}"
    )
    return "FP16_ROUNDING", message, evidence, _PRECISION


def kernel(at: At) -> Told | None:
    worst = max(
        (tap for tap in at.taps if tap.device is not None),
        key=lambda tap: tap.device.share if tap.device is not None else 0,
        default=None,
    )  # fmt: skip
    if worst is None or worst.device is None:
        return None
    evidence: dict[str, Any] = {
        "tensor": worst.tensor, "case": worst.case, "device_db": finite(worst.device.sqnr_db),
        "rounding_db": None if worst.moved is None else finite(worst.moved.sqnr_db), "max_abs": worst.device.max_abs,
    }  # fmt: skip
    places = [
        f"index {index} of {length} along axis {axis}"
        for axis, (index, share, length) in enumerate(worst.device.axes)
        if length > 1 and share > max(0.5, 4 / length)
    ]
    where = f", most of it at {', '.join(places)} (counted from 0)" if places else ""
    evidence["axes"] = [list(each) for each in worst.device.axes]
    how = ""
    for rerun in at.capture.reruns:
        if rerun.what == "memory=normal" and better(rerun.before_db, rerun.sqnr_db):
            how = "; with memory normal (no int8) the device is right, so it is the int8 kernel"
            evidence["normal_db"] = rerun.sqnr_db
    if (here := at.capture.mnn.get("here")) != (there := at.capture.mnn.get("there")) and here and there:
        message = f"another MNN computes it: {there} on the device, {here} on this host{where}{how}"
        return "OTHER_MNN", message, {**evidence, "mnn": [here, there]}, "Run the same MNN there: --runtime pack."
    if at.layer.weights is None and at.capture.precision == "normal" and _jumps_here(at):
        message = (
            f"this host computes something else than it should here{where}: without weights nothing is rounded in it, "
            f"and yet against float MNN this host is at {_db(at, at.layer.outputs)} behind it, and at "
            f"{_db(at, at.graph.seen_before(at.layer))} in front of it"
        )
        remedy = (
            "The device is not at fault: go by its own outputs.  It is MNN's kernel for this operator on this host: "
            "the next command writes a report of it into the folder 'case'."
        )
        return "HOST_KERNEL_DIFFERS", message, evidence, remedy
    code = "INT8_KERNEL_DIFFERS" if how else "KERNEL_DIFFERS"
    message = f"the device computes something else than this host here{where}{how}; no known kind of fault fits"
    return (
        code,
        message,
        evidence,
        "Keep this layer in float or take another variant; a newer MNN may have another kernel for it.",
    )
