"""Faults planted into a file are where they say they are, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgequant.errors import InputError
from edgequant.models.mnn.faults import NOTHING, Fault, faults, nothings, unreachable
from edgequant.models.mnn.weights import read_weights
from tests import generated, sources

FLAGS = {
    "asymmetric": ("--weightQuantBits", "8", "--weightQuantAsymmetric=1"),
    "symmetric": ("--weightQuantBits", "8", "--weightQuantAsymmetric=0"),
    "blocks": ("--weightQuantBits", "4", "--weightQuantBlock", "16"),
    "float": (),
}


@pytest.fixture(scope="module", params=list(FLAGS))
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    source = generated.ONNX_MODELS["conv_cnn"](folder / "m.onnx")
    return sources.convert(source, folder / f"{request.param}.mnn", *FLAGS[request.param])


def spread(fault: Fault) -> int:
    return sum(len(content) for _, content in fault.edits)


def test_every_fault_is_one_and_stays_in_its_place(file: Path) -> None:
    data = file.read_bytes()
    layers = read_weights(file)
    names = {each.name for each in layers}
    drawn = faults(file, 10_000, 0)
    assert {each.layer for each in drawn} == names
    for fault in drawn:
        planted = fault.planted(data)
        assert len(planted) == len(data)
        changed = np.flatnonzero(np.frombuffer(planted, np.uint8) != np.frombuffer(data, np.uint8))
        assert changed.size, str(fault)
        inside = np.zeros(len(data), bool)
        for position, content in fault.edits:
            inside[position : position + len(content)] = True
        assert inside[changed].all()
        again = file.with_name("planted.mnn")
        again.write_bytes(planted)
        assert read_weights(again) == layers, str(fault)


def test_sizes_are_what_they_say(file: Path) -> None:
    data = file.read_bytes()
    for fault in faults(file, 10_000, 0):
        edits = [(at, new) for at, new in fault.edits if len(new) > 3]
        if not edits:
            continue
        before = np.concatenate([np.frombuffer(data, "<f4", len(new) // 4, at) for at, new in edits])
        after = np.concatenate([np.frombuffer(new, "<f4") for _, new in edits])
        if fault.kind.startswith("scale of"):
            assert fault.size is not None
            np.testing.assert_allclose(after, before * (1 + fault.size), rtol=1e-6)
        elif fault.kind == "sign of a channel":
            np.testing.assert_array_equal(after, -before)
        elif fault.kind in ("weights of a channel 0", "bias lost"):
            assert not after.any()
            assert before.any()


def test_a_draw_has_all_kinds_and_can_be_repeated(file: Path) -> None:
    kinds = {each.kind for each in faults(file, 10_000, 0)}
    some = faults(file, len(kinds), 0)
    assert {each.kind for each in some} == kinds
    assert some == faults(file, len(kinds), 0)
    assert some != faults(file, len(kinds), 1)


def test_nothing_is_a_last_bit(file: Path) -> None:
    data = file.read_bytes()
    for fault in nothings(file, 10, 0):
        assert fault.size == NOTHING
        ((at, new),) = fault.edits
        before, after = np.frombuffer(data, "<f4", len(new) // 4, at), np.frombuffer(new, "<f4")
        assert np.abs(after - before).max() <= np.abs(before).max() * 2.0**-22


def test_a_file_without_weights_of_its_own(tmp_path: Path) -> None:
    source = generated.ONNX_MODELS["rank1_dynamic"](tmp_path / "m.onnx")
    made = sources.convert(source, tmp_path / "m.mnn")
    with pytest.raises(InputError) as caught:
        faults(made, 5, 0)
    assert caught.value.code == "AUDIT_IMPOSSIBLE"
    assert unreachable(made) == []
