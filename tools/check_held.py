"""One value of an acceptance held against one bound: intervals, versions, ratios of times."""

import math
import re
from functools import cache

import numpy as np

GOOD = ["PASS", "MARGINAL", "ACCEPTED"]
LEVEL = 0.99


def timed(metric):
    return metric == "cpu_ms" or (metric.startswith(("latency_ms.", "memory_mb.")) and metric != "memory_mb.model_file")


@cache
def student(level, freedom):
    """Two-sided quantile of Student's t, by bisection over its density, integrated with x = tan(angle)."""

    def inside(t):
        angles = np.linspace(0.0, math.atan(t / math.sqrt(freedom)), 2001)
        heights = np.cos(angles) ** (freedom - 1)
        whole = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
        step = angles[1]
        weights = np.where(np.arange(2001) % 2, 4.0, 2.0)
        weights[[0, -1]] = 1.0
        return 2 * whole * step / 3 * float(weights @ heights)

    low, high = 0.0, 1.0
    while inside(high) < level:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < level else (low, middle)
    return high


def ratio(value, base):
    """(low, middle, high) of how many times as long; None where it cannot be told."""
    mine, theirs = (dict(map(tuple, each["blocks"])) for each in (value, base))
    if any(each <= 0 for each in [*mine.values(), *theirs.values()]):
        return None
    if value["session"] and value["session"] == base["session"]:
        logs = np.log([mine[key] / theirs[key] for key in mine if key in theirs])
        if len(logs) < 2:
            return None
        middle, spread, freedom = logs.mean(), math.sqrt(logs.var(ddof=1) / len(logs)), len(logs) - 1
    else:
        if len(mine) < 2 or len(theirs) < 2:
            return None
        now, then = (np.log(list(each.values())) for each in (mine, theirs))
        one, two = (each.var(ddof=1) / len(each) for each in (then, now))
        middle, spread, freedom = now.mean() - then.mean(), math.sqrt(one + two), 1
        if one + two > 0:
            freedom = max(int((one + two) ** 2 / (one**2 / (len(then) - 1) + two**2 / (len(now) - 1))), 1)
    half = student(LEVEL, freedom) * spread
    return math.exp(middle - half), math.exp(middle), math.exp(middle + half)


def interval(op, margin, low, high, bound):
    best, bad = (low, high) if op == "<=" else (-high, -low)
    bound = bound if op == "<=" else -bound
    if best > bound:
        return "FAIL"
    if bad > bound:
        return "INCONCLUSIVE"
    return "MARGINAL" if margin is not None and margin > 0 and bad > bound - margin else "PASS"


def ends(value):
    number = value["value"]
    return (number if value["low"] is None else value["low"], number if value["high"] is None else value["high"])


def version(text):
    found = re.match(r"\s*v?(\d{1,6})(?:\.(\d{1,6}))?(?:\.(\d{1,6}))?", text)
    return found and tuple(int(part or 0) for part in found.groups())


def held(metric, op, margin, bound, value, base):
    """The state of one number."""
    now = value["value"]
    if bound[0] == "absolute":
        if value["excused"]:
            return "PASS"
        if isinstance(now, bool) or isinstance(bound[1], bool):
            return "PASS" if now is bound[1] else "FAIL"
        if isinstance(bound[1], str) or isinstance(now, str):
            mine, asked = version(str(now)), version(str(bound[1]))
            if not mine or not asked:
                return "INCONCLUSIVE"
            return "PASS" if {">=": mine >= asked, "<=": mine <= asked, "==": mine == asked}[op] else "FAIL"
        return interval(op, margin, *ends(value), bound[1])
    then = base["value"]
    if isinstance(now, (bool, str)) or isinstance(then, (bool, str)):
        return "INCONCLUSIVE"
    _, factor, add = bound
    if value["blocks"] and base["blocks"] and then > 0 and (found := ratio(value, base)):
        return interval(op, None if margin is None else margin / then, found[0], found[2], (factor * then + add) / then)
    low, high = ends(base)
    strict, lenient = (low, high) if op == "<=" else (high, low)
    state = interval(op, margin, *ends(value), factor * lenient + add)
    if timed(metric) and state in GOOD and strict != lenient:
        return state if interval(op, margin, *ends(value), factor * strict + add) in GOOD else "INCONCLUSIVE"
    return state
