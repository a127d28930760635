"""Why a layer is not static int8."""

from __future__ import annotations

from typing import Literal, NamedTuple

Code = Literal["asked", "kept", "unable", "unmeasured", "boundary", "pool", "kernel"]
"""asked: with skip=.  kept: one of the most sensitive, with keep=.  unable: MNN has no such layer in int8.
unmeasured: a range is not known.  boundary: a loop or branch would misread it.  pool: it would be clipped in front of
one.  kernel: MNN computes it wrong on some CPU."""


class Why(NamedTuple):
    """The reason: a code for programs, words for people."""

    code: Code
    words: str
