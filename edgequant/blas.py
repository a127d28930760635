"""OpenBLAS, which comes with NumPy, kept from starting threads that nothing of ours uses: they spin for a while, on the
core that the next child process waits for.  What is computed here are sums over vectors, whose last bits must not
depend on how many cores there are either."""

from __future__ import annotations

import os

_NAME = "OPENBLAS_NUM_THREADS"
_set: list[str] = []


def one_thread() -> None:
    """For this process and its children, where whoever started it has not said otherwise; before NumPy is loaded."""
    if _NAME not in os.environ:
        os.environ[_NAME] = "1"
        _set.append(_NAME)


def environment_as_found() -> dict[str, str]:
    """For what runs a user's own code."""
    return {name: value for name, value in os.environ.items() if name not in _set}
