"""Wheels for another architecture and another Python, from the registry pip is set up to use."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edgequant.errors import InputError, ToolError

_TIMEOUT = 900.0
# glibc of the pack is 2.36; what is built for an older one runs on it.
_PLATFORMS = ("manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in range(17, 36)))


@dataclass(frozen=True)
class WheelName:
    """What a wheel's file name says."""

    name: str
    version: str
    pythons: tuple[str, ...]
    abis: tuple[str, ...]
    platforms: tuple[str, ...]


def parse_wheel_name(file: str) -> WheelName:
    """Raises InputError (PACK_WHEEL_INVALID)."""
    parts = file.removesuffix(".whl").split("-")
    if not file.endswith(".whl") or len(parts) not in (5, 6):
        raise InputError(
            "PACK_WHEEL_INVALID",
            f"{file[:200]} is not the name of a wheel",
            hint="It has to be as `pip wheel` made it: NAME-VERSION-PYTHON-ABI-PLATFORM.whl.",
        )
    pythons, abis, platforms = (tuple(part.split(".")) for part in parts[-3:])
    return WheelName(parts[0], parts[1], pythons, abis, platforms)


def require_wheel_for(wheel: Path, python: str) -> WheelName:
    """Refuse an MNN wheel that aarch64 Linux with Python `python` ("3.11") cannot load.

    Raises InputError (PACK_WHEEL_INVALID, PACK_WHEEL_ARCH, PACK_WHEEL_PYTHON).
    """
    if not wheel.is_file():
        raise InputError("PACK_WHEEL_INVALID", f"there is no wheel {wheel}")
    name = parse_wheel_name(wheel.name)
    if name.name.lower() != "mnn":
        raise InputError("PACK_WHEEL_INVALID", f"{wheel.name} is a wheel of {name.name}, not of MNN")
    # A wheel built on a board is called linux_aarch64; musl is another C library than the pack's.
    if not any(re.match(r"(many)?linux.*_aarch64$", platform) for platform in name.platforms):
        raise InputError(
            "PACK_WHEEL_ARCH",
            f"{wheel.name} is for {', '.join(name.platforms)}, the pack needs Linux on aarch64 with glibc",
            hint="Give the wheel whose name ends with linux_aarch64.whl or manylinux..._aarch64.whl.",
        )
    tag = _tag(python)
    stable = "abi3" in name.abis and any(_older(other, tag) for other in name.pythons)
    if tag not in name.pythons and not stable:
        raise InputError(
            "PACK_WHEEL_PYTHON",
            f"{wheel.name} is for {', '.join(name.pythons)}, the pack has Python {python}",
            hint=f"Give the wheel with {tag}-{tag} in its name, or another Python with --from.",
        )
    return name


def download(requirement: str, python: str, into: Path) -> Path:
    """Fetch one wheel, such as "numpy" or "MNN==3.5.0", without what it depends on.

    Raises ToolError: PACK_NO_WHEEL (there is none for aarch64 and this Python), PACK_REGISTRY, DISK_FULL.
    """
    tag = _tag(python)
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary=:all:"]
    target = [f"--platform={platform}" for platform in _PLATFORMS]
    target += [f"--python-version={python}", "--implementation=cp", f"--abi={tag}", "--abi=abi3", "--abi=none"]
    command = [sys.executable, "-m", "pip", "download", *options, *target, "--dest", str(into), requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, stdin=subprocess.DEVNULL)
        log, well = done.stderr.strip().splitlines(), done.returncode == 0
    except subprocess.TimeoutExpired:
        well = False
        log = [f"no answer within {_TIMEOUT:.0f} s"]
    distribution = re.split(r"[=<>]", requirement)[0].lower()
    found = [path for path in into.glob("*.whl") if path.name.lower().startswith(f"{distribution}-")]
    # On a full disk pip leaves the beginning of a wheel behind.
    if well and found:
        return found[0]
    said = "\n".join(log)
    if "No space left" in said:
        from edgequant.pack.apt import disk_full

        raise disk_full(into)
    unreachable = re.search(r"Retrying|Connection|timed out|no answer|ProxyError|SSLError|HTTP error", said)
    if "No matching distribution" in said and not unreachable:
        versions = re.search(r"\(from versions: (.*?)\)", said)
        known = versions[1] if versions and versions[1] != "none" else None
        raise ToolError(
            "PACK_NO_WHEEL",
            f"the package registry has no wheel of {requirement} for aarch64 and Python {python}",
            hint=f"It has: {known}." if known else "Give a wheel of your own with --wheel FILE.",
            evidence={"log": log[-20:]},
        )
    hint = f"See what `pip download --no-deps {requirement}` says: it needs a package registry that answers."
    if "No module named pip" in said:
        hint = "Install pip into this environment."
    errors = [line for line in log if line.startswith("ERROR")] or log
    raise ToolError(
        "PACK_REGISTRY",
        f"pip could not fetch {requirement}: {errors[-1][:300] if errors else 'it gave no reason'}",
        hint=hint,
        evidence={"log": log[-20:]},
    )


def _tag(python: str) -> str:
    return "cp" + python.replace(".", "")


def _older(tag: str, than: str) -> bool:
    first, second = (re.match(r"cp3(\d+)$", each) for each in (tag, than))
    return first is not None and second is not None and int(first[1]) <= int(second[1])
