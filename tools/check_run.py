"""Check the folder of a run: python tools/check_run.py RUN_DIR

Every number and verdict of report.json is computed anew from the arrays and records beside it, and every file is held
against what refers to it.  Prints a line for each deviation; exits with 0 where there is none, 1 where there are some, 2
where the folder cannot be read.  It needs NumPy and nothing of edgequant, so that one notices what the other gets wrong.

Text that the report copies from a record has to be the same there.  Not computed anew are sentences that judging makes
(messages, remedies, reasons, hints), evidence other than that of limits, and the findings of UNCOMPUTED, which no verdict
depends on.
"""

import hashlib
import json
import math
import re
import sys
import zipfile
from pathlib import Path

import numpy as np

# fmt: off
HIGH = ("cosine", "centered_cosine", "sqnr_db", "centered_sqnr_db")
METRICS = (*HIGH, "max_abs", "rel_max", "mean_abs", "p99_abs", "mismatch")
BOUNDS = {"float": (0.9999, 40, 0.02), "fp16": (0.999, 30, 0.05)}
ORDER = ("PASS", "MARGINAL", "INCONCLUSIVE", "ERROR", "FAIL")
SEVERITY = {"FAIL": "fail", "INCONCLUSIVE": "error", "MARGINAL": "warn"}
ARM64, X86 = ("aarch64", "arm64"), ("x86_64", "amd64", "i686", "i386")
UNCOMPUTED = ("FILE_NOT_WRITTEN", "MEAN_HIDES_ERROR", "REFERENCE_CONSTANT", "REFERENCE_ZERO", "STATIC_I8MM_UNSEEN",
              "STATIC_POOL_ON_X86", "DEVICE_LIMIT_UNUSED", "PRECISION_LOW_INEFFECTIVE")
ANY, TEXT = object(), object()
DEVICE = ("uri", "arch", "cpu", "features", "mnn", "cores", "ram_mb", "os", "facts")
OPENING = ("the model has subgraphs", "an input is left out")


def safe(text):
    """A name as a file name."""
    plain = re.sub(r"[^A-Za-z0-9._=-]+", "_", text).strip("._") or "x"
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
    return plain if plain == text and len(plain) <= 60 else f"{plain[:60]}-{digest[:8]}"


def spell(v):
    """A variant as users write it."""
    if v["method"] == "recipe":
        return f"recipe:{v['file']}"
    parts = [v["method"] if v["bits"] is None else f"{v['method']}:{v['bits']}"]
    for k in ("calib", "percent", "weights", "clamp", "block", "rnn", "keep", "samples"):
        parts += [] if v[k] is None else [f"{k}={v[k]:.10g}" if isinstance(v[k], float) else f"{k}={v[k]}"]
    return ",".join([*parts, *(k for k in ("hqq", "sym", "asym", "equalize") if v[k]), *(f"skip={k}" for k in v["skip"])])


def limit_text(limit):
    return f"{limit['output'] + ':' if limit['output'] else ''}{limit['metric']}{limit['op']}{limit['value']:g}"


def close(a, b):
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12)


