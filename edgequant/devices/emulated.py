"""``emulated:CPU`` - ARM64 on this host: the pack under QEMU's user-mode emulation, without a device and without root.

MNN runs the kernels it would run on that CPU, so outputs count.  Time and memory are those of an emulator: they never
count.  Not emulated: Android's C library, a phone's memory and heat, and anything below a system call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from edgequant.deadline import Deadline
from edgequant.devices.facts_model import DeviceFacts
from edgequant.devices.local import LocalDevice, LocalProcess
from edgequant.devices.protocol import CommandResult, Device, Kind, Listed, Progress, Settings
from edgequant.errors import DeviceError, InputError
from edgequant.pack import Pack, PackOptions, WantedPack, default_cache, unpacked
from edgequant.pack.build import lock_file
from edgequant.pack.cache import lock
from edgequant.pack.lock import read_lock
from edgequant.pack.qemu import cpu_models, find_qemu, installed_qemu, version
from edgequant.progress import Progress as Listener

SCHEME = "emulated:"
KNOWN = ("a64fx", "cortex-a35", "cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76", "max", "neoverse-n1")
"""What every QEMU since 7.2 knows; the one that is used may know more."""
WITH_PROPERTY = "max,sve=off"
"""The one with a property that gives kernels no other has; see docs/devices.md."""
# Bits of AT_HWCAP and AT_HWCAP2, with the names the kernel gives them in /proc/cpuinfo.
_HWCAP = {"asimd": 1, "fphp": 9, "asimdhp": 10, "asimddp": 20, "sve": 22}
_HWCAP2 = {"sve2": 1, "i8mm": 13, "bf16": 14, "sme": 23, "sme2": 37}
# Everything that is not told below, but what the emulated system shares with this host: kernel, memory and storage.
_OF_THE_HOST = (
    *("manufacturer", "soc", "android", "sdk", "build", "clusters", "max_mhz", "governor", "thermal", "battery"),
    *("uptime_s", "selinux", "page_size"),
)
_ASK = "import ctypes; f = ctypes.CDLL(None).getauxval; f.restype = ctypes.c_ulong; print(f(16), f(26))"


class EmulatedDevice(Device):
    """One CPU model.  Commands run on the host, Python under QEMU.

    Args:
        uri: ``emulated:cortex-a76``, ``emulated:a76``, or with properties of QEMU's, ``emulated:max,sve=off``.
        wanted: which pack; None for the standard one.
        cache_dir: where packs are; None for the user's cache.
        listener: told what is fetched and built.

    Raises InputError (EMULATED_CPU_UNKNOWN, DEVICE_URI_INVALID).
    """

    def __init__(
        self,
        uri: str,
        *,
        wanted: WantedPack | None = None,
        cache_dir: Path | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.uri = uri
        name, *properties = uri.removeprefix(SCHEME).lower().split(",")
        if not uri.startswith(SCHEME) or not all(re.fullmatch(r"[a-z0-9-]+=[a-z0-9]+", each) for each in properties):
            raise InputError(
                "DEVICE_URI_INVALID",
                f"device '{uri[:200]}': not emulated:CPU or emulated:CPU,PROPERTY=VALUE",
                hint="For example emulated:cortex-a76.",
            )
        found = installed_qemu()
        self.cpu = ",".join([self._model(name, cpu_models(found) if found else KNOWN, found is not None), *properties])
        self._wanted = wanted or WantedPack()
        self._cache = cache_dir or default_cache()
        self._listener = listener or Listener()
        self._python: tuple[str, ...] = ()
        self._features: list[str] | None = None
        self._host = LocalDevice()
        self._host.uri = uri  # its errors are ours
        self.pack: Pack | None = None
        self.qemu_version = ""

    def _model(self, name: str, known: Sequence[str], final: bool) -> str:
        for candidate in (name, f"cortex-{name}"):
            if candidate in known:
                return candidate
        # A QEMU that is yet to be fetched may know more, but what it surely knows is all that can be promised.
        raise InputError(
            "EMULATED_CPU_UNKNOWN",
            f"device '{self.uri[:200]}': {'this QEMU knows' if final else 'there is'} no CPU '{name[:40]}'",
            hint=f"Possible: {', '.join(known)}; with properties of QEMU's, such as {WITH_PROPERTY}.",
        )

    def open(self, deadline: Deadline) -> None:
        """Find QEMU and the pack, and start it once.

        The first time, both are fetched and built, which takes as long as it takes: `deadline` is for the start.
        Raises DeviceError (QEMU_MISSING, QEMU_UNUSABLE, EMULATION_FAILED) and what build_pack raises.
        """
        if self._python:
            return
        pins = read_lock(lock_file(PackOptions(), self._cache))
        with lock(self._cache):
            qemu = find_qemu(self._cache, pins, self._listener)
        pack = self._wanted.get(self._listener, self._cache)
        pack.require_whole(self.uri)
        root = unpacked(pack, self._cache)
        # An empty environment, as on a bare device; LD_PRELOAD and the like would reach the emulated loader.
        command = ("env", "-i", qemu, "-cpu", self.cpu, *pack.command(str(root)))
        # A new deadline as long as the one given, of which building may have left nothing.
        self._features = self._ask(command, Deadline(deadline.seconds))
        self.qemu_version = version(qemu)
        self.pack, self._python = pack, command

    def _ask(self, python: Sequence[str], deadline: Deadline) -> list[str]:
        """The features the emulated CPU has: proves that everything works, and nothing else here tells them."""
        result = self._host.run([*python, "-c", _ASK], deadline)
        words = result.stdout.split()
        if not result.ok or len(words) != 2:
            lines = result.stderr.decode("utf-8", "replace").strip().splitlines()
            how = f"signal {result.signal}" if result.signal else f"exit status {result.exit_code}"
            raise DeviceError(
                "EMULATION_FAILED",
                f"the pack does not start under QEMU: {lines[-1] if lines else how}",
                where=self.uri,
                hint="A property of the CPU may be wrong; otherwise try a newer QEMU, and `edgequant pack clean`.",
                evidence={"stderr": lines[-20:], "exit_code": result.exit_code, "signal": result.signal},
            )
        first, second = int(words[0]), int(words[1])
        found = [name for name, bit in _HWCAP.items() if first >> bit & 1]
        return found + [name for name, bit in _HWCAP2.items() if second >> bit & 1]

    def close(self) -> None:
        self._host.close()

    def run(
        self, argv: Sequence[str], deadline: Deadline, *, stdin: bytes = b"", max_output: int = 16 << 20
    ) -> CommandResult:
        return self._host.run(argv, deadline, stdin=stdin, max_output=max_output)

    def start(
        self, argv: Sequence[str], deadline: Deadline, *, on_stderr: Callable[[bytes], None] | None = None
    ) -> LocalProcess:
        return self._host.start(argv, deadline, on_stderr=on_stderr)

    def send_file(
        self, source: Path, remote_path: str, deadline: Deadline, *, progress: Progress | None = None
    ) -> None:
        self._host.send_file(source, remote_path, deadline, progress=progress)

    @property
    def python(self) -> Sequence[str]:
        assert self._python, "open() comes first"
        return self._python

    @property
    def is_host(self) -> bool:
        return False

    @property
    def emulated(self) -> str | None:
        """What emulates this device; None for a real one.  Timings of an emulated device are not valid."""
        return f"QEMU {self.qemu_version}, user mode"

    @property
    def brings_runtime(self) -> bool:
        return True

    @property
    def pack_sha256(self) -> str | None:
        return None if self.pack is None else self.pack.sha256

    def corrected(self, facts: DeviceFacts) -> DeviceFacts:
        """The facts without those of this host: its /proc and /sys are what can be read, and they are not emulated."""
        facts = facts.without(f"emulated by {self.emulated}: it would be this host's", *_OF_THE_HOST)
        own = {"arch": "aarch64", "abis": ["aarch64"], "userland_bits": 64, "cpu": self.cpu, "model": self.emulated}
        if self._features is None:
            return facts.without("it has not been started", "features").known(**own)
        return facts.known(**own, features=self._features)


def _make(uri: str, settings: Settings) -> EmulatedDevice:
    if settings.python is not None:
        raise InputError("OPTION_INVALID", f"--python: {uri} brings its own Python")
    return EmulatedDevice(uri, wanted=settings.wanted, listener=settings.listener)


def _listed() -> list[Listed]:
    return [Listed(f"{SCHEME}cortex-a76", "an ARM64 CPU under QEMU on this host; also cortex-a53, max, ...")]


KIND = Kind(SCHEME, "CPU", _make, _listed)
