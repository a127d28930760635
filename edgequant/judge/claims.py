"""What a device says that it is, held against what its shell saw of the runner's process from outside.

None of it can be told where everything there lies in the same way: then it is another device, as far as anybody knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from edgequant.archive.types import Capture, DeviceCapture
from edgequant.archive.witness import Library, Thread, Witness
from edgequant.errors import ToolError
from edgequant.findings import Finding
from edgequant.judge.kernel_faults import ARM64, X86
from edgequant.judge.latency import took_part
from edgequant.judge.types import Observed
from edgequant.judge.verdict import Verdict
from edgequant.mnn_version import parse_version
from edgequant.spec import RunOptions

_ELF = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
_KERNELS = {"i8sdot": "asimddp", "fp16": "asimdhp", "i8mm": "i8mm", "sve2": "sve2", "sme2": "sme2"}
"""What MNN's first line names, and the flag without which the kernel of Linux lets no program use it."""
_BY_MODEL = ("i8sdot", "fp16")
"""MNN for Android and for 32 bits takes these from a table of CPUs, too, where an old kernel does not tell."""
_PLACED_SHARE = 0.05
"""Who has more than this was not merely woken."""


def claims(capture: Capture, options: RunOptions) -> tuple[Observed, ...]:
    """INCONCLUSIVE for each thing that cannot be as the runner says; nothing of older runs and of this host."""
    seen, device = capture.witness, capture.device
    if seen is None or device is None:
        return ()
    if seen.why is not None:
        finding = Finding(
            code="CLAIMS_UNCHECKED",
            severity="warn",
            where=device.uri,
            message=f"what the device says of its CPU, its cores and its MNN is held against nothing: {seen.why}",
            remedy="Run it where a shell and the runner see the same /proc.",
        )
        return (Observed((finding,)),)
    threads = capture.timings[0].threads if capture.timings and capture.timings[0].threads else ()
    looks: Sequence[Callable[[], Iterator[Finding]]] = (
        lambda: _arch(device, seen),
        lambda: _kernels(device, seen),
        lambda: _cores(device, seen, options, threads),
        lambda: _threads(capture.threads, threads, device.uri),
        lambda: _version(device, seen),
    )
    found = [finding for look in looks for finding in look()]
    return tuple(
        Observed((each,), Verdict.INCONCLUSIVE if each.severity == "error" else Verdict.PASS) for each in found
    )


def _error(code: str, where: str, message: str, evidence: dict[str, object], remedy: str) -> Finding:
    return Finding(code=code, severity="error", where=where, message=message, evidence=evidence, remedy=remedy)


def _family(arch: str) -> str | None:
    """ARM of 32 and of 64 bits are one: each kernel may run the other's programs, and call itself by either name."""
    name = arch.lower()
    if name in ARM64 or name.startswith("arm"):
        return "ARM"
    return "x86" if name in (*X86, "i386", "i586") else "RISC-V" if name.startswith("riscv") else None


def _arch(device: DeviceCapture, seen: Witness) -> Iterator[Finding]:
    told = {"the runner": device.arch, "its shell": seen.machine}
    told |= {each.path.rpartition("/")[2][:100]: _ELF.get(each.machine or 0) for each in seen.libraries}
    known = {who: arch for who, arch in told.items() if arch is not None and _family(arch) is not None}
    if len({_family(arch) for arch in known.values()}) > 1:
        yield _error(
            "ARCH_CONTRADICTED",
            device.uri,
            "which CPU it is cannot be told: " + ", ".join(f"{who} says {arch}" for who, arch in known.items()),
            dict(known),
            "Name the device itself; for a CPU that is emulated take emulated:CPU, whose times do not count.",
        )


def _kernels(device: DeviceCapture, seen: Witness) -> Iterator[Finding]:
    told = device.facts.get("mnn_kernels") or {}
    arch = seen.machine or device.arch or ""
    claimed = [name for name, on in told.items() if on and name in _KERNELS]
    if _family(arch) in ("x86", "RISC-V"):
        wrong = claimed if _family(arch) == "x86" else []
    elif not device.features:
        return
    else:
        table = device.facts.get("android") is not None or arch.lower() not in ARM64
        wrong = [
            name for name in claimed if _KERNELS[name] not in device.features and not (table and name in _BY_MODEL)
        ]
    if wrong:
        yield _error(
            "KERNELS_CONTRADICTED",
            device.uri,
            f"MNN there says that it uses {', '.join(wrong)}, which its CPU ({arch}) does not have by the words of its "
            "kernel",
            {"mnn_kernels": dict(told), "features": list(device.features), "arch": arch},
            "What this device computes with is not known: see who wrote MNN's first line (a wrapper, another library).",
        )


