"""Device against this host with the same file and memory normal, where nothing is int8: is it the same file, and does
the device compute with it what this host does?

Rounding to int8 hides a file whose weights are others, or a kernel that is wrong by a few percent.  Without it device
and host part by no more than float kernels do: 74 dB and more between x86 and ARM.
"""

from __future__ import annotations

from edgequant.archive.types import Capture
from edgequant.findings import Finding
from edgequant.judge.band import Bands
from edgequant.judge.types import NOTHING, Compared, Observed
from edgequant.judge.verdict import Verdict

REMEDY = (
    "Rounding is not the cause.  See that the device has this very file (edgequant devices clean, then run again) and "
    "this MNN; compare --precision normal with low, and --threads; then suspect MNN's kernels for this CPU.  If you "
    "know the reason and accept it: --limit 'device_sqnr_db>=X'."
)


def file_or_kernel(compared: Compared, bands: Bands) -> Observed:
    """FAIL where an output lies outside of what float kernels leave, in any case.

    Args:
        compared: this host against the device, both with memory normal.
        bands: those of float kernels.
    """
    found = bands.outside(compared)
    if not found:
        return NOTHING
    worst = found[0]
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    finding = Finding(
        code="FILE_OR_KERNEL_DIFFERS",
        severity="fail",
        where=worst.output,
        message=f"with memory normal, where nothing is int8, device and host compute different things with the same "
        f"file: {worst.apart} in {worst.output}, case '{worst.case}', where {worst.why}{more}: the file there is "
        "another one, or a kernel is wrong",
        evidence={"found": [each.as_dict() for each in found[:1000]]},
        remedy=REMEDY,
    )
    return Observed((finding,), Verdict.FAIL)


def unchecked(here: Capture, there: Capture) -> Observed:
    """INCONCLUSIVE where the device's MNN refused with memory normal what this host's does not."""
    known = {each.case for each in here.normal if each.outputs is not None}
    refused = {each.case: each.refused for each in there.normal if each.refused is not None and each.case in known}
    if not refused:
        return NOTHING
    case, said = next(iter(refused.items()))
    finding = Finding(
        code="FLOAT_KERNELS_UNCHECKED",
        severity="error",
        where=case,
        message=f"with memory normal the device cannot run case '{case}', which this host runs: {said}; so it is not "
        "shown that file and kernels are right",
        evidence={"cases": list(refused)[:1000]},
        remedy="Compare the MNN versions, or pin other sizes with --shape.",
    )
    return Observed((finding,), Verdict.INCONCLUSIVE)
