"""Whether int8 costs more on the device than on this host, with the same file."""

import math

import numpy as np
from check_device import less_wrong, old
from check_metrics import finding

# fmt: off


def decibels(errors):
    return 10 * math.log10(np.mean(errors))


def worse(judge, made, host, cap, device):
    """What leaves a run a FAIL."""
    static, plan = made["facts"]["static_tensors"] > 0, judge.plan
    pools = made["facts"]["max_pools"] and plan["host"]["arch"].lower() in ("x86_64", "amd64", "i686", "i386")
    wrong = (pools and old(plan["host"]["mnn"])) or less_wrong(plan, made)
    low = plan["options"]["precision"] == "low"
    if not host or host["failure"] or wrong or low or device["mnn"] != plan["host"]["mnn"]:
        return []
    if host["memory_mode"] == "low" and not static:
        sides = [judge.each(each["normal"], each["cases"]) for each in (host, cap)]
    elif static:
        sides = [judge.each((judge.float or judge.reference)["cases"], each["cases"]) for each in (host, cap)]
    else:
        return []
    tries = {}
    for each in host.get("moved", ()):
        for name, strayed in each["outputs"].items() if each["memory"] == host["memory_mode"] else ():
            if strayed.get("rounding_db") is not None:
                tries.setdefault((name, each["case"]), []).append(10 ** (-strayed["rounding_db"] / 10))
    beyond = {}
    for name in sides[0]:
        user = judge.limits(name, made["run_as"]["method"])[1]
        skip = judge.source["decisions"].get(name) in ("ordered", "set") or (user and user["value"] < 20)
        found, n = [], 0
        for case, here in sides[0][name].items() if judge.source["kinds"][name] == "float" and not skip else ():
            there, own = sides[1].get(name, {}).get(case), tries.get((name, case), ())
            if case in judge.strain or there is None or len(own) < 3 or there["problem"]:
                continue
            if None in (here["sqnr_db"], there["sqnr_db"]) or here["sqnr_db"] > 90 or there["max_abs"] <= 1e-6:
                continue
            found.append((10 ** (-there["sqnr_db"] / 10), [10 ** (-here["sqnr_db"] / 10), *own]))
            n += here["n"]
        if not found or n < 64:
            continue
        pooled = [np.mean(each) for each in zip(*(own for _, own in found), strict=False)]
        apart = sorted(decibels(error) - np.mean([decibels(each) for each in own]) for error, own in found)
        excess = min(apart[(len(apart) - 1) // 2], decibels([error for error, _ in found]) - decibels(pooled))
        within = np.mean([np.var([decibels(each) for each in own], ddof=1) for _, own in found]) / len(found)
        spread = max(np.std([decibels(each) for each in pooled], ddof=1), math.sqrt(within))
        bound = (0.5 + 6 * spread) * (2 if len(found) == 1 else 1)
        if excess > bound:
            beyond[name] = excess - bound
    most = max(beyond.values(), default=0)
    where = frozenset(name for name, each in beyond.items() if math.isclose(each, most, rel_tol=1e-6))
    return [("FAIL", finding("DEVICE_INT8_WORSE", "fail", where))] if beyond else []
