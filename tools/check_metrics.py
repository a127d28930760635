"""Arrays against their reference, and limits held against what comes out.  Written from the definitions in the docs."""

import math

import numpy as np

# fmt: off
HIGH = ("cosine", "centered_cosine", "sqnr_db", "centered_sqnr_db")
METRICS = (*HIGH, "max_abs", "rel_max", "mean_abs", "p99_abs", "mismatch")
ORDER = ("PASS", "MARGINAL", "INCONCLUSIVE", "ERROR", "FAIL")
SEVERITY = {"FAIL": "fail", "INCONCLUSIVE": "error", "MARGINAL": "warn"}
ANY, TEXT = object(), object()  # stand for whatever there is, and for some sentence


def close(a, b):
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12)


def finding(code, severity, where=ANY, evidence=ANY):
    return {"code": code, "severity": severity, "where": where, "message": TEXT, "evidence": evidence, "remedy": ANY}


def worst(verdicts):
    return max(verdicts, key=ORDER.index, default="ERROR")


def meets(limit, value):
    return value >= limit["value"] if limit["op"] == ">=" else value <= limit["value"]


def held(limit, value, case):
    metric, bound, verdict = limit["metric"], limit["value"], "PASS"
    edge = bound + (1 if metric == "sqnr_db" else 0.1 * (1 - bound)) if limit["op"] == ">=" else 0.9 * bound
    if value is None or not meets(limit, value):
        verdict = "INCONCLUSIVE" if value is None else "FAIL"
    elif (value < edge and (metric == "sqnr_db" or value < 1)) if limit["op"] == ">=" else value > max(edge, 0):
        verdict = "MARGINAL"
    return {"metric": metric, "op": limit["op"], "bound": bound, "value": value, "case": case, "verdict": verdict}


def compare(r, g):
    """One array against its reference, None where it never came: metrics, and what is wrong."""
    problem = "missing" if g is None else "dtype" if (r.dtype.kind == "f") != (g.dtype.kind == "f") else None
    problem = "shape" if problem is None and r.shape != g.shape else problem
    whole, both = r.dtype.kind in "biu", np.isfinite(r) if problem else np.isfinite(r) & np.isfinite(g)
    c = {**dict.fromkeys(METRICS), "n": r.size, "kind": "int" if whole else "float", "exact": False, "problem": problem}
    for a, nan, inf in ((g, "nan", "inf"), (r, "ref_nan", "ref_inf")):
        c[nan], c[inf] = (0, 0) if a is None else (int(np.isnan(a).sum()), int(np.isinf(a).sum()))
    x = r[both].astype(object if whole else np.float64)  # Python's integers do not overflow
    mask = 0 if whole or problem else int(((r == -np.inf) & (g == -np.inf)).sum())  # masked logits are equal
    mask = mask if x.size and mask == c["ref_inf"] and not c["ref_nan"] else 0
    broken, single = c["ref_nan"] + c["ref_inf"] > mask, bool(x.size) and x.min() == x.max()
    c["ref"] = "empty" if not r.size else "broken" if broken else "normal" if not single else "flat" if x[0] else "zero"
    c["scale"] = float(max(abs(x.min()), abs(x.max()))) if x.size else None
    c |= {"value": float(x[0])} if single and not problem else {}
    if problem or not r.size:
        return {**c, "exact": not problem}
    y = g[both].astype(x.dtype)
    if whole:
        share = int((x != y).sum()) / r.size
        return {**c, "max_abs": float(np.abs(x - y).max()), "mismatch": share, "exact": not share}
    alike = (np.isnan(r) & np.isnan(g)) | (np.isinf(r) & (r == g))
    fresh = bool((~np.isfinite(g) & ~alike).any())
    c["problem"] = "nonfinite" if fresh else "reference_nonfinite" if broken else None
    if not x.size:
        return c
    e = np.abs(x - y)
    same_all, noise = not e.any(), float(e @ e)

    def decibel(a):
        return 200.0 if same_all else max(-200.0, min(200.0, 10 * math.log10(max(float(a @ a), 1e-300) / noise)))

    def cosine(a, b):
        sizes = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
        return 1.0 if same_all else max(-1.0, min(1.0, float(a @ b) / sizes)) if sizes else None

    c |= {"max_abs": float(e.max()), "mean_abs": float(e.mean()), "p99_abs": float(np.percentile(e, 99))}
    c["exact"] = same_all and x.size + mask == r.size
    if x.any():
        c |= {"rel_max": c["max_abs"] / max(c["scale"], 2.0**-126)}  # float32's smallest
        c |= {"cosine": cosine(x, y) or 0.0, "sqnr_db": decibel(x)}
    if not single:
        c["centered_sqnr_db"] = decibel(x - x.mean())
        c["centered_cosine"] = None if y.min() == y.max() else cosine(x - x.mean(), y - y.mean())
    return c


