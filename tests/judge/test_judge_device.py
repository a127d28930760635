"""What is advised where a device computes something else."""

from __future__ import annotations

import pytest

from edgequant.archive.types import DeviceCapture, FileFacts
from edgequant.judge.device import blame
from edgequant.judge.kernel_faults import Faults
from edgequant.spec import RunOptions

NONE = Faults(FileFacts(), False, False, False)


@pytest.mark.parametrize(
    ("precision", "fp16", "advised"),
    [("low", True, "Run with --precision normal"), ("low", False, "Compare --precision"), ("normal", True, "Compare")],
)
def test_who_asked_for_fp16_is_told_what_it_does(precision: str, fp16: bool, advised: str) -> None:
    device = DeviceCapture(uri="ssh://board", arch="aarch64", facts={"mnn_kernels": {"fp16": fp16}})
    options = RunOptions.model_validate({"precision": precision})
    (finding,) = blame(["y"], NONE, options, device).findings
    assert finding.code == "DEVICE_DIFFERS"
    assert advised in (finding.remedy or "")
    assert ("Compare" in (finding.remedy or "")) == ("Compare" in advised)
