"""What cases with strained values say, and what the cases of a run do not reach."""

import json

import numpy as np
from check_decisions import rows_of, unordered
from check_metrics import finding

# fmt: off


class Cases:
    def strained(self, cap, total, doubtful):
        """What is said of the strained cases: no limits, but the conversion has to be right, and numbers numbers."""
        ends, marks = [{c["case"]: c for c in (one or {"cases": []})["cases"]} for one in (self.float, cap)], {}
        for case in self.reference["cases"]:
            f, got = (end.get(case["case"]) for end in ends)
            for name in (case["outputs"] or {}) if case["case"] in self.strain and got else ():
                size = (total[name]["scale"] or 0.0) if name in total else 0.0
                c = self.pair(case, f, name) if f else {"problem": None, "max_abs": None}
                decision = self.source.get("decisions", {}).get(name)
                c = unordered(self, decision, c, *((e["outputs"] or {}).get(name) for e in (case, f))) if f else c
                large = c["max_abs"] and c["kind"] == "float" and c["max_abs"] > 0.02 * max(size, c["scale"] or 0.0)
                large = large and not c.get("faint")
                if c["problem"] not in (None, "reference_nonfinite") or (
                    not c["problem"] and large and c["sqnr_db"] is not None and c["sqnr_db"] < 40):
                    marks.setdefault("STRAIN_CONVERSION", name)
                elif got["outputs"] is not None and (
                    (wrong := self.pair(case, got, name)["problem"]) in ("nonfinite", "missing", "dtype")
                    or (wrong == "shape" and decision not in ("ordered", "set"))):
                    marks.setdefault("STRAIN_BROKEN", name)
        said = dict.fromkeys(marks, ("FAIL", "fail"))
        said |= {"STRAIN_CONVERSION": ("PASS", "warn")} if doubtful else {}
        return [(said[code][0], finding(code, said[code][1], marks[code])) for code in sorted(marks, reverse=True)]

    def less(self, made, device):
        """Whether what was calibrated, run or referred to leaves a part of the question open: MARGINAL at best."""
        told = {e["code"] for e in made["findings"] + self.source["findings"]
                if e["evidence"].get("all", e["code"] != "CALIBRATED_ON_CASES")}
        low = self.plan["options"]["precision"] == "low" and device["arch"] in ("x86_64", "amd64", "i686", "i386")
        return low or bool(
            told & {"CALIBRATION_RANGE", "CALIBRATION_IDENTICAL", "CALIBRATED_ON_CASES", "OUTPUTS_NOT_JUDGED"})

    def reach(self):
        """What these cases cannot show; with it, MARGINAL is the best there is."""
        held = [c for c in self.source["cases"] if c["name"] not in self.strain and c["inputs"]]
        found, self.blind = [], False
        tried = any(name.startswith("captures/") and cap["role"] == "device" and cap["artifact_sha256"]
                    for name, cap in self.records.items() if "role" in cap)
        if not tried:
            return []
        kinds = {json.dumps({n: ref["sha256"] for n, ref in c["inputs"].items()}, sort_keys=True) for c in held}
        if len(kinds) < len(held):
            found, self.blind = [finding("CASES_IDENTICAL", "warn", None)], len(kinds) == 1
        names = {n for c in held for n in c["inputs"]} if not any(c["generated"] for c in held) else ()
        seen = {n: [a for c in held if (a := self.arrays[c["inputs"][n]["sha256"]]).size] for n in names}
        flat = {n for n, a in seen.items() if a and min(x.min() for x in a) == max(x.max() for x in a)}
        if stuck := {n for n in flat if max(a.size for a in seen[n]) > 1}:
            found.append(finding("INPUT_CONSTANT", "warn", min(stuck)))
            self.blind |= not any(a and n not in flat for n, a in seen.items())
            fed = (self.source.get("rollout") or {"feedback": {}})["feedback"]
            ones = {n for n in stuck if all((x == 1).all() and x.dtype.kind != "f" for x in seen[n])}
            self.blind |= bool(stuck - ones - fed.keys())
        refs = [c["outputs"] for c in self.reference["cases"] if c["outputs"]]
        values = {n: {v for o in refs if n in o and (a := self.arrays[o[n]["sha256"]]).size for v in (a.min(), a.max())}
                  for n, kind in self.source["kinds"].items() if kind == "int"}
        one = [n for n, v in values.items() if len(v) == 1]
        given = not any(c["generated"] for c in self.source["cases"])
        for n in (n for n, d in self.source.get("decisions", {}).items() if given and d == "probabilities"):
            rows = [rows_of("probabilities", a, a) for o in refs if n in o
                    if 0 < (a := self.arrays[o[n]["sha256"]]).size <= 1 << 25 and np.isfinite(a).all()]
            won = [w for r in rows if r for w in r[0][r[2]]]
            one += [n] * (None not in rows and len(won) > 1 and len(set(won)) == 1)
        if len(refs) > 1 and one:
            found, self.blind = [*found, finding("ONE_CLASS_ONLY", "warn", one[0])], True
        ways = {}
        for case in (c for c in self.reference["cases"] if c["case"] not in self.strain):
            for name, ref in case["taps"].items():
                ways[name] = ways.get(name, set()) | set(self.arrays[ref["sha256"]].astype(bool).ravel().tolist())
        if one := [name for name, taken in ways.items() if len(taken) == 1]:
            found, self.blind = [*found, finding("BRANCH_NOT_TAKEN", "warn", min(one))], True
        return found
