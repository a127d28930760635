"""Device against this host with the same file and memory normal, where nothing is int8: is it the same file, and does
the device compute with it what this host does?

Rounding to int8 hides a file whose weights are others, or a kernel that is wrong by a few percent.  Without it device
and host part by no more than float kernels do: 74 dB and more between x86 and ARM.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgequant.archive.types import Capture
from edgequant.compare.metrics import TensorComparison
from edgequant.findings import Finding
from edgequant.judge.limits import NEAR_NOTHING, meets
from edgequant.judge.types import NOTHING, Compared, Observed
from edgequant.judge.verdict import Verdict
from edgequant.spec import Limit

REMEDY = (
    "Rounding is not the cause.  See that the device has this very file (edgequant devices clean, then run again) and "
    "this MNN; compare --precision normal with low, and --threads; then suspect MNN's kernels for this CPU.  If you "
    "know the reason and accept it: --limit 'device_sqnr_db>=X'."
)


def file_or_kernel(compared: Compared, bands: Mapping[str, Limit]) -> Observed:
    """FAIL where an output lies outside of what float kernels leave, in any case.

    Args:
        compared: this host against the device, both with memory normal.
        bands: of float outputs, those of float kernels (`limits.device_bands`); an output without one holds whole
            numbers, and has to be equal.
    """
    found = [
        (name, case, each)
        for name, cases in compared.items()
        for case, each in cases.items()
        if not _same(each, bands.get(name))
    ]
    if not found:
        return NOTHING
    name, case, worst = min(found, key=lambda one: -200.0 if one[2].sqnr_db is None else one[2].sqnr_db)
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    finding = Finding(
        code="FILE_OR_KERNEL_DIFFERS",
        severity="fail",
        where=name,
        message=f"with memory normal, where nothing is int8, device and host compute different things with the same "
        f"file: {_apart(worst)} in {name}, case '{case}', where {_usual(bands.get(name))}{more}: the file there is "
        "another one, or a kernel is wrong",
        evidence={
            "found": [
                {"output": name, "case": case, "sqnr_db": each.sqnr_db, "mismatch": each.mismatch,
                 "max_abs": each.max_abs, "problem": each.problem}
                for name, case, each in found[:1000]
            ],
            "bound": {name: bands[name].value for name, _, _ in found if name in bands},
        },
        remedy=REMEDY,
    )  # fmt: skip
    return Observed((finding,), Verdict.FAIL)


def _same(found: TensorComparison, band: Limit | None) -> bool:
    if found.problem not in (None, "reference_nonfinite"):
        return False
    if found.max_abs is None or (found.kind == "float" and found.max_abs <= NEAR_NOTHING):
        return True
    if band is None or found.kind == "int":
        return found.exact
    return found.sqnr_db is not None and meets(band, found.sqnr_db)


def _apart(found: TensorComparison) -> str:
    if found.problem not in (None, "reference_nonfinite"):
        return {"missing": "there is no output", "nonfinite": f"{found.nan} NaN and {found.inf} Inf"}.get(
            found.problem, f"another {found.problem}"
        )
    if found.kind == "int":
        return f"{found.mismatch or 0.0:.2%} of the whole numbers differ"
    if found.sqnr_db is None:
        return f"up to {found.max_abs:.3g} in place of zeros"
    return f"only {found.sqnr_db:.4g} dB SQNR between them"


def _usual(band: Limit | None) -> str:
    return "float kernels leave them equal" if band is None else f"float kernels leave at least {band.value:g} dB"


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
