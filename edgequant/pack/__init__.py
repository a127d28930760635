"""The pack: a runtime for devices that have neither Python nor MNN, needing nothing there but a kernel."""

from __future__ import annotations

from edgequant.pack.build import PackOptions, build_pack
from edgequant.pack.cache import Pack, clean_packs, default_cache, find_pack, list_packs, unpacked
from edgequant.pack.wanted import WantedPack

__all__ = [
    "Pack",
    "PackOptions",
    "WantedPack",
    "build_pack",
    "clean_packs",
    "default_cache",
    "find_pack",
    "list_packs",
    "unpacked",
]
