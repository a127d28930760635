"""How far each output of each case may be from this host's with the same file: the model's own band of rounding.

Where this host was held against itself with its inputs moved (`lab.probes.rounding`), a device must come as near to it
as that, less a margin.  Where it was not (an older run, whole numbers as inputs, another MNN or fp16 arithmetic, which
this host cannot imitate), a fixed band by the kind of arithmetic stands in for it: `limits.device_bands`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgequant.archive.types import Moved
from edgequant.compare.decibel import SQNR_CAP_DB
from edgequant.compare.metrics import TensorComparison
from edgequant.compare.summary import NEAR_NOTHING
from edgequant.compare.table import Kind
from edgequant.findings import Finding
from edgequant.judge.limits import device_bands, meets
from edgequant.judge.types import NOTHING, Compared, Observed
from edgequant.judge.verdict import Verdict
from edgequant.spec import DEVICE_METRIC, Limit, Precision
from edgequant.text import apart

MARGIN_DB, CHANCE_DB = 8.0, 12.0
"""A device may be so much farther off than this host from itself at the worst of its tries; the second where it is a
matter of chance how far that goes, and then all cases of the output stand for each."""
FEW, SPREAD_DB, DECIDES_DB = 64, 6.0, 20.0
"""It is chance in an output of fewer numbers, where tries with noise part by more than the second, and where another
case goes farther by the third: there a decision has tipped, and that none has here in a few tries shows little."""
UNMOVED_DB = 90.0
"""Above this, no activation of a case has rounded to another step: nothing is known of what happens where one does."""
FLOAT_DB = 60.0
"""Never is more asked for than this: float kernels approximate functions in other ways, which is no rounding."""
STEADY_DB = 20.0
"""An output that keeps this here when its inputs move is no remainder of larger numbers, however small it is: next to
nothing is then what lies FLOAT_DB below its largest number in any case."""
WIDE_DB = 3.0
"""With a band below this, an error of half of the output's power would be rounding."""
_LABELS = 0.01
_FLOAT_METHODS = ("float", "fp16", "weight")


@dataclass(frozen=True)
class Band:
    """bound: SQNR in dB at least; of whole numbers the largest share that may differ.  own: what this host came to,
    in that unit; None where the bound is fixed.  asked: the bound is the user's."""

    bound: float
    own: float | None = None
    asked: bool = False


@dataclass(frozen=True)
class Outside:
    """One output of one case that is outside of its band."""

    output: str
    case: str
    found: TensorComparison
    band: Band

    @property
    def rank(self) -> float:
        """Sorts the worst first."""
        return -SQNR_CAP_DB if self.found.sqnr_db is None else self.found.sqnr_db

    @property
    def apart(self) -> str:
        """What lies between the two, in words."""
        found = self.found
        if found.problem not in (None, "reference_nonfinite"):
            told = {"missing": "one of them is missing", "nonfinite": f"{found.nan} NaN and {found.inf} Inf"}
            return told.get(found.problem, f"another {found.problem}")
        if found.kind == "int":
            return f"{found.mismatch or 0.0:.2%} of the whole numbers differ"
        if found.sqnr_db is None:
            return f"up to {found.max_abs:.3g} in place of zeros"
        return f"only {apart([found.sqnr_db, self.band.bound], 4)[0]} dB SQNR between them"

    @property
    def why(self) -> str:
        """What the band is and where it comes from, in words."""
        band = self.band
        if self.found.kind == "int":
            bound, own = f"at most {band.bound:.2%}", f"{band.own or 0.0:.2%} of them change on this host itself"
        else:
            asked = apart([band.bound, *([] if self.found.sqnr_db is None else [self.found.sqnr_db])], 4)[0]
            bound, own = f"at least {asked} dB", f"this host itself keeps {band.own or 0.0:.4g} dB there"
        if band.asked:
            return f"the limit asks for {bound}"
        if band.own is None:
            return f"rounding leaves {bound}"
        return f"{own} when its inputs move by next to nothing, so that rounding leaves {bound}"

    def as_dict(self) -> dict[str, object]:
        found, band = self.found, self.band
        return {
            "output": self.output, "case": self.case, "sqnr_db": found.sqnr_db, "mismatch": found.mismatch,
            "max_abs": found.max_abs, "problem": found.problem, "bound": band.bound, "own": band.own,
            "asked": band.asked,
        }  # fmt: skip


