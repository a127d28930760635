"""Which values of a parameter the gate takes: with the others a test is run nightly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def all_but(*gate: Any, of: Iterable[Any]) -> list[Any]:
    """`of`, for parametrize: those in `gate` as they are, the rest marked nightly.  A tuple: several names."""
    values = [(each, each if isinstance(each, tuple) else (each,)) for each in of]
    return [each if each in gate else pytest.param(*parts, marks=pytest.mark.nightly) for each, parts in values]
