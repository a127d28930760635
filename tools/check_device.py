"""What is said of a device that does something else than this host with the same file."""

import re

from check_metrics import close, finding

# fmt: off
ARM64, X86 = ("aarch64", "arm64"), ("x86_64", "amd64", "i686", "i386")


def old(version):
    """Whether it is an MNN whose int8 kernels are known to be wrong."""
    found = re.match(r"\s*v?(\d{1,6})(?:\.(\d{1,6}))?(?:\.(\d{1,6}))?", version or "")
    return bool(found) and tuple(int(n or 0) for n in found.groups()) <= (3, 6, 1)


def less_wrong(plan, made):
    """Whether this host takes -1 < -2 for true: MNN's `<` of floats on x86."""
    return bool(made["facts"].get("less")) and plan["host"]["arch"].lower() in X86 and old(plan["host"]["mnn"])


def bounds(judge, method, memory, here, device):
    """Output, case, elements -> how far a device may be from this host: (bound, whether it is this model's own, and
    where it is what this host came to)."""
    floats, low = method in ("float", "fp16", "weight"), judge.plan["options"]["precision"] == "low"
    fixed, own = (60.0 if not low else 30.0) if floats else 20.0, {}
    noise = {}
    if here and not low and device["mnn"] == judge.plan["host"]["mnn"]:
        for each in here.get("moved", ()):
            for name, strayed in each["outputs"].items() if each["memory"] == memory else ():
                whole = judge.source["kinds"].get(name) == "int"
                value = strayed["mismatch" if whole else "sqnr_db"]
                if value is not None:
                    own.setdefault(name, {}).setdefault(each["case"], []).append(-value if whole else value)
                    if each["by"] == "noise" and (floats or value <= 90):
                        noise.setdefault((name, each["case"]), []).append(value)

    def of(name, case, n):
        tries, user = own.get(name, {}), judge.limits(name, method)[1]
        worst = min(tries[case]) if case in tries else None
        if judge.source["kinds"][name] == "int":
            return (0.0 if floats and not low else max(0.01, 1 / max(n, 1))) - 2 * (worst or 0.0), worst is not None, 0
        if user:
            return user["value"], True, 0
        if worst is None:
            return fixed, False, 0
        strained = case in judge.strain
        least = worst if strained else min(min(each) for at, each in tries.items() if at not in judge.strain)
        spread = noise.get((name, case), [0.0])
        chance = strained or n < 64 or max(spread) - min(spread) > 6 or least < worst - 20
        worst = least if chance or (worst > 90 and not floats) else worst
        if worst > 90 and not floats:
            return fixed, False, 0
        return min(fixed, worst - 12) if chance else min(60.0, worst - 8), True, worst

    return of


def beyond(judge, apart, of, floats):
    """What lies outside, with how far it is: (output, case) -> dB, and whether a bound was this model's own."""
    out = {}
    for name, cases in apart.items():
        scale = max((c["scale"] or 0.0 for c in cases.values()), default=0.0)
        steady = scale > 1e-6 and name not in judge.source["decisions"]
        for case, c in cases.items():
            bound, own, here = of(name, case, c["n"])
            bad = c["problem"] not in (None, "reference_nonfinite")
            if not bad and c["max_abs"] is not None and c["kind"] == judge.source["kinds"][name]:
                if c["kind"] == "int":
                    bad = c["mismatch"] > bound
                elif c["max_abs"] <= (min(1e-6, scale / 1000) if steady and here >= 20 else 1e-6):
                    pass
                elif c["sqnr_db"] is None:
                    bad = floats and c["max_abs"] > scale * 10 ** (-bound / 20)
                else:
                    bad = c["sqnr_db"] < bound
            if bad:
                out[name, case] = (-200.0 if c["sqnr_db"] is None else c["sqnr_db"], own)
    return out


def worst_of(out):
    return frozenset(name for (name, _), (value, _) in out.items() if close(value, min(v for v, _ in out.values())))


def band(judge, apart, total, here, made, device, host, memory):
    """What is said of a device that is farther from this host than rounding explains."""
    facts, plan, k = made["facts"], judge.plan["host"], device["facts"].get("mnn_kernels", {})
    arm, static, method = device["arch"] in ARM64, facts["static_tensors"] > 0, made["run_as"]["method"]
    i8mm = facts["half_tiles"] and arm and k.get("i8mm") is True and k.get("sme2") is not True
    explained = old(device["mnn"]) and (i8mm or ((facts["tails"] or facts.get("resizes")) and arm))
    pools = facts["max_pools"] and plan["arch"].lower() in X86 and old(plan["mnn"])
    method = "static" if static else method
    of = bounds(judge, method, memory, host, device)
    out = beyond(judge, apart, of, method in ("float", "fp16", "weight"))
    out = {(name, case): each for (name, case), each in out.items()
           if apart[name][case]["problem"] in (None, "reference_nonfinite")}
    if not out:
        wide = {name: of(name, case, c["n"]) for name, cases in apart.items() for case, c in cases.items()
                if judge.source["kinds"][name] == "float" and not judge.limits(name, method)[1]
                and of(name, case, c["n"])[1] and of(name, case, c["n"])[0] < 3}
        return [("MARGINAL", finding("DEVICE_BAND_WIDE", "warn", frozenset(wide)))] if wide else []
    names = {name for name, _ in out}
    sides = [(total.get(name, {}).get("sqnr_db"), here.get(name, {}).get("sqnr_db")) for name in names]
    if (pools or less_wrong(judge.plan, made)) and all(None not in side and side[0] > side[1] for side in sides):
        return [("INCONCLUSIVE", finding("HOST_MISCOMPUTES", "error", worst_of(out)))]
    sure = not static or explained or any(own for _, own in out.values())
    verdict, severity = ("FAIL", "fail") if sure else ("INCONCLUSIVE", "error")
    return [(verdict, finding("DEVICE_BEYOND_ROUNDING", severity, worst_of(out)))]


def kernels(judge, apart, here, there):
    """What is said of device and host with memory normal, where float kernels are all there is."""
    out = beyond(judge, apart, bounds(judge, "weight", "normal", here, there["device"]), True)
    if out:
        return [("FAIL", finding("FILE_OR_KERNEL_DIFFERS", "fail", worst_of(out)))]
    known = {each["case"] for each in here["normal"] if each["outputs"] is not None}
    lost = [each["case"] for each in there["normal"] if each["outputs"] is None and each["case"] in known]
    return [("INCONCLUSIVE", finding("FLOAT_KERNELS_UNCHECKED", "error", lost[0]))] if lost else []
