"""Reading an acceptance spec: what is wrong is named with its line and its key."""

from __future__ import annotations

from pathlib import Path

from edgequant.spec.accept import AcceptSpec


def load_accept(path: Path) -> AcceptSpec:
    """Read and check a spec; paths in it are relative to it.  Raises InputError (SPEC_NOT_FOUND, SPEC_INVALID)."""
    raise NotImplementedError(path)
