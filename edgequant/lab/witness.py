"""A witness on the device: its shell looks at the runner's process from outside, as nothing within it can change.

It reads /proc and the files of MNN that the process has loaded.  What it says is as little trusted as all else: bounded
here, and held against the runner's words by the judge.  Where the kernel lies to every process alike, so does it.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from edgequant.archive.witness import Library, Thread, Witness
from edgequant.deadline import Deadline
from edgequant.devices.facts_cpu import core_list
from edgequant.devices.facts_model import MAX_CORES
from edgequant.devices.store_scripts import HASH
from edgequant.errors import DeadlineExceeded, DeviceError
from edgequant.lab.session import Session

SECONDS = 60.0
_MOST = 1 << 18
"""Bytes of what it may say."""
_MOST_LINES = 5000
_MOST_LIBRARIES = 4
_TICKS = 100
"""A second has so many in /proc/*/stat, on every Linux (USER_HZ)."""

_OURS = r"""
export LC_ALL=C
pid=$1 script=$2
shift 2
say() { printf '%s\t%s\n' "$1" "$2"; }
# Another process may have that number, where the runner is in a container.
# That of busybox ends a line at its first zero byte.
holds() { grep -qF -- "$2" "$1" 2>/dev/null || tr '\0' '\n' < "$1" 2>/dev/null | grep -qF -- "$2"; }
[ -r "/proc/$pid/cmdline" ] && holds "/proc/$pid/cmdline" "$script" || { say why process; exit 0; }
for task in /proc/$pid/task/[0-9]*; do
  line=; { IFS= read -r line < "$task/schedstat"; } 2>/dev/null
  ns=${line%% *}
  line=; { IFS= read -r line < "$task/stat"; } 2>/dev/null
  say thread "${task##*/} ${ns:-x} ${line##*) }"
done
"""
_LOOK = (
    HASH
    + r"""
[ "$(uname -s)" = Linux ] || { printf 'why\tlinux\n'; exit 0; }
"""
    + _OURS
    + r"""
version=$1
shift
say machine "$(uname -m)"
for name in present possible; do
  line=; { IFS= read -r line < /sys/devices/system/cpu/$name; } 2>/dev/null
  say cores "$line"
done
say processors "$(grep -c '^processor' /proc/cpuinfo 2>/dev/null)"
while IFS= read -r line; do
  case $line in Cpus_allowed_list:*) say allowed "${line#*:}" ;; esac
done < "/proc/$pid/status"
before=
grep -E '/(_mnncengine|libMNN)[^/]*$' "/proc/$pid/maps" | while read -r range rights offset device inode path; do
  case $before in *"|$path|"*) continue ;; esac
  before="$before|$path|"
  say library "$path"
  look="$version $(ls -lLn "$path" 2>/dev/null)"
  say look "$look"
  known=
  for each in "$@"; do [ "$each" = "$look" ] && known=yes; done
  [ -z "$known" ] || continue
  printf 'head\t'; dd if="$path" bs=20 count=1 2>/dev/null; echo
  sum=$(sha256 < "$path" 2>/dev/null)
  say sha256 "${sum%% *}"
  # What cannot find MNN's own words there has nothing to say.
  if holds "$path" 'The device supports'; then
    holds "$path" "$version"
    say version $?
  fi
  for record in "${path%/*}"/*.dist-info/RECORD "${path%/*/*}"/*.dist-info/RECORD; do
    line=$(grep -F -- "${path##*/}," "$record" 2>/dev/null) || continue
    say record "$record,$line"
  done
