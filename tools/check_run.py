"""Check the folder of a run: python tools/check_run.py RUN_DIR

Every number and verdict of report.json is computed anew from the arrays and records beside it, and every file is held
against what refers to it.  Prints a line for each deviation; exits with 0 where there is none, 1 where there are some, 2
where the folder cannot be read.  NumPy is all it needs: it shares no code with edgequant, so that one of the two notices
what the other gets wrong.

Not computed anew: sentences (messages, remedies, reasons), and whether a file of `quantize` resembles its source
(FILE_NOT_WRITTEN), which no verdict depends on.  Text that the report copies from a record has to be the same there.
"""

import hashlib
import json
import math
import re
import sys
from pathlib import Path

import numpy as np

HIGH, LOW = ("cosine", "centered_cosine", "sqnr_db", "centered_sqnr_db"), ("max_abs", "rel_max", "mean_abs", "p99_abs")
METRICS = (*HIGH, *LOW, "mismatch")
OF = {"float": ("cosine", "sqnr_db", "max_abs", "rel_max", "mean_abs", "p99_abs", "device_sqnr_db"),
      "int": ("mismatch", "max_abs")}  # fmt: skip
BOUNDS = {"float": (0.9999, 40, 0.02), "fp16": (0.999, 30, 0.05)}
ORDER = ("PASS", "MARGINAL", "INCONCLUSIVE", "ERROR", "FAIL")
ARM64, X86 = ("aarch64", "arm64"), ("x86_64", "amd64", "i686", "i386")
TEXT, MAYBE = object(), object()  # any sentence; a sentence or none
# What a record holds: "?" or null, "[" a list of, "{" keys with, "=" one of these; s text, n number, i whole number,
# b bool, h SHA-256, t time, d keys and values.
SHAPES = {name: dict(each.split(":", 1) for each in text.split()) for name, text in {
    "plan": "schema:=edgequant.plan/1 job:=verify|quantize edgequant:s host:host created:t model:s devices:[s "
            "variants:[variant inputs:?s reference:?s calibration:?s images:?d shapes:{[i limits:[limit goals:[limit "
            "budget:=size|latency fallback:b latency:b options:options convert_timeout:n reach:d",
    "host": "arch:s mnn:s", "limit": "output:?s metric:s op:=>=|<= value:n",
    "variant": "method:s bits:?i block:?i hqq:b sym:b asym:b equalize:b weights:?s clamp:?i skip:[s samples:?i calib:?s "
               "percent:?n rnn:?s keep:?i file:?s",
    "options": "memory:?=low|normal|high precision:=normal|low|high threads:?i cores:?[i dynamic_quant_option:?i "
               "timeout:n warmup:i repeat:i seed:i",
    "source": "schema:=edgequant.source/1 path:s format:s sha256:h size:i inputs:[tensor declared:[tensor cases:[case "
              "reference:?reference kinds:{=float|int float_sha256:?h findings:[finding",
    "tensor": "name:s dtype:s shape:?[?i dims:?[?s layout:?=NCHW|NHWC", "reference": "kind:s version:?s why:?s",
    "case": "name:s source:s generated:b inputs:{array", "array": "sha256:h dtype:s shape:[i",
    "finding": "code:s severity:=info|warn|fail|error where:?s message:s evidence:d remedy:?s",
    "making": "variant:variant artifact:?artifact failure:?failure",
    "artifact": "path:s sha256:h size:i source_sha256:h asked:variant run_as:variant label:?s steps:[d "
                "quantized_layers:i float_layers:i warnings:[s findings:[finding log:?s seconds:n "
                "calibration:?calibration facts:facts",
    "calibration": "source:s samples:i shapes:[shapes images:?s", "shapes": "samples:i inputs:{[i",
    "facts": "weights:?=float|fp16|quantized has_subgraphs:b static_tensors:i half_tiles:[s max_pools:[s tails:[s",
    "failure": "code:s message:s where:?s hint:?s evidence:d",
    "capture": "schema:=edgequant.capture/1 trial:s role:s variant:?s artifact_sha256:?h device:?device "
               "memory_mode:?s threads:?i cases:[taken repeated:[taken normal:[taken timings:[timing session:?session "
               "load_ms:?n before:memory loaded:memory pushed_bytes:?i runtime_bytes:?i failure:?failure started:t",
    "taken": "case:s outputs:?{array taps:{array ms:?n memory:?memory refused:?s refused_code:?s",
    "memory": "rss:?i rss_peak:?i pss:?i", "session": "mb:?n why:?s normal_mb:?n",
    "timing": "case:s samples_ms:[n warmup:i complete:?b memory:?memory",
    "device": "uri:s is_host:b emulator:?s arch:?s cpu:?s features:[s mnn:?s cores:?i ram_mb:?n os:?s facts:d",
    "closing": "seconds:{n ended:b source_now:?s", "line": "time:t file:s",
}.items()}  # fmt: skip
PLAIN = {"s": (str,), "n": (int, float), "i": (int,), "b": (bool,), "d": (dict,), "h": (str,), "t": (str,)}
PATTERN = {"h": r"[0-9a-f]{64}", "t": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|\+00:00)"}
UNCOMPUTED = ("FILE_NOT_WRITTEN",)


