"""devices probe --activations, with the real MNN of this host."""

from __future__ import annotations

from pathlib import Path

from edgequant.reference.activations import OPERATORS
from tests.cli.command import edgequant


def test_this_host(tmp_path: Path) -> None:
    done = edgequant("devices", "probe", "local:", "--activations", "--json", "--work-dir", str(tmp_path / "work"))
    assert done.code == 0
    told = done.json
    assert (told["schema"], told["not_converted"]) == ("edgequant.activations/1", [])
    assert {each["operator"] for each in told["operators"]} == {each.name for each in OPERATORS}
    for each in told["operators"]:
        assert each["error"] is None
        assert each["worst_error"] < 1e-3, each
    sound = next(each for each in told["operators"] if each["operator"] == "Softsign")
    assert (sound["wrong"], sound["right_to"] > 3e38) == ([], True)
    assert len(sound["modes"]) == 6, "no mode is another on a host without fp16 kernels, or it is told apart"
    assert "Softsign" in done.err


def test_a_device_that_is_not_there() -> None:
    done = edgequant("devices", "probe", "ssh://127.0.0.1:9", "--activations")
    assert done.code == 3
    assert "Traceback" not in done.err
