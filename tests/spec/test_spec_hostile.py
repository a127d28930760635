"""Specs that YAML, Python or the file system stumble over are SPEC_INVALID, whatever they stumble with."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgequant.errors import InputError
from edgequant.problems import shown
from edgequant.spec.file import load_spec

HOSTILE = [
    "!!python/object:os.system x", "variants: !!timestamp x", "a: !!int x", "a: !!float x", "a: 2026-13-45",
    "a: 2001-12-14 25:61:61", "variants: [2026-01-01]", "shapes: {x: [" + "9" * 6000 + "]}",
    "options: {threads: 0x" + "f" * 5000 + "}", "options: {seed: 0b" + "1" * 9000 + "}", "variants: !!binary x",
    'inputs: "a\\0b"', 'calibration: "a\\0b"', "a: !!bool x", "a: !!null x", "a: !foo b", "a: =", "[" * 5000,
    "a: 0x", "a: 190:20:30.15", 'variants: ["recipe:' + "n" * 5000 + '"]', "<<: 5", "a: !!map [b]", "\x00",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_it_is_a_named_error_of_one_readable_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as found:
        load_spec(path)
    assert found.value.code == "SPEC_INVALID"
    assert len(str(found.value)) < 2000


@pytest.mark.parametrize("name", ["loop", "n" * 300, "file/x"])
def test_a_name_that_is_none(name: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as found:
        load_spec(tmp_path / name)
    assert found.value.code == "SPEC_NOT_FOUND"


def test_a_number_that_python_refuses_to_write() -> None:
    assert shown(1 << 100_000) == "a number of hundreds of digits"
