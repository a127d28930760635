"""What a device says of itself, held against what else a run folder holds."""

from itertools import pairwise

from check_metrics import finding

# fmt: off


def clock(timing):
    """How many things speak against its times."""
    ms, waited = timing["samples_ms"], timing.get("seconds")
    found = int(bool(ms) and not any(ms))
    if waited is not None and ms:
        worked = sum(ms) / 1e3
        found += worked > 1.05 * waited + 0.1
        found += waited > 3 * (worked + timing["warmup"] * worked / len(ms)) + 2
    return found


def impossible(m):
    rss, peak, pss = m["rss"], m["rss_peak"], m["pss"]
    return rss == 0 or (rss is not None and ((peak is not None and peak + 4096 < rss)
                                             or (pss is not None and pss > rss + 4096)))


def memory(cap):
    seen = [m for m in (cap["loaded"], *(c["memory"] for c in cap["cases"] + cap["timings"])) if m]
    peaks = [m["rss_peak"] for m in seen if m["rss_peak"] is not None]
    if any(map(impossible, [cap["before"], *seen])) or any(b + 4096 < a for a, b in pairwise(peaks)):
        return ["MEMORY_IMPOSSIBLE"]
    before = next((c["memory"]["rss"] for c in reversed(cap["cases"]) if c["memory"]), None)
    t = cap["timings"][0] if cap["timings"] else None
    after = t and t["memory"] and t["memory"]["rss"]
    n = len(t["samples_ms"]) + t["warmup"] if t else 0
    grew = before is not None and after is not None and n > 1 and after - before > max(16384, 16 * n)
    return ["MEMORY_GROWS"] * grew


def differing(first, second):
    one, two = first["outputs"] or {}, second["outputs"] or {}
    return [name for name in {**one, **two} if one.get(name) != two.get(name)]


def repeats(judge, cap):
    """Whether it computes the same twice; where not, whether that takes another size before."""
    first, seen = {each["case"]: each for each in cap["cases"]}, cap["repeated"]
    changed = [(each, names) for each in seen if (names := differing(first[each["case"]], each))]
    if not changed:
        return (True if seen else None), []
    again, names = changed[0]
    both = [n for n in names if n in (first[again["case"]]["outputs"] or {}) and n in (again["outputs"] or {})]
    apart = [judge.pair(first[again["case"]], again, n)["sqnr_db"] for n in both]
    apart = min((db for db in apart if db is not None), default=None)
    shapes = {c["name"]: {n: ref["shape"] for n, ref in c["inputs"].items()} for c in judge.source["cases"]}
    ran = [c["case"] for c in cap["cases"] if c["outputs"] is not None]
    last, kept, moved, own = cap["timings"][0]["case"] if cap["timings"] else ran[-1], 0, 0, True
    for each in seen:
        name, other = each["case"], each in [one for one, _ in changed]
        place = ran.index(name)
        if shapes[name] == shapes[last] and (not place or shapes[ran[place - 1]] == shapes[name]):
            kept, own = kept + 1, own and not other
        else:
            moved += other
        last = name
    if apart is not None and apart < 60 and own and kept and moved:
        return False, [("FAIL", finding("STALE_SHAPE", "fail", names[0]))]
    return False, [("INCONCLUSIVE", finding("NOT_DETERMINISTIC", "error", names[0]))]


def settings(judge, cap, static):
    """Of another number of threads, and of what comes after another model."""
    first = {c["case"]: c for c in cap["cases"]}
    rounds = static or cap["memory_mode"] == "low" or judge.plan["options"]["precision"] == "low"
    for each in cap.get("settings", ()):
        once = first.get(each["case"])
        off = [n for n, ref in ((once and once["outputs"]) or {}).items() if each["outputs"].get(n) != ref]
        apart = [db for n in off if (db := judge.pair(once, each, n)["sqnr_db"]) is not None]
        if off and (each["kind"] == "model" or (apart and min(apart) < (20 if rounds else 60))):
            return [("INCONCLUSIVE", finding("NOT_DETERMINISTIC", "error", off[0]))]
    return []


def trust(cap, steady):
    """Findings, each of which leaves a run INCONCLUSIVE."""
    found, first = [(code, None) for code in memory(cap)], {c["case"]: c["outputs"] for c in cap["cases"]}
    for t in cap["timings"]:
        case, got = first.get(t["case"]), t.get("outputs")
        off = [n for n in case if got.get(n) != case[n]] if case and got is not None and steady else []
        if off:
            found.append(("TIMED_OTHER_OUTPUTS", off[0]))
            break
    for again in cap["repeated"]:
        once, got = first.get(again["case"]), again["outputs"]
        names = [n for n in {**(once or {}), **(got or {})} if once and got and once.get(n) != got.get(n)]
        others = [o for case, o in first.items() if case != again["case"] and o is not None]
        if names and any(all(got.get(n) == o.get(n) for n in names) for o in others):
            found.append(("OUTPUT_OF_OTHER_CASE", names[0]))
            break
    lost = [c["case"] for c in cap["repeated"] if c["refused"] is not None]
    found += [("REFUSED_AGAIN", lost[0])] if lost else []
    return [("INCONCLUSIVE", finding(code, "error", where)) for code, where in found]
