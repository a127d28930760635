"""What `edgequant bench` is asked beside latencies."""

from __future__ import annotations

import re

from edgequant.errors import InputError
from edgequant.plan.bench import LaboratoryRequest

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_LONGEST = 86_400.0


def request(governor: str | None, cool_below: float | None, sustain: str | None, per_op: bool) -> LaboratoryRequest:
    """Raises InputError (OPTION_INVALID)."""
    if governor is not None and not re.fullmatch(r"[a-z_]{1,30}", governor):
        raise InputError(
            "OPTION_INVALID",
            f"--governor {governor}: no governor has that name",
            hint="Such as --governor performance.",
        )
    return LaboratoryRequest(governor, cool_below, sustain=_duration(sustain), per_op=per_op)


def _duration(text: str | None) -> float | None:
    """ "10m", "30s", "1h", "90"."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)([smh]?)", text.strip())
    seconds = float(found[1]) * _SECONDS[found[2] or "s"] if found else 0.0
    if not 1 <= seconds <= _LONGEST:
        raise InputError(
            "OPTION_INVALID", f"--sustain {text}: not a time from 1s to 24h", hint="Write --sustain 10m, or 30s."
        )
    return seconds
