"""Debian packages for the adb beds: downloaded once with apt-get, from wherever this host gets its own, and unpacked.

Nothing is installed and nothing of the system changes, so no root is needed, but Debian or Ubuntu.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[2] / ".cache" / "beds"


def unpacked(name: str) -> Path:
    """The directory a package and all it needs were unpacked into; downloads them the first time."""
    CACHE.mkdir(parents=True, exist_ok=True)
    place = CACHE / f"{name}-{platform.machine()}"
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes start at once
        if not place.exists():
            if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
                pytest.fail(f"{name} comes in a Debian package: run these tests on Debian or Ubuntu")
            with tempfile.TemporaryDirectory(dir=CACHE) as work:
                for package in _download(name, Path(work)):
                    subprocess.run(["dpkg-deb", "-x", str(package), f"{work}/x"], check=True, timeout=60)
                Path(work, "x").rename(place)
    return place


def _download(name: str, work: Path) -> list[Path]:
    """The package with all it needs, by an apt of our own: state of the system is neither read nor changed."""
    for part in ("etc/apt.conf.d", "etc/preferences.d", "state/lists/partial", "cache/archives/partial"):
        (work / part).mkdir(parents=True)
    (work / "status").touch()
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)", "Created-By: Packages"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    known = dict.fromkeys(tuple(line.split()) for line in listed.splitlines() if len(line.split()) == 3)
    keys = "/usr/share/keyrings/{}-archive-keyring.gpg"
    found = next((path for path in map(keys.format, ("debian", "ubuntu")) if Path(path).exists()), None)
    if not known or found is None:
        pytest.fail("apt knows no Debian or Ubuntu packages: run `apt-get update`, or add a source")
    release = _os_release()
    lines = []
    for uri, codename, component in known:
        if not codename.startswith(release.get("VERSION_CODENAME", "?")):
            continue  # of somebody else's making
        lines.append(f"deb [signed-by={found}] {uri} {codename} {component}")
        if release.get("ID") == "debian" and codename == release["VERSION_CODENAME"]:
            lines.append(f"deb [signed-by={found}] {uri} {codename}-backports {component}")
    (work / "etc/sources.list").write_text("\n".join(dict.fromkeys(lines)) + "\n")
    (work / "apt.conf").write_text(
        f'Dir::Etc "{work}/etc"; Dir::Etc::trustedparts "/etc/apt/trusted.gpg.d"; Dir::State "{work}/state"; '
        f'Dir::State::status "{work}/status"; Dir::Cache "{work}/cache"; APT::Install-Recommends "false"; '
        'APT::Sandbox::User ""; Acquire::Languages "none"; Debug::NoLocking "true";\n'
    )
    environment = {**os.environ, "APT_CONFIG": str(work / "apt.conf"), "DEBIAN_FRONTEND": "noninteractive"}
    target = [] if release.get("ID") != "debian" else ["-t", f"{release['VERSION_CODENAME']}-backports"]
    for arguments in (["update", "-qq"], ["install", "-y", "-qq", "--download-only", *target, name]):
        done = subprocess.run(["apt-get", *arguments], env=environment, capture_output=True, text=True, timeout=600)
        if done.returncode:
            pytest.fail(f"apt-get {' '.join(arguments)} failed:\n{done.stderr}")
    return sorted((work / "cache/archives").glob("*.deb"))


def _os_release() -> dict[str, str]:
    lines = Path("/etc/os-release").read_text().splitlines()
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}
