"""What the report of a run should say, from the records and arrays of its folder alone."""

import json
from pathlib import Path

from check_bound import bound
from check_cases import Cases
from check_claims import claims
from check_codes import models_own
from check_decisions import by_rows, rematch, winners
from check_device import band, kernels, less_wrong
from check_drift import rolled
from check_int8 import worse
from check_measured import Measured
from check_metrics import ANY, HIGH, METRICS, ORDER, TEXT, breaks, compare, finding, fold, judge_output, worst
from check_names import limit_text, safe, spell
from check_proof import Proof, settings
from check_rounding import activations, costs, rounding
from check_trust import trust

# fmt: off
BOUNDS = {"float": (0.9999, 40, 0.02), "fp16": (0.999, 30, 0.05)}
STAGES = ("conversion", "quantization", "device", "weights", "activations", "kernels", "predicted", "why_null")
SYSTEMATIC = ("OUTPUT_SWAPPED", "CASE_SWAPPED", "OUTPUT_STALE", "OUTPUT_STUCK", "OUTPUT_SATURATED", "FEW_LEVELS",
              "SMALL_CHANNEL_LOST", *(f"RESIDUAL_{what}" for what in ("PERMUTED", "LAG", "GAIN", "OFFSET", "CHANNEL",
              "STEP", "ELEMENT", "CASE", "CURVE", "REQUANTIZED", "TAIL", "CROSSTALK")))
DEVICE = ("uri", "is_host", "arch", "cpu", "features", "mnn", "cores", "ram_mb", "os", "facts")


