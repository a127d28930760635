"""A request written as options is the same request again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from edgequant.cli import verify as command
from edgequant.cli.commands import app
from edgequant.cli.request import make_request
from edgequant.lab.session import DeviceOptions
from edgequant.pack import WantedPack
from edgequant.plan.request import Request
from edgequant.plan.words import options_of
from edgequant.spec import RunOptions
from edgequant.spec.images import ImageOptions

PLAIN = Request(Path("m.onnx"), devices=("ssh://board",), variants=("static:8", "auto"))  # type: ignore[arg-type]
FULL = Request(
    Path("m.onnx"),
    devices=("ssh://board",),
    variants=("static:8", "auto"),  # type: ignore[arg-type]
    inputs=Path("my cases"),
    shapes={"x": (1, 3, 48, 160), "length": (7,)},
    limits=("sqnr_db>=31", "y:max_abs<=0.5"),  # type: ignore[arg-type]
    decides={"y": "probabilities"},
    reference=Path("ref.npz"),
    options=RunOptions(
        memory="normal", precision="low", threads=2, cores=(4, 5, 7), dynamic_quant_option=0, timeout=7.5, warmup=0,
        repeat=50, seed=9,
    ),
    access=DeviceOptions(
        work_dir="/data/x y", python="/opt/my python", accept_new_host_key=True, runtime="system",
        wait=5.0,
    ),
    latency=False,
    diagnose=True,
    calibration="samples",
    fallback=False,
    goals=("sqnr_db>=30",),  # type: ignore[arg-type]
    budget="latency",
    images=ImageOptions(format="BGR", mean=(1.5, 2.0, 3.0), normal=(0.5,), size=(64, 48), layout="NHWC"),
    rollout=50,
    feedback=("hN=h", "cN=c"),
)  # fmt: skip
CHANGED = [name for name in FULL.__dataclass_fields__ if getattr(FULL, name) != getattr(PLAIN, name)]


def understood(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Request:
    """What `edgequant verify` would be asked to do."""
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(command, "run", lambda _model, typed, **_more: given.append(typed))
    asked = ["verify", "m.onnx", "--device", "ssh://board", "--variant", "static:8", "--variant", "auto", *words]
    typer.main.get_command(app.build(None)).main(asked, standalone_mode=False)
    return make_request("m.onnx", given[0])


def test_nothing_is_said_of_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert options_of(PLAIN) == []
    assert understood([], monkeypatch) == PLAIN


@pytest.mark.parametrize("name", CHANGED)
def test_each_field_by_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    request = replace(PLAIN, **{name: getattr(FULL, name)})
    words = options_of(request)
    assert words
    assert understood(words, monkeypatch) == request


def test_all_at_once_and_no_field_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    left = {name for name in FULL.__dataclass_fields__ if name not in CHANGED}
    assert left == {"model", "devices", "variants", "run_dir", "convert_timeout"}, "convert_timeout is no option"
    assert understood(options_of(FULL), monkeypatch) == FULL


def test_a_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    request = replace(PLAIN, access=DeviceOptions(runtime="pack", wanted=WantedPack(mnn="3.6.1")))
    assert understood(options_of(request), monkeypatch) == request
