"""Which pack a device is to run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgequant.errors import InputError
from edgequant.mnn_version import MIN_MNN, parse_version
from edgequant.progress import Progress

if TYPE_CHECKING:
    from edgequant.pack.cache import Pack


@dataclass(frozen=True)
class WantedPack:
    """At most one of the two; neither for the standard pack, with this host's MNN.

    mnn: a version of MNN.  pack: one that was built, by its archive or the beginning of its SHA-256.

    Raises InputError (OPTION_INVALID).
    """

    mnn: str | None = None
    pack: str | None = None

    def __post_init__(self) -> None:
        if self.mnn is not None and self.pack is not None:
            raise InputError("OPTION_INVALID", "--mnn and --pack contradict each other: a pack has its own MNN")
        if self.mnn is not None and parse_version(self.mnn) < MIN_MNN:
            least = ".".join(map(str, MIN_MNN))
            raise InputError("OPTION_INVALID", f"--mnn {self.mnn}: {least} is the oldest that works")

    def __bool__(self) -> bool:
        return self.mnn is not None or self.pack is not None

    def __str__(self) -> str:
        return f"MNN {self.mnn}" if self.mnn is not None else f"pack {self.pack}"

    def get(self, progress: Progress, cache_dir: Path | None = None) -> Pack:
        """The pack, built where it is not there yet.  Raises InputError (PACK_UNKNOWN) and what build_pack raises."""
        from edgequant.pack.build import PackOptions, build_pack
        from edgequant.pack.cache import find_pack

        if self.pack is not None:
            return find_pack(self.pack, cache_dir)
        return build_pack(PackOptions(mnn=self.mnn), cache_dir=cache_dir, progress=progress)
