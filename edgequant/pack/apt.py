"""Debian packages for another architecture, through an apt configuration of our own.

Nothing of the host changes and root is not needed: lists, cache and status live in a private directory.  The mirror is
the one the host is configured for, with its proxy, certificates and credentials.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgequant.errors import ToolError

UPDATE_SECONDS = 300.0
DOWNLOAD_SECONDS = 1200.0
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TARGET = "$(REPO_URI)|$(RELEASE)|$(ORIGIN)|$(LABEL)|$(COMPONENT)"
_PLAIN_SUITE = re.compile(
    r"(oldoldstable|oldstable|stable|testing|unstable|sid|buster|bullseye|bookworm|trixie|forky)$"
)
_BY_HAND = (
    "Give a relocatable Python with --from TARBALL, or a folder with the packages of the lock file (fetched elsewhere) "
    "with --inputs DIR."
)


class Apt:
    """A private apt.  `folder` is used for its lists and its cache.

    Raises ToolError: PACK_NO_APT, PACK_NO_DEBIAN_SOURCE.
    """

    def __init__(self, folder: Path, suite: str, architectures: Sequence[str]) -> None:
        if not shutil.which("apt-get"):
            raise ToolError(
                "PACK_NO_APT", "there is no apt-get on this host to fetch Debian's arm64 packages with", hint=_BY_HAND
            )
        self._folder = folder
        self._suite = suite
        self._updated = False
        etc = folder / "etc"
        for directory in (
            etc / "apt.conf.d",
            etc / "preferences.d",
            etc / "sources.list.d",
            folder / "state" / "lists" / "partial",
            folder / "cache" / "archives" / "partial",
        ):
            directory.mkdir(parents=True, exist_ok=True)
        (folder / "status").write_bytes(b"")
        signed = f"[signed-by={_KEYRING}] " if _KEYRING.is_file() else ""
        # The main suite alone: of an old stable release it no longer changes, so what is pinned stays.
        (etc / "sources.list").write_text(f"deb {signed}{_mirror()} {suite} main\n")
        (folder / "apt.conf").write_text(_configuration(folder, architectures))

    def download(self, wanted: Sequence[str], into: Path) -> list[str]:
        """Fetch `wanted` (NAME:ARCH or NAME:ARCH=VERSION) as .deb files into a folder; apt's complaints, if any.

        apt stops at the first that it cannot find, so the caller looks at what is there.
        Raises ToolError (PACK_REGISTRY, PACK_NO_ARM64, DISK_FULL).
        """
        if not self._updated:
            self._update()
        done = self._run(["download", *wanted], DOWNLOAD_SECONDS, cwd=into)
        complaints = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W:", "Err:"))]
        if done.returncode != 0 and re.search(r"No space left", done.stderr):
            raise disk_full(into)
        return complaints if done.returncode else []

    def newest(self, wanted: Sequence[str]) -> list[tuple[str, int, str]]:
        """(file name, size, SHA-256) of the newest of each NAME:ARCH that is there, without fetching it."""
        if not self._updated:
            self._update()
        said = self._run(["download", "--print-uris", *wanted], DOWNLOAD_SECONDS).stdout
        found = re.findall(r"^'[^']*' (\S+\.deb) (\d+) SHA256:([0-9a-f]{64})$", said, re.MULTILINE)
        return [(file, int(size), digest) for file, size, digest in found]

    def _update(self) -> None:
        done = self._run(["update"], UPDATE_SECONDS)
        said = done.stdout + done.stderr
        problems = [line for line in said.splitlines() if line.startswith(("E:", "W:", "Err:"))]
        if "No space left" in said:
            raise disk_full(self._folder)
        # apt-get update reports many failures as warnings, with status 0.
        if done.returncode == 0 and not any("Failed to fetch" in line for line in problems):
            self._updated = True
            return
        if re.search(r"404 +Not Found|doesn't support architecture|does not have a Release file", said):
            raise ToolError(
                "PACK_NO_ARM64",
                f"the Debian mirror of this host has no arm64 packages of {self._suite}",
                hint=_BY_HAND,
                evidence={"log": problems[-10:]},
            )
        raise ToolError(
            "PACK_REGISTRY",
            f"Debian's package lists cannot be fetched: {_last(problems, said)}",
            hint="Check that `apt-get update` works on this host (network, proxy), or fetch the packages elsewhere and "
            "give their folder with --inputs DIR.",
            evidence={"log": problems[-10:]},
        )

    def _run(
        self, arguments: Sequence[str], seconds: float, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return _apt(["apt-get", "-q", *arguments], seconds, config=self._folder / "apt.conf", cwd=cwd)


def _apt(
    command: Sequence[str], seconds: float, config: Path | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    if config is not None:
        environment["APT_CONFIG"] = str(config)
    try:
        return subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=cwd,
        )
    except subprocess.TimeoutExpired:
        raise ToolError(
            "PACK_REGISTRY",
            f"{command[0]} did not answer within {seconds:.0f} s",
            hint="Check that `apt-get update` works on this host (network, proxy).",
        ) from None
    except OSError as error:
        raise ToolError("PACK_NO_APT", f"{command[0]} cannot be started: {error.strerror}", hint=_BY_HAND) from None


def _mirror() -> str:
    """The base URI of a Debian mirror the host is configured for."""
    listed = _apt(["apt-get", "indextargets", "--format", _TARGET, "Created-By: Packages"], 60)
    guesses = []
    for line in listed.stdout.splitlines():
        uri, release, origin, label, component = (line.split("|") + [""] * 5)[:5]
        if component != "main" or uri.startswith("cdrom:"):
            continue
        # Origin and label are known once the lists have been fetched; without them, the suite's name has to do.
        if (origin, label) == ("Debian", "Debian"):
            return uri
        if origin in ("", "$(ORIGIN)") and _PLAIN_SUITE.match(release):
            guesses.append(uri)
    if guesses:
        return guesses[0]
    raise ToolError(
        "PACK_NO_DEBIAN_SOURCE",
        "apt on this host is not configured for any Debian mirror",
        hint=_BY_HAND,
        evidence={"log": listed.stderr.splitlines()[-10:]},
    )


def _configuration(folder: Path, architectures: Sequence[str]) -> str:
    quoted = "".join(f'"{name}"; ' for name in architectures)
    lines = [
        f'APT::Architecture "{architectures[0]}"; APT::Architectures {{ {quoted}}};',
        f'Dir::Etc "{folder}/etc"; Dir::State "{folder}/state"; Dir::Cache "{folder}/cache";',
        f'Dir::State::status "{folder}/status";',
        'Dir::Etc::trusted "/etc/apt/trusted.gpg"; Dir::Etc::trustedparts "/etc/apt/trusted.gpg.d";',
        'Dir::Etc::netrc "/etc/apt/auth.conf"; Dir::Etc::netrcparts "/etc/apt/auth.conf.d";',
        # The user that apt drops root for could not write here.
        'APT::Sandbox::User ""; Debug::NoLocking "true"; Acquire::Languages "none";',
    ]
    # Proxy, certificates, limits and the like; index targets are not needed.
    dump = _apt(["apt-config", "dump", "--no-empty"], 60).stdout
    lines += [
        line
        for line in dump.splitlines()
        if line.startswith("Acquire::") and not line.startswith(("Acquire::IndexTargets", "Acquire::Languages"))
    ]
    return "\n".join(lines) + "\n"


def _last(problems: Sequence[str], said: str) -> str:
    lines = list(problems) or [line for line in said.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "apt-get gave no reason"


def disk_full(place: Path) -> ToolError:
    return ToolError(
        "DISK_FULL",
        f"no space left in {place}",
        hint="A first build needs about 250 MB: free some, or set XDG_CACHE_HOME to a larger disk.",
    )
