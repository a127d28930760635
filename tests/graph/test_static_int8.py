"""What is read of a file's static int8 layers.  What MNN makes of them: tests/pipeline/test_arm_static.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgequant.graph.model import BrokenFileError
from edgequant.graph.static_int8 import StaticLayers, read_static
from tests.beds.models import ModelByName


@pytest.mark.parametrize("flags", [(), ("--fp16",), ("--weightQuantBits", "8")])
def test_nothing_is_static_without_scales(
    flags: tuple[str, ...], generated_model: ModelByName, as_mnn: Callable[..., Path]
) -> None:
    assert read_static(as_mnn(generated_model("conv_cnn"), *flags)) == StaticLayers(0)


def test_a_damaged_file_is_refused(generated_model: ModelByName, as_mnn: Callable[..., Path], tmp_path: Path) -> None:
    data = as_mnn(generated_model("conv_cnn")).read_bytes()
    damaged = tmp_path / "damaged.mnn"
    for cut in (5, 20):
        damaged.write_bytes(data[:cut])
        with pytest.raises(BrokenFileError):
            read_static(damaged)
