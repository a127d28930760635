"""Whether int8 costs more on the device than on this host, with the same file."""

import math

import numpy as np
from check_device import less_wrong, old
from check_metrics import finding

# fmt: off


def decibels(errors):
    return 10 * math.log10(np.mean(errors))


def spread(own):
    return np.std([decibels(each) for each in own], ddof=1)


def apart(error, own):
    return decibels(error) - np.mean([decibels(each) for each in own])


def pooled(found):
    """Excess and its spread, all cases together."""
    tries = [np.mean(each) for each in zip(*(own for _, _, own, _ in found), strict=False)]
    within = math.sqrt(np.mean([spread(own) ** 2 for _, _, own, _ in found]) / len(found))
    return decibels([error for _, error, *_ in found]) - decibels(tries), max(spread(tries), within)


def weighed(found):
    """The same by how well this host agrees with itself."""
    spreads = [spread(own) for _, _, own, _ in found]
    usual = np.median(spreads)
    weights = [1 / max(max(each, usual) ** 2 * (1 + 1 / len(own)), 1e-4)
               for each, (_, _, own, _) in zip(spreads, found, strict=True)]
    return np.average([apart(error, own) for _, error, own, _ in found], weights=weights), sum(weights) ** -0.5


def look(found, how):
    """By how much it is beyond what is allowed."""
    excess, error = how(found)
    each = sorted(apart(error, own) for _, error, own, _ in found)
    return min(each[(len(each) - 1) // 2], excess) - (0.5 + 6 * error) * (2 if len(found) == 1 else 1)


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
        found = []
        for case, here in sides[0][name].items() if judge.source["kinds"][name] == "float" and not skip else ():
            there, own = sides[1].get(name, {}).get(case), tries.get((name, case), ())
            if there is None or len(own) < 3 or there["problem"] or None in (here["sqnr_db"], there["sqnr_db"]):
                continue
            if here["sqnr_db"] <= 90 and there["max_abs"] > 1e-6:
                errors = [10 ** (-here["sqnr_db"] / 10), *own]
                found.append((case, 10 ** (-there["sqnr_db"] / 10), errors, here["n"]))
        held = [each for each in found if each[0] not in judge.strain]
        excess = max([look(each, how) for each, how in ((held, pooled), (found, weighed))
                      if sum(n for *_, n in each) >= 64], default=0)
        if excess > 0:
            beyond[name] = excess
    most = max(beyond.values(), default=0)
    where = frozenset(name for name, each in beyond.items() if math.isclose(each, most, rel_tol=1e-6))
    return [("FAIL", finding("DEVICE_INT8_WORSE", "fail", where))] if beyond else []
