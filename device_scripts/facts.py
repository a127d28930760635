"""What this machine is.  Every fact is either read or None; nothing is guessed."""

from __future__ import annotations

import os
import re
from typing import Any, Dict, List, Optional

# CPU flags worth knowing for quantized inference, as /proc/cpuinfo spells them on ARM and on x86.
_FEATURES_ARM = ("asimd", "asimdhp", "asimddp", "fphp", "i8mm", "bf16", "sve", "sve2", "sme", "sme2", "neon", "vfpv4")
_FEATURES_X86 = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8")


def _text(path: str, limit: int = 1 << 20) -> Optional[str]:
    try:
        with open(path, "rb") as stream:
            return stream.read(limit).decode("utf-8", "replace").strip("\0\n ")
    except OSError:
        return None


def _cpu_name(cpuinfo: str) -> Optional[str]:
    for key in ("model name", "Hardware", "Processor"):
        found = re.search(r"^%s\s*:\s*(.+)$" % key, cpuinfo, re.MULTILINE)
        if found:
            return found.group(1).strip()
    parts = set(re.findall(r"^CPU part\s*:\s*(0x[0-9a-fA-F]+)$", cpuinfo, re.MULTILINE))
    return "ARM part " + "+".join(sorted(parts)) if parts else None


def _features(cpuinfo: str) -> Optional[List[str]]:
    found = re.search(r"^(?:Features|flags)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    if not found:
        return None
    flags = set(found.group(1).split())
    return [name for name in (*_FEATURES_ARM, *_FEATURES_X86) if name in flags]


def _os_name() -> Optional[str]:
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)', _text("/etc/os-release") or "", re.MULTILINE)
    return found.group(1) if found else None


def _ram_mb() -> Optional[int]:
    found = re.search(r"^MemTotal:\s+(\d+) kB", _text("/proc/meminfo") or "", re.MULTILINE)
    if found:
        return int(found.group(1)) // 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    except (ValueError, OSError):
        return None


def mnn_kernels(banner: str) -> Dict[str, bool]:
    """MNN's first line ("The device supports: i8sdot:0, fp16:0, ...") as a dict; empty where it printed none."""
    line = banner.partition("The device supports:")[2].partition("\n")[0]
    return {name: value != "0" for name, value in re.findall(r"(\w+)\s*:\s*(\d)", line)}


def read(banner: str) -> Dict[str, Any]:
    """Facts of this machine: arch, cpu, cores, RAM and so on; `banner` is what MNN printed when it was imported."""
    cpuinfo = _text("/proc/cpuinfo") or ""
    uname = os.uname()
    governor = _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "arch": uname.machine,
        "cpu": _cpu_name(cpuinfo),
        "features": _features(cpuinfo),
        "mnn_kernels": mnn_kernels(banner),
        "cores": os.cpu_count(),
        "ram_mb": _ram_mb(),
        "os": _os_name(),
        "kernel": "%s %s" % (uname.sysname, uname.release),
        "hostname": uname.nodename,
        "model": _text("/proc/device-tree/model") or _text("/sys/class/dmi/id/product_name"),
        "page_size": os.sysconf("SC_PAGE_SIZE"),
        "governor": governor,
    }