def safe(text, limit=60):
    plain = re.sub(r"[^A-Za-z0-9._=-]+", "_", text).strip("._") or "x"
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
    return plain if plain == text and len(plain) <= limit else f"{plain[:limit]}-{digest[:8]}"


def spell(v):
    """A variant as users write it."""
    if v["method"] == "recipe":
        return f"recipe:{v['file']}"
    valued = ("calib", "percent", "weights", "clamp", "block", "rnn", "keep", "samples")
    return ",".join([
        v["method"] if v["bits"] is None else f"{v['method']}:{v['bits']}",
        *(f"{k}={v[k]:.10g}" if isinstance(v[k], float) else f"{k}={v[k]}" for k in valued if v[k] is not None),
        *(k for k in ("hqq", "sym", "asym", "equalize") if v[k]), *(f"skip={k}" for k in v["skip"]),
    ])  # fmt: skip


def close(a, b):
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12)


def worst(verdicts):
    return max(verdicts, key=ORDER.index, default="ERROR")


def meets(limit, value):
    return value >= limit["value"] if limit["op"] == ">=" else value <= limit["value"]


def held(limit, value, case):
    metric, bound = limit["metric"], limit["value"]
    if metric == "sqnr_db":
        marginal = value < bound + 1.0
    elif limit["op"] == ">=":
        marginal = value < 1.0 and value < bound + 0.1 * (1.0 - bound)
    else:
        marginal = value > 0.0 and value > 0.9 * bound
    verdict = "MARGINAL" if marginal else "PASS"
    return {"metric": metric, "op": limit["op"], "bound": bound, "value": value, "case": case,
            "verdict": verdict if meets(limit, value) else "FAIL"}  # fmt: skip


def cosine(x, y):
    a, b = float(x @ x), float(y @ y)
    return max(-1.0, min(1.0, float(x @ y) / math.sqrt(a) / math.sqrt(b))) if a > 0 and b > 0 else None


def decibel(signal, noise):
    """Of two (array, what it was divided by)."""
    power = [10 * math.log10(max(float(x @ x), 1e-300)) + 20 * math.log10(scale) for x, scale in (signal, noise)]
    return max(-200.0, min(200.0, power[0] - power[1]))


def compare(r, g):
    """One array against its reference, None where it never came: metrics, and what is wrong."""
    c = {**dict.fromkeys(METRICS), "n": r.size, "kind": "int" if r.dtype.kind in "biu" else "float", "problem": None,
         "exact": False, "swallowed": 0, "scale": None, "detail": None}  # fmt: skip
    for array, nan, inf in ((g, "nan", "inf"), (r, "ref_nan", "ref_inf")):
        c[nan], c[inf] = (0, 0) if array is None else (int(np.isnan(array).sum()), int(np.isinf(array).sum()))
    if g is None:
        c["problem"], c["detail"] = "missing", "no such output came back"
    elif (r.dtype.kind == "f") != (g.dtype.kind == "f"):
        c["problem"], c["detail"] = "dtype", f"{g.dtype} instead of {r.dtype}"
    elif r.shape != g.shape:
        c["problem"], c["detail"] = "shape", f"shape {list(g.shape)} instead of {list(r.shape)}"
    both = np.isfinite(r) if c["problem"] else np.isfinite(r) & np.isfinite(g)
    wide = object if np.uint64 in (r.dtype, getattr(g, "dtype", None)) else np.int64
    x = r[both].astype(np.float64 if c["kind"] == "float" else wide)
    single = x.size and x.min() == x.max()
    broken = c["ref_nan"] + c["ref_inf"]
    c["ref"] = "empty" if not r.size else "nonfinite" if broken else "normal"
    if c["ref"] == "normal" and single:
        c["ref"] = "constant" if x.flat[0] else "zero"
    if x.size:
        c["scale"] = float(max(abs(x.min()), abs(x.max())))
    if c["problem"] or not r.size:
        return {**c, "exact": c["problem"] is None}
    y = g[both].astype(x.dtype)
    if c["kind"] == "int":
        differing = x != y
        c["max_abs"] = float(max((abs(int(a) - int(b)) for a, b in zip(x[differing], y[differing])), default=0))
        return {**c, "mismatch": int(differing.sum()) / r.size, "exact": not differing.any()}
    alike = (np.isnan(r) & np.isnan(g)) | (np.isinf(r) & (r == g))
    c["problem"] = "nonfinite" if (~np.isfinite(g) & ~alike).any() else "reference_nonfinite" if broken else None
    c["swallowed"] = int((~np.isfinite(r) & np.isfinite(g)).sum())
    if c["problem"]:
        said = {"nonfinite": (c["nan"], c["inf"]), "reference_nonfinite": (c["ref_nan"], c["ref_inf"])}[c["problem"]]
        c["detail"] = f"{said[0]} NaN and {said[1]} Inf among {r.size} elements"
    if not x.size:
        return c
    with np.errstate(over="ignore"):
        e = np.minimum(np.abs(x - y), sys.float_info.max)
    top, size = float(e.max()), c["scale"] or 1.0
    xs, ys, es = x / size, y / (float(np.abs(y).max()) or 1.0), e / (top or 1.0)
    xc, yc = xs - xs.mean(), ys - ys.mean()
    zero = not x.any()
    c |= {"max_abs": top, "mean_abs": min(float(es.mean()), 1.0) * top, "p99_abs": float(np.percentile(es, 99)) * top,
          "exact": top == 0 and x.size == r.size}  # fmt: skip
    if not zero:
        over = size < 1 and top > size * sys.float_info.max
        c["rel_max"] = sys.float_info.max if over else top / size
        c["cosine"] = 1.0 if top == 0 else cosine(xs, ys) or 0.0
        c["sqnr_db"] = 200.0 if top == 0 else decibel((xs, size), (es, top))
    if not single:
        c["centered_sqnr_db"] = 200.0 if top == 0 else decibel((xc, size), (es, top))
        if y.min() != y.max():
            c["centered_cosine"] = 1.0 if top == 0 else cosine(xc, yc)
    return c


