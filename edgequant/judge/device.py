"""Where a device does something else than this host: what is found of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgequant.archive.types import DeviceCapture
from edgequant.findings import Finding
from edgequant.judge.band import Bands, Outside
from edgequant.judge.kernel_faults import ARM64, AVOID, X86, Faults, explained, host_is_worse, pool_finding
from edgequant.judge.limits import proves_a_fault
from edgequant.judge.types import NOTHING, JudgedOutput, Observed, Stages, Summaries
from edgequant.judge.verdict import Verdict, judge_output
from edgequant.spec import DEVICE_METRIC, Limit, RunOptions

Limits = Mapping[str, tuple[Limit, ...]]


def innocent(judged: Mapping[str, JudgedOutput], on_host: Summaries, limits: Limits) -> tuple[str, ...]:
    """Outputs that break a limit on the device, and keep them all on this host with the very same file: the error
    enters on the device, not by quantizing."""
    return tuple(
        name
        for name, output in judged.items()
        if output.verdict.verdict is Verdict.FAIL
        and name in on_host
        and judge_output(on_host[name], limits[name]).verdict in (Verdict.PASS, Verdict.MARGINAL)
    )


_KERNELS = (
    "Compare --precision normal with low, the MNN versions and --threads; then suspect MNN's kernels for this CPU"
)
_FP16 = (
    "Precision low computes in fp16 here, which this host does not: many models, those with a GRU first of all, do not "
    "bear it.  Run with --precision normal"
)


def _suspects(options: RunOptions, device: DeviceCapture) -> str:
    """What may be the reason that a device computes something else."""
    fp16 = options.precision == "low" and device.facts.get("mnn_kernels", {}).get("fp16") is True
    return _FP16 if fp16 else _KERNELS


def blame(names: Sequence[str], faults: Faults, options: RunOptions, device: DeviceCapture) -> Observed:
    """What is said of outputs that are innocent."""
    if not names:
        return NOTHING
    finding = Finding(
        code="DEVICE_DIFFERS",
        severity="fail",
        where=names[0],
        message=f"the device breaks limits that this host keeps with the same file: {', '.join(names[:20])}",
        evidence={"outputs": list(names[:1000])},
        remedy=(
            "With static int8 one step that rounds the other way can decide a close call.  Otherwise q"
            if faults.static
            else "Q"
        )
        + f"uantization is not the cause.  {_suspects(options, device)}.",
    )
    return Observed((finding,), Verdict.FAIL)


def outside_band(
    stages: Stages,
    judged: Mapping[str, JudgedOutput],
    on_host: Summaries,
    faults: Faults,
    bands: Bands,
    options: RunOptions,
    limits: Sequence[Limit],
    device: DeviceCapture,
) -> Observed:
    """Where the device computes something else than this host with the same file, it is FAIL, even where every limit
    against the reference is kept: by luck, and with these cases.

    INCONCLUSIVE where this host is known to be the one that is wrong: then nobody can say what the device adds; and
    where a file is static int8, no fault of this device is known and nothing is known of how far rounding carries this
    model, for rounding alone can do that.

    Args:
        on_host: this host against the reference.
        bands: of what the file is computed in.
        limits: the user's.
    """
    if "device" in stages.why:
        return _unknown(stages.why["device"]) if any(limit.metric == DEVICE_METRIC for limit in limits) else NOTHING
    # Against the reference, what is missing or not finite is told already.
    found = [each for each in bands.outside(stages.apart) if each.found.problem in (None, "reference_nonfinite")]
    if not found:
        return bands.wide(stages.apart)
    names = list(dict.fromkeys(each.output for each in found))
    worst = {name: next(each for each in found if each.output == name) for name in names}
    if faults.of_the_host and host_is_worse(names, judged, on_host):
        numbers = {name: each.rank for name, each in worst.items()}
        return Observed((pool_finding(faults, numbers),), Verdict.INCONCLUSIVE)
    return _outside(worst, found, faults, _suspects(options, device))


def _unknown(why: str) -> Observed:
    finding = Finding(
        code="DEVICE_ERROR_UNKNOWN",
        severity="error",
        message=f"{DEVICE_METRIC} was limited and could not be measured: {why}",
    )
    return Observed((finding,), Verdict.INCONCLUSIVE)


def _outside(worst: Mapping[str, Outside], found: Sequence[Outside], faults: Faults, suspects: str) -> Observed:
    """worst: the worst case of each output."""
    first = found[0]
    more = f", and {len(worst) - 1} more" if len(worst) > 1 else ""
    known = faults.of_the_device
    doubt = not any(
        proves_a_fault(each.rank, static=unknown, explained=known, asked=each.band.asked)
        for each in found
        for unknown in [faults.static and each.band.own is None]
    )
    between = f"{first.apart} in {first.output}, case '{first.case}'; {first.why}{more}"
    own = ", or this host's" if faults.static else ""
    remedy = f"{suspects}{own}.  If you know the reason and accept it: --limit '{DEVICE_METRIC}>=X'."
    finding = Finding(
        code="DEVICE_BEYOND_ROUNDING",
        severity="error" if doubt else "fail",
        where=first.output,
        message=f"device and host part with the same file: {between}, usually; a static int8 model that decides close "
        "calls (a letter, a class) can amplify one step that far, so this proves nothing"
        if doubt
        else f"device and host compute different things with the same file: {between}{explained(faults)}",
        evidence={
            "device_sqnr_db": {name: each.found.sqnr_db for name, each in worst.items()},
            "bound": {name: each.band.bound for name, each in worst.items()},
            "found": [each.as_dict() for each in found[:1000]],
            **({"i8mm_layers": list(faults.layers.half_tiles[:1000])} if faults.i8mm else {}),
            **({"tail_layers": list(faults.layers.tails[:1000])} if faults.tails else {}),
            **({"resize_layers": list(faults.layers.resizes[:1000])} if faults.resizes else {}),
        },
        remedy=AVOID if known else remedy,
    )
    return Observed((finding,), Verdict.INCONCLUSIVE if doubt else Verdict.FAIL)


def device_limit_unused(limits: Sequence[Limit], *, only_host: bool) -> Observed:
    """Where a device was to be held against this host, and this host is all there is."""
    named = [str(limit) for limit in limits if limit.metric == DEVICE_METRIC]
    if not named or not only_host:
        return NOTHING
    finding = Finding(
        code="DEVICE_LIMIT_UNUSED",
        severity="warn",
        message=f"the limit {', '.join(named)} has nothing to apply to: it holds a device against this host, and "
        "there is no other device",
        remedy="Name the device with --device, or take sqnr_db, which holds outputs against the reference.",
    )
    return Observed((finding,))


def versions_differ(device: DeviceCapture, host_mnn: str) -> Observed:
    if device.mnn is None or device.mnn == host_mnn:
        return NOTHING
    finding = Finding(
        code="MNN_VERSION_DIFFERS",
        severity="warn",
        where=device.uri,
        message=f"the device runs MNN {device.mnn}, the model was made with {host_mnn} on this host",
        evidence={"device": device.mnn, "host": host_mnn},
        remedy="Differences may come from the versions: install the same one in both places.",
    )
    return Observed((finding,))


def precision_ineffective(device: DeviceCapture, options: RunOptions) -> Observed:
    """Where fp16 was asked for and the CPU has none, MNN computes in fp32 and says nothing.

    Not quite as with precision normal: its sigmoid and SiLU get coarser (MNN's CPUUnary.cpp), which costs a GRU down
    to 39 dB.  That is what such a CPU does in the field as well.  On x86 MNN has no fp16 at all, which is like nothing
    that is asked about: MARGINAL at best.
    """
    kernels = device.facts.get("mnn_kernels", {})
    if options.precision != "low":
        return NOTHING
    if device.arch in X86:
        finding = Finding(
            code="PRECISION_LOW_INEFFECTIVE",
            severity="warn",
            where=device.uri,
            message="precision low was asked for, and on x86 MNN computes in fp32 all the same: this run says nothing "
            "about fp16, in which nothing beyond 65504 can be kept",
            evidence={"arch": device.arch},
            remedy="Judge fp16 on an ARM CPU that has it, or on emulated:cortex-a76.",
        )
        return Observed((finding,), Verdict.MARGINAL)
    if device.arch not in ARM64 or kernels.get("fp16") is not False:
        return NOTHING
    finding = Finding(
        code="PRECISION_LOW_INEFFECTIVE",
        severity="warn",
        where=device.uri,
        message="precision low was asked for, but this CPU has no fp16 arithmetic (ARMv8.2), so MNN computed in "
        "fp32 (with a coarser sigmoid): this run says nothing about fp16",
        evidence={"mnn_kernels": kernels, "cpu": device.cpu},
        remedy="Judge fp16 on a CPU that has it: Cortex-A55, A75 and newer, or emulated:cortex-a76.",
    )
    return Observed((finding,))