class Judge(Measured, Cases, Proof):
    def __init__(self, root):
        places = ("plan.json", "source.json", "closing.json", "artifacts/*.json", "captures/**/*.json")
        names = [path.relative_to(root).as_posix() for place in places for path in root.glob(place)]
        self.records = {name: json.loads((root / name).read_bytes()) for name in names}
        captures = [each for name, each in self.records.items() if name.startswith("captures/")]
        self.older = not any("moved" in each for each in captures)  # then one case was run with memory normal
        for each in captures if self.older else ():
            each["moved"] = []
        self.report = json.loads((root / "report.json").read_bytes())
        self.plan, self.source, self.end = (self.records[f"{name}.json"] for name in ("plan", "source", "closing"))
        self.source["decisions"] = self.source.get("decisions", {}) | self.plan.get("decides", {})
        named = self.plan.get("decides", {})
        self.scores = {n for n, d in self.source["decisions"].items() if d == "scores" and n not in named}
        self.root, self.said, self.known, self.arrays = root, [], {}, {}
        self.reference, self.float, self.converted = self.capture("reference"), self.capture("float-host"), None
        self.strain = [c["name"] for c in self.source["cases"] if c.get("kind") == "strain"]

    def capture(self, name):
        return self.records.get(f"captures/{name}.json")

    def between(self, expected, got, refused=lambda _: False):
        held = [c for c in expected["cases"] if c["case"] not in self.strain]
        each = self.each(held, got["cases"], refused)
        return {name: fold(cases) for name, cases in each.items()}

    def each(self, expected, got, refused=lambda _: False):
        """The same, case by case."""
        found, others = {}, {each["case"]: each for each in got}
        for case in expected:
            other = others.get(case["case"])
            if case["outputs"] is None or not other or (other["outputs"] is None and not refused(case["case"])):
                continue
            for name in (name for name in case["outputs"] if name in self.source["kinds"]):
                each = self.pair(case, other, name)
                if other["outputs"] is None:  # MNN says why: that is no output that was dropped
                    each = each | {"problem": "refused"}
                found.setdefault(name, {})[case["case"]] = each
        return found

    def pair(self, case, other, name):
        pair = (case["outputs"][name]["sha256"], ((other["outputs"] or {}).get(name) or {}).get("sha256"))
        if pair not in self.known:
            self.known[pair] = compare(*(sha and self.arrays[sha] for sha in pair))
        c = self.known[pair]
        small = c["kind"] == "float" and c["max_abs"] is not None and max(c["scale"] or 0.0, c["max_abs"]) <= 1e-3
        return c | {"faint": small and not c["problem"] and name in self.scores}

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

    def trial(self, uri, variant):
        """What the report should say of a variant on a device; None where it was not tried."""
        name, kind = spell(variant), (self.source["reference"] or {}).get("kind")
        making, cap = self.records.get(f"artifacts/{safe(name)}.json"), self.capture(f"{safe(uri)}/{safe(name)}")
        failure, made = (making["failure"], making["artifact"]) if making else (None, None)
        run = {"device": {"uri": uri, **dict.fromkeys(("arch", "cpu", "mnn", "cores", "ram_mb", "os")), "features": [],
                          "emulated": False, "is_host": False, "facts": {}},
               "variant": name, "made_as": None, "calibration": None, "verdict": "ERROR",
               "low_memory_engaged": None, "low_memory_why": None, "outputs": {},
               "errors": {key: {} for key in STAGES}, "latency_ms": None,
               "latency_why": "it was not run", "memory_mb": None, "memory_why": "it was not run", "findings": [],
               "rollout_steps": None, "drift": {}, "independent_cases": 0, "failing_share_95": None,
               "diagnosis": None, "counts": None,
               "file": None, "sha256": None, "options": {}, "timing_s": {}}
        if cap is None and failure is None:
            return None
        if not made or not cap or not cap["artifact_sha256"]:
            failure = failure or cap["failure"]
            advised = failure["code"].startswith(("QUANTIZER_", "QUANTIZED_MODEL_INSANE"))
            failure |= {"hint": ANY} if advised else {}
            if models_own(failure, bool(cap and cap["device"] and cap["device"]["is_host"])):
                run["verdict"] = "FAIL"
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
        middle, parts = cap if local else host, {"conversion": self.converted or {}} | {
            key: {} for key in ("quantization", "device", "weights", "activations", "kernels")}
        apart, split = {}, bool(middle) and middle["memory_mode"] == "low" and not made["facts"]["static_tensors"]
        if "quantization" not in why:
            parts["quantization"] = self.between(self.float or self.reference, middle)
        if "device" not in why:
            spread = by_rows(self, self.each(middle["cases"], cap["cases"]), middle["cases"], cap["cases"])
            held = {name: {case: c for case, c in cases.items() if case not in self.strain}
                    for name, cases in spread.items()}
            parts["device"] = {name: fold(cases) for name, cases in held.items() if cases}
        if split and "quantization" not in why:
            held = [c for c in middle["normal"] if c["case"] not in self.strain]
            pairs = {"weights": ((self.float or self.reference)["cases"], held),
                      "activations": (held, middle["cases"])}
            parts |= {key: {name: fold(cases) for name, cases in self.each(*pair).items()}
                       for key, pair in pairs.items()}
            apart = {} if local else by_rows(self, self.each(middle["normal"], cap["normal"]), middle["normal"],
                                             cap["normal"])
            parts["kernels"] = {name: fold(cases) for name, cases in apart.items()}
        failure, taken = cap["failure"], [each["case"] for each in cap["cases"]]
        if not failure and (lost := [c["name"] for c in self.source["cases"] if c["name"] not in taken]):
            failure = {"code": "CAPTURE_INCOMPLETE", "message": TEXT, "where": uri, "hint": TEXT,
                       "evidence": {"cases": lost}}
        for each in cap["cases"]:
            if not (failure or local or each["refused"] is None or each["case"] in refused):
                failure = {"code": "INFERENCE_FAILED", "message": each["refused"], "where": uri, "hint": TEXT,
                           "evidence": {"case": each["case"]}}
        rows = rematch(self, cap, total, lambda name: self.limits(name, variant["method"])[0])
        here_too = local or bool(host and host["failure"])
        failed = [("ERROR", "FAIL")[models_own(failure, here_too)]] if failure else []
        judged = {output: judge_output(s, self.limits(output, variant["method"])[0], output)
                  for output, s in total.items()}
        engaged, engaged_why, evidence, notes, late = self.proof(made, cap, host)
        innocent = [output for output, (verdict, *_) in judged.items() if not local and verdict == "FAIL"
                    and output in here
                    and judge_output(here[output], self.limits(output, variant["method"])[0])[0] in ORDER[:2]]
        astray = [("FAIL", finding("DEVICE_DIFFERS", "fail", innocent[0]))] if innocent else []
        astray += kernels(self, apart, host, cap) if split and host and not local else []
        if not local and "device" not in why:
            astray += band(self, spread, total, here, made, device, host, cap["memory_mode"])
            astray += worse(self, made, host, cap, device)
        elif not local and any(limit["metric"] == "device_sqnr_db" for limit in self.plan["limits"]):
            astray.append(("INCONCLUSIVE", finding("DEVICE_ERROR_UNKNOWN", "error")))
        astray += [("MARGINAL", each) for each in rows]
        told = winners(self, cap, variant["method"])
        astray += [("FAIL" if each["severity"] == "fail" else "MARGINAL", each) for each in told]
        drift, rolls = rolled(self, cap, host, made, variant["method"])
        astray += self.strained(cap, total, less_wrong(self.plan, made))
        astray += trust(cap, bool(cap["repeated"]) and not notes, made["size"])
        astray += settings(self, cap, made["facts"]["static_tensors"]) + claims(cap, options) + rolls
        if method == "weight" and not made["quantized_layers"]:
            late.append(("INCONCLUSIVE", finding("NOTHING_QUANTIZED", "error")))
        elif method != "dynamic" or made["quantized_layers"]:
            late += [("PASS", finding("CONVERTER_WARNING", "warn") | {"message": text}) for text in made["warnings"]]
        way, cost = costs(self, made, middle)
        late += rounding(made) + activations(way, cost)
        told = next((r["findings"] for r in self.report["runs"]
                     if (r["device"]["uri"], r["variant"]) == (uri, name)), []) + self.report["findings"]
        if any(each["code"] in SYSTEMATIC and each["severity"] == "fail" for each in told):
            late.append(("FAIL", finding(SYSTEMATIC[0], "fail")))
        if device["mnn"] not in (None, self.plan["host"]["mnn"]):
            late.append(("PASS", finding("MNN_VERSION_DIFFERS", "warn", device["uri"])))
        late += self.doubts(total, made, variant["method"])
        found = [*notes, *(("PASS", each) for _, _, each, _ in judged.values() for each in each), *astray, *late]
        looks = [*(each[0] for each in judged.values()), *(v for v, _ in (*notes, *astray, *late) if v != "PASS")]
        doubted = any(each["severity"] in ("error", "fail") for each in made["findings"])
        looks += ["MARGINAL"] * (self.blind or self.less(made, device)) + ["INCONCLUSIVE"] * doubted
        keys = (*METRICS, "nan", "inf", "ref_nan", "ref_inf", "exact", "kind", "cases", "worst_case", "by_case")
        outputs = {output: {**{key: total[output][key] for key in keys}, "verdict": v, "limits": results,
                            "reasons": [TEXT] * count,
                            "decision": self.source.get("decisions", {}).get(output),
                            "why_null": {m: TEXT for m in METRICS if total[output][m] is None}}
                   for output, (v, results, _, count) in judged.items()}
        keys = ("sqnr_db", "cosine", "max_abs", "rel_max", "mismatch", "exact")
        stages = {stage: {output: {key: s[key] for key in keys}
                          | {"problem": TEXT if s["problems"] else None} for output, s in each.items()}
                  for stage, each in parts.items()}
        verdict = self.doubted(worst([*looks, *failed]))
        return run | drift | bound(self, verdict, made) | {
            "device": {key: device[key] for key in DEVICE} | {"emulated": device["emulator"] is not None},
            "made_as": made["label"] or spell(made["asked"]), "steps": made["steps"], "error": failure,
            "calibration": made["calibration"] and made["calibration"] | {
                "cases": any(each["code"] == "CALIBRATED_ON_CASES" for each in made["findings"])},
            "verdict": verdict, "counts": made["facts"].get("counts"), "low_memory_engaged": engaged,
            "low_memory_why": engaged_why, "outputs": outputs, "errors": stages | {
                "why_null": why, "predicted": {output: dB for output, (dB, _) in cost.items()}},
            "latency_ms": self.latency(cap), "latency_why": self.latency_why(cap), "memory_mb": self.memory(cap, made),
            "memory_why": None, "findings": made["findings"] + [each for _, each in found],
            "diagnosis": self.diagnosis(uri, name),
            "file": Path(made["path"]).name, "sha256": made["sha256"],
            "options": options | {"memory": cap["memory_mode"], "threads": cap["threads"] or options["threads"],
                                  "pushed_bytes": cap["pushed_bytes"], "runtime_bytes": cap["runtime_bytes"],
                                  "low_memory_evidence": evidence}}

    def diagnosis(self, uri, name):
        """What a diagnosis has said of it, if there was one: it stands in the report as it was said."""
        path = self.root / "diagnoses" / safe(uri) / f"{safe(name)}.json"
        return json.loads(path.read_bytes()) if path.exists() else None

    def doubts(self, total, made, method):
        """The quantized model's own output given as the reference, and limits that zeros would keep."""
        own = self.source["reference"]["kind"] == "file" and made["quantized_layers"] and self.converted
        floats = [s for s in total.values() if s["kind"] == "float"] if own else []
        own = floats and all(s["exact"] for s in floats) and not all(s["exact"] for s in self.converted.values())
        found = [("INCONCLUSIVE", finding("REFERENCE_IS_MODELS_OWN", "error"))] if own else []
        for output, s in total.items():
            limits, loose = self.limits(output, method)[0], []
            for limit in limits if s["judgeable"] and (s["scale"] or s["kind"] == "int") else ():
                zeros = {"sqnr_db": 0, "cosine": 0, "rel_max": 1, "mismatch": 1}.get(limit["metric"], s["scale"])
                if zeros is not None and (limit["value"] <= zeros if limit["op"] == ">=" else limit["value"] >= zeros):
                    loose.append(limit)
            if loose:
                verdict, level = ("INCONCLUSIVE", "error") if len(loose) == len(limits) else ("PASS", "warn")
                found.append((verdict, finding("LIMIT_KEEPS_ANYTHING", level, output)))
        return found

    def doubted(self, verdict):
        """An error about the model leaves no PASS; a reference of another case no FAIL either."""
        errors = [each["code"] for each in self.source["findings"] if each["severity"] == "error"]
        verdict = worst([verdict, *(["INCONCLUSIVE"] if errors else [])])
        return "INCONCLUSIVE" if verdict == "FAIL" and "REFERENCE_OF_OTHER_CASE" in errors else verdict

    def whole(self):
        """The report as it should be."""
        plan, source, end, told = self.plan, self.source, self.end, []
        findings, kind = list(source["findings"]), (source["reference"] or {}).get("kind")
        if self.float and kind not in (None, "mnn-float"):
            self.converted = self.between(self.reference, self.float, lambda _: True)
            made = [each["artifact"] for name, each in self.records.items() if name.startswith("artifacts/")]
            doubtful = any(each and less_wrong(plan, each) for each in made)
            gone = {each["case"] for each in self.float["cases"] if each["refused"] is not None}
            gone = [c["name"] for c in source["cases"] if c["name"] in gone]
            findings += [finding("CONVERSION_RUN_FAILED", "fail", case) for case in gone]
            for name, s in self.converted.items():
                lost = s["problems"] - {"reference_nonfinite", "refused"}
                broken = [any(breaks(s, limit)[0] for limit in self.limits(name, method, [])[0])
                          for method in ("float", "weight")]
                if lost or broken[0]:
                    level = "fail" if (lost or broken[1]) and kind != "file" and not doubtful else "warn"
                    evidence = {key: s[key] for key in ("sqnr_db", "cosine", "worst_case")}
                    findings.append(finding("CONVERSION_ERROR", level, name, evidence))
        findings += self.reach()
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
            "options": {"limits": [limit_text(each) for each in plan["limits"]], "decides": plan.get("decides", {}),
                        **{key: plan[key] for key in ("calibration", "images", "fallback", "shapes")},
                        **plan["options"]}}
