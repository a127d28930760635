"""Each check of the doctor, from facts made for it."""

from __future__ import annotations

from typing import Any

import pytest

from edgequant.devices import checks
from edgequant.devices.facts_model import Battery, Cluster, DeviceFacts, Thermal, unknown
from edgequant.devices.places import Place

URI = "ssh://board"


def facts(**known: Any) -> DeviceFacts:
    return unknown("nobody asked").known(**known)


def place(state: str = "new", **more: Any) -> Place:
    return Place(root="/work", near="/", state=state, **{"free": 10**10, "mount": "/", **more})


@pytest.mark.parametrize(
    ("known", "pack", "status", "words"),
    [
        ({"arch": "aarch64", "userland_bits": 64, "cpu": "4x Cortex-A72"}, True, "ok", "aarch64, 4x Cortex-A72"),
        ({"arch": "x86_64"}, False, "ok", "x86_64"),
        ({"arch": "x86_64"}, True, "fail", "PACK_ARCH"),
        ({"arch": "armv7l"}, False, "warn", "32-bit only"),
        ({"arch": "armv7l"}, True, "fail", "32-bit only"),
        ({"arch": "armv8l"}, True, "fail", "can do 64 bits"),
        ({"arch": "i686"}, False, "warn", "32-bit only"),
        ({"arch": "aarch64", "userland_bits": 32}, False, "warn", "32-bit only"),
        ({"arch": "aarch64", "userland_bits": 32}, True, "warn", "32-bit only"),
        ({"arch": "aarch64", "abis": ["armeabi-v7a", "armeabi"]}, True, "warn", "32-bit only"),
        ({"arch": "aarch64", "abis": ["arm64-v8a"]}, True, "ok", "aarch64"),
        ({}, False, "warn", "nobody asked"),
    ],
)
def test_architecture(known: dict[str, Any], pack: bool, status: str, words: str) -> None:
    check = checks.architecture(facts(**known), pack)
    assert check.status == status
    assert words in check.message
    assert (check.fix is None) == (status == "ok")


@pytest.mark.parametrize(
    ("state", "options", "words"),
    [
        ("link", "rw", "WORK_DIR_UNUSABLE"),
        ("in use", "rw", "WORK_DIR_UNUSABLE"),
        ("somebody else's", "rw", "WORK_DIR_UNUSABLE"),
        ("no directory", "rw", "WORK_DIR_UNUSABLE"),
        ("closed", "rw", "PERMISSION_DENIED"),
        ("closed", "ro", "READ_ONLY"),
        ("new", "ro", "READ_ONLY"),
        ("anything else", "rw", "WORK_DIR_UNUSABLE"),
    ],
)
def test_no_work_directory(state: str, options: str, words: str) -> None:
    bad = place(state, options=frozenset({options}))
    assert not bad.usable
    check = checks.work_directory(URI, None, [bad])
    assert check.status == "fail"
    assert check.message.startswith(f"{words}: ")
    assert "/work: " in check.message
    assert "--work-dir" in str(check.fix)


@pytest.mark.parametrize(
    ("state", "words"), [("ours", "made by edgequant"), ("free", "empty"), ("new", "will be made")]
)
def test_a_work_directory(state: str, words: str) -> None:
    good = place(state)
    check = checks.work_directory(URI, good, [good])
    assert (check.status, check.fix) == ("ok", None)
    assert words in check.message


def test_execution() -> None:
    noexec = place(options=frozenset({"noexec"}))
    assert checks.execution(noexec, pack=True, started=False).status == "fail"
    # What has been started needs no mount to prove it, and Python only reads.
    assert checks.execution(noexec, pack=True, started=True).status == "ok"
    assert checks.execution(noexec, pack=False, started=False).status == "ok"
    assert checks.execution(place(), pack=True, started=False).status == "ok"
    assert checks.execution(place(mount=""), pack=True, started=False).status == "skipped"
    usual = "/data/local/tmp/edgequant-x"
    assert usual in str(checks.execution(noexec, pack=True, started=False, usual=usual).fix)
    assert "such as" not in str(checks.execution(noexec, pack=True, started=False).fix)
    assert "such as" not in str(checks.execution(noexec, pack=True, started=False, usual=noexec.root).fix)


@pytest.mark.parametrize(
    ("free", "needed", "status"),
    [
        (10**10, 0, "ok"),
        (499_999_999, 0, "warn"),
        ((16 << 20) - 1, 0, "fail"),
        (0, 0, "fail"),
        (10**10, 200_000_000, "ok"),
        (600_000_000, 200_000_000, "warn"),
        (200_000_000, 200_000_000, "fail"),
        (None, 0, "warn"),
    ],
)
def test_space(free: int | None, needed: int, status: str) -> None:
    check = checks.space(URI, place(free=free), needed)
    assert check.status == status
    assert (check.fix is None) == (status == "ok")
    if status == "fail":
        assert check.message.startswith("NO_SPACE: ")


def test_selinux_is_blamed_only_where_it_can_be() -> None:
    denied = checks.selinux(facts(selinux="enforcing"), "/data/packs/x/lib/ld.so")
    assert denied.status == "fail"
    assert denied.message.startswith("SELINUX_DENIED: ")
    assert "/data/packs/x/lib/ld.so" in denied.message
    assert "avc" in str(denied.fix)
    assert checks.selinux(facts(selinux="permissive"), "/data/x").status == "ok"
    assert checks.selinux(facts(selinux="enforcing"), None).status == "ok"
    assert checks.selinux(facts(), "/data/x").status == "skipped"


def test_governor() -> None:
    def of(name: str, limit: int) -> checks.Check:
        cluster = Cluster(cores=[0, 1], max_mhz=2000, limit_mhz=limit, governor=name)
        return checks.governor(facts(governor=name, clusters=[cluster.model_dump()]))

    assert of("performance", 2000).status == "ok"
    assert of("schedutil", 2000).status == "warn"
    assert "performance" in str(of("schedutil", 2000).fix)
    assert of("performance", 1000).status == "warn"
    assert "cores 0-1 are held at 1000 of 2000 MHz" in of("performance", 1000).message
    assert checks.governor(facts()).status == "skipped"
    mixed = facts(governor="performance (cores 0-3), powersave (cores 4-7)")
    assert checks.governor(mixed).status == "warn"


@pytest.mark.parametrize(("celsius", "status"), [(79.9, "ok"), (80.0, "warn"), (101.0, "warn")])
def test_temperature(celsius: float, status: str) -> None:
    zones = [Thermal(zone="cpu", celsius=celsius), Thermal(zone="battery", celsius=30)]
    check = checks.temperature(facts(thermal=[zone.model_dump() for zone in zones]))
    assert check.status == status
    assert "cpu" in check.message
    assert ("battery" in check.message) == (status == "ok")
    assert checks.temperature(facts()).status == "skipped"


@pytest.mark.parametrize(
    ("level", "state", "status"),
    [
        (19, "Discharging", "warn"),
        (20, "Discharging", "ok"),
        (5, "Charging", "ok"),
        (None, "Full", "ok"),
        (5, None, "ok"),
    ],
)
def test_battery(level: int | None, state: str | None, status: str) -> None:
    assert checks.battery(facts(battery=Battery(level=level, status=state).model_dump())).status == status
    assert checks.battery(facts()).status == "skipped"
