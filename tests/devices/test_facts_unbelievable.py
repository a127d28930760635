"""Texts that nobody would believe: huge, endless, garbled. No fact is out of bounds, and the others stay."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edgequant.devices.facts import split
from edgequant.devices.facts_parse import Section, parsed
from edgequant.devices.places import places_in
from tests.devices.facts_texts import (
    CPU,
    ELF32,
    MEMINFO,
    PIXEL_CPUINFO,
    PIXEL_VALUES,
    arm_core,
    complete,
    getprop,
    pixel,
    values,
)

HUGE = "9" * 5000


def test_huge_numbers_and_odd_bytes() -> None:
    """A device that lies, or is broken: no fact is out of bounds, and the others stay."""
    found = {key: HUGE for key in PIXEL_VALUES if not key.endswith(("type", "related_cpus"))}
    texts = {"meminfo": f"MemTotal: {HUGE} kB\n", "page_size": HUGE}
    facts = parsed(pixel(values=values(found), **texts))
    complete(facts)
    assert facts.model == "Pixel 6"
    for name in ("ram_mb", "page_size", "uptime_s", "max_mhz", "thermal", "battery", "selinux"):
        assert getattr(facts, name) is None, name
    odd = getprop({"ro.product.model": "\x1b[31mred\u202e" + "x" * 100_000})
    facts = parsed(pixel(getprop=odd, uname=b"\xff\xfe \x00\xc0 \xff", cpuinfo=b"processor : \xff\nFeatures\t:\xfe\n"))
    complete(facts)
    assert facts.model is not None
    assert len(facts.model) <= 300
    assert "\x1b" not in facts.model


def test_too_many_of_everything() -> None:
    zones = {f"/sys/class/thermal/thermal_zone{n}/temp": "40000" for n in range(20_000)}
    cpus = "".join(arm_core(n, 0xD03) for n in range(9000))
    facts = parsed(pixel(values=values(zones), cpuinfo=cpus))
    complete(facts)
    assert facts.thermal is not None
    assert len(facts.thermal) == 500
    assert facts.cores == 4096


GARBAGE = st.binary(max_size=300) | st.sampled_from(
    [PIXEL_CPUINFO.encode(), MEMINFO.encode(), ELF32, b"\x7fELF", b"[a]: [b]", f"{CPU}present\t0-9999".encode()]
)
NAMES = (
    *("uname", "getprop", "os-release", "cpuinfo", "meminfo", "dt-compatible", "dt-model", "page-size", "smaps", "elf"),
    *("folders", "values", "getenforce", "dumpsys-battery", "dumpsys-thermal"),
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), st.builds(Section, GARBAGE, st.none() | st.integers(0, 255))))
def test_whatever_it_says(sections: dict[str, Section]) -> None:
    complete(parsed(sections))


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(PIXEL_VALUES)), st.text(max_size=20))))
def test_whatever_its_files_say(found: list[tuple[str, str]]) -> None:
    lines = "".join(f"{path}\t{value}\n" for path, value in found).encode()
    complete(parsed(pixel(values=Section(lines))))


@settings(deadline=None)
@given(st.binary(max_size=400), st.binary(max_size=200))
def test_whatever_its_places_are(said_of_places: bytes, mounts: bytes) -> None:
    places_in(said_of_places, mounts)
    places_in(b"root=/x\0near=/\0state=new\0" + said_of_places, mounts)
    split(said_of_places, "m")
