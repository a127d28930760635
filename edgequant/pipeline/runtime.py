"""Which Python a device runs: its own, or the pack's, pushed once and unpacked there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgequant.deadline import Deadline
from edgequant.devices.protocol import Device
from edgequant.devices.store import Store
from edgequant.errors import DeviceError, EdgequantError
from edgequant.progress import Progress

if TYPE_CHECKING:
    from edgequant.pack import WantedPack

Runtime = Literal["auto", "pack", "system"]

UNPACK_SECONDS = 300.0
_ARCH = ("aarch64", "arm64")

# A folder has its name only when it is whole: tar has ended well, and its files have reached the disk.
_UNPACK = r"""
export LC_ALL=C
umask 077
folder=$1 archive=$2
[ -d "$folder" ] && { echo ok; exit 0; }
[ -n "$archive" ] || { echo missing; exit 0; }
new=$folder.new.$$
rm -rf "$folder".new.*
mkdir -p "$new" && cd "$new" || exit 1
gzip -dc < "$archive" > pack.tar && tar xf pack.tar && rm -f pack.tar || { cd /; rm -rf "$new"; exit 1; }
sync
mv "$new" "$folder" && echo ok
"""

# Whether programs may be started there, asked before 24 MB are sent: 126 is "found, but cannot be executed".
_PROBE = r"""
file=$1/incoming/.probe
printf '#!/bin/sh\nexit 0\n' > "$file" && chmod 700 "$file" || exit 0
"$file" >/dev/null 2>&1
code=$?
rm -f "$file"
[ $code -ne 126 ] || echo noexec
"""


# With these `auto` goes on with what the device has itself: the pack cannot be had or does not fit, though the device
# may be fine.  A lost link or a push that came to grief is no reason to measure something else than was meant.
_NOT_HERE = ("WORK_DIR_NOEXEC", "NO_SPACE", "PACK_NEEDS_LIBRARIES")


@dataclass(frozen=True)
class Chosen:
    """What runs the runner.

    Attributes:
        python: the command that starts Python there.
        runtime: "pack" or "system".
        pack: SHA-256 of the pack; None for the device's own.
        instead: why `auto` did not take the pack although the device could run it; None where it did not have to.
    """

    python: tuple[str, ...]
    runtime: Literal["pack", "system"]
    pack: str | None = None
    instead: EdgequantError | None = None


def choose(
    device: Device, store: Store, progress: Progress, *, runtime: Runtime, python: str | None, wanted: WantedPack
) -> Chosen:
    """Decide, and make sure that it is there.

    auto is the pack wherever it runs, so that all devices run the same bits; else, and where the user names a Python,
    what the device has.

    Raises what `deploy` raises, unless auto can do without.
    """
    if device.brings_runtime:
        return Chosen(tuple(device.python), "pack", device.pack_sha256)
    if not wants_pack(device, runtime, python):
        if wanted:
            raise DeviceError(
                "PACK_NOT_WANTED",
                f"{wanted} was asked for, but what runs there is the Python and the MNN that are installed there",
                where=device.uri,
                hint="64-bit ARM devices run a pack, without --python and --runtime system.  For others install that "
                "version of MNN there.",
            )
        return Chosen(tuple(device.python), "system")
    try:
        return deploy(device, store, progress, wanted)
    except EdgequantError as error:
        possible = error.code in _NOT_HERE or (error.where is None and error.code.startswith("PACK_"))
        # A phone has nothing else; and whoever asks for one pack means that one.
        if runtime == "pack" or wanted or not possible or device.uri.startswith("adb://"):
            raise
        progress.say(f"{device.uri} runs its own Python, not the pack ({error.code}: {error})")
        return Chosen(tuple(device.python), "system", instead=error)


def wants_pack(device: Device, runtime: Runtime, python: str | None) -> bool:
    """Whether the pack is to be used, as far as can be told without building it.

    Raises DeviceError (LINK_LOST), DeadlineExceeded.
    """
    if runtime != "auto" or python is not None or device.is_host:
        return runtime == "pack"
    return device.uri.startswith("adb://") or _machine(device) in _ARCH


def _machine(device: Device) -> str:
    """What the kernel calls the CPU; "" where it is no Linux."""
    said = device.run(["uname", "-sm"], Deadline(30), max_output=4096).stdout.decode("ascii", "replace").split()
    return said[1] if len(said) == 2 and said[0] == "Linux" else ""


def deploy(device: Device, store: Store, progress: Progress, wanted: WantedPack | None = None) -> Chosen:
    """Make sure the device has the pack, unpacked.  Builds it on this host the first time.

    Raises DeviceError (PACK_ARCH, WORK_DIR_NOEXEC, PACK_NEEDS_LIBRARIES, PACK_NOT_UNPACKED, and what the store raises),
    ToolError or InputError from building.
    """
    from edgequant.pack import WantedPack

    machine = _machine(device)
    if machine not in _ARCH:
        raise DeviceError(
            "PACK_ARCH",
            f"the pack is for 64-bit ARM, this is {machine or 'none'}",
            where=device.uri,
            hint="Install Python, MNN and NumPy there, and use --runtime system.",
        )
    pack = (wanted or WantedPack()).get(progress)
    if pack.needs:
        raise DeviceError(
            "PACK_NEEDS_LIBRARIES",
            f"this pack has no C library of its own (it needs {', '.join(pack.needs)})",
            where=device.uri,
            hint="Build one on a host with apt and a Debian mirror, or give the packages with --inputs DIR.",
        )
    folder = f"{store.root}/packs/{pack.sha256}"
    if _unpack(device, folder, "") != "ok":
        probed = device.run(["sh", "-c", _PROBE, "edgequant", store.root], Deadline(30)).stdout.strip()
        if probed == b"noexec":
            raise DeviceError(
                "WORK_DIR_NOEXEC",
                f"programs may not be started in {store.root}",
                where=device.uri,
                hint="Choose another directory with --work-dir; on phones /data/local/tmp/... is one.",
            )
        with progress.transfer(f"push {pack.archive.name}", pack.size) as sent:
            stored = store.put(pack.archive, pack.sha256, Deadline(600), size=pack.size, progress=sent)
        progress.say("unpacking the pack on the device")
        said = _unpack(device, folder, stored.path)
        if said != "ok":
            raise DeviceError(
                "PACK_NOT_UNPACKED",
                f"the pack could not be unpacked: {said[:500] or 'no reason given'}",
                where=device.uri,
                hint=f"It takes {pack.unpacked_size / 1e6:.0f} MB there, in a directory where programs may be started: "
                "choose another with --work-dir.",
            )
    # An empty environment: LD_PRELOAD and the like are made for the device's own programs.
    return Chosen(("env", "-i", *pack.command(folder)), "pack", pack.sha256)


def _unpack(device: Device, folder: str, archive: str) -> str:
    result = device.run(["sh", "-c", _UNPACK, "edgequant", folder, archive], Deadline(UNPACK_SECONDS))
    return (result.stdout if result.ok else result.stderr).decode("utf-8", "replace").strip()
