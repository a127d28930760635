"""What is said of a device that does something else than this host with the same file."""

import re

from check_metrics import close, finding

# fmt: off
ARM64, X86 = ("aarch64", "arm64"), ("x86_64", "amd64", "i686", "i386")


def old(version):
    """Whether it is an MNN whose int8 kernels are known to be wrong."""
    found = re.match(r"\s*v?(\d{1,6})(?:\.(\d{1,6}))?(?:\.(\d{1,6}))?", version or "")
    return bool(found) and tuple(int(n or 0) for n in found.groups()) <= (3, 6, 1)


def band(judge, apart, total, here, made, device):
    """What is said of a device that is farther from this host than rounding explains."""
    facts, host, k = made["facts"], judge.plan["host"], device["facts"].get("mnn_kernels", {})
    arm, static, method = device["arch"] in ARM64, facts["static_tensors"] > 0, made["run_as"]["method"]
    i8mm = facts["half_tiles"] and arm and k.get("i8mm") is True and k.get("sme2") is not True
    explained = old(device["mnn"]) and (i8mm or (facts["tails"] and arm))
    pools = facts["max_pools"] and host["arch"].lower() in X86 and old(host["mnn"])
    usual = 30.0 if judge.plan["options"]["precision"] == "low" else 60.0
    usual = 20.0 if static or method not in ("float", "fp16", "weight") else usual
    own = {name: judge.limits(name, method)[1] for name in apart}
    out = {name: s["sqnr_db"] for name, s in apart.items() if s["sqnr_db"] is not None and s["kind"] == "float"
           and s["sqnr_db"] < (own[name]["value"] if own[name] else usual)}
    if not out:
        return []
    where = frozenset(name for name, value in out.items() if close(value, min(out.values())))
    sides = [(total.get(name, {}).get("sqnr_db"), here.get(name, {}).get("sqnr_db")) for name in out]
    if pools and all(None not in side and side[0] > side[1] for side in sides):
        return [("INCONCLUSIVE", finding("HOST_MISCOMPUTES", "error", where))]
    sure = not static or explained or any(own[name] for name in out)
    verdict, severity = ("FAIL", "fail") if sure else ("INCONCLUSIVE", "error")
    return [(verdict, finding("DEVICE_BEYOND_ROUNDING", severity, where))]


def kernels(judge, apart, here, there):
    """What is said of device and host with memory normal, where float kernels are all there is."""
    usual, out = 30.0 if judge.plan["options"]["precision"] == "low" else 60.0, {}
    for name, cases in apart.items():
        own = judge.limits(name, "weight")[1]
        for case, c in cases.items():
            bad = c["problem"] not in (None, "reference_nonfinite")
            if not bad and c["max_abs"] is not None and c["kind"] == "int":
                bad = not c["exact"]
            elif not bad and c["max_abs"] is not None and c["max_abs"] > 1e-6:
                bad = c["sqnr_db"] is None or c["sqnr_db"] < (own["value"] if own else usual)
            if bad:
                out[name, case] = -200.0 if c["sqnr_db"] is None else c["sqnr_db"]
    if out:
        where = frozenset(name for (name, _), value in out.items() if close(value, min(out.values())))
        return [("FAIL", finding("FILE_OR_KERNEL_DIFFERS", "fail", where))]
    known = {each["case"] for each in here["normal"] if each["outputs"] is not None}
    lost = [each["case"] for each in there["normal"] if each["outputs"] is None and each["case"] in known]
    return [("INCONCLUSIVE", finding("FLOAT_KERNELS_UNCHECKED", "error", lost[0]))] if lost else []
