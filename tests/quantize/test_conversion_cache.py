"""Files that were made before: found again, never believed, and never in the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgequant.archive.types import Artifact
from edgequant.errors import EdgequantError
from edgequant.findings import Finding
from edgequant.models import read_model
from edgequant.progress import Progress
from edgequant.quantize import convert as converting
from edgequant.quantize.cache import ConversionCache, conversion_key
from edgequant.quantize.child import ChildResult
from edgequant.quantize.maker import Maker
from edgequant.spec import Variant
from tests import generated

Counted = list[str]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """What the converter was run for, as it is."""
    found: Counted = []
    real = converting.run_child

    def counting(*args: object, **more: object) -> ChildResult:
        found.append(str(more["log"]))
        return real(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(converting, "run_child", counting)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return generated.conv_cnn(tmp_path / "cnn.onnx")


class Heard(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def make(source: Path, folder: Path, cache: ConversionCache | None, *variants: str) -> list[Artifact]:
    """Each in a run folder of its own."""
    (folder / "models").mkdir(parents=True)
    maker = Maker(read_model(source), folder, cache=cache)
    made = [maker.make(Variant.parse(text)) for text in variants]
    assert maker.repeated() == ()
    return made


def keys(cache: ConversionCache) -> set[str]:
    return {path.name for path in cache.folder.iterdir() if path.name != ".lock"}


def test_what_was_made_is_not_made_again(source: Path, tmp_path: Path, runs: Counted) -> None:
    cache = ConversionCache(tmp_path / "cache")
    first = make(source, tmp_path / "one", cache, "float", "weight:4,block=32", "fp16")
    count = len(runs)
    assert count == 5  # float is made twice, and fp16 takes two
    again = make(source, tmp_path / "two", cache, "float", "weight:4,block=32", "fp16")
    assert len(runs) == count
    for old, new in zip(first, again, strict=True):
        assert new == old.model_copy(update={"path": new.path})
        assert new.path == tmp_path / "two" / "models" / old.path.name
        assert new.path.read_bytes() == old.path.read_bytes()
        assert new.log is not None
        assert (tmp_path / "two" / "logs" / new.log).read_bytes() == (tmp_path / "one" / "logs" / new.log).read_bytes()
    assert any("cannot use the block" in text for text in again[1].warnings)
    assert again[0].facts.weights == "float"
    assert again[1].facts.weights == "quantized"
    # A copy: what becomes of it in a run changes nothing for others.
    again[0].path.write_bytes(b"")
    (third,) = make(source, tmp_path / "three", cache, "float")
    assert third.path.read_bytes() == first[0].path.read_bytes()
    assert {path.suffix for path in (tmp_path / "three" / "models").iterdir()} == {".mnn"}


def test_weight_and_dynamic_are_one_file(source: Path, tmp_path: Path, runs: Counted) -> None:
    cache = ConversionCache(tmp_path / "cache")
    (weight,) = make(source, tmp_path / "one", cache, "weight:8")
    (dynamic,) = make(source, tmp_path / "two", cache, "dynamic:8")
    assert len(runs) == 1
    assert dynamic.sha256 == weight.sha256
    assert (str(dynamic.asked), str(dynamic.run_as)) == ("dynamic:8", "dynamic:8")


def test_a_recipe_counts_by_what_it_says(source: Path, tmp_path: Path, runs: Counted) -> None:
    cache = ConversionCache(tmp_path / "cache")
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    one.write_text('{"schema": "edgequant.recipe/1", "rules": [{"name": "*", "bits": 8}]}')
    shutil.copy(one, other)
    (first,) = make(source, tmp_path / "a", cache, f"recipe:{one}")
    count = len(runs)
    (second,) = make(source, tmp_path / "b", cache, f"recipe:{other}")
    assert (len(runs), second.sha256) == (count, first.sha256)
    assert second.asked.file == str(other)
    assert second.path.name.startswith("recipe-other-")
    assert str(second.run_as) == "dynamic:8"
    other.write_text('{"schema": "edgequant.recipe/1", "rules": [{"name": "*", "bits": 4}]}')
    (third,) = make(source, tmp_path / "c", cache, f"recipe:{other}")
    assert len(runs) > count
    assert third.sha256 != first.sha256


def test_the_key_is_all_that_decides_the_file(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = read_model(source)
    known = conversion_key(graph, "float")
    assert known == conversion_key(graph, "float")
    other = read_model(generated.gru(tmp_path / "gru.onnx"))
    assert len({known, conversion_key(graph, "fp16"), conversion_key(other, "float")}) == 3
    for name, value in (("host_mnn_version", lambda: "9.9.9"), ("_code", lambda: "other"), ("_FORMAT", 0)):
        with monkeypatch.context() as patch:
            patch.setattr(f"edgequant.quantize.cache.{name}", value)
            assert conversion_key(graph, "float") != known
    with monkeypatch.context() as patch:
        patch.setattr("platform.machine", lambda: "riscv64")
        assert conversion_key(graph, "float") != known


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit of the model": lambda entry: flip(entry / "model.mnn"),
    "the model's end": lambda entry: os.truncate(entry / "model.mnn", 100),
    "no model": lambda entry: (entry / "model.mnn").unlink(),
    "a bit of the record": lambda entry: flip(entry / "record.json"),
    "the record's end": lambda entry: os.truncate(entry / "record.json", 100),
    "an empty record": lambda entry: (entry / "record.json").write_bytes(b""),
    "no record": lambda entry: (entry / "record.json").unlink(),
    "another record": lambda entry: (entry / "record.json").write_text('{"artifact": {}}'),
    "a list": lambda entry: (entry / "record.json").write_text("[" * 100_000),
    "a model without end": lambda entry: os.truncate(entry / "model.mnn", 1 << 40),
    "a pipe": lambda entry: ((entry / "record.json").unlink(), os.mkfifo(entry / "record.json")),
    "a folder": lambda entry: ((entry / "model.mnn").unlink(), (entry / "model.mnn").mkdir()),
    "the log": lambda entry: next((entry / "logs").iterdir()).write_bytes(b"another"),
    "no log": lambda entry: next((entry / "logs").iterdir()).unlink(),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_entry_is_dropped_and_made_again(what: str, source: Path, tmp_path: Path, runs: Counted) -> None:
    cache = ConversionCache(tmp_path / "cache")
    (first,) = make(source, tmp_path / "one", cache, "weight:8")
    (key,) = keys(cache)
    DAMAGE[what](cache.folder / key)
    (second,) = make(source, tmp_path / "two", cache, "weight:8")
    assert len(runs) == 2
    assert second.path.read_bytes() == first.path.read_bytes()
    assert {path.suffix for path in (tmp_path / "two" / "models").iterdir()} == {".mnn"}
    (third,) = make(source, tmp_path / "three", cache, "weight:8")
    assert (len(runs), third.sha256, keys(cache)) == (2, first.sha256, {key})


def test_a_pipe_in_place_of_the_lock_costs_the_shrinking_alone(source: Path, tmp_path: Path, runs: Counted) -> None:
    cache = ConversionCache(tmp_path / "cache")
    make(source, tmp_path / "one", cache, "weight:8")
    (cache.folder / ".lock").unlink()
    os.mkfifo(cache.folder / ".lock")
    cache.shrink()  # and does not wait for who reads it
    make(source, tmp_path / "two", cache, "weight:8")
    assert len(runs) == 1


def test_what_was_not_used_for_longest_goes_first(source: Path, tmp_path: Path, runs: Counted) -> None:
    cache = ConversionCache(tmp_path / "cache")
    variants = ["float", "weight:8", "weight:4"]
    sizes = []
    for number, variant in enumerate(variants):
        make(source, tmp_path / str(number), cache, variant)
        (newest, *_) = cache.entries()
        sizes.append(newest.size)
        os.utime(cache.folder / newest.key / "record.json", (number, number))
    make(source, tmp_path / "used", cache, "float")
    assert [entry.variant for entry in cache.entries()] == ["float", "weight:4", "weight:8"]
    assert cache.entries()[0].size == sizes[0]
    small = ConversionCache(cache.folder, sum(sizes) + 1)
    make(source, tmp_path / "more", small, "weight:6")
    assert [entry.variant for entry in small.entries()] == ["weight:6", "float", "weight:4"]
    # One that has no room at all is not kept, and pushes nothing out.
    tiny = ConversionCache(cache.folder, 100)
    make(source, tmp_path / "none", tiny, "weight:5")
    assert len(tiny.entries()) == 3
    total = sum(entry.size for entry in cache.entries())
    assert cache.clean() == total > 0
    assert not keys(cache)


def test_a_cache_that_cannot_be_written_is_told_once(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    heard = Heard()
    cache = ConversionCache(tmp_path / "file" / "cache", progress=heard)
    made = make(source, tmp_path / "run", cache, "float", "weight:8")
    assert all(each.path.is_file() for each in made)
    (line,) = heard.lines
    assert "goes on without it" in line
    assert cache.entries() == []
    assert cache.clean() == 0


FULL = """
import subprocess, sys
from pathlib import Path
from edgequant.models import read_model
from edgequant.progress import Progress
from edgequant.quantize.cache import ConversionCache
from edgequant.quantize.maker import Maker
from edgequant.spec import Variant
disk, run = Path(sys.argv[2]), Path(sys.argv[3])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], check=True)
(run / "models").mkdir(parents=True)
class Heard(Progress):
    def say(self, text):
        print(text)
