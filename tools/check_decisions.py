"""Outputs that decide something: winners, and rows that may stand in another order.  Written from the docs."""

import numpy as np
from check_metrics import ANY, compare, finding, fold, judge_output

# fmt: off


def pairs(judge, cap, name):
    """(expected, got) of the cases that are held against limits."""
    got = {c["case"]: c["outputs"] or {} for c in cap["cases"]}
    for c in judge.reference["cases"]:
        if c["case"] not in judge.strain and name in (c["outputs"] or {}) and name in got.get(c["case"], {}):
            yield c["case"], judge.arrays[c["outputs"][name]["sha256"]], judge.arrays[got[c["case"]][name]["sha256"]]


def axis_of(p):
    for v in (p, np.exp(p.astype(float))) if p.max() <= 0 else (p,):
        if v.min() >= -1e-6 and v.max() <= 1 + 1e-3:
            for axis in reversed(range(p.ndim)):
                if p.shape[axis] > 1 and np.allclose(v.sum(axis, dtype=float), 1, atol=1e-3):
                    return axis
    return None


def of_logits(decision, pairs):
    """What a softmax or a sigmoid makes of outputs that their user calls so, where they are none yet."""
    if decision == "scores" and any(p.min() < 0 or p.max() > 1 for p, _ in pairs):
        return [tuple(0.5 + 0.5 * np.tanh(a.astype(float) / 2) for a in pair) for pair in pairs]
    found = []
    for p, q in pairs:
        if decision == "probabilities" and axis_of(p) is None and p.ndim:
            axis = 1 if p.ndim >= 4 else p.ndim - 1
            e = np.exp(p.astype(float) - p.max(axis, keepdims=True))
            p, q = np.moveaxis(e / e.sum(axis, keepdims=True), axis, -1), np.moveaxis(q, axis, -1)
        found.append((p, q))
    return found


def rows_of(decision, p, q):
    """Winner expected, winner got, whether it is clear, of each row; None where it is not of that kind."""
    if decision == "classes":
        return p.ravel(), q.ravel(), np.ones(p.size, bool)
    if decision == "scores":
        ok = p.min() >= 0 and p.max() <= 1
        return (p.ravel() > 0.5, q.ravel() > 0.5, np.abs(p.ravel().astype(float) - 0.5) > 0.1) if ok else None
    axis = axis_of(p)
    if axis is None:
        return None
    p, q = (np.moveaxis(a, axis, -1).reshape(-1, a.shape[axis]) for a in (p, q))
    p = np.exp(p.astype(float)) if p.max() <= 0 else p
    best = np.sort(p, -1)
    return p.argmax(-1), np.where(np.isnan(q), -np.inf, q).argmax(-1), best[:, -1] - best[:, -2] > 0.2


def winners(judge, cap, method):
    """Findings of FAIL."""
    found, allowed = [], 0.001 if method in ("float", "fp16") else 0.01
    for name, decision in judge.source.get("decisions", {}).items():
        if decision in ("ordered", "set"):
            continue
        both = [(p, q) for _, p, q in pairs(judge, cap, name)
                if p.shape == q.shape and 0 < p.size <= 1 << 25 and np.isfinite(p).all()]
        if name in judge.plan.get("decides", {}):
            both = of_logits(decision, both)
        rows = [rows_of(decision, p, q) for p, q in both]
        if not rows or any(r is None for r in rows):
            continue
        p, q, clear = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        p, q = p[clear], q[clear]
        if any((p == c).sum() >= 3 and not (q[p == c] == c).any() for c in np.unique(p)):
            found.append(finding("CLASS_LOST", "fail", name))
        if decision != "classes" and (p != q).sum() > allowed * p.size:
            found.append(finding("DECISIONS_CHANGED", "fail" if (p != q).sum() > 1 else "warn", name))
    return found


