"""From Debian packages, a relocatable Python and wheels to the files of a pack, by path."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgequant.errors import InputError, ToolError
from edgequant.pack import elf
from edgequant.pack.archives import Files, Member, read_deb, read_tar, read_wheel, write_zip
from edgequant.pack.prune import keep_site, keep_stdlib

LOADER = "ld-linux-aarch64.so.1"
_LIBRARY_FOLDERS = ("lib/aarch64-linux-gnu/", "usr/lib/aarch64-linux-gnu/", "lib/", "usr/lib/")


@dataclass
class Parts:
    """What a pack is made of, before it is compiled and packed.

    python: minor version, "3.11".  stdlib: by path below lib/pythonX.Y.  libraries: by soname, of which the pack takes
    those that something needs.  site: what the wheels install.  licenses: by path below LICENSES.
    """

    python: str
    python_version: str
    interpreter: Member
    stdlib: Files
    libraries: Files = field(default_factory=dict)
    site: Files = field(default_factory=dict)
    licenses: Files = field(default_factory=dict)
    components: list[dict[str, Any]] = field(default_factory=list)

    @property
    def has_loader(self) -> bool:
        return LOADER in self.libraries


def from_debs(paths: Sequence[Path]) -> Parts:
    """Debian's Python with the C and C++ libraries."""
    packages = {path.name.split("_")[0]: read_deb(path) for path in paths}
    files: Files = {}
    for package in packages.values():
        files.update(package)
    interpreter = next((name for name in sorted(files) if re.fullmatch(r"usr/bin/python3\.\d+", name)), None)
    if interpreter is None:
        raise InputError("PACK_INPUT_DAMAGED", "the Debian packages hold no Python")
    python = interpreter.removeprefix("usr/bin/python")
    version = next(path.name.split("_")[1].split("-")[0] for path in paths if path.name.startswith("python3"))
    parts = Parts(python, version, files[interpreter], _below(files, f"usr/lib/python{python}/"))
    add_debs(parts, paths, packages)
    return parts


def add_debs(parts: Parts, paths: Sequence[Path], packages: Mapping[str, Files] | None = None) -> None:
    """The libraries and the licences of Debian packages."""
    for path in paths:
        name, version, _ = path.name.split("_")
        files = (packages or {}).get(name) or read_deb(path)
        for file, member in files.items():
            if posixpath.dirname(file) + "/" in _LIBRARY_FOLDERS and ".so" in file and elf.is_elf(member.data):
                parts.libraries[posixpath.basename(file)] = member
        found = _below(files, "usr/share/common-licenses/", "common-licenses/")
        found.update(
            {
                f"{file.split('/')[3]}/copyright": member
                for file, member in files.items()
                if re.fullmatch(r"usr/share/doc/[^/]+/copyright", file)
            }
        )
        parts.licenses.update(found)
        component = {"name": name, "version": version.replace("%3a", ":"), "kind": "deb"}
        parts.components.append({**component, "license": None, "files": sorted(found)})


def from_tarball(path: Path) -> Parts:
    """A relocatable CPython for aarch64 in the layout of python-build-standalone: python/bin, python/lib.

    Raises InputError: PACK_TARBALL_INVALID.
    """
    if not path.is_file():
        raise InputError("PACK_TARBALL_INVALID", f"there is no file {path}")
    with open(path, "rb") as stream:
        files = read_tar(stream, path)
    root = "python/install/" if any(name.startswith("python/install/") for name in files) else "python/"
    interpreters = [name for name in sorted(files) if re.fullmatch(rf"{root}bin/python3\.\d+", name)]
    if not interpreters or f"{root}lib/{posixpath.basename(interpreters[0])}/os.py" not in files:
        raise InputError(
            "PACK_TARBALL_INVALID",
            f"{path.name} holds no python/bin/python3.X with python/lib/python3.X",
            hint="Give an `install_only` archive of python-build-standalone for aarch64-unknown-linux-gnu.",
        )
    interpreter = files[interpreters[0]]
    if not _is_aarch64(interpreter.data):
        raise InputError(
            "PACK_TARBALL_ARCH",
            f"the Python in {path.name} is not for aarch64 Linux",
            hint="Give an `install_only` archive of python-build-standalone for aarch64-unknown-linux-gnu.",
        )
    python = posixpath.basename(interpreters[0]).removeprefix("python")
    header = files.get(f"{root}include/python{python}/patchlevel.h", Member(b"")).data.decode("utf-8", "replace")
    exact = re.search(r'#define\s+PY_VERSION\s+"([^"]+)"', header)
    parts = Parts(python, exact[1] if exact else python, interpreter, _below(files, f"{root}lib/python{python}/"))
    for name, member in _below(files, f"{root}lib/").items():
        if "/" not in name and ".so" in name and elf.is_elf(member.data):
            parts.libraries[name] = member
    licence = parts.stdlib.get("LICENSE.txt")
    parts.licenses.update({"python/LICENSE.txt": licence} if licence else {})
    component = {"name": "python", "version": parts.python_version, "kind": "tarball", "file": path.name}
    parts.components.append({**component, "license": "PSF-2.0", "files": ["python/LICENSE.txt"] if licence else []})
    return parts