def same(want, got, where, say):
    """Hold a part of the report against what it should be; a set: any of these."""
    if isinstance(want, dict) and isinstance(got, dict):
        for key in sorted(want.keys() ^ got.keys()):
            say(f"{where}: '{key}' is {'missing' if key in want else 'not known'}")
        for key in want.keys() & got.keys():
            same(want[key], got[key], f"{where}.{key}", say)
    elif isinstance(want, (list, tuple)) and isinstance(got, list) and len(want) == len(got):
        for i, each in enumerate(want):
            same(each, got[i], f"{where}[{i}]", say)
    elif want is TEXT or isinstance(want, frozenset):
        if not (isinstance(got, str) and got and (want is TEXT or got in want)):
            say(f"{where}: {got!r}, should be {'a sentence' if want is TEXT else sorted(want)}")
    elif type(want) in (int, float) and type(got) in (int, float):
        if want != got and (type(want) is type(got) is int or not close(want, got)):
            say(f"{where}: {got!r}, computed {want!r}")
    elif want is not ANY and (type(want) is not type(got) or want != got):
        say(f"{where}: {str(got)[:80]!r}, should be {str(want)[:80]!r}")


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
    broken, single = c["ref_nan"] + c["ref_inf"] > 0, bool(x.size) and x.min() == x.max()
    c["ref"] = "empty" if not r.size else "broken" if broken else "normal" if not single else "flat" if x[0] else "zero"
    c["scale"] = float(max(abs(x.min()), abs(x.max()))) if x.size else None
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
    c["exact"] = same_all and x.size == r.size
    if x.any():
        c |= {"rel_max": c["max_abs"] / c["scale"], "cosine": cosine(x, y) or 0.0, "sqnr_db": decibel(x)}
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
    s = {"cases": len(items), "where": {}, "kind": "int" if all(c["kind"] == "int" for _, c in items) else "float"}
    s["mute"] = bool(measured) and all(c["cosine"] is None for _, c in telling)
    for metric in METRICS:
        among = telling if metric == "cosine" and not s["mute"] else measured
        found = {n: c[metric] for n, c in among if c[metric] is not None}
        s[metric] = (min if metric in HIGH else max)(found.values()) if found else None
        # Where two are as good as equal, rounding decides which one is named.
        s["where"][metric] = frozenset(n for n, value in found.items() if close(value, s[metric])) if found else None
    s["scale"] = max((c["scale"] for _, c in items if c["scale"] is not None), default=None)
    ranks, bad = (None, "reference_nonfinite", "nonfinite", "shape", "dtype", "missing"), {}
    for n, c in items:
        lost = c["sqnr_db"]
        if lost is None and c["max_abs"] and c["kind"] == "float":
            lost = 20 * math.log10(s["scale"] / c["max_abs"]) if s["scale"] else -200.0
        bad[n] = (ranks.index(c["problem"]), c["mismatch"] or 0.0, -200.0 if lost is None else -lost, c["max_abs"] or 0.0)
    most = max(bad.values())
    s["worst_case"] = frozenset(n for n, b in bad.items() if b[:2] == most[:2] and close(b[2], most[2]))
    s |= {key: sum(c[key] for _, c in items) for key in ("nan", "inf", "ref_nan", "ref_inf", "n")}
    s["problems"] = {c["problem"] for _, c in items} - {None}
    floats = [(n, c) for n, c in items if c["kind"] == "float"]
    s["zero"] = {n: c["max_abs"] for n, c in floats if c["ref"] == "zero" and c["max_abs"] is not None}
    s["flat"] = sum(c["ref"] == "flat" for _, c in floats)
    s["exact"] = all(c["exact"] for _, c in items)
    s["judgeable"] = any(c["problem"] in (None, "nonfinite") for _, c in sound)
    return s


def judge_output(s, limits, name=None):
    """(verdict, limits as applied, findings, number of reasons)"""
    notes, results, bounds = [], [], {limit["metric"]: limit["value"] for limit in limits}
    notes += [("FAIL", f"OUTPUT_{p.upper()}", ANY) for p in ("missing", "dtype", "shape") if p in s["problems"]]
    if "nonfinite" in s["problems"]:
        notes += [("FAIL", "OUTPUT_NAN", ANY)] if s["nan"] else []
        notes += [("FAIL", "OUTPUT_INF", ANY)] if s["inf"] or not s["nan"] else []
    if "reference_nonfinite" in s["problems"]:
        notes.append(("INCONCLUSIVE", "REFERENCE_NOT_FINITE", ANY))
    if s["flat"] + len(s["zero"]) == s["cases"] and s["kind"] == "float" and s["n"] > s["cases"]:
        notes.append(("MARGINAL", "OUTPUT_NEVER_VARIES", ANY))
    for limit in limits if s["judgeable"] else ():
        value = s[limit["metric"]]
        excused = (value is None and (s["zero"] or s["problems"])) or (limit["metric"] == "cosine" and s["mute"])
        results += [] if excused else [held(limit, value, s["where"][limit["metric"]])]
    if s["judgeable"] and s["zero"] and "max_abs" not in bounds:
        allowed = bounds.get("rel_max", 0.25) * s["scale"] if s["scale"] else 1e-3
        at = frozenset(n for n, error in s["zero"].items() if close(error, max(s["zero"].values())))
        results.append(held({"metric": "max_abs", "op": "<=", "value": allowed}, max(s["zero"].values()), at))
    codes = {"INCONCLUSIVE": "LIMIT_UNDEFINED", "FAIL": "LIMIT_EXCEEDED", "MARGINAL": "LIMIT_MARGINAL"}
    for r in results:
        evidence = {key: value for key, value in r.items() if key != "verdict"}
        notes += [(r["verdict"], codes[r["verdict"]], evidence)] if r["verdict"] in codes else []
    if all(r["value"] is None for r in results) and all(verdict == "MARGINAL" for verdict, _, _ in notes):
        notes.append(("INCONCLUSIVE", "NOTHING_JUDGED", ANY))
    found = [finding(code, SEVERITY[verdict], name, evidence) for verdict, code, evidence in notes]
    return worst(["PASS", *(verdict for verdict, _, _ in notes)]), results, found, len(notes)


