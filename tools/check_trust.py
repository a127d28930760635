"""What a device says of itself, held against what else a run folder holds."""

from itertools import pairwise

import numpy as np
from check_metrics import finding

# fmt: off


def clock(timing):
    """How many things speak against its times."""
    ms, waited = timing["samples_ms"], timing.get("seconds")
    found = int(bool(ms) and 2 * ms.count(0) > len(ms))
    first, second = (np.median(part or [0]) for part in (ms[:len(ms) // 2], ms[len(ms) - len(ms) // 2:]))
    found += len(ms) >= 10 and second > 2 * first > 0
    apart, looped = timing.get("apart_ms") or [0], timing.get("looped")
    found += bool(ms) and 10 * np.median(ms) + 0.3 < min(apart)
    if waited is not None and ms:
        worked = sum(ms) / 1e3
        found += worked > 1.05 * waited + 0.1
        slow = looped is not None and looped > 1.2 * max(worked, 0.5) + 0.3
        found += slow or waited > 3 * (worked + timing["warmup"] * worked / len(ms)) + 2
    return found


def few_threads(threads, asked):
    """Whether fewer threads than were asked for had anything of the CPU."""
    spent = [t["seconds"] for t in threads or ()]
    return bool(spent and max(spent) >= 0.1 and asked and sum(s > 0.002 * max(spent) for s in spent) < asked)


def impossible(m):
    rss, peak, pss = m["rss"], m["rss_peak"], m["pss"]
    return rss == 0 or (rss is not None and ((peak is not None and peak + 4096 < rss)
                                             or (pss is not None and pss > rss + 4096)))


def memory(cap, size):
    seen = [m for m in (cap["loaded"], *(c["memory"] for c in cap["cases"] + cap["timings"])) if m]
    peaks = [m["rss_peak"] for m in seen if m["rss_peak"] is not None]
    every = [cap["before"], *seen]
    frozen = size >= 1 << 18 and len(every) > 2 and all(m == every[0] for m in every)
    frozen = frozen and cap["loaded"]["rss"] is not None
    if frozen or any(map(impossible, every)) or any(b + 4096 < a for a, b in pairwise(peaks)):
        return ["MEMORY_IMPOSSIBLE"]
    before = next((c["memory"]["rss"] for c in reversed(cap["cases"]) if c["memory"]), None)
    t = cap["timings"][0] if cap["timings"] else None
    after = t and t["memory"] and t["memory"]["rss"]
    n = len(t["samples_ms"]) + t["warmup"] if t else 0
    grew = before is not None and after is not None and n > 1 and after - before > max(16384, 16 * n)
    return ["MEMORY_GROWS"] * grew


def trust(cap, steady, size):
    """Findings, each of which leaves a run INCONCLUSIVE."""
    found, first = [(code, None) for code in memory(cap, size)], {c["case"]: c["outputs"] for c in cap["cases"]}
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
