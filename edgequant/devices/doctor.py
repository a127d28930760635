"""Whether a device can be used, step by step, each failure with its fix.  Touches nothing but the work directory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgequant.deadline import Deadline
from edgequant.errors import EdgequantError
from edgequant.spec import RunOptions

if TYPE_CHECKING:
    from edgequant.pipeline.target import TargetOptions

LOW_SPACE = 500_000_000
"""Bytes; a model, its copy while it is pushed, and something to spare."""


@dataclass(frozen=True)
class Check:
    """One step: its name, how it went, what was seen and, where it went wrong, the fix."""

    name: str
    status: Literal["ok", "warn", "fail", "skipped"]
    message: str
    fix: str | None = None


def examine(uri: str, options: TargetOptions) -> list[Check]:
    """Connect, look at work directory, space, Python, MNN and low-memory kernels.  Raises InputError for a bad URI."""
    from edgequant.devices.factory import make_device
    from edgequant.pipeline.target import Target
    from edgequant.progress import Progress

    device = make_device(uri, accept_new_host_key=options.accept_new_host_key, python=options.python)
    checks: list[Check] = []
    with Target(device, options, RunOptions(), log=None, progress=Progress()) as target:
        try:
            device.open(Deadline(60))
        except EdgequantError as error:
            return [_failed("connection", error), *_skipped("work directory", "runner")]
        checks.append(Check("connection", "ok", "connected"))
        try:
            target.store.prepare(Deadline(60))
        except EdgequantError as error:
            return [*checks, _failed("work directory", error), *_skipped("runner")]
        checks.append(_space(target.store.root, target.store.free_bytes))
        try:
            runner = target.runner()
        except EdgequantError as error:
            return [*checks, _failed("runner", error)]
        hello, facts = runner.hello, runner.facts
        checks.append(Check("runner", "ok", f"Python {hello.python}, NumPy {hello.numpy}, MNN {hello.mnn}"))
        kernels = ", ".join(f"{name} {'on' if on else 'off'}" for name, on in facts.mnn_kernels.items())
        checks.append(Check("kernels", "ok", f"MNN on {facts.arch}: {kernels or 'it names none'}"))
        if facts.governor not in (None, "performance"):
            checks.append(
                Check(
                    "governor",
                    "warn",
                    f"the CPU frequency governor is '{facts.governor}'",
                    "Latencies will vary with it; set it to performance while you measure.",
                )
            )
    return checks


def _space(root: str, free: int | None) -> Check:
    if free is None:
        return Check("work directory", "warn", f"{root} (free space not known)")
    text = f"{root}, {free / 1e6:.0f} MB free"
    if free < LOW_SPACE:
        return Check("work directory", "warn", text, "Free some space, or choose another place with --work-dir.")
    return Check("work directory", "ok", text)


def _failed(name: str, error: EdgequantError) -> Check:
    return Check(name, "fail", f"{error.code}: {error}", error.hint)


def _skipped(*names: str) -> list[Check]:
    return [Check(name, "skipped", "not reached") for name in names]
