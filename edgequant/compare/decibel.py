"""Signal-to-quantization-noise ratio: the one place where powers become decibels."""

from __future__ import annotations

import math

from edgequant.spec.limits import SQNR_CAP_DB

__all__ = ["SQNR_CAP_DB", "amplitude_db", "capped_db", "power_db"]


def power_db(signal: float, noise: float) -> float:
    """10 log10(signal / noise) of two powers: sums or means of squares, in one unit.

    Returns:
        dB, of any size: inf where there is no noise, else -inf where there is no signal or the noise is not finite.
    """
    if noise == 0:
        return math.inf
    if not (signal > 0 and noise < math.inf):
        return -math.inf
    # Logarithms apart: the quotient could overflow.
    return 10 * (math.log10(signal) - math.log10(noise))


def amplitude_db(signal: float, noise: float) -> float:
    """The same of two amplitudes, such as root mean squares, whose squares could overflow."""
    return 2 * power_db(signal, noise)


def capped_db(value: float) -> float:
    """Within +-SQNR_CAP_DB, for files: JSON knows no infinity.  NaN is as bad as can be."""
    return -SQNR_CAP_DB if math.isnan(value) else max(-SQNR_CAP_DB, min(SQNR_CAP_DB, value))