def _cores(device: DeviceCapture, seen: Witness, options: RunOptions, threads: Sequence[Thread]) -> Iterator[Finding]:
    usable = device.facts.get("usable_cores")
    if seen.cores is not None and max(device.cores or 0, usable or 0) > seen.cores:
        yield _error(
            "CORES_CONTRADICTED",
            device.uri,
            f"the runner speaks of {max(device.cores or 0, usable or 0)} cores, its kernel has {seen.cores}",
            {"cores": device.cores, "usable_cores": usable, "seen": seen.cores},
            "See what stands between the runner and the kernel (a sandbox): times with threads are not to be trusted.",
        )
        return
    if options.cores is None or not seen.allowed:
        return
    most = max((each.seconds for each in threads), default=0.0)
    ran = {each.core for each in threads if most > 0 and each.seconds > _PLACED_SHARE * most and each.core is not None}
    if set(seen.allowed) != set(options.cores) or ran - set(options.cores):
        yield _error(
            "CORES_CONTRADICTED",
            device.uri,
            f"the runner says that it is bound to cores {sorted(options.cores)}; its kernel lets it run on "
            f"{sorted(seen.allowed)}" + (f", and its threads were on {sorted(ran)}" if ran else ""),
            {"cores": sorted(options.cores), "allowed": sorted(seen.allowed), "ran": sorted(ran)},
            "Leave --cores out, or find out who moves the process (a daemon that manages power).",
        )


def _threads(asked: int | None, threads: Sequence[Thread], uri: str) -> Iterator[Finding]:
    ran = took_part(threads)
    if asked is None or ran is None or ran >= asked:
        return
    yield _error(
        "THREADS_NOT_RUN",
        uri,
        f"{asked} threads were asked for, {ran} had anything of the CPU",
        {"asked": asked, "ran": ran, "seconds": sorted((round(each.seconds, 3) for each in threads), reverse=True)},
        "MNN there has no threads, or something keeps it from them: what was timed is not what was asked for.",
    )


def _version(device: DeviceCapture, seen: Witness) -> Iterator[Finding]:
    if device.mnn is None or not seen.libraries:
        return
    for each in seen.libraries:
        if each.recorded and each.sha256 is not None and each.sha256 not in each.recorded:
            yield _other(device.uri, each)
    sure = [each for each in seen.libraries if each.sha256 in each.recorded]
    packages = {version for each in sure for version in each.packages}
    # A package of another name may list it as well: one that fits is enough.
    other = packages and not any(_same(version, device.mnn) for version in packages)
    if other or all(each.has_version is False for each in seen.libraries):
        has = f"the library it has loaded is of version {', '.join(sorted(packages))}" if other else (
            "that does not stand in the library it has loaded"
        )  # fmt: skip
        yield _error(
            "MNN_VERSION_CONTRADICTED",
            device.uri,
            f"the runner names MNN {device.mnn}, and {has}",
            {"mnn": device.mnn, "packages": sorted(packages), "library": seen.libraries[0].path},
            "Find out which MNN that is, and who speaks for it; then install the one you mean there.",
        )


def _other(uri: str, library: Library) -> Finding:
    whose = "the pack that was sent" if library.sent else "the package that lists it"
    return Finding(
        code="MNN_LIBRARY_OTHER",
        severity="error" if library.sent else "warn",
        where=uri,
        message=f"MNN's library there is another file than that of {whose}: {library.path[:200]}",
        evidence={"sha256": library.sha256, "recorded": list(library.recorded)},
        remedy="Something there changes files: `edgequant devices clean`, then run again."
        if library.sent
        else "Where you have built it yourself, install it as a package, so that its version can be told.",
    )


def _same(one: str, other: str) -> bool:
    """Whether both are of one release; what nobody can read is none."""
    try:
        return parse_version(one) == parse_version(other)
    except ToolError:
        return one == other
