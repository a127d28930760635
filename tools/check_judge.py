"""What the report of a run should say, from the records and arrays of its folder alone."""

import hashlib
import json
import math
import re
from pathlib import Path

import numpy as np
from check_metrics import ANY, HIGH, METRICS, ORDER, TEXT, close, compare, finding, fold, judge_output, meets, worst

# fmt: off
BOUNDS = {"float": (0.9999, 40, 0.02), "fp16": (0.999, 30, 0.05)}
ARM64, X86 = ("aarch64", "arm64"), ("x86_64", "amd64", "i686", "i386")
SYSTEMATIC = ("OUTPUT_SWAPPED", "CASE_SWAPPED", "OUTPUT_STALE", "OUTPUT_STUCK", "OUTPUT_SATURATED", "FEW_LEVELS",
              "SMALL_CHANNEL_LOST", *(f"RESIDUAL_{what}" for what in ("PERMUTED", "LAG", "GAIN", "OFFSET", "CHANNEL",
              "STEP", "ELEMENT", "CASE", "CURVE", "REQUANTIZED")))
DEVICE = ("uri", "is_host", "arch", "cpu", "features", "mnn", "cores", "ram_mb", "os", "facts")


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
    parts += [k for k in ("hqq", "sym", "asym", "equalize") if v[k]]
    return ",".join([*parts, *(f"skip={k}" for k in v["skip"])])


def limit_text(limit):
    return f"{limit['output'] + ':' if limit['output'] else ''}{limit['metric']}{limit['op']}{limit['value']:g}"


def old(version):
    """Whether it is an MNN whose int8 kernels are known to be wrong."""
    found = re.match(r"\s*v?(\d{1,6})(?:\.(\d{1,6}))?(?:\.(\d{1,6}))?", version or "")
    return bool(found) and tuple(int(n or 0) for n in found.groups()) <= (3, 6, 1)


def differing(first, second):
    one, two = first["outputs"] or {}, second["outputs"] or {}
    return [name for name in {**one, **two} if one.get(name) != two.get(name)]


