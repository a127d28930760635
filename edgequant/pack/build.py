"""Building a pack: inputs by hash, parts, bytecode, one archive; and nothing at all where it has been built before."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache as cached
from pathlib import Path
from typing import Any

from edgequant.errors import EdgequantError, InputError, ToolError
from edgequant.files import sha256_of
from edgequant.mnn_version import host_mnn_version
from edgequant.pack import bytecode, layout
from edgequant.pack.archives import Files, compress, write_tar, write_tree
from edgequant.pack.cache import Pack, default_cache, keep, lock, stored, sweep, usable_here
from edgequant.pack.inputs import Inputs, no_cache, pin_wheel
from edgequant.pack.lock import DEFAULT_LOCK, WHEELS, Lock, Pinned, read_lock, write_lock
from edgequant.pack.qemu import find_qemu, installed_qemu
from edgequant.pack.trust import Trusted
from edgequant.pack.wheels import require_wheel_for
from edgequant.progress import Progress

ARCH = "aarch64"
_BOOT = Path(__file__).with_name("boot.py")
_PYTHON_DEBS = ("python3", "libpython3", "libexpat", "libffi")
# Where there is no apt, or it has no such packages, the pack does without a C library; a failed download is an error.
_NO_WHEEL = ("PACK_NO_WHEEL", "PACK_REGISTRY")
_NO_DEBS = ("PACK_NO_APT", "PACK_NO_DEBIAN_SOURCE", "PACK_NO_ARM64")


@dataclass(frozen=True)
class PackOptions:
    """What to build.

    mnn: its version; None for that of this host, which makes the models, or where the registry has no such wheel for
    ARM that of the lock file.  tarball: a relocatable CPython instead of Debian's.
    wheel: an MNN wheel of the user's own.  inputs: folders to look for input files in before asking a registry.
    lock: another lock file.  relock: pin the newest of everything first, into `lock` or for this user.
    """

    mnn: str | None = None
    tarball: Path | None = None
    wheel: Path | None = None
    inputs: tuple[Path, ...] = ()
    lock: Path | None = None
    relock: bool = False


@dataclass(frozen=True)
class _Plan:
    """Everything that decides what the pack will be."""

    python: str
    debs: list[Pinned]
    wheels: list[Pinned]
    given_wheel: Path | None
    suite: str
    compiler: bytecode.Compiler | None
    tarball: Path | None
    tarball_sha256: str | None

    def key(self) -> str:
        compiler = self.compiler.version if self.compiler else "the pack's own"
        parts: dict[str, Any] = {
            "debs": [item.sha256 for item in self.debs],
            "wheels": [item.sha256 for item in self.wheels],
            "tarball": self.tarball_sha256,
            "compiler": compiler,
            "builder": _builder(),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def build_pack(
    options: PackOptions | None = None, *, cache_dir: Path | None = None, progress: Progress | None = None
) -> Pack:
    """The pack for aarch64, from the cache or built now (one process builds, the others wait).

    Raises:
        InputError: PACK_OPTIONS, PACK_LOCK_INVALID, PACK_TARBALL_*, PACK_WHEEL_*, PACK_INPUT_DAMAGED.
        ToolError: PACK_NO_APT, PACK_NO_DEBIAN_SOURCE, PACK_NO_ARM64, PACK_NO_WHEEL, PACK_REGISTRY, PACK_INPUT_GONE,
            PACK_HASH_MISMATCH, PACK_COMPILE_FAILED, PACK_LIBRARY_MISSING, DISK_FULL, CACHE_UNWRITABLE.
    """
    options, cache, progress = options or PackOptions(), cache_dir or default_cache(), progress or Progress()
    if options.mnn and options.wheel:
        raise InputError("PACK_OPTIONS", "an MNN version and an MNN wheel were both given", hint="Give one of them.")
    for folder in options.inputs:
        if not folder.is_dir():
            raise InputError("PACK_OPTIONS", f"there is no folder {folder} to take inputs from")
    # Trust on first use asks the registry, so planning is under the lock as well.
    with lock(cache, waiting=lambda: progress.say("waiting for another edgequant that builds a pack")):
        try:
            sweep(cache)
            inputs = Inputs(cache / "inputs", options.inputs, progress)
            pins = _pins(options, cache, inputs, progress)
            plan = _plan(options, pins, cache, inputs, progress)
            key = plan.key()
            pack = stored(cache, key)
            # One with sources is built again once there is an emulator to compile it with.
            if pack and (pack.precompiled or pack.needs or not installed_qemu()):
                return pack
            return _build(plan, pins, key, cache, inputs, progress)
        except OSError as error:
            raise no_cache(Path(error.filename or cache), error) from None


def lock_file(options: PackOptions, cache: Path) -> Path:
    """The lock file that counts: the one given, the user's own (made by --relock), or the package's."""
    own = cache / "lock.json"
    return options.lock or (own if own.is_file() else DEFAULT_LOCK)


def _pins(options: PackOptions, cache: Path, inputs: Inputs, progress: Progress) -> Lock:
    path = lock_file(options, cache)
    if options.relock:
        path = options.lock or cache / "lock.json"
        write_lock(inputs.resolve(), path)
        progress.say(f"pinned the newest versions in {path}")
    elif path == cache / "lock.json":
        progress.say(f"using the versions pinned by --relock in {path}")
    return read_lock(path)


def _plan(options: PackOptions, pins: Lock, cache: Path, inputs: Inputs, progress: Progress) -> _Plan:
    debs, python, digest = pins.debs, pins.python, None
    if options.tarball:
        parts = layout.from_tarball(options.tarball)
        python, digest = parts.python, sha256_of(options.tarball)
        debs = [item for item in debs if not item.name.startswith(_PYTHON_DEBS)]
        try:
            inputs.get(debs, pins.suite)
        except ToolError as error:
            if error.code not in _NO_DEBS:
                raise
            progress.say(f"{error}: the pack has no C library of its own and runs only where the device has glibc")
            debs = []
    trusted = Trusted(cache / "trusted.json", inputs, progress)
    wheels = []
    for name in WHEELS:
        pin = pins.wheel(name)
        wanted = (options.mnn or _host_mnn() or pin.version) if name == "MNN" else pin.version
        if name == "MNN" and options.wheel:
            require_wheel_for(options.wheel, python)
            wheels.append(pin_wheel(options.wheel, python))
        elif (wanted, python) == (pin.version, pins.python):
            wheels.append(pin)
        else:
            # Of what comes along with another Python, the newest for it.
            try:
                wheels.append(trusted.wheel(f"{name}=={wanted}" if name == "MNN" else name, python))
            except ToolError as error:
                # An MNN that this host made itself, say.  The report will say that the versions differ.
                if name != "MNN" or options.mnn or python != pins.python or error.code not in _NO_WHEEL:
                    raise
                progress.say(f"{error}: the pack gets MNN {pin.version}, which is pinned")
                wheels.append(pin)
    compiler = bytecode.find_host_compiler(python)
    return _Plan(python, debs, wheels, options.wheel, pins.suite, compiler, options.tarball, digest)


def _host_mnn() -> str | None:
    """The version of MNN on this host: models it makes are best run by the same."""
    try:
        return host_mnn_version()
    except ToolError:
        return None  # whoever only builds packs needs none


def _build(plan: _Plan, pins: Lock, key: str, cache: Path, inputs: Inputs, progress: Progress) -> Pack:
    wanted = [item for item in plan.wheels if not (plan.given_wheel and item.name == "MNN")]
    paths = dict(zip([*plan.debs, *wanted], inputs.get([*plan.debs, *wanted], plan.suite), strict=True))
    progress.say(f"building the pack: {ARCH}, Python {plan.python}, {', '.join(map(str, plan.wheels))}")
    debs = [paths[item] for item in plan.debs]
    if plan.tarball:
        parts = layout.from_tarball(plan.tarball)
        layout.add_debs(parts, debs)
    else:
        parts = layout.from_debs(debs)
    for item in plan.wheels:
        layout.add_wheel(parts, paths.get(item) or plan.given_wheel or Path(item.file), item.name, item.version)
    files, compiled_by = _compiled(plan, pins, parts, cache, progress)
    versions = {item.name.lower(): item.version for item in plan.wheels}
    facts = {
        "arch": ARCH,
        "python": parts.python_version,
        "mnn": versions["mnn"],
        "numpy": versions["numpy"],
        "start": _start(parts),
        "needs": layout.foreign_libraries(files),
        "precompiled": compiled_by is not None,
    }
    used = [{"file": item.file, "sha256": item.sha256} for item in (*plan.debs, *plan.wheels)]
    if plan.tarball:
        used.append({"file": plan.tarball.name, "sha256": str(plan.tarball_sha256)})
    files["pack.json"] = layout.manifest(
        files, {**facts, "psutil": versions["psutil"], "inputs": used, "compiled_by": compiled_by}
    )
    tar = write_tar(files)
    archive = compress(tar)
    digest = hashlib.sha256(archive).hexdigest()
    sizes: dict[str, Any] = {
        "sha256": digest,
        "size": len(archive),
        "unpacked_size": sum(len(member.data) for member in files.values()),
        "files": {name: len(member.data) for name, member in files.items()},
    }
    name = f"edgequant-pack-{ARCH}-mnn{versions['mnn']}-py{plan.python}-{digest[:12]}.tar.gz"
    return keep(cache, key, archive, name, {**facts, **sizes})


def _compiled(
    plan: _Plan, pins: Lock, parts: layout.Parts, cache: Path, progress: Progress
) -> tuple[Files, str | None]:
    """The pack's files with bytecode, and who compiled it; with sources and None where nobody can."""
    stdlib, site = layout.sources(parts)
    boot = _BOOT.read_bytes()
    if plan.compiler:
        return _with_bytecode(parts, stdlib, site, boot, plan.compiler), plan.compiler.version
    plain = layout.assemble(parts, stdlib, site, boot)
    prefix: Sequence[str] = ()
    if not usable_here():
        try:
            prefix = (find_qemu(cache, pins, progress),)
        except EdgequantError as error:
            progress.say(f"no Python {plan.python} to compile with, so the pack carries sources ({error})")
            return plain, None
    if not parts.has_loader:
        progress.say(f"no Python {plan.python} to compile with, so the pack carries sources")
        return plain, None
    progress.say(f"no Python {plan.python} on this host: the pack's own compiles")
    with tempfile.TemporaryDirectory(prefix="edgequant-pack-") as folder:
        write_tree(plain, Path(folder))
        start = [word.replace("{root}", folder) for word in _start(parts)]
        interpreter = start[: start.index("-I")]
        compiler = bytecode.Compiler((*prefix, *interpreter), f"CPython {parts.python_version}")
        return _with_bytecode(parts, stdlib, site, boot, compiler), compiler.version


def _with_bytecode(
    parts: layout.Parts, stdlib: dict[str, bytes], site: dict[str, bytes], boot: bytes, compiler: bytecode.Compiler
) -> Files:
    compiled = bytecode.compile_sources({**{f"stdlib/{name}": data for name, data in stdlib.items()}, **site}, compiler)
    inner = {name[7:]: data for name, data in compiled.items() if name.startswith("stdlib/")}
    outer = {name: data for name, data in compiled.items() if not name.startswith("stdlib/")}
    return layout.assemble(parts, inner, outer, boot)


def _start(parts: layout.Parts) -> list[str]:
    python = ["{root}/bin/python" + parts.python, "-I", "-S", "-u", "{root}/boot.py"]
    if not parts.has_loader:
        return python
    # The device's own cache of libraries is of another system, or of another architecture.
    return [f"{{root}}/lib/{layout.LOADER}", "--inhibit-cache", "--library-path", "{root}/lib", *python]


@cached
def _builder() -> str:
    """What builds is an input as well: a changed builder must not find its predecessor's packs."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()
