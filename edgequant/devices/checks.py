"""What is wrong with a device, judged from its facts, and the fix.  Pure functions: nothing is asked or changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgequant.devices.facts_cpu import ranges
from edgequant.devices.facts_model import DeviceFacts
from edgequant.devices.places import Place
from edgequant.devices.store import SPACE_MARGIN, unusable
from edgequant.errors import EdgequantError

LOW_SPACE = 500_000_000
"""Bytes; a model, its copy while it is pushed, and something to spare."""

HOT_CELSIUS = 80
"""Most phones and boards begin to slow down between 70 and 90 degrees."""

LOW_BATTERY = 20
ARM64 = ("aarch64", "arm64")
_BITS_64 = (*ARM64, "x86_64", "amd64", "riscv64", "ppc64le", "s390x", "loongarch64", "mips64")

Status = Literal["ok", "warn", "fail", "skipped"]


@dataclass(frozen=True)
class Check:
    """One step: its name, how it went, what was seen and, where it went wrong, the fix and the error's code."""

    name: str
    status: Status
    message: str
    fix: str | None = None
    code: str | None = None


def failed(name: str, error: EdgequantError) -> Check:
    """A step that an error ended."""
    return wrong(name, error.code, error.message, error.hint)


def wrong(name: str, code: str, message: str, fix: str | None) -> Check:
    """A step that found what an error of this code would tell."""
    return Check(name, "fail", f"{code}: {message}", fix, code)


def skipped(why: str, *names: str) -> list[Check]:
    return [Check(name, "skipped", why) for name in names]


def architecture(facts: DeviceFacts, pack: bool) -> Check:
    """Whether there are 64 bits; `pack`: whether the pack is to be used, which needs 64-bit ARM but nothing else."""
    name, arch = "architecture", facts.arch
    if arch is None:
        return Check(name, "warn", f"not known: {facts.why_null.get('arch', '')}", "Check that it is a Linux system.")
    shown = f"{arch}, {facts.cpu}" if facts.cpu else arch
    if arch.endswith("64") or arch in _BITS_64:
        if pack and arch not in ARM64:
            fix = "Install Python, MNN and NumPy there, and use --runtime system."
            return wrong(name, "PACK_ARCH", f"the pack is for 64-bit ARM, this is {shown}", fix)
        narrow = facts.userland_bits == 32 or (facts.abis and not any("64" in abi for abi in facts.abis))
        if not narrow:
            return Check(name, "ok", shown)
        message = f"{shown}: a 64-bit kernel, but the programs there are 32-bit only"
        if pack:
            return Check(name, "warn", message, "The pack brings 64-bit programs of its own; if they do not start, a "
                         "64-bit system is needed there.")  # fmt: skip
        fix = "There is no MNN for 32-bit Python: use --runtime pack, or install a 64-bit system."
        return Check(name, "warn", message, fix)
    why = "its kernel can do 64 bits, but runs 32-bit programs only" if arch == "armv8l" else "32-bit only"
    fix = "MNN's packages need 64 bits: where the CPU has them (ARMv8), install a 64-bit system; else build MNN for it "
    fix += "there, and name its Python with --python."
    return Check(name, "fail" if pack else "warn", f"{shown}: {why}", fix)


def work_directory(uri: str, place: Place | None, places: Sequence[Place]) -> Check:
    """Whether there is one, or can be."""
    name = "work directory"
    if place is None:
        said = "; ".join(each.why for each in places) or "the device said nothing"
        return failed(name, unusable(said, uri))
    how = {"ours": "made by edgequant", "free": "there, and empty"}.get(place.state, f"will be made in {place.near}")
    return Check(name, "ok", f"{place.root} ({how})")


def execution(place: Place, pack: bool, started: bool, usual: str | None = None) -> Check:
    """Whether programs may be started in the work directory, by how it is mounted; `started`: one has been.

    usual: the directory of such devices where they may, where there is one.
    """
    name = "execution"
    if started:
        return Check(name, "ok", f"a program in {place.root} was started")
    if not pack:
        return Check(name, "ok", "nothing is started from the work directory: Python reads the runner there")
    if place.noexec:
        fix = "Choose another directory with --work-dir"
        fix += f", such as {usual}." if usual not in (None, place.root) else "."
        said = f"programs may not be started in {place.root} ({place.mount} is mounted noexec)"
        return wrong(name, "WORK_DIR_NOEXEC", said, fix)
    if not place.mount:
        return Check(name, "skipped", "not known before something has been pushed: the device hides how it is mounted")
    return Check(name, "ok", f"{place.mount} is mounted without noexec")


