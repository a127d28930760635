"""Stripping: what is loaded stays byte for byte, and the result runs."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from edgequant.pack import elf

SOME = [path for name in ("cat", "sh", "tar") if (path := shutil.which(name))]


def _loads(data: bytes) -> dict[int, bytes]:
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    found = {}
    for index in range(count):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, table + index * size)
        if kind == 1:
            assert offset % 4096 == address % 4096
            found[address] = data[offset : offset + length]
    return found


@pytest.mark.parametrize("program", SOME)
def test_what_is_loaded_does_not_change(program: str) -> None:
    data = Path(program).read_bytes()
    stripped = elf.stripped(data)
    before, after = _loads(data), _loads(stripped)
    assert before.keys() == after.keys()
    first = min(before)  # holds the headers, whose offsets are what changes
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    start = table + size * count
    assert before.pop(first)[start:] == after.pop(first)[start:]
    assert before == after
    assert elf.needed(data) == elf.needed(stripped)
    assert elf.stripped(stripped) == stripped


def test_a_stripped_program_runs(tmp_path: Path) -> None:
    program = tmp_path / "cat"
    program.write_bytes(elf.stripped(Path(str(shutil.which("cat"))).read_bytes()))
    program.chmod(0o755)
    done = subprocess.run([str(program)], input=b"as ever", capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"as ever")


def test_debug_data_in_front_of_a_segment_goes() -> None:
    """What auditwheel makes of a library: a segment appended behind the debug data."""
    align = 0x10000
    first, appended = b"\x7fELF" + bytes(0xFFC), b"the appended segment"
    place = 5 * align
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, 183, 1, 0, 64, 0x4000, 0, 64, 56, 2, 64, 9, 8)
    loads = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, len(first), len(first), align)
    loads += struct.pack("<IIQQQQQQ", 1, 6, place, 3 * align, 3 * align, len(appended), len(appended), align)
    data = (header + loads).ljust(len(first), b"\0") + b"debug".ljust(place - len(first), b"D") + appended
    stripped = elf.stripped(data)
    assert len(stripped) == align + len(appended)
    assert _loads(stripped)[3 * align] == appended
    assert b"debug" not in stripped


@pytest.mark.parametrize("size", [0, 4, 63, 64, 100, 500])
def test_damaged_files_are_refused(size: int) -> None:
    data = Path(SOME[0]).read_bytes()[:size]
    with pytest.raises(elf.ElfError):
        elf.stripped(data)
    with pytest.raises(elf.ElfError):
        elf.needed(data)


def test_other_kinds_of_elf_are_refused() -> None:
    data = bytearray(Path(SOME[0]).read_bytes())
    data[4] = 1  # 32-bit
    with pytest.raises(elf.ElfError, match="64-bit"):
        elf.machine(bytes(data))
