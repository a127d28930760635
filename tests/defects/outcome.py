"""What the product said of a defect and of its healthy twin, and whether that is right."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from edgequant.report.diagnosis import DiagnosisReport
from edgequant.report.model import Report

GOOD = ("PASS", "MARGINAL")
Result = Literal["caught", "misnamed", "warn only", "MISSED"]

OTHERS_FAULT = re.compile(
    "CONVERSION|CONVERT|CALIBRAT|QUANTIZATION|QUANTIZER|REFERENCE|CASE|RANDOM|INPUT|LIMIT_|INTERNAL|NOTHING_QUANTIZED|"
    "MODEL_CHANGED|INTERRUPTED|LOW_MEMORY"
)
"""Codes that blame somebody else than the device, by words in them; what a device's fault must not be told as."""


@dataclass(frozen=True)
class Said:
    """A verdict, and (code, severity) of everything that was found; the code of a failure counts as an error.

    p50: the median time it reports, in milliseconds.  diagnosis: of its last run that was looked into.
    """

    verdict: str
    findings: tuple[tuple[str, str], ...]
    p50: float | None = None
    diagnosis: DiagnosisReport | None = None

    @classmethod
    def by(cls, report: Report) -> Said:
        found = [(each.code, each.severity) for each in report.findings]
        p50 = None
        for run in report.runs:
            p50 = None if run.latency_ms is None else run.latency_ms.p50
            found += [(each.code, each.severity) for each in run.findings]
            found += [(run.error.code, "error")] if run.error is not None else []
            if run.latency_ms is not None and not run.latency_ms.valid:
                found.append(("LATENCY_INVALID", "warn"))
        told = [run.diagnosis for run in report.runs if run.diagnosis is not None]
        return cls(str(report.verdict), tuple(dict.fromkeys(found)), p50, told[-1] if told else None)

    @property
    def grave(self) -> tuple[str, ...]:
        """Codes of what is more than a warning."""
        return tuple(code for code, severity in self.findings if severity in ("fail", "error"))

    @property
    def healthy(self) -> bool:
        return self.verdict in GOOD and not self.grave


@dataclass(frozen=True)
class Fits:
    """Which codes are right for a defect.

    wanted: the code has to hold one of these words; None: any will do.  unwanted: none of these.
    timing: it costs the timing, not the run: that a warning is said of it, and the times do not count, is right.
    marginal: what it hides cannot be judged: a warning is right where the verdict is no PASS, MARGINAL included.
    honest: it is no defect where the time that is reported is near that of the twin.
    """

    wanted: re.Pattern[str] | None = None
    unwanted: re.Pattern[str] | None = OTHERS_FAULT
    timing: bool = False
    marginal: bool = False
    honest: bool = False

    def first(self, codes: Iterable[str]) -> str | None:
        for code in codes:
            bad = self.unwanted is not None and self.unwanted.search(code)
            if not bad and (self.wanted is None or self.wanted.search(code)):
                return code
        return None


@dataclass(frozen=True)
class Outcome:
    """Of one defect.  code: of the finding that caught it, or was nearest to it."""

    name: str
    kind: str
    real: bool
    way: str
    result: Result
    verdict: str
    code: str | None
    twin: str
    twin_codes: tuple[str, ...]
    false_alarm: bool
    seconds: float


def judged(defect: Said, twin: Said, fits: Fits) -> tuple[Result, str | None]:
    """Whether a defect was caught, and by which finding.  What is said of its twin as well is not about the defect."""
    known = {code for code, _ in twin.findings}
    warned = [code for code, severity in defect.findings if severity != "info" and code not in known]
    if defect.verdict not in GOOD:
        grave = [code for code in defect.grave if code not in twin.grave]
        code = fits.first(grave) or (fits.first(warned) if fits.marginal else None)
        return ("caught", code) if code else ("misnamed", ",".join(grave) or None)
    code = fits.first(warned)
    if code and ((fits.timing and "LATENCY_INVALID" in warned) or (fits.marginal and defect.verdict == "MARGINAL")):
        return "caught", code
    if fits.honest and defect.p50 and twin.p50 and defect.p50 > 0.6 * twin.p50:
        return "caught", "(the time is right)"
    return ("warn only", code) if code else ("MISSED", None)
