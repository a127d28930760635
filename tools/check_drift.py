"""What should be said of a rollout: computed anew from the arrays of the folder."""

import math

import numpy as np
from check_metrics import finding
from check_names import limit_text

# fmt: off


def decibels(signal, error):
    if error == 0 or math.isinf(error):
        return 200.0 if error == 0 else -200.0
    return float(min(200, max(-200, 20 * (math.log10(signal) - math.log10(error)))))


class Track:
    """The error of one output in each step that two sides have."""

    def __init__(self, one, two, kept, whole):
        both = [step for step in one["steps"] if step in two["steps"]]
        a, b = (kept[n][[each["steps"].index(step) for step in both]].reshape(len(both), -1)
                for n, each in enumerate((one, two)))
        self.steps, self.width, self.signal = both, a.shape[1], 1.0
        if whole:
            self.error = [float((x != y).mean()) for x, y in zip(a, b, strict=True)]
            return
        a, b = a.astype(float), b.astype(float)
        good = np.isfinite(a)
        self.signal = math.sqrt((a[good] ** 2).mean()) if good.any() else 0.0
        self.error = []
        for x, y, ok in zip(a, b, good, strict=True):
            lost = ok & ~np.isfinite(y)
            d = np.where(ok & ~lost, x - np.where(lost | ~ok, 0, y), 0.0)
            d[~ok] = 0.0
            self.error.append(math.inf if lost.any() else math.sqrt((d ** 2).mean()))

    def octaves(self):
        found = {}
        for place, step in enumerate(self.steps):
            found.setdefault((step - 1).bit_length(), []).append(place)
        return list(found.values())

    def blocks(self):
        """Octaves of at least 64 numbers."""
        found = []
        for places in self.octaves():
            if found and len(found[-1]) * self.width < 64:
                found[-1] += places
            else:
                found.append(list(places))
        if len(found) > 1 and len(found[-1]) * self.width < 64:
            last = found.pop()
            found[-1] += last
        return found

    def level(self, places):
        return math.sqrt(sum(self.error[p] ** 2 for p in places) / len(places))

    def at(self, step):
        return next((self.level(b) for b in self.blocks() if self.steps[b[-1]] >= step), 0.0)

    def curve(self):
        octaves = self.octaves()
        levels = [self.level(places) for places in octaves]
        db = [decibels(self.signal, level) for level in levels]
        n = max(4, len(db) // 2)
        slope = error = None
        if len(db) >= 4:
            y, x = -np.array(db[-n:]), np.arange(n) - (n - 1) / 2
            slope = float((x * y).sum() / (x * x).sum())
            error = float(math.sqrt(((y - y.mean() - slope * x) ** 2).sum() / (n - 2) / (x * x).sum()))
        half = len(levels) // 2
        early, late = max(levels[:max(1, half)]), max(levels[half:])
        kind = "steady"
        if not any(levels):
            kind = "exact"
        elif math.isinf(max(levels)) or (late >= self.signal and late >= 10 * early):
            kind = "explodes"
        elif slope is not None and slope > 0.5 and slope > 3 * error:
            kind = "grows"
        elif db[0] - float(np.median(db[half:])) > 3:
            kind = "saturates"
        exact = kind == "exact"
        return {"octaves": [[self.steps[p[-1]], d] for p, d in zip(octaves, db, strict=True)], "kind": kind,
                "slope_db": None if exact else slope, "slope_error": None if exact else error}

    def breaks(self, limit, whole):
        bound = limit["value"] if whole else self.signal * 10 ** (-limit["value"] / 20)
        for block in self.blocks():
            level = sum(self.error[p] for p in block) / len(block) if whole else self.level(block)
            if not level <= bound:
                return self.steps[next((p for p in block if not self.error[p] <= bound), block[0])]
        return None


class Rollout:
    def __init__(self, judge, cap, host, made, method):
        self.j, self.cap, self.made = judge, cap, made
        self.asked, self.local = judge.source["rollout"], cap["device"]["is_host"]
        rolled = judge.reference.get("rollout")
        self.s = judge.reference if judge.float and rolled else None
        self.f, self.q = judge.float or judge.reference, cap if self.local else host
        self.method = "static" if made["facts"]["static_tensors"] else made["run_as"]["method"]
        self.asks = method
        self.pairs = {"conversion": (self.s, self.f)} if self.s else {}
        self.pairs |= {"quantization": (self.f, self.q)} if self.q and made["run_as"]["method"] != "float" else {}
        self.pairs |= {"device": (self.q, cap)} if self.q and not self.local else {}

    def get(self, ref):
        return self.j.arrays[ref["sha256"]]

    def output(self, cap, name):
        return ((cap.get("rollout") or {}).get("outputs") or {}).get(name)

    def track(self, one, two, name):
        a, b = self.output(one, name), self.output(two, name)
        if not a or not b or not set(a["steps"]) & set(b["steps"]):
            return None
        x, y = self.get(a["kept"]), self.get(b["kept"])
        if x.shape[1:] != y.shape[1:] or not x.size:
            return None
        found = Track(a, b, (x, y), self.j.source["kinds"][name] == "int")
        return found if found.signal else None

    def own(self, cap, name):
        a, ref = self.output(cap, name), ((cap.get("rollout") or {}).get("moved") or {}).get(name)
        return Track(a, a, (self.get(a["kept"]), self.get(ref)), False) if a and ref else None

    def drifts(self):
        drift, found = {}, []
        for name, kind in self.j.source["kinds"].items():
            whole, total = kind == "int", self.track(self.s or self.f, self.cap, name)
            if not total:
                continue
            parts = {stage: t for stage, pair in self.pairs.items() if (t := self.track(*pair, name))}
            curves = {} if whole else {stage: t.curve() for stage, t in {"total": total, **parts}.items()}
            limits = [x for x in self.j.limits(name, self.asks)[0] if x["metric"] in ("sqnr_db", "mismatch")]
            limit = limits[0] if limits else None
            step, stage = total.breaks(limit, whole) if limit else None, None
            if step is not None:
                stage = max(parts, key=lambda each: parts[each].at(step)) if parts else "quantization"
                own = None if whole else self.own(self.s or self.f, name)
                stage = "model" if own and own.at(step) >= total.at(step) / 2 else stage
                carried = stage == "model"
                found.append(("INCONCLUSIVE" if carried else "FAIL",
                              finding("RECURRENT_DRIFT", "error" if carried else "fail", name)))
            if curves:
                drift[name] = {"curves": curves, "limit": limit and limit_text(limit), "breaks_at": step,
                               "stage": stage}
        return drift, found

    def beyond(self, stage):
        """The first step in which a stage is farther off than rounding goes."""
        if stage not in self.pairs:
            return []
        (one, two), best, plan = self.pairs[stage], None, self.j.plan
        low, floats = plan["options"]["precision"] == "low", self.method in ("float", "fp16", "weight")
        for name, kind in self.j.source["kinds"].items():
            track = self.track(one, two, name) if kind == "float" else None
            if not track:
                continue
            db, known = 80.0, True
            if stage == "device":
                asked = self.j.limits(name, self.asks)[1]
                fixed = (60.0 if not low else 30.0) if floats else 20.0
                db = asked["value"] if asked else fixed
                known = self.cap["device"]["mnn"] == plan["host"]["mnn"] and not low and db == fixed
            own = self.own(one, name) if known else None
            bounds = [track.signal * 10 ** (-db / 20)] * len(track.steps)
            if own:
                sharp = db if stage == "conversion" or floats else 60.0
                worst = lambda step, own=own: max(  # noqa: E731
                    e for s, e in zip(own.steps, own.error, strict=True) if s <= 2 * step)
                bounds = [max(track.signal * 10 ** (-sharp / 20), 10 ** 0.6 * worst(step)) for step in track.steps]
            if stage == "conversion":
                bounds = [max(bound, 10 ** 0.6 * track.error[0]) for bound in bounds]
            off = [s for s, e, b in zip(track.steps, track.error, bounds, strict=True) if not e <= b]
            stats = [self.get(self.output(each, name)["stats"]) for each in (one, two)]
            place = 0
            for step, (a, b) in enumerate(zip(*stats, strict=False), 1):
                while place < len(track.steps) - 1 and track.steps[place] < step:
                    place += 1
                apart = math.inf if a[4] != b[4] else max(abs(a[2] - b[2]), abs(a[3] - b[3]))
                off += [step] * (not apart <= max(bounds[place], 1e-6 * track.signal))
            if off and (best is None or min(off) < best[0]):
                best = min(off), name
        return [("FAIL", finding("RECURRENT_DRIFT", "fail", best[1]))] if best else []

    def same(self, cap, name, step, array):
        """Whether a step by itself is the one of the rollout: in every bit, and nearly."""
        each = self.output(cap, name)
        if not each or step not in each["steps"]:
            return None
        kept = self.get(each["kept"])
        loop = kept[each["steps"].index(step)]
        if loop.shape != array.shape or np.array_equal(loop, array, equal_nan=loop.dtype.kind == "f"):
            return loop.shape == array.shape, loop.shape == array.shape
        if loop.dtype.kind != "f":
            return False, False
        numbers = kept.astype(float)[np.isfinite(kept)]
        signal = math.sqrt((numbers ** 2).mean()) if numbers.size else 0.0
        return False, bool(math.sqrt(((loop.astype(float) - array.astype(float)) ** 2).mean()) <= 1e-6 * signal)

    def ignored(self):
        sides = [("source", self.s or self.f)]
        sides += [(stage, pair[1]) for stage, pair in self.pairs.items() if pair[1] is not sides[0][1]]
        found = []
        for name in self.asked["feedback"]:
            for stage, cap in sides:
                alone = next((r for r in (cap.get("rollout") or {}).get("replays", ()) if r["fixed"] == name), None)
                told = alone and [self.same(cap, o, 2, self.get(ref)) for o, ref in alone["outputs"].items()]
                if alone and all(each is not None and each[0] for each in told):
                    own = stage == "source"
                    found.append(("INCONCLUSIVE" if own else "FAIL",
                                  finding("STATE_IGNORED", "error" if own else "fail", name)))
                    break
        return found

    def altered(self):
        for cap, device in ((self.cap, True), (self.q, False), (self.f, False)):
            rolled, off = (cap or {}).get("rollout") or {}, []
            for replay in rolled.get("replays", ()):
                for name, ref in replay["outputs"].items() if replay["fixed"] is None else ():
                    told = self.same(cap, name, replay["step"], self.get(ref))
                    off += [(replay["step"], "STATE_ALTERED", name)] * (told is not None and not told[1])
            for name, ref in rolled.get("again", {}).items():
                again = self.get(ref)
                if self.output(cap, name)["steps"][:len(again)] == list(range(1, len(again) + 1)):
                    off += [(n, "STATE_STALE", name) for n, each in enumerate(again, 1)
                            if not self.same(cap, name, n, each)[1]]
            if off:
                _, code, name = min(off, key=lambda each: each[0])
                return [("FAIL" if device else "INCONCLUSIVE", finding(code, "fail" if device else "error", name))]
        return []

    def missing(self):
        sides = ("source", self.s), ("conversion", self.f), ("quantization", self.q), ("device", self.cap)
        for stage, cap in sides:
            told = cap and cap.get("rollout")
            if not cap or (told and not told["failure"] and told["done"] >= self.asked["steps"]):
                continue
            failed = not told or told["failure"]
            models = bool(failed and told and stage in ("conversion", "quantization"))
            code = "ROLLOUT_FAILED" if failed else "ROLLOUT_SHORT"
            return [("FAIL" if models else "INCONCLUSIVE", finding(code, "fail" if models else "error", stage))]
        return []


def rolled(judge, cap, host, made, method):
    """What the report says of a rollout, and the findings with their verdicts."""
    if not judge.source.get("rollout"):
        return {"rollout_steps": None, "drift": {}}, []
    r = Rollout(judge, cap, host, made, method)
    drift, found = r.drifts()
    found = r.missing() + found + r.beyond("conversion") + r.beyond("device") + r.ignored() + r.altered()
    return {"rollout_steps": (cap["rollout"] or {}).get("done", 0) if cap.get("rollout") else 0, "drift": drift}, found
