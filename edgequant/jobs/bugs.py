"""What nobody foresaw, as a failure of one trial: it must not take the others with it."""

from __future__ import annotations

import traceback

from edgequant.archive.folder import RunFolder, safe_name
from edgequant.archive.types import Failure
from edgequant.files import host_error
from edgequant.spec import Variant


def bug(error: Exception, where: str, variant: Variant, folder: RunFolder) -> Failure:
    """To be called where the error is handled: its trace goes into a log of the folder."""
    if (known := host_error(error)) is not None:
        return Failure.of(known)
    trace = traceback.format_exc()
    log = folder.log(f"bug-{safe_name(where)}-{safe_name(str(variant))}")
    log.write_text(trace, "utf-8", "backslashreplace")
    return Failure(
        code="INTERNAL_ERROR",
        message=f"{type(error).__name__}: {error}",
        where=where,
        hint="This is a bug in edgequant, or nonsense from the device.",
        evidence={"trace": trace.splitlines()[-10:], "log": log.name},
    )
