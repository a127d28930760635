"""edgequant: quantize models for MNN, run them on ARM phones and boards, and judge what comes back.

The command line's main job from Python:

    from pathlib import Path
    import edgequant

    report, run_dir = edgequant.verify(edgequant.Request(Path("model.onnx"), ("ssh://board",), ("dynamic:8",)))
    assert report.verdict.exit_code == 0, report.verdict

Errors are EdgequantError and its kinds in `edgequant.errors`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edgequant.errors import EdgequantError as EdgequantError
    from edgequant.jobs.verify import verify as verify
    from edgequant.judge.verdict import Verdict as Verdict
    from edgequant.lab.session import DeviceOptions as DeviceOptions
    from edgequant.models import read_model as read_model
    from edgequant.plan.request import Request as Request
    from edgequant.report.model import Report as Report
    from edgequant.spec import Limit as Limit
    from edgequant.spec import RunOptions as RunOptions
    from edgequant.spec import Variant as Variant
    from edgequant.spec.images import ImageOptions as ImageOptions

# Loaded when they are asked for: `edgequant --help` imports this package too, and must not wait for NumPy.
_WHERE = {
    "EdgequantError": "edgequant.errors",
    "ImageOptions": "edgequant.spec.images",
    "Limit": "edgequant.spec",
    "Report": "edgequant.report.model",
    "Request": "edgequant.plan.request",
    "RunOptions": "edgequant.spec",
    "DeviceOptions": "edgequant.lab.session",
    "Variant": "edgequant.spec",
    "Verdict": "edgequant.judge.verdict",
    "read_model": "edgequant.models",
    "verify": "edgequant.jobs.verify",
}
__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'edgequant' has no attribute '{name}'")
    return getattr(importlib.import_module(_WHERE[name]), name)
