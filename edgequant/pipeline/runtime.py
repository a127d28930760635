"""Which Python a device runs: its own, or the pack's, pushed once and unpacked there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from edgequant.deadline import Deadline
from edgequant.devices.protocol import Device
from edgequant.devices.store import Store
from edgequant.errors import DeviceError
from edgequant.pipeline.clock import Clock
from edgequant.progress import Progress

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


def wants_pack(device: Device, runtime: Runtime, python: str | None) -> bool:
    """Whether the pack is to be used.

    auto: on phones, which have no Python, unless the user names one; boards run what is installed there.
    """
    return runtime == "pack" or (runtime == "auto" and python is None and device.uri.startswith("adb://"))


def deploy(device: Device, store: Store, progress: Progress, clock: Clock | None = None) -> Sequence[str]:
    """Make sure the device has the pack, unpacked; returns the command that starts its Python.

    Builds it on this host the first time.

    Raises DeviceError (PACK_ARCH, WORK_DIR_NOEXEC, PACK_NEEDS_LIBRARIES, PACK_NOT_UNPACKED, and what the store raises),
    ToolError or InputError from building.
    """
    from edgequant.pack import build_pack

    machine = device.run(["uname", "-m"], Deadline(30)).stdout.decode("ascii", "replace").strip()
    if machine not in _ARCH:
        raise DeviceError(
            "PACK_ARCH",
            f"the pack is for 64-bit ARM, this is {machine or 'unknown'}",
            where=device.uri,
            hint="Install Python, MNN and NumPy there, and use --runtime system.",
        )
    clock = clock or Clock()
    with clock.phase("pack build"):
        pack = build_pack(progress=progress)
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
        with clock.phase("pack push"), progress.transfer(f"push {pack.archive.name}", pack.size) as sent:
            stored = store.put(pack.archive, pack.sha256, Deadline(600), size=pack.size, progress=sent)
        progress.say("unpacking the pack on the device")
        with clock.phase("pack unpack"):
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
    return ("env", "-i", *pack.command(folder))


def _unpack(device: Device, folder: str, archive: str) -> str:
    result = device.run(["sh", "-c", _UNPACK, "edgequant", folder, archive], Deadline(UNPACK_SECONDS))
    return (result.stdout if result.ok else result.stderr).decode("utf-8", "replace").strip()
