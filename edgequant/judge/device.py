"""Where a device does something else than this host: what is found of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgequant.archive.outputs import Comparisons, OutputStore
from edgequant.compare.summary import OutputSummary
from edgequant.findings import Finding
from edgequant.jobs.prepare import Prepared
from edgequant.judge.kernel_faults import ARM64, AVOID, Faults, explained, host_is_worse, pool_finding
from edgequant.judge.limits import device_bands, meets, proves_a_fault
from edgequant.judge.verdict import Verdict, judge_output
from edgequant.plan.request import Request
from edgequant.report import model as report
from edgequant.spec import DEVICE_METRIC, Limit, Variant

if TYPE_CHECKING:
    from edgequant.jobs.verify import HostRun

Limits = Mapping[str, tuple[Limit, ...]]


def blame(
    prepared: Prepared,
    middle: HostRun,
    faults: Faults,
    limits: Limits,
    judged: Mapping[str, report.OutputReport],
    findings: list[Finding],
) -> list[Finding]:
    """Where this host keeps the limits with the very same file, the error enters on the device, not by quantizing."""
    if middle.why is not None:
        return findings
    on_host = stage_error(prepared, prepared.expected, middle.outputs)
    innocent = [
        name
        for name, output in judged.items()
        if output.verdict is Verdict.FAIL
        and name in on_host
        and judge_output(on_host[name], limits[name]).verdict in (Verdict.PASS, Verdict.MARGINAL)
    ]
    if not innocent:
        return findings
    # Advice to quantize in another way would send the reader the wrong way.
    kept = [
        finding.model_copy(update={"remedy": None})
        if finding.code == "LIMIT_EXCEEDED" and finding.where in innocent
        else finding
        for finding in findings
    ]
    return [
        *kept,
        Finding(
            code="DEVICE_DIFFERS",
            severity="fail",
            where=innocent[0],
            message=f"the device breaks limits that this host keeps with the same file: {', '.join(innocent[:20])}",
            evidence={"outputs": innocent[:1000]},
            remedy=(
                "With static int8 one step that rounds the other way can decide a close call.  Otherwise q"
                if faults.static
                else "Q"
            )
            + "uantization is not the cause.  Compare --precision normal with low, the MNN versions and "
            "--threads; then suspect MNN's kernels for this CPU.",
        ),
    ]


def outside_band(
    prepared: Prepared,
    request: Request,
    variant: Variant,
    errors: report.ErrorsByStage,
    judged: Mapping[str, report.OutputReport],
    middle: HostRun,
    faults: Faults,
    verdicts: list[Verdict],
) -> list[Finding]:
    """Where the device computes something else than this host with the same file, it is FAIL, even where every limit
    against the reference is kept: by luck, and with these cases.

    INCONCLUSIVE where this host is known to be the one that is wrong: then nobody can say what the device adds; and
    where a file is static int8 and no fault of this device is known, for rounding alone can do that.
    """
    method = "static" if faults.static else variant.method  # a recipe may be static as well
    bands = device_bands(prepared.kinds, method, request.options.precision, request.limits)
    if "device" in errors.why_null:
        if any(limit.metric == DEVICE_METRIC for limit in request.limits):
            verdicts.append(Verdict.INCONCLUSIVE)
            return [
                Finding(
                    code="DEVICE_ERROR_UNKNOWN",
                    severity="error",
                    message=f"{DEVICE_METRIC} was limited and could not be measured: {errors.why_null['device']}",
                )
            ]
        return []
    found = {
        name: entry.sqnr_db
        for name, entry in errors.device.items()
        if name in bands and entry.sqnr_db is not None and not meets(bands[name], entry.sqnr_db)
    }
    if not found:
        return []
    if faults.pools and host_is_worse(list(found), judged, stage_error(prepared, prepared.expected, middle.outputs)):
        verdicts.append(Verdict.INCONCLUSIVE)
        return [pool_finding(faults, found)]
    worst_one = min(found, key=lambda name: found[name])
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    asked = any(limit.metric == DEVICE_METRIC and limit.output in (None, *found) for limit in request.limits)
    known = faults.of_the_device
    doubt = not proves_a_fault(found[worst_one], static=faults.static, explained=known, asked=asked)
    verdicts.append(Verdict.INCONCLUSIVE if doubt else Verdict.FAIL)
    between = f"only {found[worst_one]:.4g} dB SQNR between them in {worst_one}, worst case"
    usual = f"{bands[worst_one].value:g} dB{more}"
    remedy = (
        "Compare --precision normal with low, the MNN versions and --threads; then suspect MNN's kernels for this CPU, "
        "or, with static int8, for this host's.  If you know the reason and accept it: --limit "
        f"'{DEVICE_METRIC}>=X'."
    )
    return [
        Finding(
            code="DEVICE_BEYOND_ROUNDING",
            severity="error" if doubt else "fail",
            where=worst_one,
            message=f"device and host part with the same file: {between}, where rounding usually leaves {usual}; a "
            "static int8 model that decides close calls (a letter, a class) can amplify one step that far, so this "
            "proves nothing"
            if doubt
            else f"device and host compute different things with the same file: {between}, rounding leaves at least "
            f"{usual}{explained(faults)}",
            evidence={
                "device_sqnr_db": found,
                "bound": {name: bands[name].value for name in found},
                **({"i8mm_layers": list(faults.layers.half_tiles[:1000])} if faults.i8mm else {}),
                **({"tail_layers": list(faults.layers.tails[:1000])} if faults.tails else {}),
            },
            remedy=AVOID if known else remedy,
        )
    ]


def device_limit_unused(request: Request) -> list[Finding]:
    """Where a device was to be held against this host, and this host is all there is."""
    limits = [str(limit) for limit in request.limits if limit.metric == DEVICE_METRIC]
    if not limits or not all(uri.startswith("local:") for uri in request.devices):
        return []
    return [
        Finding(
            code="DEVICE_LIMIT_UNUSED",
            severity="warn",
            message=f"the limit {', '.join(limits)} has nothing to apply to: it holds a device against this host, and "
            "there is no other device",
            remedy="Name the device with --device, or take sqnr_db, which holds outputs against the reference.",
        )
    ]


def versions_differ(device: report.DeviceInfo, host_mnn: str) -> list[Finding]:
    if device.mnn is None or device.mnn == host_mnn:
        return []
    return [
        Finding(
            code="MNN_VERSION_DIFFERS",
            severity="warn",
            where=device.uri,
            message=f"the device runs MNN {device.mnn}, the model was made with {host_mnn} on this host",
            evidence={"device": device.mnn, "host": host_mnn},
            remedy="Differences may come from the versions: install the same one in both places.",
        )
    ]


def precision_ineffective(device: report.DeviceInfo, request: Request) -> list[Finding]:
    """Where fp16 was asked for and the CPU has none, MNN computes in fp32 and says nothing.

    Not quite as with precision normal: its sigmoid and SiLU get coarser (MNN's CPUUnary.cpp), which costs a GRU down
    to 39 dB.  On x86 MNN has no fp16 at all, whoever asks for it there knows: the phone is what it was asked for.
    """
    if request.options.precision != "low" or device.arch not in ARM64:
        return []
    if device.facts["mnn_kernels"].get("fp16") is not False:
        return []
    return [
        Finding(
            code="PRECISION_LOW_INEFFECTIVE",
            severity="warn",
            where=device.uri,
            message="precision low was asked for, but this CPU has no fp16 arithmetic (ARMv8.2), so MNN computed in "
            "fp32 (with a coarser sigmoid): this run says nothing about fp16",
            evidence={"mnn_kernels": device.facts["mnn_kernels"], "cpu": device.cpu},
            remedy="Judge fp16 on a CPU that has it: Cortex-A55, A75 and newer, or emulated:cortex-a76.",
        )
    ]


def stage_error(prepared: Prepared, before: OutputStore, after: OutputStore) -> dict[str, OutputSummary]:
    """The error between two stages, over the cases both could run."""
    comparisons = Comparisons()
    for case in prepared.cases:
        first, second = before.get(case.name), after.get(case.name)
        if first is None or second is None:
            continue
        comparisons.add(case.name, {name: first[name] for name in prepared.kinds if name in first}, second)
    return comparisons.summaries()
