"""Everything a user can write on the command line or in a file, parsed and checked; imports no other room."""

from edgequant.problems import first_problem
from edgequant.spec.decides import DECISIONS, Decision, decision, parse_decides
from edgequant.spec.limits import DEVICE_METRIC, METRICS, Limit
from edgequant.spec.options import Access, Precision, RunOptions, parse_cores, parse_shape, parse_shapes
from edgequant.spec.variant import METHODS, MemoryMode, Variant

__all__ = [
    "DECISIONS",
    "DEVICE_METRIC",
    "METHODS",
    "METRICS",
    "Access",
    "Decision",
    "Limit",
    "MemoryMode",
    "Precision",
    "RunOptions",
    "Variant",
    "decision",
    "first_problem",
    "parse_cores",
    "parse_decides",
    "parse_shape",
    "parse_shapes",
]
