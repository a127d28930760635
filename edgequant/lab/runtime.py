"""Which Python a device runs: its own, or the pack's, pushed once and unpacked there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgequant.clock import Clock
from edgequant.deadline import Deadline
from edgequant.devices.protocol import Device
from edgequant.devices.store import Store
from edgequant.errors import DeviceError, EdgequantError
from edgequant.lab.tree import Tree
from edgequant.progress import Progress

if TYPE_CHECKING:
    from edgequant.pack import WantedPack

Runtime = Literal["auto", "pack", "system"]

PUSH_SECONDS = 600.0
_ARCH = ("aarch64", "arm64")


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
    device: Device,
    store: Store,
    progress: Progress,
    *,
    runtime: Runtime,
    python: str | None,
    wanted: WantedPack,
    clock: Clock | None = None,
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
        return deploy(device, store, progress, wanted, clock)
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


def deploy(
    device: Device,
    store: Store,
    progress: Progress,
    wanted: WantedPack | None = None,
    clock: Clock | None = None,
) -> Chosen:
    """Make sure the device has the pack, unpacked.  Builds it on this host the first time.  `clock` gets the phases.

    Raises DeviceError (PACK_ARCH, WORK_DIR_NOEXEC, PACK_NEEDS_LIBRARIES, PACK_NOT_UNPACKED, NO_SPACE, LINK_LOST,
    and what the store raises), ToolError or InputError from building.
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
    clock = clock or Clock()
    with clock.phase("pack build"):
        pack = (wanted or WantedPack()).get(progress)
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
        with clock.phase("pack push"), progress.transfer(f"push {pack.archive.name}", pack.size) as sent:
            stored = store.put(
                pack.archive, pack.sha256, Deadline(PUSH_SECONDS), size=pack.size, room=tree.room, progress=sent
            )
        progress.say("unpacking the pack on the device")
        with clock.phase("pack unpack"):
            tree.unpack(stored.path, free=store.free_bytes)
    # An empty environment: LD_PRELOAD and the like are made for the device's own programs.
    return Chosen(("env", "-i", *pack.command(tree.folder)), "pack", pack.sha256)