class Judge:
    def __init__(self, root):
        places = ("plan.json", "source.json", "closing.json", "artifacts/*.json", "captures/**/*.json")
        names = [path.relative_to(root).as_posix() for place in places for path in root.glob(place)]
        self.records = {name: json.loads((root / name).read_bytes()) for name in names}
        self.report = json.loads((root / "report.json").read_bytes())
        self.plan, self.source, self.end = (self.records[f"{name}.json"] for name in ("plan", "source", "closing"))
        self.root, self.said, self.known, self.arrays = root, [], {}, {}
        self.reference, self.float, self.converted = self.capture("reference"), self.capture("float-host"), None

    def capture(self, name):
        return self.records.get(f"captures/{name}.json")

    def between(self, expected, got, refused=lambda _: False):
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
        first, notes, late = {each["case"]: each for each in cap["cases"]}, [], []
        steady = True if cap["repeated"] else None
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
                    late.append(("PASS", finding("LOW_MEMORY_PARTIAL", "warn", missed[0])))
        if wanted and not engaged:
            why, ended = TEXT, cap["failure"] and why is None
            late += [] if ended else [("INCONCLUSIVE", finding("LOW_MEMORY_NOT_ENGAGED", "error", None))]
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
        verdict, severity = ("FAIL", "fail") if sure else ("INCONCLUSIVE", "error")
        return [(verdict, finding("DEVICE_BEYOND_ROUNDING", severity, where))]

    def trial(self, uri, variant):
        """What the report should say of a variant on a device; None where it was not tried."""
        name, kind = spell(variant), (self.source["reference"] or {}).get("kind")
        making, cap = self.records.get(f"artifacts/{safe(name)}.json"), self.capture(f"{safe(uri)}/{safe(name)}")
        failure, made = (making["failure"], making["artifact"]) if making else (None, None)
        run = {"device": {"uri": uri, **dict.fromkeys(("arch", "cpu", "mnn", "cores", "ram_mb", "os")), "features": [],
                          "emulated": False, "is_host": False, "facts": {}},
               "variant": name, "made_as": None, "calibration": None, "verdict": "ERROR",
               "low_memory_engaged": None, "low_memory_why": None, "outputs": {},
               "errors": {key: {} for key in ("conversion", "quantization", "device", "why_null")}, "latency_ms": None,
               "latency_why": "it was not run", "memory_mb": None, "memory_why": "it was not run", "findings": [],
               "file": None, "sha256": None, "options": {}, "timing_s": {}}
        if cap is None and failure is None:
            return None
        if not made or not cap or not cap["artifact_sha256"]:
            failure = failure or cap["failure"]
            advised = failure["code"].startswith(("QUANTIZER_", "QUANTIZED_MODEL_INSANE"))
            failure |= {"hint": ANY} if advised else {}
            return run | {"error": failure, "steps": failure["evidence"].get("steps", [])}
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
        failure, taken = cap["failure"], [each["case"] for each in cap["cases"]]
        if not failure and (lost := [c["name"] for c in self.source["cases"] if c["name"] not in taken]):
            failure = {"code": "CAPTURE_INCOMPLETE", "message": TEXT, "where": uri, "hint": TEXT,
                       "evidence": {"cases": lost}}
        for each in cap["cases"]:
            if not (failure or local or each["refused"] is None or each["case"] in refused):
                failure = {"code": "INFERENCE_FAILED", "message": each["refused"], "where": uri, "hint": TEXT,
                           "evidence": {"case": each["case"]}}
        judged = {output: judge_output(s, self.limits(output, variant["method"])[0], output)
                  for output, s in total.items()}
        engaged, engaged_why, evidence, notes, late = self.proof(made, cap)
        innocent = [output for output, (verdict, *_) in judged.items() if not local and verdict == "FAIL"
                    and output in here
                    and judge_output(here[output], self.limits(output, variant["method"])[0])[0] in ORDER[:2]]
        band = [("FAIL", finding("DEVICE_DIFFERS", "fail", innocent[0]))] if innocent else []
        if not local and "device" not in why:
            band += self.band(parts["device"], total, here, made, device)
        elif not local and any(limit["metric"] == "device_sqnr_db" for limit in self.plan["limits"]):
            band.append(("INCONCLUSIVE", finding("DEVICE_ERROR_UNKNOWN", "error")))
        if method == "weight" and not made["quantized_layers"]:
            late.append(("INCONCLUSIVE", finding("NOTHING_QUANTIZED", "error")))
        elif method != "dynamic" or made["quantized_layers"]:
            late += [("PASS", finding("CONVERTER_WARNING", "warn") | {"message": text}) for text in made["warnings"]]
        told = next((r["findings"] for r in self.report["runs"]
                     if (r["device"]["uri"], r["variant"]) == (uri, name)), []) + self.report["findings"]
        if any(each["code"] in SYSTEMATIC and each["severity"] == "fail" for each in told):
            late.append(("FAIL", finding(SYSTEMATIC[0], "fail")))
        if device["mnn"] not in (None, self.plan["host"]["mnn"]):
            late.append(("PASS", finding("MNN_VERSION_DIFFERS", "warn", device["uri"])))
        found = [*notes, *(("PASS", each) for _, _, each, _ in judged.values() for each in each), *band, *late]
        looks = [*(verdict for verdict, *_ in judged.values()), *(v for v, _ in (*notes, *band, *late) if v != "PASS")]
        keys = (*METRICS, "nan", "inf", "ref_nan", "ref_inf", "exact", "kind", "cases", "worst_case")
        outputs = {output: {**{key: total[output][key] for key in keys}, "verdict": v, "limits": results,
                            "reasons": [TEXT] * count,
                            "why_null": {m: TEXT for m in METRICS if total[output][m] is None}}
                   for output, (v, results, _, count) in judged.items()}
        keys = ("sqnr_db", "cosine", "max_abs", "rel_max", "mismatch", "exact")
        stages = {stage: {output: {key: s[key] for key in keys}
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
        for p, least in ((50, 2), (90, 10), (99, 100)):
            numbers[f"p{p}"] = float(np.percentile(ms, p)) if len(ms) >= least else None
        numbers |= {"load": cap["load_ms"], "first": first}
        against = not t["complete"] or t["warmup"] < self.plan["options"]["warmup"]
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
        emulated = cap["device"] and cap["device"]["emulator"] is not None
        session = cap["session"] or {"mb": None, "why": None}
        seen = [m for m in (cap["loaded"], *(each["memory"] for each in cap["cases"] + cap["timings"])) if m]
        pss = max((m["pss"] for m in seen if m["pss"] is not None), default=None)
        kib = {"rss_before": cap["before"]["rss"], "rss_load": cap["loaded"]["rss"], "rss_peak": seen[-1]["rss_peak"],
               "pss_peak": pss}
        mb = {key: None if value is None or emulated else value * 1024 / 1e6 for key, value in kib.items()}
        why = {key: TEXT for key in ("rss_load", "rss_peak", "pss_peak") if mb[key] is None}
        why |= {"session": session["why"] or TEXT} if session["mb"] is None else {}
        return mb | {"model_file": made["size"] / 1e6, "why_null": why,
                     "session": None if session["mb"] is None else session["mb"] * (1 << 20) / 1e6}

    def whole(self):
        """The report as it should be."""
        plan, source, end, told = self.plan, self.source, self.end, []
        findings, kind = list(source["findings"]), (source["reference"] or {}).get("kind")
        if self.float and kind not in (None, "mnn-float"):
            self.converted = self.between(self.reference, self.float, lambda _: True)
            gone = {each["case"] for each in self.float["cases"] if each["refused"] is not None}
            gone = [c["name"] for c in source["cases"] if c["name"] in gone]
            findings += [finding("CONVERSION_RUN_FAILED", "fail", case) for case in gone]
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
            "schema": "edgequant.report/1",
            "verdict": worst([run["verdict"] for run in runs] + ["ERROR"] * len(told)),
            "created": TEXT, "edgequant": plan["edgequant"], "mnn": plan["host"]["mnn"], "host": None,
            "model": {"path": source["path"], "sha256": source["sha256"], "format": source["format"],
                      "bytes": source["size"], "inputs": tensors[0], "outputs": tensors[1]},
            "reference": source["reference"], "runs": runs, "findings": findings + told, "timing_s": end["seconds"],
            "cases": [{"name": c["name"], "shapes": {n: ref["shape"] for n, ref in c["inputs"].items()},
                       "source": c["source"], "steps": 1} for c in source["cases"]],
            "options": {"limits": [limit_text(each) for each in plan["limits"]],
                        **{key: plan[key] for key in ("calibration", "images", "fallback", "shapes")},
                        **plan["options"]}}