def add_wheel(parts: Parts, path: Path, name: str, version: str) -> None:
    files = read_wheel(path)
    major = int(version.split(".")[0]) if name == "numpy" and version[:1].isdigit() else 2
    parts.site.update({file: member for file, member in files.items() if keep_site(file, numpy_major=major)})
    found: Files = {}
    stated = None
    for file, member in files.items():
        inner = file.partition(".dist-info/")[2]
        if not inner:
            continue
        if inner == "METADATA":
            text = member.data.decode("utf-8", "replace").split("\n\n")[0]
            lines = re.findall(r"^License(?:-Expression)?: (.+)$", text, re.MULTILINE)
            stated = lines[0].strip() if lines else None
        if inner == "METADATA" or re.match(r"(licen[cs]es?|copying|notice|authors|sboms)\b", inner, re.IGNORECASE):
            found[f"{name}/{inner}"] = member
    parts.licenses.update(found)
    component = {"name": name, "version": version, "kind": "wheel", "license": stated, "files": sorted(found)}
    parts.components.append(component)


def sources(parts: Parts) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The Python sources that belong into the pack: of the standard library, and of the wheels."""
    stdlib = {name: member.data for name, member in parts.stdlib.items() if name.endswith(".py") and keep_stdlib(name)}
    return stdlib, {name: member.data for name, member in parts.site.items() if name.endswith(".py")}


def assemble(parts: Parts, stdlib: Mapping[str, bytes], site: Mapping[str, bytes], boot: bytes) -> Files:
    """The files of the pack but for its manifest.  `stdlib` and `site` are compiled modules, or sources."""
    home = f"lib/python{parts.python}"
    files: Files = {
        "boot.py": Member(boot),
        f"bin/python{parts.python}": Member(_small(parts.interpreter.data, "python"), executable=True),
        f"lib/python{parts.python.replace('.', '')}.zip": Member(write_zip(stdlib)),
        # By this file Python knows its home; the module itself comes from the zip, which is searched first.
        f"{home}/os.py": Member(b"# See the zip beside this directory.\n"),
    }
    for name, member in parts.stdlib.items():
        if name.endswith(".so") and keep_stdlib(name):
            files[f"{home}/lib-dynload/{posixpath.basename(name)}"] = Member(_small(member.data, name))
    # Python complains where the directory is missing, so it is there even where every module is built in.
    files.setdefault(f"{home}/lib-dynload/README", Member(b"Extension modules, if any.\n"))
    files.update({f"site/{name}": Member(data) for name, data in site.items()})
    for name, member in parts.site.items():
        if not name.endswith(".py"):
            files[f"site/{name}"] = Member(_small(member.data, name))
    _add_libraries(parts, files)
    files.update({f"LICENSES/{name}": Member(member.data) for name, member in parts.licenses.items()})
    components = sorted(parts.components, key=lambda component: (component["kind"], component["name"]))
    files["LICENSES/manifest.json"] = Member(_json({"schema": "edgequant.pack-licenses/1", "components": components}))
    return files


def _add_libraries(parts: Parts, files: Files) -> None:
    """Every library that something in the pack needs.  Raises ToolError (PACK_LIBRARY_MISSING)."""
    wanted = {LOADER} if parts.has_loader else set()
    for member in list(files.values()):
        wanted.update(elf.needed(member.data) if elf.is_elf(member.data) else ())
    bundled = {posixpath.basename(name) for name in files}
    done: set[str] = set()
    while todo := sorted(wanted - done - bundled):
        for name in todo:
            done.add(name)
            library = parts.libraries.get(name)
            if library is None:
                if parts.has_loader:
                    raise ToolError("PACK_LIBRARY_MISSING", f"something in the pack needs {name}, which is not in it")
                continue  # the device has to have it
            data = _small(library.data, name)
            files[f"lib/{name}"] = Member(data, executable=name == LOADER)
            wanted.update(elf.needed(data))


def foreign_libraries(files: Files) -> list[str]:
    """The libraries the pack needs and does not hold: the device has to have them."""
    inside = {posixpath.basename(name) for name in files}
    wanted = {name for member in files.values() if elf.is_elf(member.data) for name in elf.needed(member.data)}
    return sorted(wanted - inside)


def manifest(files: Files, facts: Mapping[str, Any]) -> Member:
    """pack.json: what it is, how to start it, and every other file with its hash."""
    listed = {
        name: {"sha256": hashlib.sha256(files[name].data).hexdigest(), "size": len(files[name].data)}
        for name in sorted(files)
    }
    return Member(_json({"schema": "edgequant.pack/1", **facts, "files": listed}))


def _small(data: bytes, name: str) -> bytes:
    if not elf.is_elf(data):
        return data
    try:
        if elf.machine(data) != elf.AARCH64:
            raise InputError("PACK_WHEEL_ARCH", f"{name} is not for aarch64")
        return elf.stripped(data)
    except elf.ElfError as error:
        raise InputError("PACK_INPUT_DAMAGED", f"{name} cannot be read: {error}") from None


def _is_aarch64(data: bytes) -> bool:
    try:
        return elf.machine(data) == elf.AARCH64
    except elf.ElfError:
        return False


def _below(files: Files, folder: str, prefix: str = "") -> Files:
    return {prefix + name[len(folder) :]: member for name, member in files.items() if name.startswith(folder)}


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"