done
"""
)
_WHY = {
    "linux": "there is no Linux, whose /proc could be read",
    "process": "its shell does not see the process that the runner says it is (in a container?)",
}


def look(session: Session) -> Witness:
    """What is seen of the runner's process now, with a model loaded.

    What a look at a library has told holds for the session, until the file is another: hashing one takes a small board
    a second.  Raises DeviceError (LINK_LOST).
    """
    runner = session.known_runner
    assert runner is not None, "it has run a model"
    said = _asked(session, _LOOK, runner.hello.mnn, *session.libraries)
    if isinstance(said, str):
        return Witness(why=said)
    one = dict(said)
    present = [len(core_list(text.decode("ascii", "replace"))) for key, text in said if key == "cores"]
    cores = max([_number(one.get("processors", b"")) or 0, *present])
    machine = None if session.device.emulated else one.get("machine", b"").decode("ascii", "replace")[:100] or None
    return Witness(
        machine=machine,
        cores=cores if 1 <= cores <= MAX_CORES else None,
        allowed=tuple(core_list(one.get("allowed", b"").decode("ascii", "replace"))),
        libraries=tuple(_libraries(said, session)),
    )


def _libraries(said: list[tuple[str, bytes]], session: Session) -> Iterator[Library]:
    pack = None if session.chosen is None else session.chosen.archive
    found: list[dict[str, list[bytes]]] = []
    for key, value in said:
        if key == "library":
            found.append({})
        if found:
            found[-1].setdefault(key, []).append(value)
    for each in found[:_MOST_LIBRARIES]:
        file = each.get("look", [b""])[0].decode("utf-8", "replace")
        if "sha256" in each or file not in session.libraries:
            session.libraries[file] = _library(each, pack)
        yield session.libraries[file]


def cpu_times(session: Session) -> dict[int, Thread]:
    """What each thread of the runner has had of the CPU so far; {} where that cannot be seen.

    Raises DeviceError (LINK_LOST).
    """
    said = _asked(session, _OURS)
    return {} if isinstance(said, str) else _threads(said)


def during(before: dict[int, Thread], after: dict[int, Thread]) -> tuple[Thread, ...]:
    """What each thread has had of the CPU in between."""
    return tuple(
        Thread(seconds=max(0.0, each.seconds - (before[number].seconds if number in before else 0.0)), core=each.core)
        for number, each in after.items()
    )


def _asked(session: Session, script: str, *more: str) -> list[tuple[str, bytes]] | str:
    """What the shell says, line by line, or why it says nothing."""
    runner = session.known_runner
    assert runner is not None, "there is a runner to be looked at"
    argv = ["sh", "-c", script, "edgequant", str(runner.hello.pid), session.runner_path, *more]
    try:
        result = session.device.run(argv, Deadline(SECONDS), max_output=_MOST)
    except (DeviceError, DeadlineExceeded) as error:
        if error.code == "LINK_LOST":
            raise
        return f"its shell did not answer ({error.code})"
    said = _lines(result.stdout)
    why = dict(said).get("why")
    if why is not None:
        return _WHY.get(why.decode("ascii", "replace"), _WHY["process"])
    return said if any(key == "thread" for key, _ in said) else _WHY["process"]


def _lines(said: bytes) -> list[tuple[str, bytes]]:
    """Keys and values; the head of a library is bytes of any kind, so it is cut out first."""
    found: list[tuple[str, bytes]] = []
    rest = said
    while rest and len(found) < _MOST_LINES:
        if rest.startswith(b"head\t"):
            found.append(("head", rest[5:25]))
            rest = rest[26:]
            continue
        line, _, rest = rest.partition(b"\n")
        key, tab, value = line.partition(b"\t")
        if tab:
            found.append((key.decode("ascii", "replace")[:20], value[:4000]))
    return found


def _threads(said: list[tuple[str, bytes]]) -> dict[int, Thread]:
    found: dict[int, Thread] = {}
    for words in (value.split() for key, value in said if key == "thread"):
        number = _number(words[0]) if len(words) > 38 else None
        ticks = [_number(words[place]) for place in (13, 14)] if number is not None else []
        if number is None or None in ticks:
            continue
        exact = _number(words[1])
        seconds = sum(each or 0 for each in ticks) / _TICKS if exact is None else exact / 1e9
        found[number] = Thread(seconds=seconds, core=_number(words[38]))
    return found


def _number(text: bytes) -> int | None:
    return int(text) if re.fullmatch(rb"[0-9]{1,18}", text.strip()) else None


def _library(said: dict[str, list[bytes]], pack: Path | None) -> Library:
    path, head = said["library"][0].decode("utf-8", "replace"), said.get("head", [b""])[0]
    machine = None
    if head[:4] == b"\x7fELF" and len(head) == 20:
        machine = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    sha = said.get("sha256", [b""])[0].decode("ascii", "replace").strip()
    name = path.rpartition("/")[2]
    sent = None if pack is None else _in_pack(pack).get(name)
    packages, recorded = [], []
    for line in said.get("record", []):
        folder, _, entry = line.decode("utf-8", "replace").partition("/RECORD,")
        packages.append(folder.rpartition("/")[2].removesuffix(".dist-info").rpartition("-")[2])
        if found := re.search(r",sha256=([A-Za-z0-9_-]{43})", entry):
            recorded.append(_hexadecimal(found[1]))
    return Library(
        path=path,
        sha256=sha if re.fullmatch("[0-9a-f]{64}", sha) else None,
        machine=machine,
        has_version={b"0": True, b"1": False}.get(said.get("version", [b""])[0].strip()),
        packages=tuple(packages),
        recorded=tuple(recorded) if sent is None else (sent,),
        sent=sent is not None,
    )


def _hexadecimal(encoded: str) -> str:
    """As RECORD has a hash: base64 for URLs, without padding."""
    try:
        return base64.urlsafe_b64decode(encoded + "=").hex()
    except binascii.Error:
        return "0" * 64


@functools.cache
def _in_pack(archive: Path) -> dict[str, str]:
    """SHA-256 of what MNN's libraries in a pack should be, by their names; {} where it cannot be read any more."""
    try:
        with tarfile.open(archive, "r|gz") as stream:
            for member in stream:
                if member.name.removeprefix("./") == "pack.json" and (inner := stream.extractfile(member)) is not None:
                    files = json.loads(inner.read(1 << 24))["files"]
                    return {name.rpartition("/")[2]: str(each["sha256"]) for name, each in files.items()
                            if re.search("/(_mnncengine|libMNN)", name)}  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError, tarfile.TarError):
        return {}
    return {}