class Bands:
    """The bands of one file on one device.

    Args:
        kinds: of the outputs.
        method: what the file is computed in, as `device_bands` takes it.
        limits: the user's.
        moved: what this host came to by itself, computed in the same way; none where that says nothing of the device.
        held: the cases that may stand for each other: not those that strain the model.
        decisions: outputs that decide something, whose next to nothing is none, such as the score of a detector that
            sees nothing.
    """

    def __init__(
        self,
        kinds: Mapping[str, Kind],
        method: str,
        precision: Precision,
        limits: Sequence[Limit],
        moved: Iterable[Moved] = (),
        held: Container[str] | None = None,
        decisions: Container[str] = (),
    ) -> None:
        self._held, self._decisions = held, decisions
        self._kinds = kinds
        self._floats = method in _FLOAT_METHODS
        self._exact = self._floats and precision != "low"
        self._fixed = device_bands(kinds, method, precision, limits)
        asked = [limit.output for limit in limits if limit.metric == DEVICE_METRIC]
        self._asked = {name for name in self._fixed if name in asked or None in asked}
        self._own: dict[tuple[str, str], float] = {}
        self._noise: dict[tuple[str, str], list[float]] = {}
        for each in moved:
            for name, strayed in each.outputs.items():
                key, whole = (name, each.case), kinds.get(name) == "int"
                value = strayed.mismatch if whole else strayed.sqnr_db
                if value is not None:
                    self._own[key] = (max if whole else min)(value, self._own.get(key, value))
                    spread = self._noise.setdefault(key, [])
                    spread += [value] if each.by == "noise" and not self._unmoved(value) else []

    def of(self, output: str, case: str, elements: int) -> Band:
        own = self._own.get((output, case))
        if self._kinds[output] == "int":
            spare = 0.0 if self._exact else max(_LABELS, 1 / max(elements, 1))
            return Band(spare + 2 * (own or 0.0), own)
        fixed = self._fixed[output].value
        if output in self._asked:
            return Band(fixed, asked=True)
        if own is None:
            return Band(fixed)
        strained = self._held is not None and case not in self._held
        alike = [key for key in self._own if key[0] == output and (self._held is None or key[1] in self._held)]
        worst = own if strained else min(self._own[key] for key in alike)
        noise = self._noise[output, case] or [own]
        chance = strained or elements < FEW or max(noise) - min(noise) > SPREAD_DB or worst < own - DECIDES_DB
        if chance or self._unmoved(own):
            own = worst
        if self._unmoved(own):
            return Band(fixed)
        return Band(min(fixed, own - CHANCE_DB) if chance else min(FLOAT_DB, own - MARGIN_DB), own)

    def _unmoved(self, own: float) -> bool:
        return own > UNMOVED_DB and not self._floats

    def outside(self, compared: Compared) -> list[Outside]:
        """What is outside of its band; what cannot be compared as a whole is, too."""
        found = []
        for output, cases in compared.items():
            scale = max((each.reference_max_abs or 0.0 for each in cases.values()), default=0.0)
            for case, each in cases.items():
                band = self.of(output, case, each.elements)
                alike = each.kind == self._kinds[output]  # else the output is wrong on both: told elsewhere
                if not self._inside(output, each, band, scale) and (alike or each.problem is not None):
                    found.append(Outside(output, case, each, band))
        return sorted(found, key=lambda each: each.rank)

    def _inside(self, output: str, found: TensorComparison, band: Band, scale: float) -> bool:
        if found.problem not in (None, "reference_nonfinite"):
            return False
        if found.kind == "int":
            return found.mismatch is None or found.mismatch <= band.bound
        steady = scale > NEAR_NOTHING and (band.own or 0.0) >= STEADY_DB and output not in self._decisions
        nothing = min(NEAR_NOTHING, scale * 10 ** (-FLOAT_DB / 20)) if steady else NEAR_NOTHING
        if found.max_abs is None or found.max_abs <= nothing:
            return True
        if found.sqnr_db is None:  # zeros here: by the size that the output has in other cases
            return not self._floats or found.max_abs <= scale * 10 ** (-band.bound / 20)
        return meets(Limit(metric=DEVICE_METRIC, op=">=", value=band.bound), found.sqnr_db)

    def wide(self, compared: Compared) -> Observed:
        """MARGINAL where this model's own band lets anything through: then the device stage shows nothing."""
        found = [
            (band.own, output, case)
            for output, cases in compared.items()
            for case, each in cases.items()
            if self._kinds[output] == "float"
            and (band := self.of(output, case, each.elements)).own is not None
            and band.bound < WIDE_DB
        ]
        if not found:
            return NOTHING
        own, output, case = min(found)
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        finding = Finding(
            code="DEVICE_BAND_WIDE",
            severity="warn",
            where=output,
            message=f"rounding decides what this model says: {output} of case '{case}' keeps only {own:.4g} dB SQNR on "
            f"this host itself when its inputs move by next to nothing{more}; so that a device is right cannot be "
            "shown by that",
            evidence={"found": [{"output": name, "case": at, "own": value} for value, name, at in found[:1000]]},
            remedy="Take a variant that rounds less for the layers that decide, or cases whose answer is clear.",
        )
        return Observed((finding,), Verdict.MARGINAL)
