"""How much of the float outputs is left."""

from __future__ import annotations

import numpy as np
import pytest

from edgequant.quantize.calibrate.outputs import fidelity


def test_a_layer_is_as_sensitive_as_its_worst_sample() -> None:
    loud, quiet = np.full(4, 100.0), np.full(4, 0.01)
    reference = [{"y": loud}, {"y": quiet}, {"y": np.zeros(4)}]
    found = fidelity(reference, [{"y": loud + 0.01}, {"y": quiet + 0.01}, {"y": np.full(4, 0.01)}])["y"]
    assert found.sqnr_db > 70
    assert found.worst_db == pytest.approx(0)
    assert found.mean_db == pytest.approx(40)  # 80 and 0
    assert fidelity(reference, reference)["y"].worst_db == np.inf
    assert fidelity(reference[2:], [{"y": quiet}])["y"].worst_db == -np.inf