def fold(cases):
    """The worst of each metric of one output over its cases."""
    items = sorted(cases.items())
    sound = [(n, c) for n, c in items if c["ref"] in ("normal", "constant", "zero")]
    measured = sound or [(n, c) for n, c in items if c["ref"] == "nonfinite"]
    telling = [(n, c) for n, c in measured if c["ref"] != "constant"]
    mute = bool(measured) and all(c["cosine"] is None for _, c in telling)
    s = {"cases": len(items), "mute": mute, "where": {}, "judgeable": 0, "kind": "float"}
    for metric in METRICS:
        among = telling if metric == "cosine" and not mute else measured
        found = {n: c[metric] for n, c in among if c[metric] is not None}
        s[metric] = (min if metric in HIGH else max)(found.values()) if found else None
        # Where two are as good as equal, rounding decides which is named.
        s["where"][metric] = frozenset(n for n, value in found.items() if close(value, s[metric])) or None
    if items and all(c["kind"] == "int" for _, c in items):
        s["kind"] = "int"
    s["scale"] = max((c["scale"] for _, c in items if c["scale"] is not None), default=None)
    ranks = (None, "reference_nonfinite", "nonfinite", "shape", "dtype", "missing")

    def badness(c):
        lost = c["sqnr_db"]
        if lost is None and c["max_abs"] and c["kind"] == "float":
            lost = 20 * (math.log10(s["scale"]) - math.log10(c["max_abs"])) if s["scale"] else -200.0
        return ranks.index(c["problem"]), c["mismatch"] or 0.0, -200.0 if lost is None else -lost, c["max_abs"] or 0.0

    bad = {n: badness(c) for n, c in items}
    most = max(bad.values(), default=None)
    s["worst_case"] = frozenset(n for n, b in bad.items() if b[:2] == most[:2] and close(b[2], most[2])) or None
    for key in ("nan", "inf", "ref_nan", "ref_inf", "swallowed", "n"):
        s[key] = sum(c[key] for _, c in items)
    s["problems"] = {n: c["problem"] for n, c in items if c["problem"]}
    s["details"] = {n: c["detail"] for n, c in items if c["problem"]}
    floats = [(n, c) for n, c in items if c["kind"] == "float"]
    s["zero"] = {n: c["max_abs"] for n, c in floats if c["ref"] == "zero" and c["max_abs"] is not None}
    s["constant"] = {n: c["n"] for n, c in floats if c["ref"] == "constant"}
    s["empty"] = [n for n, c in items if c["ref"] == "empty"]
    s["exact"] = bool(items) and all(c["exact"] for _, c in items)
    s["judgeable"] = sum(c["problem"] in (None, "nonfinite") for _, c in sound)
    return s


def finding(code, severity, where=None, evidence=MAYBE):
    return {"code": code, "severity": severity, "where": where, "message": TEXT, "remedy": MAYBE, "evidence": evidence}


