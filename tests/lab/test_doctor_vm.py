"""devices probe and devices doctor on virtual ARM64 machines: a phone with nothing on it, and a board with Python."""

from __future__ import annotations

import json
import subprocess

import pytest

from edgequant.devices.checks import Check
from edgequant.lab.doctor import examine
from edgequant.lab.identify import probe
from edgequant.lab.session import DeviceOptions
from edgequant.pack import Pack
from edgequant.progress import Progress
from tests.beds.vm import Board, Phone
from tests.beds.vm_images import PHONE_PROPERTIES

pytestmark = [pytest.mark.arm64, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = "/data/local/tmp"
# Every name with mode, owner, size and time of change; busybox has this find and stat.
TREE = "find {} -exec stat -c '%n %a %u %s %Y' {{}} +"


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def on_board(board: Board, script: str, user: str = "user") -> str:
    command = ["ssh", "-F", str(board.config), "-l", user, "board", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def board_uri(board: Board, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> str:
    home = tmp_path_factory.mktemp("home")
    (home / ".ssh").mkdir()
    (home / ".ssh" / "config").write_text(board.config.read_text())
    import platformdirs

    monkeypatch.setenv("XDG_CACHE_HOME", str(platformdirs.user_cache_dir()))
    monkeypatch.setenv("HOME", str(home))
    return "ssh://board"


@pytest.mark.nightly
@pytest.mark.adb
def test_a_bare_phone(phone: Phone, pack: Pack) -> None:
    phone.reset()
    before = phone.shell(TREE.format(ROOT))
    found = by_name(examine(phone.uri, DeviceOptions()))
    print(json.dumps([check.__dict__ for check in found.values()], indent=1))
    assert phone.shell(TREE.format(ROOT)) == before
    assert {check.status for check in found.values()} <= {"ok", "skipped"}
    assert "will be pushed once" in found["runtime"].message
    assert f"{pack.size / 1e6:.0f} MB" in found["runtime"].message
    assert found["kernels"].status == "skipped"
    assert found["architecture"].message == "aarch64, 2x Cortex-A76"
    assert "will be made in /data/local/tmp" in found["work directory"].message

    probed = probe(phone.uri, DeviceOptions(), Progress())  # this one pushes the pack
    assert probed.error is None
    assert probed.runner is not None
    assert probed.runner.mnn_kernels["i8sdot"]
    facts = probed.facts
    print(facts.model_dump_json(indent=1))
    assert facts.model == PHONE_PROPERTIES["ro.product.model"]
    assert facts.os == "Android 14 (SDK 34)"
    assert facts.abis == ["arm64-v8a"]
    assert (facts.arch, facts.userland_bits, facts.cores, facts.page_size) == ("aarch64", 64, 2, 4096)
    assert facts.features is not None
    assert {"asimddp", "fphp"} <= set(facts.features)
    assert "i8mm" not in facts.features
    assert facts.clusters is not None
    assert [cluster.name for cluster in facts.clusters] == ["Cortex-A76"]
    assert facts.uptime_s is not None
    assert facts.why_null["thermal"] == "there is no /sys/class/thermal/thermal_zone*"
    assert facts.why_null["battery"] == "there is no /sys/class/power_supply/* of type Battery"
    assert "cpufreq" in facts.why_null["governor"]

    before = phone.shell(TREE.format(ROOT))
    found = by_name(examine(phone.uri, DeviceOptions()))
    assert phone.shell(TREE.format(ROOT)) == before
    assert {check.status for check in found.values()} <= {"ok", "skipped"}
    assert "is unpacked there" in found["runtime"].message
    assert "i8sdot on" in found["kernels"].message
    assert "was started" in found["execution"].message


@pytest.mark.adb
def test_a_place_where_nothing_may_be_executed(phone: Phone, pack: Pack) -> None:
    before = phone.shell(TREE.format("/sdcard"))
    found = by_name(examine(phone.uri, DeviceOptions(work_dir="/sdcard/edgequant")))
    assert found["execution"].status == "fail"
    assert found["execution"].message.startswith("WORK_DIR_NOEXEC: ")
    assert "/sdcard is mounted noexec" in found["execution"].message
    assert "/data/local/tmp" in str(found["execution"].fix)
    assert found["space"].status == "warn"  # 256 MB: enough for the pack, and little more
    assert phone.shell(TREE.format("/sdcard")) == before


@pytest.mark.adb
def test_a_pack_that_is_there_where_nothing_may_be_executed(phone: Phone, pack: Pack) -> None:
    """The start itself is refused, whatever the mounts say."""
    root = "/sdcard/edgequant"
    loader = f"{root}/packs/{pack.sha256}/lib/ld-linux-aarch64.so.1"
    script = (
        f"mkdir -p -m 700 {root} {root}/packs && : > {root}/.edgequant-store && mkdir -p {loader.rpartition('/')[0]}"
    )
    phone.shell(f"{script} && cp /system/bin/busybox {loader} && chmod 700 {loader}")
    try:
        before = phone.shell(TREE.format("/sdcard"))
        found = by_name(examine(phone.uri, DeviceOptions(work_dir=root)))
        assert phone.shell(TREE.format("/sdcard")) == before
    finally:
        phone.shell(f"rm -rf {root}")
    assert found["runtime"].message.startswith("PACK_NOT_STARTED: ")
    assert "ermission denied" in found["runtime"].message
    assert found["execution"].status == "fail"
    assert found["SELinux"].status == "skipped"  # there is none: it must not get the blame


@pytest.mark.adb
def test_the_system_of_a_phone_has_no_python(phone: Phone) -> None:
    options = DeviceOptions(runtime="system")
    found = by_name(examine(phone.uri, options))
    assert found["runtime"].message.startswith("PYTHON_MISSING: ")
    probed = probe(phone.uri, options, Progress())
    assert probed.error is not None
    assert probed.error.code == "PYTHON_MISSING"
    assert probed.hello is None
    assert probed.facts.model == PHONE_PROPERTIES["ro.product.model"]


@pytest.mark.ssh
def test_a_board_without_mnn(board: Board, board_uri: str) -> None:
    before = on_board(board, TREE.format("/home/user"))
    found = by_name(examine(board_uri, DeviceOptions(runtime="system")))
    print(json.dumps([check.__dict__ for check in found.values()], indent=1))
    assert on_board(board, TREE.format("/home/user")) == before
    assert found["architecture"].message == "aarch64, 2x Cortex-A76"
    assert found["runtime"].message.startswith("MNN_MISSING: ")
    assert "-m pip install MNN numpy" in str(found["runtime"].fix)
    # Without being told otherwise it is the pack that runs there.
    found = by_name(examine(board_uri, DeviceOptions(work_dir="/home/user/nothing-was-ever-here")))
    assert "will be pushed once" in found["runtime"].message
    assert on_board(board, TREE.format("/home/user")) == before


@pytest.mark.ssh
def test_a_board_with_no_place_for_the_pack(board: Board, board_uri: str, pack: Pack) -> None:
    """Full, and mounted noexec: with the pack neither will do."""
    on_board(board, "mkdir -p /mnt && busybox mount -t tmpfs -o size=1m,noexec,mode=1777 small /mnt", user="root")
    try:
        found = by_name(examine(board_uri, DeviceOptions(runtime="pack", work_dir="/mnt/work")))
        assert on_board(board, "ls -A /mnt") == ""
    finally:
        on_board(board, "busybox umount /mnt", user="root")
    assert found["execution"].message.startswith("WORK_DIR_NOEXEC: ")
    assert found["space"].message.startswith("NO_SPACE: ")
    assert "devices clean" in str(found["space"].fix)


@pytest.mark.ssh
def test_where_the_pack_has_no_place_auto_goes_without(board: Board, board_uri: str, pack: Pack) -> None:
    on_board(board, "mkdir -p /mnt && busybox mount -t tmpfs -o size=600m,noexec,mode=1777 small /mnt", user="root")
    try:
        found = by_name(examine(board_uri, DeviceOptions(work_dir="/mnt/work")))
    finally:
        on_board(board, "busybox umount /mnt", user="root")
    assert found["pack"].status == "warn"
    assert "WORK_DIR_NOEXEC" in found["pack"].message
    assert found["execution"].status == found["space"].status == "ok"
    assert found["runtime"].message.startswith("MNN_MISSING: ")


@pytest.mark.nightly
@pytest.mark.ssh
def test_facts_of_a_board(board: Board, board_uri: str, pack: Pack) -> None:
    probed = probe(board_uri, DeviceOptions(runtime="pack"), Progress())
    assert probed.error is None
    facts = probed.facts
    print(facts.model_dump_json(indent=1))
    assert facts.os is not None
    assert "Debian" in facts.os
    assert (facts.hostname, facts.arch, facts.abis, facts.cores) == ("board", "aarch64", ["aarch64"], 2)
    assert facts.work_dir == "/home/user/.cache/edgequant/device"
    assert facts.free_mb is not None
