"""A run that is gone on with has to go on where it was: with the same MNN, on the same devices."""

from __future__ import annotations

from edgequant.archive.open import Run
from edgequant.archive.types import DeviceCapture
from edgequant.errors import DeviceError, InputError
from edgequant.lab.session import Session
from edgequant.lab.take import device_capture_of
from edgequant.mnn_version import host_mnn_version, require_supported

_SAME = ("arch", "cpu", "cores", "features", "emulator", "mnn")
_SAME_FACTS = ("manufacturer", "model", "soc")


def host_mnn(earlier: Run | None = None) -> str:
    """The version on this host.

    earlier: what is gone on with.  Raises ToolError (MNN_MISSING, MNN_TOO_OLD); InputError (MNN_CHANGED) where that was
    begun with another: its files and its outputs would be those of two, under one name.
    """
    version = host_mnn_version()
    require_supported(version, "this host")
    if earlier is not None and earlier.plan.host.mnn != version:
        raise InputError(
            "MNN_CHANGED",
            f"{earlier.path}: it was begun with MNN {earlier.plan.host.mnn}, and this host has {version}",
            hint="Begin a new run, or go on with the MNN it was begun with.",
        )
    return version


def require_same_device(earlier: Run | None, session: Session) -> None:
    """Raise DeviceError (DEVICE_CHANGED) where another device stands behind an address than the one on which earlier
    trials, which are kept, were run.

    session: with a runner.  What one of the two does not tell is not held against it.
    """
    if earlier is None:
        return
    now = device_capture_of(session)
    for variant in earlier.plan.variants:
        kept = earlier.on_device(session.uri, variant)
        if kept is None or kept.failure is not None or kept.device is None:
            continue
        if (told := _apart(kept.device, now)) is not None:
            name, was, is_ = told
            raise DeviceError(
                "DEVICE_CHANGED",
                f"another device than the one {variant} was run on: its {name} was {was}, and is {is_}",
                where=session.uri,
                hint="Begin a new run, or attach the device this one was begun with.",
                evidence={"what": name, "was": str(was), "now": str(is_)},
            )


def _apart(was: DeviceCapture, now: DeviceCapture) -> tuple[str, object, object] | None:
    pairs = [(name, getattr(was, name), getattr(now, name)) for name in _SAME]
    pairs += [(name, was.facts.get(name), now.facts.get(name)) for name in _SAME_FACTS]
    return next(((name, one, two) for name, one, two in pairs if one and two and one != two), None)
