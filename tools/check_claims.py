"""What a device says that it is, held against what a shell there saw of the runner."""

import re

from check_metrics import ANY, finding
from check_trust import few_threads

# fmt: off
ELF = {3: "x86", 40: "arm", 62: "x86", 183: "arm", 243: "riscv"}
FLAGS = {"i8sdot": "asimddp", "fp16": "asimdhp", "i8mm": "i8mm", "sve2": "sve2", "sme2": "sme2"}


def family(arch):
    name = (arch or "").lower()
    arm, x86 = name == "aarch64" or name.startswith("arm"), name in ("x86_64", "amd64", "i386", "i586", "i686")
    return "arm" if arm else "x86" if x86 else "riscv" if name.startswith("riscv") else None


def kernels(device, seen):
    """Whether MNN names kernels that this CPU has not."""
    arch, facts = (seen["machine"] or device["arch"] or "").lower(), device["facts"]
    named = [k for k, on in (facts.get("mnn_kernels") or {}).items() if on and k in FLAGS]
    if family(arch) in ("x86", "riscv") or not device["features"]:
        return bool(named) and family(arch) == "x86"
    table = facts.get("android") is not None or arch not in ("aarch64", "arm64")
    return any(FLAGS[k] not in device["features"] and not (table and k in ("i8sdot", "fp16")) for k in named)


def cores(device, seen, asked, threads):
    most = max(device["cores"] or 0, device["facts"].get("usable_cores") or 0)
    if seen["cores"] is not None and most > seen["cores"]:
        return True
    top = max((t["seconds"] for t in threads), default=0)
    ran = {t["core"] for t in threads if t["core"] is not None and t["seconds"] > 0.05 * top > 0}
    return bool(asked and seen["allowed"]) and (set(seen["allowed"]) != set(asked) or not ran <= set(asked))


def release(version):
    found = re.match(r"\s*v?(\d{1,6})(?:\.(\d{1,6}))?(?:\.(\d{1,6}))?", version or "")
    return tuple(int(n or 0) for n in found.groups()) if found else version


def claims(cap, options):
    seen, device = cap.get("witness"), cap["device"]
    if not seen or not device:
        return []
    if seen["why"] is not None:
        return [("PASS", finding("CLAIMS_UNCHECKED", "warn", device["uri"]))]
    timed, codes, files = (cap["timings"] or [{}])[0].get("threads") or [], [], seen["libraries"]
    told = {family(device["arch"]), family(seen["machine"]), *(ELF.get(f["machine"]) for f in files)} - {None}
    codes += ["ARCH_CONTRADICTED"] * (len(told) > 1) + ["KERNELS_CONTRADICTED"] * kernels(device, seen)
    codes += ["CORES_CONTRADICTED"] * cores(device, seen, options["cores"], timed)
    codes += ["THREADS_NOT_RUN"] * few_threads(timed, cap["threads"])
    found = [("INCONCLUSIVE", finding(code, "error", device["uri"])) for code in codes]
    if device["mnn"] is None or not files:
        return found
    for f in files:
        if f["recorded"] and f["sha256"] is not None and f["sha256"] not in f["recorded"]:
            verdict, level = ("INCONCLUSIVE", "error") if f["sent"] else ("PASS", "warn")
            found.append((verdict, finding("MNN_LIBRARY_OTHER", level, device["uri"], ANY)))
    packages = {release(p) for f in files if f["sha256"] in f["recorded"] for p in f["packages"]}
    if (packages and release(device["mnn"]) not in packages) or all(f["has_version"] is False for f in files):
        found.append(("INCONCLUSIVE", finding("MNN_VERSION_CONTRADICTED", "error", device["uri"])))
    return found
