"""Times and memory as a report should tell them."""

import math

import numpy as np
from check_metrics import TEXT
from check_trust import clock, few_threads

# fmt: off


class Measured:
    """What a judge says of captures that is no comparison."""

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
        few = few_threads(t.get("threads"), cap["threads"])
        invalid = [TEXT] * (against + (not ms) + clock(t) + few)
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
