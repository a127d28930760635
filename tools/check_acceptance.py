"""Check an acceptance.json: every state again, from the facts, bounds and attempts in it.  Imports no edgequant.

python tools/check_acceptance.py RUN_DIR/acceptance.json
"""

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from check_held import GOOD, held, target, timed

ORDER = ["PASS", "MARGINAL", "ACCEPTED", "INCONCLUSIVE", "FLAKY", "ERROR", "FAIL"]
STAGED = ["sqnr_db", "cosine", "max_abs", "mismatch"]
LIMITS = ["cosine", "sqnr_db", "max_abs", "rel_max", "mean_abs", "p99_abs", "mismatch", "device_sqnr_db"]
OF_OUTPUTS = [
    *LIMITS,
    *(f"{s}.{m}" for s in ("conversion", "quantization", "device") for m in STAGED),
    "drift.breaks_at",
]
NOTHING_ALIKE = [
    "memory_mb.model_file",
    "size_mb",
    "int8_share.layers",
    "int8_share.weights",
    "independent_cases",
    "failing_share_95",
    "mnn",
    "low_memory_engaged",
]


def worst(states):
    return max(states, key=ORDER.index, default="ERROR")


def over(states):
    """Of several attempts."""
    good = [state for state in states if state in GOOD]
    return ("FLAKY" if good else "FAIL") if "FAIL" in states else worst(good or states)


def alike(metric):
    """Keys of an identity that two runs must share."""
    if metric in NOTHING_ALIKE or metric.startswith("finding:"):
        return []
    keys = ["cases", "memory", "precision", "cpu"]
    return [*keys, "threads", "cores", "device"] if timed(metric) else keys


def fits(pattern, *names):
    if pattern is None:
        return True
    parts = {"*": ".*", "?": "."}
    wanted = re.compile("".join(parts.get(c) or re.escape(c) for c in re.sub(r"\*+", "*", pattern)), re.DOTALL)
    return any(wanted.fullmatch(name) for name in names)


def in_scope(scope, trial, doc):
    device = doc["devices"].get(trial["device"], {"uri": "", "tags": []})
    return (
        fits(scope["model"], trial["model"])
        and fits(scope["variant"], trial["variant"])
        and fits(scope["device"], trial["device"], device["uri"], *device["tags"])
    )


def parsed(text):
    """metric, output, op, and the bound as (of, factor, add, percent) or ("absolute", value)."""
    left, op, right = re.fullmatch(r"(.+?) (>=|<=|==) ([^<>=]+)", text).groups()
    output, _, metric = left.rpartition(":")
    if left.startswith(("finding:", "task:")) and metric not in OF_OUTPUTS:
        output, metric = "", left
    relative = re.fullmatch(r"(?:(\S+) \* )?(float|baseline)(?: ([+-]) (\S+)( %)?)?", right)
    if relative:
        factor, of, sign, add, percent = relative.groups()
        if percent:
            return metric, output or None, op, (of, round(1 + float(f"{sign}{add}") / 100, 12), 0.0, True)
        return metric, output or None, op, (of, float(factor or 1), float(f"{sign or ''}{add or 0}"), False)
    words = {"true": True, "false": False, "present": True, "absent": False}
    if right in words:
        return metric, output or None, op, ("absolute", words[right])
    return metric, output or None, op, ("absolute", right if metric == "mnn" else float(right))


def applies(rule, trial, doc):
    metric, _, _, bound = parsed(rule["rule"])
    task = metric[5:].partition(".")[0] if metric.startswith("task:") else None
    if bound[0] == "float" and trial["variant"] == "float":
        return False
    scope = {key: rule[key] for key in ("model", "variant", "device")}
    return in_scope(scope, trial, doc) and (task is None or fits(doc["tasks"].get(task), trial["model"]))


