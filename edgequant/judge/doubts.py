"""What keeps a measurement from proving anything, though it ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgequant.archive.types import Artifact, ReferenceFacts
from edgequant.compare.summary import OutputSummary
from edgequant.findings import Finding
from edgequant.judge.conversion import USERS_OWN
from edgequant.judge.types import NOTHING, Observed, Summaries
from edgequant.judge.verdict import Verdict
from edgequant.spec import Limit

MODELS_OWN = "REFERENCE_IS_MODELS_OWN"
OTHER_CASE = "REFERENCE_OF_OTHER_CASE"
_VOID = (OTHER_CASE,)
"""With one of these not even a FAIL is one."""


def doubt(findings: Iterable[Finding]) -> tuple[bool, bool]:
    """Whether findings about the model say that a PASS proves nothing, and whether a FAIL neither."""
    codes = [each.code for each in findings if each.severity == "error"]
    return bool(codes), any(code in _VOID for code in codes)


def models_own(whose: str) -> Finding:
    return Finding(
        code=MODELS_OWN,
        severity="error",
        message=f"the reference is what {whose} computes, in every bit: no other program adds up in the same order, so "
        "MNN is held against itself",
        remedy="Give what the source model computes in the framework it was trained in.",
    )


def own_output(
    reference: ReferenceFacts | None, made: Artifact, total: Summaries, conversion: Summaries | None
) -> Observed:
    """Where the user's reference is what the quantized model computes, and the float model something else."""
    floats = [summary for summary in total.values() if summary.kind == "float"]
    if reference is None or reference.kind != USERS_OWN or not made.quantized_layers or conversion is None:
        return NOTHING
    if not floats or not all(each.exact for each in floats):
        return NOTHING
    if all(summary.exact for summary in conversion.values()):
        return NOTHING
    return Observed((models_own("the quantized model"),), Verdict.INCONCLUSIVE)


def keeps_anything(total: Summaries, limits: Mapping[str, tuple[Limit, ...]]) -> Observed:
    """Limits that an output of nothing but zeros would keep; where an output has no others, its check is void."""
    findings: list[Finding] = []
    void = False
    for name, summary in total.items():
        loose = [limit for limit in limits[name] if _kept_by_zeros(limit, summary)]
        if not loose or not summary.judgeable:
            continue
        all_loose = len(loose) == len(limits[name])
        void = void or all_loose
        findings.append(
            Finding(
                code="LIMIT_KEEPS_ANYTHING",
                severity="error" if all_loose else "warn",
                where=name,
                message=f"{', '.join(f'{each.metric}{each.op}{each.value:g}' for each in loose)} would be kept by "
                f"zeros{': no wrong model can break the limits of this output' if all_loose else ''}",
                evidence={"limits": [str(each) for each in loose]},
                remedy="Leave a limit out to have its default, or give one that a wrong model breaks.",
            )
        )
    return Observed(tuple(findings), Verdict.INCONCLUSIVE if void else Verdict.PASS)


def _kept_by_zeros(limit: Limit, summary: OutputSummary) -> bool:
    size = summary.reference_max_abs
    if summary.kind == "float" and not size:
        return False  # nothing else is right there
    zeros = {"sqnr_db": 0.0, "cosine": 0.0, "rel_max": 1.0, "mismatch": 1.0}.get(limit.metric, size)
    if zeros is None:
        return False
    return limit.value <= zeros if limit.op == ">=" else limit.value >= zeros
