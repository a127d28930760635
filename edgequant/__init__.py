"""edgequant: quantize models for MNN, run them on ARM phones and boards, and judge what comes back.

What the command line does, from Python:

    import edgequant

    request = edgequant.Request("model.onnx", devices="ssh://board", variants=("dynamic:8", "fp16"))
    report, run_dir = edgequant.verify(request)
    assert report.verdict.exit_code == 0, report

`dir(edgequant)` shows all there is.  Errors are EdgequantError and its kinds in `edgequant.errors`.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgequant.version import __version__

if TYPE_CHECKING:
    from edgequant.archive.open import open_run as open_run
    from edgequant.errors import EdgequantError as EdgequantError
    from edgequant.jobs.accept import accept as accept
    from edgequant.jobs.audit import audit as audit
    from edgequant.jobs.diagnose import diagnose as diagnose
    from edgequant.jobs.explain import verify as verify
    from edgequant.jobs.inspect import inspect as inspect
    from edgequant.jobs.quantize import quantize as quantize
    from edgequant.jobs.rejudge import judge as judge
    from edgequant.jobs.run import run as run
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
    "DeviceOptions": "edgequant.lab.session",
    "EdgequantError": "edgequant.errors",
    "ImageOptions": "edgequant.spec.images",
    "Limit": "edgequant.spec",
    "Report": "edgequant.report.model",
    "Request": "edgequant.plan.request",
    "RunOptions": "edgequant.spec",
    "Variant": "edgequant.spec",
    "Verdict": "edgequant.judge.verdict",
    "accept": "edgequant.jobs.accept",
    "audit": "edgequant.jobs.audit",
    "diagnose": "edgequant.jobs.diagnose",
    "inspect": "edgequant.jobs.inspect",
    "judge": "edgequant.jobs.rejudge",
    "open_run": "edgequant.archive.open",
    "quantize": "edgequant.jobs.quantize",
    "read_model": "edgequant.models",
    "run": "edgequant.jobs.run",
    "verify": "edgequant.jobs.explain",
}
__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'edgequant' has no attribute '{name}'")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _Room(ModuleType):
    """A room of the name of a job: `edgequant.quantize` is both, whichever was imported first."""

    def __call__(self, *given: Any, **named: Any) -> Any:
        name = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module(_WHERE[name]), name)(*given, **named)


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # Importing a module sets it here, and would hide the job from then on.
        if name in _WHERE and isinstance(value, ModuleType):
            value.__class__ = _Room
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
