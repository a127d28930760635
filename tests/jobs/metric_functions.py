"""Task metrics as users write them, and as they go wrong."""

import os
import time

import numpy as np


def error(cases):
    """Mean distance to the label, over all cases."""
    return float(np.mean([np.abs(case.outputs["y"] - case.label).mean() for case in cases]))


def several(cases):
    assert [case.name for case in cases] == sorted(case.name for case in cases)
    assert set(cases[0].inputs) == {"x"}
    assert set(cases[0].reference) == {"y"}
    worst = max(float(np.abs(case.outputs["y"] - case.reference["y"]).max()) for case in cases)
    return {"worst": np.float32(worst), "cases": len(cases)}


def by_arrays(cases):
    return sum(int(case.label["mask"].sum()) for case in cases)


def nan(cases):
    return float("nan")


def raises(cases):
    return {}["no such key"]


def asks(cases):
    return float(cases[0].outputs["no such output"].sum())


def text(cases):
    return "good"


def nothing(cases):
    return None


def hangs(cases):
    time.sleep(600)


def dies(cases):
    os.abort()


def leaves(cases):
    os._exit(0)


def prints(cases):
    line = "x" * 1000
    for _ in range(20_000):
        print(line)
    return 1.0


def many(cases):
    return {f"k{number}": number for number in range(5000)}


def eats(cases):
    return float(np.ones(10**9).sum())


def once_bad(cases):
    """1 the first time it is called in a folder, then 0."""
    bad = not os.path.exists("seen")  # noqa: PTH110  (what it imports would be taken for its functions)
    open("seen", "w").close()
    return int(bad)


NOT_A_FUNCTION = 3