def old(version):
    """Whether it is an MNN whose int8 kernels are known to be wrong."""
    found = re.match(r"\s*v?(\d{1,6})(?:\.(\d{1,6}))?(?:\.(\d{1,6}))?", version or "")
    return bool(found) and tuple(int(n or 0) for n in found.groups()) <= (3, 6, 1)


def differing(first, second):
    one, two = first["outputs"] or {}, second["outputs"] or {}
    return [name for name in {**one, **two} if one.get(name) != two.get(name)]


class Check:
    def __init__(self, root):
        names = [p.relative_to(root).as_posix() for p in root.rglob("*.json") if not p.name.startswith("report")]
        self.records = {name: json.loads((root / name).read_bytes()) for name in names}
        self.report = json.loads((root / "report.json").read_bytes())
        self.plan, self.source, self.end = (self.records[f"{name}.json"] for name in ("plan", "source", "closing"))
        self.root, self.said, self.known, self.arrays = root, [], {}, {}
        self.reference, self.float, self.converted = self.capture("reference"), self.capture("float-host"), None

    def capture(self, name):
        return self.records.get(f"captures/{name}.json")

    def need(self, good, line):
        self.said += [] if good else [line]

    def files(self):
        """Every file is what others say of it."""
        hashes = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in self.root.rglob("*") if p.is_file()}
        for path in (self.root / "arrays").glob("*.npy"):
            self.need(hashes[path] == path.stem, f"{path.name}: not what its name says")
            self.arrays[path.stem] = np.load(path, allow_pickle=False)
        lines = map(json.loads, (self.root / "journal.jsonl").read_text().splitlines())
        journal = {line["file"]: line["sha256"] for line in lines}
        for name in sorted(journal.keys() | self.records.keys() - {"closing.json"}):
            self.need(journal.get(name) == hashes.get(self.root / name), f"{name}: not as journal.jsonl has it")
            self.refs(self.records[name], name)
        for made in (record["artifact"] for name, record in self.records.items() if name.startswith("artifacts/")):
            path = made and self.root / made["path"]
            good = not made or (hashes.get(path), made["source_sha256"]) == (made["sha256"], self.source["sha256"])
            self.need(good and (not made or path.stat().st_size == made["size"]), f"{path}: not as its record has it")
        for path in (self.root / "models").glob("*-????????????????.mnn"):
            self.need(hashes[path].startswith(path.stem[-16:]), f"{path.name}: not what its name says")
        for case in self.source["cases"]:
            kept = np.load(self.root / f"cases/{safe(case['name'])}.npz", allow_pickle=False)
            want = {name: self.arrays[ref["sha256"]] for name, ref in case["inputs"].items()}
            one, two = ({n: (str(a.dtype), a.shape, a.tobytes()) for n, a in x.items()} for x in (kept, want))
            self.need(one == two, f"case {case['name']}: its .npz does not hold its inputs")

    def refs(self, value, where):
        if isinstance(value, dict) and value.keys() == {"sha256", "dtype", "shape"}:
            a = self.arrays.get(value["sha256"])
            good = a is not None and [a.dtype.name, list(a.shape)] == [value["dtype"], value["shape"]]
            self.need(good, f"{where}: no such array: {value}")
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            self.refs(each, where)

    def between(self, expected, got, refused=lambda case: False):
        found, others = {}, {each["case"]: each for each in got["cases"]}
        for case in expected["cases"]:
            other = others.get(case["case"])
            if case["outputs"] is None or not other or (other["outputs"] is None and not refused(case["case"])):
                continue
            for name in (name for name in case["outputs"] if name in self.source["kinds"]):
                pair = (case["outputs"][name]["sha256"], ((other["outputs"] or {}).get(name) or {}).get("sha256"))
                if pair not in self.known:
                    self.known[pair] = compare(*(sha and self.arrays[sha] for sha in pair))
                found.setdefault(name, {})[case["case"]] = self.known[pair]
        return {name: fold(cases) for name, cases in found.items()}

    def limits(self, output, method, given=None):
        """Those of an output against the reference, and the user's against this host."""
        whole = self.source["kinds"][output] == "int"
        given = self.plan["limits"] + self.plan["goals"] * (method == "auto") if given is None else given
        bounds = zip(("cosine", "sqnr_db", "rel_max"), BOUNDS.get(method, (0.99, 20, 0.25)), strict=True)
        bounds = [("mismatch", 0.001 if method in BOUNDS else 0.01)] if whole else bounds
        chosen = {m: {"metric": m, "op": ">=" if m in HIGH else "<=", "value": float(b)} for m, b in bounds}
        for limit in sorted(given, key=lambda limit: limit["output"] is not None):
            fits = (limit["metric"] in ("mismatch", "max_abs")) == whole or limit["metric"] == "max_abs"
            if limit["output"] == output or (limit["output"] is None and fits):
                chosen[limit["metric"]] = limit
        return [limit for m, limit in chosen.items() if m != "device_sqnr_db"], chosen.get("device_sqnr_db")

    def proof(self, made, cap):
        """Whether it computes the same twice, and whether memory low did something."""
        first, notes, steady = {each["case"]: each for each in cap["cases"]}, [], True if cap["repeated"] else None
        for again in cap["repeated"]:
            if steady and (names := differing(first[again["case"]], again)):
                steady = False
                notes.append(("INCONCLUSIVE", finding("NOT_DETERMINISTIC", "error", names[0])))
        wanted, engaged, why, evidence = made["run_as"]["method"] == "dynamic", None, None, {}
        if cap["memory_mode"] != "low":
            engaged, why = (False, TEXT) if wanted and any(each["outputs"] for each in cap["cases"]) else (None, None)
        elif cap["normal"]:
            normal, mb = cap["normal"][0], [(cap["session"] or {}).get(key) for key in ("mb", "normal_mb")]
            low = (first | {each["case"]: each for each in cap["repeated"]})[normal["case"]]
            reached = differing(low, normal)
            missed = [name for name in low["outputs"] or {} if name not in reached]
            evidence = {"case": normal["case"], "outputs_differ": bool(reached), "outputs_reached": reached,
                        "deterministic": steady, "session_mb_low": mb[0], "session_mb_normal": mb[1]}
            engaged, why = None if reached else False, TEXT
            if (None not in mb and mb[0] < mb[1]) or (reached and steady):
                engaged, why = True, "outputs differ from memory normal" if reached else "session memory fell"
                if missed and steady and wanted:
                    notes.append(("PASS", finding("LOW_MEMORY_PARTIAL", "warn", missed[0])))
        late = []
        if wanted and not engaged:
            why, ended = TEXT, cap["failure"] and why is None
            late = [] if ended else [("INCONCLUSIVE", finding("LOW_MEMORY_NOT_ENGAGED", "error", None))]
        return engaged, why, evidence, notes, late

    def band(self, apart, total, here, made, device):
        """What is said of a device that is farther from this host than rounding explains."""
        facts, host, k = made["facts"], self.plan["host"], device["facts"].get("mnn_kernels", {})
        arm, static, method = device["arch"] in ARM64, facts["static_tensors"] > 0, made["run_as"]["method"]
        i8mm = facts["half_tiles"] and arm and k.get("i8mm") is True and k.get("sme2") is not True
        explained = old(device["mnn"]) and (i8mm or (facts["tails"] and arm))
        pools = facts["max_pools"] and host["arch"].lower() in X86 and old(host["mnn"])
        usual = 30.0 if self.plan["options"]["precision"] == "low" else 60.0
        usual = 20.0 if static or method not in ("float", "fp16", "weight") else usual
        own = {name: self.limits(name, method)[1] for name in apart}
        out = {name: s["sqnr_db"] for name, s in apart.items() if s["sqnr_db"] is not None and s["kind"] == "float"
               and s["sqnr_db"] < (own[name]["value"] if own[name] else usual)}
        if not out:
            return []
        where = frozenset(name for name, value in out.items() if close(value, min(out.values())))
        sides = [(total.get(name, {}).get("sqnr_db"), here.get(name, {}).get("sqnr_db")) for name in out]
        if pools and all(None not in side and side[0] > side[1] for side in sides):
            return [("INCONCLUSIVE", finding("HOST_MISCOMPUTES", "error", where))]
        sure = not static or explained or any(own[name] for name in out)
        return [("FAIL" if sure else "INCONCLUSIVE", finding("DEVICE_BEYOND_ROUNDING", "fail" if sure else "error", where))]

    def trial(self, uri, variant):
        """What the report should say of a variant on a device; None where it was not tried."""
        name, kind = spell(variant), (self.source["reference"] or {}).get("kind")
        making, cap = self.records.get(f"artifacts/{safe(name)}.json"), self.capture(f"{safe(uri)}/{safe(name)}")
        failure, made = (making["failure"], making["artifact"]) if making else (None, None)
        run = {"device": {"uri": uri, **dict.fromkeys(("arch", "cpu", "mnn", "cores", "ram_mb", "os")), "features": [],
                          "emulated": False, "facts": {}}, "variant": name, "made_as": None, "calibration": None,
               "verdict": "ERROR", "low_memory_engaged": None, "low_memory_why": None, "outputs": {},
               "errors": {key: {} for key in ("conversion", "quantization", "device", "why_null")}, "latency_ms": None,
               "latency_why": "it was not run", "memory_mb": None, "memory_why": "it was not run", "findings": [],
               "file": None, "sha256": None, "options": {}, "timing_s": {}}
        if cap is None and failure is None:
            return None
        if not made or not cap or not cap["artifact_sha256"]:
            failure = failure or cap["failure"]
            return run | {"error": failure | {"hint": ANY}, "steps": failure["evidence"].get("steps", [])}
        device, host, options = cap["device"] or {"uri": uri}, self.capture(f"host/{safe(name)}"), self.plan["options"]
        local, method, why = device["is_host"], made["run_as"]["method"], {}
        lost = None if local or (host and not host["failure"]) else TEXT
        refused = {each["case"] for c in (host, self.float) if c for each in c["cases"] if each["refused"] is not None}
        total = self.between(self.reference, cap, lambda case: local or case in refused)
        here = self.between(self.reference, host) if host and not host["failure"] else {}
        if self.converted is None:
            why["conversion"] = self.source["reference"]["why"] or "" if kind == "mnn-float" else "not measured"
        why |= {"quantization": "nothing is quantized"} if method == "float" else {"quantization": lost} if lost else {}
        why |= {"device": "the device is this host"} if local else {"device": lost} if lost else {}
        middle, parts = cap if local else host, {"conversion": self.converted or {}, "quantization": {}, "device": {}}
        if "quantization" not in why:
            parts["quantization"] = self.between(self.float or self.reference, middle)
        if "device" not in why:
            parts["device"] = self.between(middle, cap)
        failure = cap["failure"]
        for each in cap["cases"]:
            if not (failure or local or each["refused"] is None or each["case"] in refused):
                failure = {"code": "INFERENCE_FAILED", "message": each["refused"], "where": uri, "hint": TEXT,
                           "evidence": {"case": each["case"]}}
        judged = {output: judge_output(s, self.limits(output, variant["method"])[0], output)
                  for output, s in total.items()}
        engaged, engaged_why, evidence, notes, late = self.proof(made, cap)
        innocent = [output for output, (verdict, *_) in judged.items() if not local and verdict == "FAIL" and output in here
                    and judge_output(here[output], self.limits(output, variant["method"])[0])[0] in ORDER[:2]]
        band = [("FAIL", finding("DEVICE_DIFFERS", "fail", innocent[0]))] if innocent else []
        if not local and "device" not in why:
            band += self.band(parts["device"], total, here, made, device)
        elif not local and any(limit["metric"] == "device_sqnr_db" for limit in self.plan["limits"]):
            band.append(("INCONCLUSIVE", finding("DEVICE_ERROR_UNKNOWN", "error")))
        if method == "weight" and not made["quantized_layers"]:
            late.append(("INCONCLUSIVE", finding("NOTHING_QUANTIZED", "error")))
        elif method != "dynamic" or made["quantized_layers"]:
            late += [("PASS", finding("CONVERTER_WARNING", "warn") | {"message": text}) for text in made["warnings"]
                     if not text.startswith(OPENING)]
        if device["mnn"] not in (None, self.plan["host"]["mnn"]):
            late.append(("PASS", finding("MNN_VERSION_DIFFERS", "warn", device["uri"])))
        found = [*notes, *(("PASS", each) for _, _, each, _ in judged.values() for each in each), *band, *late]
        looks = [*(verdict for verdict, *_ in judged.values()), *(v for v, _ in (*notes, *band, *late) if v != "PASS")]
        outputs = {output: {**{key: total[output][key] for key in (*METRICS, "nan", "inf", "ref_nan", "ref_inf", "exact",
                            "kind", "cases", "worst_case")}, "verdict": v, "limits": results, "reasons": [TEXT] * count,
                            "why_null": {m: TEXT for m in METRICS if total[output][m] is None}}
                   for output, (v, results, _, count) in judged.items()}
        stages = {stage: {output: {key: s[key] for key in ("sqnr_db", "cosine", "max_abs", "rel_max", "mismatch", "exact")}
                          | {"problem": TEXT if s["problems"] else None} for output, s in each.items()}
                  for stage, each in parts.items()}
        return run | {
            "device": {key: device[key] for key in DEVICE} | {"emulated": device["emulator"] is not None},
            "made_as": made["label"] or spell(made["asked"]), "steps": made["steps"], "error": failure,
            "calibration": made["calibration"] and made["calibration"] | {
                "cases": any(each["code"] == "CALIBRATED_ON_CASES" for each in made["findings"])},
            "verdict": worst([*looks, *(["ERROR"] if failure else [])]), "low_memory_engaged": engaged,
            "low_memory_why": engaged_why, "outputs": outputs, "errors": stages | {"why_null": why},
            "latency_ms": self.latency(cap), "latency_why": self.latency_why(cap), "memory_mb": self.memory(cap, made),
            "memory_why": None, "findings": made["findings"] + [each for _, each in found],
            "file": Path(made["path"]).name, "sha256": made["sha256"],
            "options": options | {"memory": cap["memory_mode"], "threads": cap["threads"] or options["threads"],
                                  "pushed_bytes": cap["pushed_bytes"], "runtime_bytes": cap["runtime_bytes"],
                                  "low_memory_evidence": evidence}}

    def latency(self, cap):
        if not cap["timings"]:
            return None
        t, first = cap["timings"][0], next((each["ms"] for each in cap["cases"] if each["ms"] is not None), None)
        ms = sorted(t["samples_ms"])
        numbers = dict.fromkeys(("min", "mean", "stdev", "p50", "p90", "p99", "max"))
        if ms:
            numbers |= {"min": ms[0], "mean": math.fsum(ms) / len(ms), "max": ms[-1]}
            numbers["stdev"] = float(np.std(ms, ddof=1)) if len(ms) > 1 else None
        numbers |= {f"p{p}": float(np.percentile(ms, p)) for p, least in ((50, 2), (90, 10), (99, 100)) if len(ms) >= least}
        numbers |= {"load": cap["load_ms"], "first": first}
        options = self.plan["options"]
        against = not t["complete"] or t["warmup"] < options["warmup"]
        invalid = [TEXT] * (against + (not ms))
        return numbers | {"n": len(ms), "warmup": t["warmup"], "valid": not invalid, "why_invalid": invalid,
                          "case": t["case"], "why_null": {k: TEXT for k, value in numbers.items() if value is None}}

    def latency_why(self, cap):
        if cap["device"] and cap["device"]["emulator"] is not None:
            return TEXT
        if cap["timings"]:
            return f"one inference of case '{cap['timings'][0]['case']}'"
        return "the run ended before it was timed" if self.plan["latency"] else "not asked for"

    def memory(self, cap, made):
        emulated, session = cap["device"] and cap["device"]["emulator"] is not None, cap["session"] or {"mb": None, "why": None}
        seen = [m for m in (cap["loaded"], *(each["memory"] for each in cap["cases"] + cap["timings"])) if m]
        pss = max((m["pss"] for m in seen if m["pss"] is not None), default=None)
        kib = {"rss_before": cap["before"]["rss"], "rss_load": cap["loaded"]["rss"], "rss_peak": seen[-1]["rss_peak"],
               "pss_peak": pss}
        mb = {key: None if value is None or emulated else value * 1024 / 1e6 for key, value in kib.items()}
        why = {key: TEXT for key in ("rss_load", "rss_peak", "pss_peak") if mb[key] is None}
        why |= {"session": session["why"] or TEXT} if session["mb"] is None else {}
        return mb | {"model_file": made["size"] / 1e6, "why_null": why,
                     "session": None if session["mb"] is None else session["mb"] * (1 << 20) / 1e6}

    def consistent(self):
        """What decides no number of the report has to fit all the same."""
        source, plan, need = self.source, self.plan, self.need
        need(plan["model"].endswith(source["path"]), "plan.json and source.json name different models")
        if not self.reference:
            return
        taken = {c["case"]: c["outputs"] for c in self.reference["cases"]}
        need(list(taken) == [c["name"] for c in source["cases"]], "the reference has other cases than source.json")
        need((source["reference"]["kind"] == "file") == (plan["reference"] is not None), "reference is not as planned")
        dtypes = {name: np.dtype(ref["dtype"]).kind for outputs in taken.values() for name, ref in outputs.items()}
        kinds = {name: "int" if kind in "biu" else "float" for name, kind in dtypes.items()}
        need(kinds == source["kinds"], "kinds of outputs are not those of the reference")
        for c in source["cases"]:
            need(c["generated"] == (plan["inputs"] is None), f"case {c['name']}: not from where the plan says")
            for t in source["inputs"]:
                shape, want = c["inputs"][t["name"]]["shape"], t["shape"] or c["inputs"][t["name"]]["shape"]
                good = len(shape) == len(want) and all(w in (None, n) for w, n in zip(want, shape, strict=True))
                need(good and c["inputs"][t["name"]]["dtype"] == t["dtype"], f"case {c['name']}: {t['name']} does not fit")
        if self.float:
            need(self.float["artifact_sha256"] == source["float_sha256"], "float-host is of another file")
        for uri in plan["devices"]:
            for variant in plan["variants"]:
                self.trial_consistent(uri, variant, spell(variant))

    def trial_consistent(self, uri, variant, name):
        plan, need, where = self.plan, self.need, f"{name} on {uri}"
        making, cap = self.records.get(f"artifacts/{safe(name)}.json"), self.capture(f"{safe(uri)}/{safe(name)}")
        made, host, options = making and making["artifact"], self.capture(f"host/{safe(name)}"), plan["options"]
        need(making is None or making["variant"] == variant, f"{where}: its artifact is of another variant")
        if not made or not cap or not cap["artifact_sha256"] or not cap["device"]:
            return
        need(made["asked"] == variant and (made["label"] or made["run_as"] == variant), f"{where}: made as something else")
        need([cap["role"], cap["variant"]] == ["device", name], f"{where}: its capture is of something else")
        memory = options["memory"] or ("low" if made["run_as"]["method"] == "dynamic" else "normal")
        local, timed = cap["device"]["is_host"], plan["latency"] and cap["device"]["emulator"] is None
        probes = ["timing"] * timed + ["repeat", "memory", "engaged"]
        content = {"source": made["source_sha256"], "artifact": made["sha256"], "variant": name, "options": options,
                   "device": cap["device"]["uri"], "probes": probes,
                   "cases": [[c["name"], {n: ref["sha256"] for n, ref in c["inputs"].items()}] for c in self.source["cases"]]}
        trial = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        need(cap["trial"] == trial and cap["memory_mode"] == memory, f"{where}: its capture is of another trial")
        for one in (cap, host) if host else (cap,):
            need(one["artifact_sha256"] == made["sha256"], f"{where}: a capture is of another file")
        if local and host and host["trial"] == trial:
            need(host == cap | {"role": "variant-host", "timings": []}, f"{where}: host and device are the same and differ")
        done = [c["case"] for c in cap["cases"] if c["outputs"] is not None]
        if done and not cap["failure"]:
            middle = done[len(done) // 2]
            again = [[c["case"] for c in cap[key]] for key in ("repeated", "normal", "timings")]
            need(again == [[middle], [middle] * (memory == "low"), [middle] * timed], f"{where}: a probe is missing")
            subgraphs = made["facts"]["has_subgraphs"]
            need(cap["session"] and not (subgraphs and cap["session"]["mb"]), f"{where}: session memory is impossible")
            need(len(cap["cases"]) == len(self.source["cases"]), f"{where}: a case is missing")
        if local:
            here = [cap["device"]["arch"], cap["device"]["mnn"]]
            need(here in ([None, None], list(plan["host"].values())), f"{where}: this host is another than planned")

    def whole(self):
        """The report as it should be."""
        plan, source, end, told = self.plan, self.source, self.end, []
        findings, kind = list(source["findings"]), (source["reference"] or {}).get("kind")
        if self.float and kind not in (None, "mnn-float"):
            self.converted = self.between(self.reference, self.float, lambda case: True)
            gone = {each["case"] for each in self.float["cases"] if each["refused"] is not None}
            findings += [finding("CONVERSION_RUN_FAILED", "fail", c["name"]) for c in source["cases"] if c["name"] in gone]
            for name, s in self.converted.items():
                lost = s["problems"] - {"reference_nonfinite"}
                broken = [any(s[limit["metric"]] is not None and not meets(limit, s[limit["metric"]])
                              for limit in self.limits(name, method, [])[0]) for method in ("float", "weight")]
                if lost or broken[0]:
                    level = "fail" if (lost or broken[1]) and kind != "file" else "warn"
                    evidence = {key: s[key] for key in ("sqnr_db", "cosine", "worst_case")}
                    findings.append(finding("CONVERSION_ERROR", level, name, evidence))
        runs = [run for uri in plan["devices"] for v in plan["variants"] if (run := self.trial(uri, v)) is not None]
        if not end["ended"]:
            told = [finding("INTERRUPTED", "error", None, {})]
        elif end["source_now"] not in (None, source["sha256"]):
            told = [finding("MODEL_CHANGED", "error", None, {"sha256": source["sha256"], "now": end["source_now"]})]
        else:
            self.need(len(runs) == len(plan["devices"]) * len(plan["variants"]), "a trial is missing")
        tensors = [[{key: each[key] for key in ("name", "dtype", "shape")} for each in source[side]]
                   for side in ("inputs", "declared")]
        return {
            "schema": "edgequant.report/1", "verdict": worst([*(run["verdict"] for run in runs), *["ERROR"] * len(told)]),
            "created": TEXT, "edgequant": plan["edgequant"], "mnn": plan["host"]["mnn"], "host": None,
            "model": {"path": source["path"], "sha256": source["sha256"], "format": source["format"],
                      "bytes": source["size"], "inputs": tensors[0], "outputs": tensors[1]},
            "reference": source["reference"], "runs": runs, "findings": findings + told, "timing_s": end["seconds"],
            "cases": [{"name": c["name"], "shapes": {n: ref["shape"] for n, ref in c["inputs"].items()},
                       "source": c["source"], "steps": 1} for c in source["cases"]],
            "options": {"limits": [limit_text(each) for each in plan["limits"]],
                        **{key: plan[key] for key in ("calibration", "images", "fallback", "shapes")}, **plan["options"]}}


def computed(findings):
    return [each for each in findings if each["code"] not in UNCOMPUTED]


def main(path):
    try:
        check = Check(Path(path))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        print(f"{path}: cannot be read: {type(error).__name__}: {error}")
        return 2

    def report():
        got = check.report
        got |= {"findings": computed(got["findings"]), "runs": [r | {"findings": computed(r["findings"])} for r in got["runs"]]}
        want = check.whole()
        want["findings"] = computed(want["findings"])
        for run in want["runs"]:
            run["findings"] = computed(run["findings"])
        same(want, got, "report", check.said.append)

    for step in (check.files, check.consistent, report):
        try:
            step()
        except Exception as error:  # noqa: BLE001  (whatever it is, something in there is not what it was)
            check.said.append(f"{step.__name__}: cannot be computed anew: {type(error).__name__}: {error}")
    print(*check.said, sep="\n", end="\n" if check.said else "")
    return 1 if check.said else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