class Checker:
    def __init__(self, doc):
        self.doc = doc
        self.trials = {(t["model"], t["variant"], t["device"]): t for t in doc["trials"]}
        held_by = (doc["baseline"] or {"trials": []})["trials"]
        self.baseline = {(t["model"], t["variant"], t["device"]): t for t in held_by}
        self.expired, self.used = set(), set()

    def base(self, metric, of, trial, attempt, place):
        """The value a relative rule is held against; None where there is none that may be compared."""
        if of == "float":
            beside = self.trials.get((trial["model"], "float", trial["device"]), {"attempts": []})["attempts"]
            there = [a for a in beside if (v := a["facts"].get(place)) is not None and v["value"] is not None]
            if not there:
                return None
            mine = attempt["facts"][place]["session"]
            found = next((a for a in there if a["facts"][place]["session"] == mine), there[-1])
            keys = ["threads", "cores"] if timed(metric) else []
        else:
            found, keys = self.baseline.get((trial["model"], trial["variant"], trial["device"])), alike(metric)
        if found is None or any(found["identity"].get(k) != attempt["identity"].get(k) for k in keys):
            return None
        value = found["facts"].get(place)
        if value is None or value["value"] is None:
            return None
        # Two runs are two sessions, whatever they are called.
        return value if of == "float" else {**value, "session": ""}

    def one(self, rule, trial, attempt, place):
        metric, _, op, bound = parsed(rule["rule"])
        value = attempt["facts"].get(place)
        if value is None or value["value"] is None:
            return "ERROR" if attempt["error"] else "INCONCLUSIVE"
        base = None if bound[0] == "absolute" else self.base(metric, bound[0], trial, attempt, place)
        if bound[0] != "absolute" and base is None:
            return "INCONCLUSIVE"
        state = held(metric, op, rule["margin"], bound, value, base)
        limit = bound[0] == "absolute" and metric in LIMITS and rule["required"]
        # The limit of a trial that breaks limits and is no FAIL: it proves nothing.
        return "INCONCLUSIVE" if state == "FAIL" and limit and attempt["verdict"] == "INCONCLUSIVE" else state

    def rule(self, rule, trial, attempt, beside):
        metric, output, _, bound = parsed(rule["rule"])
        if metric.startswith("finding:"):
            if attempt["error"] and metric not in attempt["facts"]:
                return "ERROR"
            state = "PASS" if (metric in attempt["facts"]) == bound[1] else "FAIL"
        elif output is None and metric in OF_OUTPUTS:
            told = [(r["required"], *parsed(r["rule"])) for r in beside]
            named = [o for required, m, o, _, b in told if required and o and m == metric and b[0] == bound[0]]
            places = [f for f in attempt["facts"] if ":" in f and f.rpartition(":")[2] == metric]
            states = [self.one(rule, trial, attempt, p) for p in places if p.rpartition(":")[0] not in named]
            state = worst(states) if states else "ERROR" if attempt["error"] else "INCONCLUSIVE"
        else:
            state = self.one(rule, trial, attempt, metric if output is None else f"{output}:{metric}")
        code = metric[8:] if metric.startswith("finding:") else None
        if state == "FAIL" and self.borne(
            trial, lambda d: d["rule"] == rule["rule"] or (code and d["finding"] == code)
        ):
            return "ACCEPTED"
        return state

    def borne(self, trial, means):
        known = enumerate(self.doc["deviations"])
        meant = [(n, d["expires"]) for n, d in known if means(d) and in_scope(d["scope"], trial, self.doc)]
        valid = [number for number, day in meant if day >= self.doc["today"]]
        self.used.update(valid[:1])
        self.expired.update(number for number, _ in meant if not valid)
        return bool(valid)

    def verdict(self, trial, attempt):
        if attempt["verdict"] != "FAIL":
            return attempt["verdict"]
        told = attempt["against"]
        left = [each for each in told if not self.borne(trial, lambda d, a=each: self.covers(d, a, trial))]
        if left or not attempt["against"]:
            return "FAIL"
        return "INCONCLUSIVE" if attempt["doubts"] else "ACCEPTED"

    def covers(self, deviation, against, trial):
        if against.startswith("finding:"):
            return deviation["finding"] == against[8:]
        if deviation["rule"] is None:
            return False
        metric, output, op, bound = parsed(deviation["rule"])
        required = any(
            r["rule"] == deviation["rule"] and r["required"] and applies(r, trial, self.doc) for r in self.doc["rules"]
        )
        if bound[0] != "absolute" or metric not in LIMITS or not required:
            return False
        where, _, limit = against[6:].rpartition(":")
        return output in (None, where) and limit == f"{metric}{op}{bound[1]:g}"

    def inputs(self, attempt):
        if attempt["random_inputs"]:
            return "INCONCLUSIVE"
        return "ERROR" if attempt["error"] and not attempt["facts"] else "PASS"

    def aside(self, trial, name):
        """A trial that decides nothing is one of float that a rule is relative to."""
        beside = [t for t in self.doc["trials"] if (t["model"], t["device"]) == (trial["model"], trial["device"])]
        floats = [rule for rule in self.doc["rules"] if parsed(rule["rule"])[3][0] == "float"]
        if trial["variant"] != "float" or not any(applies(rule, t, self.doc) for rule in floats for t in beside):
            yield f"{name}: it decides nothing, and no rule is relative to it"
        states = [each["verdict"] for each in trial["attempts"]]
        if trial["rules"] or trial["state"] != over(states) or [each["state"] for each in trial["attempts"]] != states:
            yield f"{name}: it is {trial['state']}, of {states}, with {len(trial['rules'])} rules"

    def shown(self, each, rule, trial, name):
        """What is shown of a rule is what it says, and what was measured."""
        metric, output, op, bound = parsed(rule["rule"])
        if (each["metric"], each["output"], each["op"], each["of"]["of"]) != (metric, output, op, bound[0]):
            yield f"{name}: {each['rule']} is {each['op']} of {each['metric']} of {each['output']}"
        if (each["required"], each["margin"]) != (rule["required"], rule["margin"]):
            yield f"{name}: {each['rule']} is required: {each['required']}, with a margin of {each['margin']}"
        if each["value"] is None:
            if each["state"] not in ("ERROR", "INCONCLUSIVE"):
                yield f"{name}: {each['rule']} is {each['state']} of nothing"
            return
        values, bounds = [], [] if bound[0] != "absolute" else [bound[1]]
        for attempt in trial["attempts"]:
            for place, value in attempt["facts"].items():
                if place == metric or (metric in OF_OUTPUTS and place.rpartition(":")[2] == metric):
                    values.append(value["value"])
                    base = None if bound[0] == "absolute" else self.base(metric, bound[0], trial, attempt, place)
                    ends = [] if base is None else [base["value"], base["low"], base["high"]]
                    bounds += [target(bound, end) for end in ends if end is not None]
        if not metric.startswith("finding:") and each["value"] not in values:
            yield f"{name}: {each['rule']} is shown with {each['value']}, which was not measured"
        if each["bound"] is not None and each["bound"] not in bounds:
            yield f"{name}: {each['rule']} is shown with the bound {each['bound']}, not of {bounds}"

    def problems(self):
        doc = self.doc
        decided = []
        for trial in doc["trials"]:
            name = f"{trial['model']}, {trial['variant']}, {trial['device']}"
            if trial["informative"]:
                yield from self.aside(trial, name)
                continue
            wanted = [rule for rule in doc["rules"] if applies(rule, trial, doc)]
            made = ["verdict", *(["inputs"] if doc["random_inputs"] == "inconclusive" else [])]
            told = [each["rule"] for each in trial["rules"]]
            if told != [*made, *(rule["rule"] for rule in wanted)]:
                yield f"{name}: its rules are {told}"
                continue
            tries = [[] for _ in trial["attempts"]]
            whole = []
            for each, rule in zip(trial["rules"], [None] * len(made) + wanted, strict=True):
                states = []
                for number, attempt in enumerate(trial["attempts"]):
                    if rule is not None:
                        state = self.rule(rule, trial, attempt, wanted)
                    else:
                        state = self.verdict(trial, attempt) if each["rule"] == "verdict" else self.inputs(attempt)
                    states.append(state)
                    tries[number] += [state] if rule is None or rule["required"] else []
                state = over(states)
                if (each["state"], list(each["attempts"])) != (state, states):
                    yield f"{name}: {each['rule']} is {each['state']} of {each['attempts']}, {state} of {states} here"
                if rule is not None:
                    yield from self.shown(each, rule, trial, name)
                whole += [state] if rule is None or rule["required"] else []
            if trial["state"] != worst(whole):
                yield f"{name}: it is {trial['state']}, {worst(whole)} here"
            if [worst(each) for each in tries] != [each["state"] for each in trial["attempts"]]:
                yield f"{name}: its attempts are {[each['state'] for each in trial['attempts']]}"
            decided.append(worst(whole))
        if doc["state"] != worst(decided):
            yield f"the whole is {doc['state']}, {worst(decided)} here"
        codes = sorted(each["code"] for each in doc["findings"] if each["code"].startswith("DEVIATION_"))
        unused = len(doc["deviations"]) - len(self.expired | self.used)
        if codes != ["DEVIATION_EXPIRED"] * len(self.expired) + ["DEVIATION_UNUSED"] * unused:
            yield f"its findings are {codes}; {len(self.expired)} deviations expired and {unused} are unused"


def check(path):
    return list(Checker(json.loads(Path(path).read_text("utf-8"))).problems())


if __name__ == "__main__":
    found = [problem for path in sys.argv[1:] for problem in check(path)]
    print("\n".join(found) or "as it should be")
    sys.exit(1 if found else 0)