maker = Maker(read_model(Path(sys.argv[1])), run, cache=ConversionCache(disk, progress=Heard()))
for text in ("float", "weight:8"):
    made = maker.make(Variant.parse(text))
    maker.repeated()
    print(made.path.stat().st_size > 0)
print(sorted(path.name for path in disk.iterdir()))
"""


def test_a_full_disk_costs_the_cache_alone(tmp_path: Path) -> None:
    source = generated.big_mlp(tmp_path / "mlp.onnx")
    (tmp_path / "disk").mkdir()
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    command = [*unshare, sys.executable, "-c", FULL, source, tmp_path / "disk", tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    told, *rest = done.stdout.splitlines()
    assert "No space left on device" in told
    assert rest == ["True", "True", "[]"]


TOGETHER = """
import sys
from pathlib import Path
from edgequant.models import read_model
from edgequant.quantize.cache import ConversionCache
from edgequant.quantize.maker import Maker
from edgequant.spec import Variant
run = Path(sys.argv[3])
(run / "models").mkdir(parents=True)
maker = Maker(read_model(Path(sys.argv[1])), run, cache=ConversionCache(Path(sys.argv[2]), 1 << 20))
for text in ("float", "weight:8", "weight:4"):
    print(maker.make(Variant.parse(text)).sha256)
