"""What MNN's own kernels get wrong, on the device or on this host, and what a run can say of it.

All of them were seen with MNN 3.6.1 and read in its sources: of static int8, see `models.mnn.static_int8`; of floats,
see `models.mnn.compares`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgequant.archive.types import DeviceCapture, FileFacts, HostFacts
from edgequant.errors import ToolError
from edgequant.findings import Finding
from edgequant.judge.types import NOTHING, JudgedOutput, Observed, Summaries
from edgequant.judge.verdict import Verdict
from edgequant.mnn_version import parse_version

ARM64 = ("aarch64", "arm64")
X86 = ("x86_64", "amd64", "i686", "i386")
_LAST_SEEN = (3, 6, 1)
"""The newest MNN these were seen with.  Of a newer one nothing is claimed."""
_SHOWN = 8
POOLS_WRONG = "MNN's int8 max pool on x86 takes negative numbers for the larger ones ({})"
LESS_WRONG = "MNN's `<` of floats on x86 takes the larger of two negative numbers for the smaller one ({})"
AVOID = (
    "It is a fault of MNN, not of the model: keep these layers float (skip=NAME), or take dynamic:8, whose kernels are "
    "right."
)


@dataclass(frozen=True)
class Faults:
    """What is known to be wrong for one file, one device and this host.

    Attributes:
        layers: of the file.
        i8mm: the device computes `layers.half_tiles` wrong, where they have an odd number of output positions.
        tails: the device leaves the end of `layers.tails` unwritten, where their size is no multiple of four.
        pools: this host may compute `layers.max_pools` wrong.
        less: this host computes `layers.less` wrong where they compare negative floats.
        resizes: the device gets the last columns of `layers.resizes` wrong, where their width is no multiple of four.
    """

    layers: FileFacts
    i8mm: bool
    tails: bool
    pools: bool
    less: bool = False
    resizes: bool = False

    @property
    def of_the_host(self) -> bool:
        return self.pools or self.less

    @property
    def static(self) -> bool:
        """Whether anything in the file is static int8."""
        return self.layers.static

    @property
    def of_the_device(self) -> bool:
        return self.i8mm or self.tails or self.resizes


def known_faults(layers: FileFacts, device: DeviceCapture, host: HostFacts) -> Faults:
    """What is known of a file on both machines."""
    return Faults(
        layers,
        bool(layers.half_tiles) and i8mm_wrong(device),
        bool(layers.tails) and device.arch in ARM64 and _seen(device.mnn),
        bool(layers.max_pools) and pools_wrong(host.arch, host.mnn),
        less_wrong(layers, host),
        bool(layers.resizes) and device.arch in ARM64 and _seen(device.mnn),
    )


def i8mm_wrong(device: DeviceCapture) -> bool:
    """Whether a device runs the int8 kernel for i8mm that is known to be wrong."""
    kernels = device.facts.get("mnn_kernels", {})
    # SME2 has kernels of its own.
    i8mm = device.arch in ARM64 and kernels.get("i8mm") is True and kernels.get("sme2") is not True
    return i8mm and _seen(device.mnn)


def pools_wrong(arch: str, mnn: str) -> bool:
    """Whether a machine of this kind is known to compute int8 max pools wrong."""
    return arch.lower() in X86 and _seen(mnn)


def less_wrong(layers: FileFacts, host: HostFacts) -> bool:
    """Whether a host is known to compute something of this file wrong that is no int8."""
    return bool(layers.less) and host.arch.lower() in X86 and _seen(host.mnn)


def _seen(version: str | None) -> bool:
    try:
        return version is not None and parse_version(version) <= _LAST_SEEN
    except ToolError:
        return False  # a version nobody can read proves nothing


def host_is_worse(outside: Sequence[str], judged: Mapping[str, JudgedOutput], on_host: Summaries) -> bool:
    """Whether, of every output that is outside the band, the device is nearer to the reference than this host is.

    Then it is not the device that strayed.  A device that computes something else is farther off, or off as well.
    """
    for name in outside:
        there = judged[name].summary.values.get("sqnr_db") if name in judged else None
        here = on_host[name].values.get("sqnr_db") if name in on_host else None
        if there is None or here is None or there <= here:
            return False
    return bool(outside)


def i8mm_remark(faults: Faults, device: DeviceCapture) -> Observed:
    """Of a device without these kernels: what it cannot show.  With them, the outputs show it."""
    layers = faults.layers.half_tiles
    if not layers or faults.i8mm or not _seen(device.mnn):
        return NOTHING
    return _one(
        Finding(
            code="STATIC_I8MM_UNSEEN",
            severity="warn",
            where=layers[0],
            message=f"{len(layers)} int8 layer(s) of this file come out wrong on ARM CPUs with i8mm (ARMv8.6, v9), "
            "where they have an odd number of output positions; this device runs other kernels and cannot show it",
            evidence={"layers": list(layers[:1000])},
            remedy=f"Run it on emulated:max as well.  {AVOID}",
        )
    )


def resize_remark(faults: Faults, device: DeviceCapture) -> Observed:
    """The same of the resize of ARM64."""
    layers = faults.layers.resizes
    if not layers or faults.resizes or not _seen(device.mnn):
        return NOTHING
    return _one(
        Finding(
            code="STATIC_RESIZE_UNSEEN",
            severity="warn",
            where=layers[0],
            message=f"{len(layers)} bilinear resize(s) of this file run in int8; their last columns come out wrong on "
            "ARM64 where they are no multiple of four; this device has other kernels and cannot show it",
            evidence={"layers": list(layers[:1000])},
            remedy="Run it on emulated:cortex-a76 as well.  A resize is float where the layers in front of it and "
            "behind are (skip=NAME); dynamic:8 has none in int8.",
        )
    )


def explained(faults: Faults) -> str:
    """What to add to the message of a device outside the band; empty where nothing known explains it."""
    said = ""
    if faults.i8mm:
        said += (
            "; MNN's int8 kernel for i8mm is known to get these layers wrong where they have an odd number of output "
            f"positions: {some(faults.layers.half_tiles)}"
        )
    if faults.tails:
        said += (
            "; MNN's int8 arithmetic on ARM is known to leave the end of these unwritten where their size is no "
            f"multiple of four: {some(faults.layers.tails)}"
        )
    if faults.resizes:
        said += (
            "; MNN's int8 bilinear resize on ARM is known to get the last columns of these wrong where their width is "
            "no multiple of four, and columns that fall upon one of the input's: "
            f"{some(faults.layers.resizes)} (one is float where the layers in front of it and behind are)"
        )
    return said


def some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def pool_finding(faults: Faults, found: Mapping[str, float]) -> Finding:
    """The device is nearer to the reference than this host: this host cannot judge it."""
    worst_one = min(found, key=lambda name: found[name])
    why = [POOLS_WRONG.format(some(faults.layers.max_pools))] if faults.pools else []
    why += [LESS_WRONG.format(some(faults.layers.less))] if faults.less else []
    return Finding(
        code="HOST_MISCOMPUTES",
        severity="error",
        where=worst_one,
        message=f"this host, not the device, is off: only {found[worst_one]:.4g} dB SQNR between them in {worst_one}, "
        f"worst case, and the device is nearer to the reference; {'; '.join(why)}{explained(faults)}",
        evidence={
            "device_sqnr_db": dict(found),
            **({"max_pools": list(faults.layers.max_pools[:1000])} if faults.pools else {}),
            **({"less": list(faults.layers.less[:1000])} if faults.less else {}),
        },
        remedy="What this host says of this file (the quantization error, too) is worthless.  Judge the file by its "
        "device's error against the reference, and accept the difference with --limit 'device_sqnr_db>=-100'"
        + ("; or take dynamic:8, which pools in float." if faults.pools else "."),
    )


def pool_remark(faults: Faults, *, is_host: bool, verdict: Verdict) -> Observed:
    """On this host itself, where a limit is broken: perhaps the file is better than that."""
    if not (faults.pools and is_host and verdict is Verdict.FAIL):
        return NOTHING
    return _one(
        Finding(
            code="STATIC_POOL_ON_X86",
            severity="warn",
            where=faults.layers.max_pools[0],
            message=f"{len(faults.layers.max_pools)} max pool(s) of this file may run in int8, which MNN computes "
            "wrong on x86: an ARM device may do better than this host",
            evidence={"max_pools": list(faults.layers.max_pools[:1000])},
            remedy="Run it on emulated:cortex-a76, or on the device itself.",
        )
    )


def less_remark(faults: Faults, *, is_host: bool, verdict: Verdict) -> Observed:
    """The same of comparisons of floats."""
    if not (faults.less and is_host and verdict is Verdict.FAIL):
        return NOTHING
    return _one(
        Finding(
            code="LESS_ON_X86",
            severity="warn",
            where=faults.layers.less[0],
            message=f"{LESS_WRONG.format(some(faults.layers.less))}: an ARM device may do better than this host",
            evidence={"less": list(faults.layers.less[:1000])},
            remedy="Run it on emulated:cortex-a76, or on the device itself; or export the model with b > a for a < b.",
        )
    )


def _one(finding: Finding) -> Observed:
    return Observed((finding,))