def judge_output(s, limits, name=None):
    """(verdict, number of reasons, limits as applied, findings)"""
    reasons, findings = [], []

    def note(verdict, code, level=None, **evidence):
        severity = level or {"FAIL": "fail", "INCONCLUSIVE": "error", "ERROR": "error", None: "info"}.get(verdict, "warn")
        findings.append(finding(code, severity, name, evidence))
        reasons.extend([verdict] if verdict else [])

    def cases(problem):
        return [n for n, found in s["problems"].items() if found == problem]

    bounds = {limit["metric"]: limit["value"] for limit in limits}
    counts = {key: s[key] for key in ("nan", "inf", "ref_nan", "ref_inf", "swallowed")}
    if not s["cases"]:
        note("ERROR", "NOTHING_COMPARED")
    for problem in ("missing", "dtype", "shape"):
        if cases(problem):
            note("FAIL", f"OUTPUT_{problem.upper()}", cases=cases(problem))
    if (fresh := cases("nonfinite")) and s["nan"]:
        note("FAIL", "OUTPUT_NAN", nan=s["nan"], ref_nan=s["ref_nan"], cases=fresh)
    if fresh and (s["inf"] or not s["nan"]):
        note("FAIL", "OUTPUT_INF", inf=s["inf"], ref_inf=s["ref_inf"], cases=fresh)
    if broken := cases("reference_nonfinite"):
        note("INCONCLUSIVE", "REFERENCE_NOT_FINITE", cases=broken,
             **{key: counts[key] for key in ("ref_nan", "ref_inf", "swallowed")})  # fmt: skip
    if max(s["constant"].values(), default=0) > 1:
        note(None, "REFERENCE_CONSTANT", cases=list(s["constant"]))
    never = len(s["constant"]) + len(s["zero"]) == s["cases"]
    if s["cases"] and never and s["kind"] == "float" and s["n"] > s["cases"]:
        note("MARGINAL", "OUTPUT_NEVER_VARIES")
    sqnr, centered = s["sqnr_db"], s["centered_sqnr_db"]
    if "sqnr_db" in bounds and None not in (sqnr, centered) and centered < bounds["sqnr_db"] <= sqnr \
            and s["n"] >= 16 * max(s["cases"], 1):  # fmt: skip
        note(None, "MEAN_HIDES_ERROR", "warn", centered_sqnr_db=centered, centered_cosine=s["centered_cosine"],
             case=s["where"]["centered_sqnr_db"])  # fmt: skip
    results = []
    for limit in limits if s["judgeable"] else ():
        metric, defined = limit["metric"], limit["metric"] in OF[s["kind"]]
        value = s[metric] if defined else None
        if defined and ((metric == "cosine" and s["mute"]) or (value is None and (s["zero"] or s["problems"]))):
            continue
        undefined = {"metric": metric, "op": limit["op"], "bound": limit["value"], "value": None, "case": None}
        results.append({**undefined, "verdict": "INCONCLUSIVE"} if value is None
                       else held(limit, value, s["where"][metric]))  # fmt: skip
    if s["judgeable"] and s["zero"]:
        error = max(s["zero"].values())
        note(None, "REFERENCE_ZERO", cases=list(s["zero"]), max_abs=error)
        if "max_abs" not in bounds:
            allowed = bounds.get("rel_max", 0.25) * s["scale"] if s["scale"] else 1e-3
            at = frozenset(n for n, value in s["zero"].items() if close(value, error))
            results.append(held({"metric": "max_abs", "op": "<=", "value": allowed}, error, at))
    for r in results:
        code = {"INCONCLUSIVE": "LIMIT_UNDEFINED", "FAIL": "LIMIT_EXCEEDED", "MARGINAL": "LIMIT_MARGINAL"}
        if r["verdict"] != "PASS":
            note(r["verdict"], code[r["verdict"]], **{key: r[key] for key in ("metric", "value", "bound", "op", "case")})
    if s["cases"] and all(r["value"] is None for r in results) and all(v == "MARGINAL" for v in reasons):
        note("INCONCLUSIVE", "NOTHING_JUDGED")
    return worst(["PASS", *reasons]), len(reasons), results, findings


def why_null(s, metric):
    if s["kind"] == "int":
        return "not defined for integers and bool"
    if metric == "mismatch":
        return "for integers and bool only"
    if s["zero"] and not s["problems"]:
        return "the reference is all zero"
    if metric in ("centered_cosine", "centered_sqnr_db") and s["max_abs"] is not None:
        return "reference or output is constant"
    if s["empty"] and not s["problems"]:
        return "no elements"
    return "; ".join(sorted(set(s["details"].values()))) or "no case was compared"