def fold(cases):
    """The worst of each metric of one output over its cases."""
    items = sorted(cases.items())
    sound = [(n, c) for n, c in items if c["ref"] in ("normal", "flat", "zero")]
    measured = sound or [(n, c) for n, c in items if c["ref"] == "broken"]
    telling = [(n, c) for n, c in measured if c["ref"] != "flat"]
    s = {"cases": len(items), "where": {}, "loud": {}}
    s |= {"kind": "int" if all(c["kind"] == "int" for _, c in items) else "float"}
    s["mute"] = bool(measured) and all(c["cosine"] is None for _, c in telling)
    for metric in METRICS:
        among = telling if metric == "cosine" and not s["mute"] else measured
        found = {n: c[metric] for n, c in among if c[metric] is not None}
        s[metric] = (min if metric in HIGH else max)(found.values()) if found else None
        loud = {n: v for n, v in found.items() if not (dict(items)[n].get("faint") or (dict(items)[n]["kind"] == "float"
                and dict(items)[n]["max_abs"] is not None and dict(items)[n]["max_abs"] <= 1e-6))}
        best = (min if metric in HIGH else max)(loud.values()) if loud else None
        s["loud"][metric] = (best, frozenset(n for n, v in loud.items() if close(v, best)))
        # Where two are as good as equal, rounding decides which one is named.
        s["where"][metric] = frozenset(n for n, value in found.items() if close(value, s[metric])) if found else None
    s["scale"] = max((c["scale"] for _, c in items if c["scale"] is not None), default=None)
    ranks, bad = (None, "reference_nonfinite", "nonfinite", "shape", "dtype", "missing", "refused"), {}
    for n, c in items:
        lost = c["sqnr_db"]
        if lost is None and c["max_abs"] and c["kind"] == "float":
            lost = 20 * math.log10(s["scale"] / c["max_abs"]) if s["scale"] else -200.0
        bad[n] = (ranks.index(c["problem"]), c["mismatch"] or 0.0, -200.0 if lost is None else -lost)
    most = max(bad.values())
    s["worst_case"] = frozenset(n for n, b in bad.items() if b[:2] == most[:2] and close(b[2], most[2]))
    s |= {key: sum(c[key] for _, c in items) for key in ("nan", "inf", "ref_nan", "ref_inf", "n")}
    s["problems"] = {c["problem"] for _, c in items} - {None}
    floats = [(n, c) for n, c in items if c["kind"] == "float"]
    s["zero"] = {n: c["max_abs"] for n, c in floats if c["ref"] == "zero" and c["max_abs"] is not None}
    s["flat"] = sum(c["ref"] == "flat" for _, c in floats)
    s["values"] = {c.get("value", n) for n, c in floats}
    s["exact"] = all(c["exact"] for _, c in items)
    s["by_case"] = {n: {key: c[key] for key in (*METRICS, "nan", "inf", "ref_nan", "ref_inf", "exact")}
                    | {"problem": TEXT if c["problem"] else None} for n, c in items}
    s["judgeable"] = sum(c["problem"] in (None, "nonfinite") for _, c in sound)
    s["faint"] = sum(c.get("faint", False) for _, c in items)
    return s


def breaks(s, limit):
    """Whether a limit is broken, and the value and case that say so: an error of arithmetic only is none."""
    value, where = s[limit["metric"]], s["where"][limit["metric"]]
    broken = value is not None and not meets(limit, value)
    if broken and limit["metric"] in ("cosine", "sqnr_db", *(("rel_max",) if s["faint"] else ())):
        value, loud = s["loud"][limit["metric"]]
        return value is not None and not meets(limit, value), value, where if value is None else loud
    return broken, value, where


def judge_output(s, limits, name=None):
    """(verdict, limits as applied, findings, number of reasons)"""
    notes, results, aside, bounds = [], [], False, {limit["metric"]: limit["value"] for limit in limits}
    notes += [("FAIL", "RUN_FAILED", ANY)] if "refused" in s["problems"] else []
    notes += [("FAIL", f"OUTPUT_{p.upper()}", ANY) for p in ("missing", "dtype", "shape") if p in s["problems"]]
    if "nonfinite" in s["problems"]:
        notes += [("FAIL", "OUTPUT_NAN", ANY)] if s["nan"] else []
        notes += [("FAIL", "OUTPUT_INF", ANY)] if s["inf"] or not s["nan"] else []
    if "reference_nonfinite" in s["problems"]:
        notes.append(("INCONCLUSIVE", "REFERENCE_NOT_FINITE", ANY))
    same = s["n"] > s["cases"] or (s["cases"] > 1 and len(s["values"]) == 1)
    if s["flat"] + len(s["zero"]) == s["cases"] and s["kind"] == "float" and same:
        notes.append(("MARGINAL", "OUTPUT_NEVER_VARIES", ANY))
    for limit in limits if s["judgeable"] else ():
        value = s[limit["metric"]]
        _, seen, where = breaks(s, limit)
        quiet = seen is None and value is not None
        value, aside = value if quiet else seen, aside or quiet
        excused = (value is None and (s["zero"] or s["problems"])) or (limit["metric"] == "cosine" and s["mute"])
        results += [] if excused else [held(limit, value, where) | ({"verdict": "PASS"} if quiet else {})]
    if s["judgeable"] and s["zero"] and "max_abs" not in bounds:
        allowed = bounds.get("rel_max", 0.25) * s["scale"] if s["scale"] else 1e-3
        at = frozenset(n for n, error in s["zero"].items() if close(error, max(s["zero"].values())))
        results.append(held({"metric": "max_abs", "op": "<=", "value": allowed}, max(s["zero"].values()), at))
    codes = {"INCONCLUSIVE": "LIMIT_UNDEFINED", "FAIL": "LIMIT_EXCEEDED", "MARGINAL": "LIMIT_MARGINAL"}
    for r in results:
        evidence = {key: value for key, value in r.items() if key != "verdict"}
        notes += [(r["verdict"], codes[r["verdict"]], evidence)] if r["verdict"] in codes else []
    if aside and s["faint"] == s["judgeable"]:
        notes.append(("INCONCLUSIVE", "OUTPUT_NOT_EXCITED", ANY))
    if all(r["value"] is None for r in results) and all(verdict == "MARGINAL" for verdict, _, _ in notes):
        notes.append(("INCONCLUSIVE", "NOTHING_JUDGED", ANY))
    found = [finding(code, SEVERITY[verdict], name, evidence) for verdict, code, evidence in notes]
    return worst(["PASS", *(verdict for verdict, _, _ in notes)]), results, found, len(notes)
