"""Which Python a device runs: its own, or the pack's, pushed once and unpacked there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from edgequant.deadline import Deadline
from edgequant.devices.protocol import Device
from edgequant.devices.store import Store
from edgequant.errors import DeviceError
from edgequant.pipeline.tree import Tree
from edgequant.progress import Progress

Runtime = Literal["auto", "pack", "system"]

PUSH_SECONDS = 600.0
_ARCH = ("aarch64", "arm64")


def wants_pack(device: Device, runtime: Runtime, python: str | None) -> bool:
    """Whether the pack is to be used.

    auto: on phones, which have no Python, unless the user names one; boards run what is installed there.
    """
    return runtime == "pack" or (runtime == "auto" and python is None and device.uri.startswith("adb://"))


def deploy(device: Device, store: Store, progress: Progress) -> Sequence[str]:
    """Make sure the device has the pack, unpacked; returns the command that starts its Python.

    Builds it on this host the first time.

    Raises DeviceError (PACK_ARCH, WORK_DIR_NOEXEC, PACK_NEEDS_LIBRARIES, PACK_NOT_UNPACKED, NO_SPACE, LINK_LOST,
    and what the store raises), ToolError or InputError from building.
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
    pack = build_pack(progress=progress)
    if pack.needs:
        raise DeviceError(
            "PACK_NEEDS_LIBRARIES",
            f"this pack has no C library of its own (it needs {', '.join(pack.needs)})",
            where=device.uri,
            hint="Build one on a host with apt and a Debian mirror, or give the packages with --inputs DIR.",
        )
    tree = Tree(device, store.root, pack)
    lacking = tree.lacking()
    if lacking:
        progress.say(f"the pack on the device is damaged ({lacking[0]}): unpacking it again")
        tree.drop()
    if lacking is None or lacking:
        tree.require_exec()
        # What tar adds to a file, a file system does too: parts of blocks that are filled, directories.
        room = pack.unpacked_size + 4096 * len(pack.files)
        with progress.transfer(f"push {pack.archive.name}", pack.size) as sent:
            stored = store.put(
                pack.archive, pack.sha256, Deadline(PUSH_SECONDS), size=pack.size, room=room, progress=sent
            )
        progress.say("unpacking the pack on the device")
        tree.unpack(stored.path)
    # An empty environment: LD_PRELOAD and the like are made for the device's own programs.
    return ("env", "-i", *pack.command(tree.folder))
