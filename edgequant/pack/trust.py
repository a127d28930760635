"""Wheels that no lock file pins: their hash is recorded when they are first fetched, and has to stay the same."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from pydantic import ValidationError

from edgequant.errors import InputError
from edgequant.files import atomic_write, read_bounded
from edgequant.pack.inputs import Inputs
from edgequant.pack.lock import Pinned
from edgequant.progress import Progress


class Trusted:
    """Trust on first use.  The caller holds the cache's lock."""

    def __init__(self, path: Path, inputs: Inputs, progress: Progress) -> None:
        self._path = path
        self._inputs = inputs
        self._progress = progress

    def wheel(self, requirement: str, python: str) -> Pinned:
        """The pin of a wheel, made now if there is none.  Raises what wheels.download raises."""
        known = self._read()
        key = f"{requirement} {python}"
        if key not in known:
            with tempfile.TemporaryDirectory(dir=self._path.parent, prefix=".fetch-") as folder:
                known[key] = self._inputs.newest_wheel(requirement, python, Path(folder))
            text = json.dumps({name: pin.model_dump() for name, pin in sorted(known.items())}, indent=1)
            with atomic_write(self._path) as stream:
                stream.write(text.encode() + b"\n")
            pin = known[key]
            self._progress.say(f"{pin} is not in the lock file: trusted on first use, SHA-256 {pin.sha256}")
        return known[key]

    def _read(self) -> dict[str, Pinned]:
        try:
            known = json.loads(read_bounded(self._path, 1 << 24))
            return {name: Pinned.model_validate(pin) for name, pin in known.items()}
        except FileNotFoundError:
            return {}
        except (ValidationError, ValueError, AttributeError, RecursionError):
            # Forgetting what was trusted would make every first use look like one.
            raise InputError(
                "PACK_LOCK_INVALID", f"{self._path} is damaged", hint="Remove it with `edgequant pack clean`."
            ) from None
