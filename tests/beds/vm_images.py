"""Disk images for the virtual machines: made from Debian's arm64 packages, once, and kept in the repository's .cache.

The packages come from the mirror this host is configured for, through an apt of our own.  Nothing here needs root,
but to install tools that are missing.

board: Debian with sshd and Python, no NumPy and no MNN.
phone: busybox where Android has toybox, and AOSP's adbd; no Python, no C library outside of adbd's own folder, and an
/sdcard where nothing may be executed.  Its libraries are glibc's, not bionic, and there is no SELinux.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pytest

from edgequant.pack.apt import Apt
from tests.beds.adb_packages import CACHE

SUITE = "bookworm"
OLD_SECONDS = 86400
BOARD_PACKAGES = (
    "bash dash coreutils busybox-static python3.11 python3.11-minimal libpython3.11-stdlib openssh-server "
    "openssh-sftp-server base-files base-passwd libstdc++6 procps grep sed tar gzip findutils"
)
# Of the board's disk; nothing that runs needs it.
LEFT_OUT = (
    *(f"usr/share/{name}" for name in ("doc", "man", "locale", "info", "perl", "perl5")),
    *(f"usr/lib/aarch64-linux-gnu/{name}" for name in ("gconv", "perl", "perl-base")),
    "var/lib/dpkg",
)
APPLETS = (
    "sh ls cat cp mv rm mkdir chmod chown ps grep sed awk tar gzip gunzip kill sleep id uname df du dd md5sum "
    "sha256sum touch test [ true false echo printf env head tail wc find stat mount ip hostname start-stop-daemon "
    "setsid nohup timeout date free top ln pwd sync getconf nproc which xargs tr cut sort uniq od mktemp rmdir "
    "realpath readlink base64 seq expr"
)
# What adbd is linked with.
ADBD_LIBRARIES = (
    "libc.so libm.so libstdc libgcc_s libbase libcutils liblog libcrypto libssl libbrotli liblz4 libprotobuf.so "
    "libresolv libsystemd libzstd libcap.so libgcrypt libgpg liblzma libmd libbsd libdl. libpthread librt libz.so"
)
# In the order they have to be loaded in.
MODULES = (
    "drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_modern_dev "
    "drivers/virtio/virtio_pci_legacy_dev drivers/virtio/virtio_pci drivers/block/virtio_blk net/core/failover "
    "drivers/net/net_failover drivers/net/virtio_net drivers/char/hw_random/virtio-rng"
)

BOARD_INIT = """#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev; $B mkdir -p /dev/pts
$B mount -t devpts -o ptmxmode=666 devpts /dev/pts
$B mount -t tmpfs tmpfs /run; $B mkdir /run/sshd; $B mount -t tmpfs -o mode=1777 tmpfs /tmp
$B ip link set lo up; $B ip addr add 10.0.2.15/24 dev eth0; $B ip link set eth0 up; $B hostname board
exec /usr/sbin/sshd -D -e -f /etc/ssh/sshd_config
"""
PHONE_INIT = """#!/system/bin/sh
export PATH=/system/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mkdir -p /dev/pts
mount -t devpts -o ptmxmode=666 devpts /dev/pts
ip link set lo up; ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up
chmod 771 /data /data/local; chown 2000:2000 /data/local/tmp; chmod 771 /data/local/tmp
mount -t tmpfs -o size=256m,noexec,nosuid,mode=1777 tmpfs /sdcard
export ADBD_PORT=5555 ANDROID_DATA=/data ANDROID_ROOT=/system EXTERNAL_STORAGE=/sdcard
adbd="-x /apex/adbd/ld-linux-aarch64.so.1 -- --library-path /apex/adbd/lib /apex/adbd/adbd"
while :; do start-stop-daemon -S -c 2000:2000 $adbd; sleep 1; done
"""
FIRST_INIT = """#!/bin/sh
mount -t devtmpfs dev /dev
for m in {modules}; do insmod /m/$m; done
n=0; while [ ! -e /dev/vda ] && [ $n -lt 50 ]; do sleep 0.1; n=$((n+1)); done
mount -t ext4 -o rw,noatime /dev/vda /new && exec switch_root /new /sbin/tinit
exec sh
"""
SSHD_CONFIG = """HostKey /etc/ssh/host_key
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
PidFile none
Subsystem sftp internal-sftp
MaxStartups 50:30:100
MaxSessions 50
UseDNS no
"""
PHONE_PROPERTIES = {
    "ro.product.model": "Test Phone",
    "ro.product.name": "testphone",
    "ro.product.device": "testphone",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.product.cpu.abilist": "arm64-v8a",
    "ro.build.version.sdk": "34",
    "ro.build.version.release": "14",
    "ro.serialno": "TEST0001",
}
GETPROP = r"""#!/system/bin/sh
if [ $# = 0 ]; then sed -n "s/^\([^=]*\)=\(.*\)$/[\1]: [\2]/p" /system/build.prop
else sed -n "s/^$1=//p" /system/build.prop; fi
"""


@dataclass(frozen=True)
class Images:
    """The files two virtual machines are started from, not to be changed."""

    folder: Path

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd.cpio"

    @property
    def key(self) -> Path:
        """The private key the board's accounts accept."""
        return self.folder / "id_ed25519"

    @property
    def host_key(self) -> str:
        """The board's public host key, as "type base64"."""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    def disk(self, name: str) -> Path:
        return self.folder / f"{name}.img"


def install(**commands: str) -> None:
    """Make sure each COMMAND=PACKAGE is there; apt-get installs what is missing where root runs the tests."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

    def missing() -> list[str]:
        return [name for command, name in commands.items() if not shutil.which(command.replace("_", "-"), path=path)]

    wanted = missing()
    if wanted and os.geteuid() == 0 and shutil.which("apt-get"):
        with _locked(CACHE / "apt.lock"):
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            for arguments in (["update"], ["install", "-y", "--no-install-recommends", *wanted]):
                done = subprocess.run(["apt-get", "-qq", *arguments], env=environment, capture_output=True, timeout=600)
                if done.returncode:
                    pytest.fail(f"apt-get {' '.join(arguments)} failed:\n{done.stderr.decode(errors='replace')}")
        wanted = missing()
    if wanted:
        pytest.fail(f"not installed, and only root on a system with apt-get can change that: {' '.join(wanted)}")


def _locked(path: Path) -> TextIO:
    """An open file that others wait for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = path.open("w")
    fcntl.flock(stream, fcntl.LOCK_EX)
    return stream


def images() -> Images:
    """The images of this recipe, built by whichever test process comes first."""
    install(fakeroot="fakeroot", mke2fs="e2fsprogs", ssh_keygen="openssh-client", dpkg_deb="dpkg")
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    place = CACHE / "vm" / recipe
    with _locked(CACHE / "vm.lock"):
        if not place.exists():
            place.parent.mkdir(exist_ok=True)
            # Images of older recipes are of use to nobody but a test run that started before the recipe changed.
            old = [path for path in place.parent.iterdir() if path.stat().st_mtime < time.time() - OLD_SECONDS]
            with tempfile.TemporaryDirectory(dir=CACHE) as work:
                _build(Path(work))
                Path(work, "out").rename(place)
            for path in old:
                shutil.rmtree(path, ignore_errors=True)
    return Images(place)


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "LC_ALL": "C"}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, errors="replace", timeout=600, env=environment, cwd=cwd
    )
    if done.returncode:
        pytest.fail(f"{command[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _build(work: Path) -> None:
    out = work / "out"
    out.mkdir()
    _download(work)
    for name in ("board", "adbd", "kernel"):
        for package in sorted((work / "debs" / name).glob("*.deb")):
            _run("dpkg-deb", "-x", package, work / name)
    for name in ("id_ed25519", "host_key"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "edgequant test", "-f", out / name)
    busybox = work / "board" / "bin" / "busybox"
    (out / "initrd.cpio").write_bytes(_initrd(work / "kernel", busybox))
    shutil.copy(next((work / "kernel" / "boot").glob("vmlinuz-*")), out / "vmlinuz")
    _phone(work / "phone", work / "adbd", busybox)
    # The phone's disk has to survive a power cut, as a phone's does; the board's is thrown away.
    _disk(work / "phone", out / "phone.img", "-J", "size=16")
    _board(work / "board", out)
    _disk(work / "board", out / "board.img", "-O", "^has_journal", owned="chown -R 1000:1000 $1/home/user && ")


def _download(work: Path) -> None:
    """debs/board, debs/adbd and debs/kernel, each with all they need."""
    Apt(work / "apt", SUITE, ["arm64"])  # writes the configuration
    sources = work / "apt" / "etc" / "sources.list"
    main = sources.read_text()
    sources.write_text(main + main.replace(f" {SUITE} main", f" {SUITE}-backports main"))  # adbd is only there

    def apt(*arguments: str, cwd: Path | None = None) -> str:
        return _run("env", f"APT_CONFIG={work}/apt/apt.conf", "DEBIAN_FRONTEND=noninteractive", *arguments, cwd=cwd)

    apt("apt-get", "-q", "update")
    for name, wanted in (("board", BOARD_PACKAGES.split()), ("adbd", ["-t", f"{SUITE}-backports", "adbd"])):
        folder = work / "debs" / name
        (folder / "partial").mkdir(parents=True)
        options = ["--download-only", "--no-install-recommends", "-o", f"Dir::Cache::archives={folder}"]
        apt("apt-get", "-q", "install", "-y", *options, *wanted)
    depends = apt("apt-cache", "depends", "linux-image-cloud-arm64").split()
    kernel = next(word for word in depends if word.startswith("linux-image-") and word != "linux-image-cloud-arm64")
    (work / "debs" / "kernel").mkdir()
    apt("apt-get", "-q", "download", kernel, cwd=work / "debs" / "kernel")  # what it needs is for installing it


def _board(root: Path, out: Path) -> None:
    for name in LEFT_OUT:
        shutil.rmtree(root / name, ignore_errors=True)
    for name in ("proc", "sys", "dev", "run", "tmp", "root/.ssh", "home/user/.ssh"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("root", "root/.ssh", "home/user/.ssh"):
        (root / name).chmod(0o700)
        if name.endswith(".ssh"):
            shutil.copy(out / "id_ed25519.pub", root / name / "authorized_keys")
    passwd = (root / "usr/share/base-passwd/passwd.master").read_text().replace("root:*:", "root:x:")
    passwd += "sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\nuser:x:1000:1000::/home/user:/bin/bash\n"
    group = (root / "usr/share/base-passwd/group.master").read_text()
    _write(root / "etc/passwd", passwd)
    _write(root / "etc/group", f"{group}user:x:1000:\n")
    _write(root / "etc/shadow", "root:*:19000:0:99999:7:::\nuser:*:19000:0:99999:7:::\nsshd:!:19000::::::\n", 0o600)
    _write(root / "etc/ssh/host_key", (out / "host_key").read_text(), 0o600)
    _write(root / "etc/ssh/sshd_config", SSHD_CONFIG)
    _write(root / "sbin/tinit", BOARD_INIT, 0o755)
    _link(root / "bin/sh", "dash")
    _link(root / "usr/bin/python3", "python3.11")


def _phone(root: Path, adbd: Path, busybox: Path) -> None:
    for name in ("system/bin", "data/local/tmp", "sdcard", "proc", "sys", "dev", "etc", "sbin", "apex/adbd/lib"):
        (root / name).mkdir(parents=True)
    _link(root / "bin", "system/bin")
    shutil.copy(busybox, root / "system/bin/busybox")
    for name in APPLETS.split():
        _link(root / "system/bin" / name, "busybox")
    _write(root / "system/bin/getprop", GETPROP, 0o755)
    _write(root / "system/build.prop", "".join(f"{key}={value}\n" for key, value in PHONE_PROPERTIES.items()))
    _write(root / "etc/passwd", "root:x:0:0::/:/system/bin/sh\nshell:x:2000:2000:::/system/bin/sh\n")
    _write(root / "etc/group", "root:x:0:\nshell:x:2000:\n")
    _write(root / "sbin/tinit", PHONE_INIT, 0o755)
    place, libraries = root / "apex/adbd", adbd / "usr/lib/aarch64-linux-gnu"
    shutil.copy(adbd / "usr/lib/android-sdk/platform-tools/adbd", place)
    shutil.copy(adbd / "lib/aarch64-linux-gnu/ld-linux-aarch64.so.1", place)
    for folder in (libraries / "android", libraries, adbd / "lib/aarch64-linux-gnu"):
        for file in sorted(folder.glob("*.so.*")):
            if file.name.startswith(tuple(ADBD_LIBRARIES.split())) and not (place / "lib" / file.name).exists():
                shutil.copy(file, place / "lib")


def _disk(root: Path, image: Path, *options: str, owned: str = "") -> None:
    """An ext4 image of a folder, everything in it root's but what `owned` says."""
    with image.open("wb") as stream:
        stream.truncate(2 << 30)
    script = f'chown -R 0:0 "$1" && {owned}shift && exec "$@"'
    _run("fakeroot", "sh", "-c", script, "sh", root, "mke2fs", "-q", "-t", "ext4", *options, "-d", root, image)


def _initrd(kernel: Path, busybox: Path) -> bytes:
    """What finds the disk: busybox and the drivers, as a cpio archive."""
    modules = next((kernel / "lib/modules").glob("*")) / "kernel"
    found = [path for name in MODULES.split() if (path := modules / f"{name}.ko").is_file()]
    entries: list[tuple[str, int, bytes]] = [(name, 0o40755, b"") for name in ("bin", "dev", "new", "m")]
    entries.append(("bin/busybox", 0o100755, busybox.read_bytes()))
    entries += [(f"bin/{name}", 0o120777, b"busybox") for name in ("sh", "mount", "switch_root", "insmod", "sleep")]
    entries += [(f"m/{path.name}", 0o100644, path.read_bytes()) for path in found]
    init = FIRST_INIT.format(modules=" ".join(path.name for path in found))
    entries += [("init", 0o100755, init.encode()), ("TRAILER!!!", 0, b"")]
    archive = bytearray()
    for number, (name, mode, data) in enumerate(entries, 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        archive += bytes(-len(archive) % 4) + data
        archive += bytes(-len(archive) % 4)
    return bytes(archive)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.write_text(text)
    path.chmod(mode)


def _link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)
