"""What a PASS on so many independent cases leaves possible; used by check_judge.py."""

import numpy as np


def bound(check, verdict, made):
    """The report's keys: cases of the user's own with inputs of their own, and the share that may fail (95 %)."""
    own = [c for c in check.source["cases"] if not c["generated"] and c.get("kind", "usual") == "usual"]
    suited = any(each["code"] == "CALIBRATED_ON_CASES" for each in made["findings"])
    seen = []
    for case in () if suited or made["asked"]["method"] == "auto" else own:
        arrays = {name: check.arrays[ref["sha256"]] for name, ref in case["inputs"].items()}
        seen += [arrays] if not any(alike(arrays, other) for other in seen) else []
    share = 1 - 0.05 ** (1 / len(seen)) if seen and verdict in ("PASS", "MARGINAL") else None
    return {"independent_cases": len(seen), "failing_share_95": share}


def alike(one, two):
    if not one or any(one[name].shape != two[name].shape for name in one):
        return False
    return all(np.array_equal(a, two[name]) or cosine(a, two[name]) >= 0.9999 for name, a in one.items())


def cosine(a, b):
    """-1 where there is none: of whole numbers, and of nothing but zeros."""
    if a.dtype.kind != "f" or not a.any() or not b.any():
        return -1.0
    x, y = (v.astype(np.float64).ravel() / float(np.abs(v).max()) for v in (a, b))
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))