def match(p, q, last):
    if p.ndim != q.ndim or not p.ndim or p.dtype.kind != q.dtype.kind:
        return None
    off = [k for k in range(p.ndim) if p.shape[k] != q.shape[k]]
    if len(off) > 1:
        return None
    axis = off[0] if off else p.ndim - (1 if p.ndim == 1 or last or p.shape[-2] == q.shape[-2] == 1 else 2)
    n, m = p.shape[axis], q.shape[axis]
    if not 2 <= max(n, m) <= 2048:
        return None
    r, g = (np.moveaxis(a, axis, 0).reshape(a.shape[axis], p.size // n if n else q.size // m) for a in (p, q))
    real = p.dtype.kind == "f"
    r, g = (a.astype(float if real else np.int64) for a in (r, g))
    near = 0.25 * np.abs(r).max(0, initial=0) if real else np.zeros(r.shape[1])
    taken, places = set(), []
    for i, row in enumerate(r):
        d = np.abs(g - row) / np.where(near > 0, near, 1.0)
        d = np.array([max(e, default=0.0) if np.isfinite(e).all() and j not in taken else np.inf
                      for j, e in enumerate(d)])
        if d.size and d.min() <= (1.0 if real else 0.0):
            j = i if i < d.size and d[i] <= d.min() else int(d.argmin())
            taken.add(j)
            places.append((i, j))
    run = []  # length of the longest increasing run that ends at each
    for k, (_, j) in enumerate(places):
        run.append(1 + max((run[h] for h in range(k) if places[h][1] < j), default=0))
    i, j = [i for i, _ in places], [j for _, j in places]
    return r[i].astype(p.dtype), g[j].astype(q.dtype), n, m, len(places) - max(run, default=0)


def most_of(matched):
    r, _, n, m, _ = matched
    return len(r) >= 0.9 * (n + m - len(r)) or (min(n, m) >= 5 and n + m - 2 * len(r) <= 2)


def enough_of(matched):
    return most_of(matched) and matched[4] <= 0.5 * len(matched[0])


def unordered(judge, decision, c, *names):
    """A list of strained scores, most of whose rows are in both; nothing is known of it where fewer are."""
    if decision not in ("ordered", "set") or c.get("exact") or c["problem"] not in (None, "shape") or None in names:
        return c
    found = match(*(judge.arrays[one["sha256"]] for one in names), decision == "set")
    return compare(*found[:2]) if found and most_of(found) else {"problem": None, "max_abs": None}


def by_rows(judge, each, here, there):
    """Host and device compared, lists and sets row by row."""
    one, two = ({c["case"]: c["outputs"] or {} for c in side} for side in (here, there))
    for name, decision in judge.source.get("decisions", {}).items():
        for case, c in each.get(name, {}).items() if decision in ("ordered", "set") else ():
            if not c["exact"] and c["problem"] in (None, "shape"):
                found = match(*(judge.arrays[side[case][name]["sha256"]] for side in (one, two)), decision == "set")
                if found and enough_of(found):
                    each[name] = each[name] | {case: compare(*found[:2])}
    return each


def rematch(judge, cap, total, limits):
    """Findings of lists whose rows had to be matched; puts what is left of them into `total`."""
    found = []
    for name, decision in judge.source.get("decisions", {}).items():
        if decision not in ("ordered", "set") or name not in total or total[name]["problems"] - {"shape"}:
            continue
        if judge_output(total[name], limits(name))[0] != "FAIL":
            continue
        cases = {c: match(p, q, decision == "set") for c, p, q in pairs(judge, cap, name)}
        ran = [c for c in cap["cases"] if c["outputs"] is not None and c["case"] not in judge.strain]
        if not cases or None in cases.values() or len(cases) < len(ran):
            continue
        if all(not moved and len(r) == n == m for r, _, n, m, moved in cases.values()):
            continue
        enough = all(map(enough_of, cases.values()))
        if enough:
            total[name] = fold({c: compare(r, g) for c, (r, g, *_) in cases.items()})
        found.append(finding(*(("ROWS_MATCHED", "warn") if enough else ("ROWS_DIFFER", "fail")), name, ANY))
    return found
