"""A function of the user's, named where a path could stand."""

from __future__ import annotations

import os
import re

PATTERN = re.compile(r"(?P<module>.+):(?P<function>[^\W\d]\w*(\.[^\W\d]\w*)*)")


def looks_like_function(text: str) -> bool:
    """Whether it is written ``module:function`` or ``path/file.py:function``, and is not a file that exists."""
    return PATTERN.fullmatch(text) is not None and not os.path.lexists(text)