"""


def test_several_at_once(source: Path, tmp_path: Path) -> None:
    """All of them with the same cache, which has no room for what they make."""
    command = [sys.executable, "-c", TOGETHER, source, tmp_path / "cache"]
    started = [
        subprocess.Popen([*command, tmp_path / f"run{n}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    ended = [(each.communicate(timeout=240), each.returncode) for each in started]
    assert {code for _, code in ended} == {0}, ended
    assert len({output for (output, _), _ in ended}) == 1
    cache = ConversionCache(tmp_path / "cache")
    assert not [path.name for path in cache.folder.iterdir() if path.name.startswith(".") and path.name != ".lock"]
    for entry in cache.entries():
        (tmp_path / "look").mkdir(exist_ok=True)
        assert cache.take(entry.key, tmp_path / "look", tmp_path / "look") is not None


def test_a_source_that_changes_meanwhile_is_not_kept(source: Path, tmp_path: Path) -> None:
    """What was read is not what was converted: kept, it would be wrong for ever after."""
    cache = ConversionCache(tmp_path / "cache")
    (tmp_path / "run" / "models").mkdir(parents=True)
    maker = Maker(read_model(source), tmp_path / "run", cache=cache)
    generated.gru(source)
    maker.make(Variant.parse("float"))
    assert maker.repeated() == ()
    assert cache.entries() == []


def test_failures_are_not_kept(source: Path, tmp_path: Path) -> None:
    cache = ConversionCache(tmp_path / "cache")
    (quantized,) = make(source, tmp_path / "one", cache, "weight:8")
    before = keys(cache)
    with pytest.raises(EdgequantError) as caught:
        make(quantized.path, tmp_path / "two", cache, "weight:4")
    assert caught.value.code == "ALREADY_QUANTIZED"
    assert keys(cache) == before


def test_evidence_of_any_kind_is_kept(source: Path, tmp_path: Path) -> None:
    """A run must not fail because of what a finding holds."""
    cache = ConversionCache(tmp_path / "cache")
    (made,) = make(source, tmp_path / "one", None, "float")
    evidence = {"count": np.int64(3), "share": np.float32(0.5), "each": np.arange(2), "file": tmp_path, "odd": "\udce9"}
    finding = Finding(code="SEEN", severity="info", message="\udce9", evidence=evidence)
    graph = read_model(source)
    cache.keep("key", made.model_copy(update={"findings": (finding,)}), tmp_path / "one" / "logs", graph)
    (tmp_path / "two").mkdir()
    found = cache.take("key", tmp_path / "two", tmp_path / "two")
    assert found is not None
    plain = {"count": 3, "share": 0.5, "each": [0, 1], "file": str(tmp_path), "odd": "\udce9"}
    assert found.findings == (finding.model_copy(update={"evidence": plain}),)


def test_a_record_is_plain_json(source: Path, tmp_path: Path) -> None:
    cache = ConversionCache(tmp_path / "cache")
    make(source, tmp_path / "one", cache, "weight:8")
    (key,) = keys(cache)
    record = json.loads((cache.folder / key / "record.json").read_text())
    assert record["artifact"]["path"] == "model.mnn"
    assert str(tmp_path) not in json.dumps(record)


def test_every_log_that_is_named_comes_along(source: Path, tmp_path: Path) -> None:
    """Under another name where the run has one of that name already, and is named by that."""
    cache, logs, graph = ConversionCache(tmp_path / "cache"), tmp_path / "one" / "logs", read_model(source)
    (made,) = make(source, tmp_path / "one", None, "fp16")
    assert made.log is not None
    assert len(list(logs.iterdir())) == 2  # of the converter's two runs
    (logs / "tried.log").write_text("it crashed")
    (logs / "of another variant.log").write_text("not this one's")
    finding = Finding(code="SEEN", severity="info", message="see tried.log", evidence={"log": "tried.log"})
    cache.keep("key", made.model_copy(update={"findings": (finding,), "steps": ({"log": "tried.log"},)}), logs, graph)
    there = tmp_path / "two"
    there.mkdir()
    found = cache.take("key", there, there / "logs")
    assert found is not None
    said = {path.name: path.read_text() for path in (there / "logs").iterdir()}
    assert said == {path.name: path.read_text() for path in logs.iterdir() if "another" not in path.name}
    again = cache.take("key", there, there / "logs")
    assert again is not None
    assert again.log == f"{Path(made.log).stem}-2.log"
    assert again.findings[0].evidence == {"log": "tried-2.log"} == again.steps[0]
    assert (there / "logs" / "tried-2.log").read_text() == "it crashed"
    (cache.folder / "key" / "logs" / "tried.log").write_text("something else")
    assert cache.take("key", there, there / "logs") is None
    assert keys(cache) == set()


def test_what_searches_keep_counts_and_goes_too(source: Path, tmp_path: Path) -> None:
    searches = tmp_path / "search"
    cache = ConversionCache(tmp_path / "cache", 1 << 20, searches=searches)
    for name, age in (("noises/old.jsonl", 9000), ("models/new.mnn", 5)):
        path = searches / name
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(600 << 10))
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    make(source, tmp_path / "one", cache, "weight:8")
    assert [path.name for path in searches.glob("*/*")] == ["new.mnn"]
    assert len(keys(cache)) == 1
    (cache.folder / ".gone-1").mkdir()
    (cache.folder / ".gone-1" / "model.mnn").write_bytes(b"1")
    assert cache.clean() > 600 << 10
    assert not searches.exists()
    assert [path.name for path in cache.folder.iterdir()] == [".lock"]


def test_the_float_model_of_a_run_is_not_converted_again(source: Path, tmp_path: Path, runs: Counted) -> None:
    recipe = tmp_path / "one.json"
    recipe.write_text('{"schema": "edgequant.recipe/1", "rules": [{"name": "*", "bits": 8}]}')
    (alone,) = make(source, tmp_path / "one", None, f"recipe:{recipe}")
    assert len(runs) == 2
    first, made = make(source, tmp_path / "two", None, "float", f"recipe:{recipe}")
    assert len(runs) == 5  # of which one is float, once more
    assert (made.sha256, made.warnings) == (alone.sha256, alone.warnings)
    assert first.path.exists()
