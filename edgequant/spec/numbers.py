"""Numbers and switches as they are written in a file: nothing is taken for what it is not.

pydantic would read ``true`` as 1, ``"7"`` and ``7.0`` as 7, and ``"off"`` as false; who writes that has meant something
else, or somewhere else.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AllowInfNan, Strict, StrictBool

Count = Annotated[int, Strict()]
"""A whole number: neither true, nor text, nor 7.0."""
Number = Annotated[float, Strict(), AllowInfNan(False)]
"""A finite number, whole or not: neither true nor text."""
Switch = StrictBool
"""true or false: neither 1 nor text."""
