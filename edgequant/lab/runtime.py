"""Which Python a device runs: its own, or the pack's, pushed once and unpacked there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
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


_NO_PLACE = ("WORK_DIR_NOEXEC", "NO_SPACE")
_AT_WORK = ("PACK_ARCH", "PACK_NOT_UNPACKED", "PACK_NOT_STARTED")


@dataclass(frozen=True)
class Decision:
    """Whose Python a device is to run, as far as can be told before anything is built or sent.

    Attributes:
        pack: whether it is the pack's, to be brought there.
        optional: whether the device's own may take its place.
    """

    pack: bool
    optional: bool = False

    def does_without(self, code: str) -> bool:
        """Whether this error is a reason to go on with what the device has itself: there cannot be a pack, or no place
        for it, though the device may be fine.  A lost link or a push that came to grief is no reason to measure
        something else than was meant."""
        return self.optional and (code in _NO_PLACE or (code.startswith("PACK_") and code not in _AT_WORK))


def decide(device: Device, runtime: Runtime, python: str | None, wanted: WantedPack) -> Decision:
    """auto is the pack wherever it runs, so that all devices run the same bits; else, and where the user names a
    Python, what the device has.

    Raises DeviceError (PACK_NOT_WANTED, LINK_LOST), DeadlineExceeded.
    """
    if device.brings_runtime:
        return Decision(pack=False)
    if runtime != "auto" or python is not None or device.is_host:
        pack = runtime == "pack"
    else:
        pack = device.needs_pack or _machine(device) in _ARCH
    if wanted and not pack:
        raise DeviceError(
            "PACK_NOT_WANTED",
            f"{wanted} was asked for, but what runs there is the Python and the MNN that are installed there",
            where=device.uri,
            hint="64-bit ARM devices run a pack, without --python and --runtime system.  For others install that "
            "version of MNN there.",
        )
    # Whoever asks for a pack means that one.
    return Decision(pack, optional=pack and runtime == "auto" and not wanted and not device.needs_pack)


@dataclass(frozen=True)
class Chosen:
    """What runs the runner.

    Attributes:
        python: the command that starts Python there.
        runtime: "pack" or "system".
        pack: SHA-256 of the pack; None for the device's own.
        instead: why `auto` did not take the pack although the device could run it; None where it did not have to.
        archive: the pack on this host that was sent; None where none was.
    """

    python: tuple[str, ...]
    runtime: Literal["pack", "system"]
    pack: str | None = None
    instead: EdgequantError | None = None
    archive: Path | None = None


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
    """Decide, and make sure that it is there.  Raises what `decide` and `deploy` raise."""
    decision = decide(device, runtime, python, wanted)
    if not decision.pack:
        brought = device.brings_runtime
        return Chosen(tuple(device.python), "pack" if brought else "system", device.pack_sha256 if brought else None)
    try:
        return deploy(device, store, progress, wanted, clock)
    except EdgequantError as error:
        if not decision.does_without(error.code):
            raise
        progress.say(f"{device.uri} runs its own Python, not the pack ({error.code}: {error})")
        return Chosen(tuple(device.python), "system", instead=error)


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
    pack.require_whole(device.uri)
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
    return Chosen(("env", "-i", *pack.command(tree.folder)), "pack", pack.sha256, archive=pack.archive)


def pack_not_started(uri: str, program: str, why: str) -> DeviceError:
    """program: the first of the pack's that was to be started."""
    return DeviceError(
        "PACK_NOT_STARTED",
        f"{program}: {why}",
        where=uri,
        hint="Choose another directory with --work-dir, or remove the pack with "
        f"`edgequant devices clean {uri}` and run again.",
    )
