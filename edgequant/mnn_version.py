"""Which MNN this host has, asked of the package's metadata: importing MNN would print on stdout and start threads."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

from edgequant.errors import ToolError

MIN_MNN = (3, 0, 1)
"""Older MNN gives reshape and shape errors on quantized multi-input sequence models, so it is refused."""


def host_mnn_version() -> str:
    """The version of the MNN package installed for this Python, such as ``3.6.1``.

    Raises:
        ToolError: MNN_MISSING.
    """
    try:
        # Names are compared in their normal form, so this finds "MNN" and "mnn" alike.
        version = importlib.metadata.version("MNN")
    except importlib.metadata.PackageNotFoundError:
        version = None
    if not version:  # metadata that is there but broken has None here
        raise ToolError(
            "MNN_MISSING",
            "MNN is not installed for this Python",
            hint=f"Run: {Path(sys.executable).name} -m pip install MNN",
        )
    return version


def parse_version(version: str, where: str | None = None) -> tuple[int, int, int]:
    """``3.6.1`` as (3, 6, 1); what follows the numbers (``rc1``, ``+cpu``) is left out, missing ones are 0.  `where` is
    the device or host that has it.

    Raises:
        ToolError: MNN_VERSION_UNKNOWN.
    """
    match = re.match(r"\s*v?([0-9]{1,6})(?:\.([0-9]{1,6}))?(?:\.([0-9]{1,6}))?", version)
    if not match:
        raise ToolError(
            "MNN_VERSION_UNKNOWN",
            f"{version[:100]!r} is not a version of MNN",
            where=where,
            hint="Install a release of MNN there: pip install -U MNN",
        )
    return int(match[1]), int(match[2] or 0), int(match[3] or 0)


def require_supported(version: str, where: str | None = None) -> None:
    """Refuse an MNN that is too old.  `where` is the device or host that has it.

    Raises:
        ToolError: MNN_TOO_OLD, MNN_VERSION_UNKNOWN.
    """
    if parse_version(version, where) < MIN_MNN:
        least = ".".join(str(part) for part in MIN_MNN)
        raise ToolError(
            "MNN_TOO_OLD",
            f"MNN {version} is too old: {least} is the oldest that works, because before it quantized multi-input "
            "sequence models fail with reshape and shape errors",
            where=where,
            hint="Upgrade it: pip install -U MNN",
            evidence={"version": version, "minimum": least},
        )
