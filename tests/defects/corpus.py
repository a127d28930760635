"""All planted defects, by name."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from tests.defects import archived, conversions, data, files, inner, live, states
from tests.defects.defect import Defect


@functools.cache
def corpus() -> Mapping[str, Defect]:
    found = [defect for room in (archived, live, files, inner, conversions, data, states) for defect in room.defects()]
    by_name = {defect.name: defect for defect in found}
    assert len(by_name) == len(found), "two defects have one name"
    return by_name