def space(uri: str, place: Place, needed: int) -> Check:
    """Whether the file system has room; `needed`: bytes beside models."""
    name = "space"
    if place.free is None:
        return Check(name, "warn", f"df does not tell how much is free at {place.near}", "Make sure there is some.")
    shown = f"{place.free / 1e6:.0f} MB free at {place.near}"
    fix = f"Free some space there, run `edgequant devices clean {uri}`, or choose another place with --work-dir."
    if place.free < needed + SPACE_MARGIN:
        what = f"the pack takes {needed / 1e6:.0f} MB while it is unpacked" if needed else "nothing can be pushed"
        return wrong(name, "NO_SPACE", f"{shown}, {what}, and {SPACE_MARGIN / 1e6:.0f} MB must be left", fix)
    if place.free < needed + LOW_SPACE:
        return Check(name, "warn", f"{shown}: little for models", fix)
    return Check(name, "ok", shown)


def selinux(facts: DeviceFacts, denied: str | None) -> Check:
    """`denied`: the program that was not started although its mode and its file system allow it; None: no such."""
    name = "SELinux"
    if denied is not None and facts.selinux == "enforcing":
        return wrong(
            name,
            "SELINUX_DENIED",
            f"SELinux is enforcing, and {denied} is not started though its mode and mount allow it",
            "See `dmesg | grep avc` there for what it denied.  Choose a directory whose label may be executed with "
            "--work-dir (Android: /data/local/tmp/...; elsewhere a home directory, or `chcon -t bin_t`).",
        )
    if facts.selinux is None:
        return Check(name, "skipped", f"not known: {facts.why_null.get('selinux', '')}")
    return Check(name, "ok", facts.selinux)


def governor(facts: DeviceFacts) -> Check:
    name = "governor"
    if facts.governor is None:
        return Check(name, "skipped", f"not known: {facts.why_null.get('governor', '')}")
    held = [
        f"cores {ranges(each.cores)} are held at {each.limit_mhz} of {each.max_mhz} MHz"
        for each in facts.clusters or []
        if each.limit_mhz and each.max_mhz and each.limit_mhz < 0.98 * each.max_mhz
    ]
    said = "; ".join([f"the CPU frequency governor is {facts.governor}", *held])
    if facts.governor == "performance" and not held:
        return Check(name, "ok", said)
    return Check(name, "warn", said, "Latencies will vary with it; set it to performance while you measure."
                 if facts.governor != "performance" else "Let it cool down, or raise scaling_max_freq.")  # fmt: skip


def temperature(facts: DeviceFacts) -> Check:
    name = "temperature"
    if not facts.thermal:
        return Check(name, "skipped", f"not known: {facts.why_null.get('thermal', '')}")
    hottest = sorted(facts.thermal, key=lambda zone: -zone.celsius)
    hot = [zone for zone in hottest if zone.celsius >= HOT_CELSIUS]
    said = ", ".join(f"{zone.zone} {zone.celsius:.0f} C" for zone in (hot or hottest)[:5])
    if hot:
        return Check(name, "warn", f"hot: {said}", "Let it cool down: a hot device slows down, and latencies with it.")
    return Check(name, "ok", f"hottest: {said}")


def battery(facts: DeviceFacts) -> Check:
    name, found = "battery", facts.battery
    if found is None:
        return Check(name, "skipped", f"not known: {facts.why_null.get('battery', '')}")
    said = ", ".join([*([f"{found.level} %"] if found.level is not None else []), *filter(None, [found.status])])
    if found.level is not None and found.level < LOW_BATTERY and found.status == "Discharging":
        return Check(name, "warn", said, "Charge it: with little left devices slow down or switch off.")
    return Check(name, "ok", said or "there is one")
