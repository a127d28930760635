"""Environment variables that keep libraries from work that nothing of ours uses, for this process and its children."""

from __future__ import annotations

import os

_WANTED = {
    # OpenBLAS, which comes with NumPy, starts threads that spin for a while, on the core that the next child process
    # waits for.  What is computed here are sums over vectors, whose last bits must not depend on how many cores there
    # are either.
    "OPENBLAS_NUM_THREADS": "1",
    # Plugins of Pydantic's are found by reading what every installed package says of itself; none is wanted.
    "PYDANTIC_DISABLE_PLUGINS": "__all__",
}
_set: list[str] = []


def set_ours() -> None:
    """Where whoever started this process has not said otherwise; before NumPy and Pydantic are loaded."""
    for name, value in _WANTED.items():
        if name not in os.environ:
            os.environ[name] = value
            _set.append(name)


def environment_as_found() -> dict[str, str]:
    """For what runs a user's own code."""
    return {name: value for name, value in os.environ.items() if name not in _set}
