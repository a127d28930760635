"""`edgequant bench`: what is printed, what is in its document, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.beds.models import ModelByName
from tests.cli.command import edgequant


def test_the_command(generated_model: ModelByName, tmp_path: Path) -> None:
    words = ["bench", str(generated_model("conv_cnn")), "--device", "local:", "--run-dir", str(tmp_path / "run"),
             "--blocks", "3", "--seconds", "0", "--runs", "3", "--warm-up", "0.1", "--json"]  # fmt: skip
    result = edgequant(*words, patient=True)
    document = json.loads(result.out)
    assert document == json.loads((tmp_path / "run" / "bench.json").read_text())
    assert document["verdict"] == {0: "PASS", 4: "INCONCLUSIVE"}[result.code]
    (device,) = document["devices"]
    assert [each["name"] for each in device["settings"]] == ["float", "dynamic:8"]
    for each in device["settings"]:
        assert each["valid"] is not bool(each["why_invalid"])
        for reason in each["why_invalid"]:
            assert reason["code"] in result.err


@pytest.mark.parametrize(
    "words", [["--threads", "0"], ["--threads", "1,x"], ["--memory", "big"], ["--allow", "HEAT"]], ids=" ".join
)  # fmt: skip
def test_mistakes(words: list[str], generated_model: ModelByName) -> None:
    result = edgequant("bench", str(generated_model("conv_cnn")), "--device", "local:", *words)
    assert result.code == 2
    assert " ".join(words) in result.err
