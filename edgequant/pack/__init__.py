"""The pack: a runtime for devices that have neither Python nor MNN, needing nothing there but a kernel."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgequant.pack.wanted import WantedPack

if TYPE_CHECKING:
    from edgequant.pack.build import PackOptions, build_pack
    from edgequant.pack.cache import Pack, clean_packs, default_cache, find_pack, list_packs, unpacked

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


def __getattr__(name: str) -> Any:
    # Every run says which pack it wants, most often none: what builds packs is loaded where it is asked for.
    if name not in __all__:
        raise AttributeError(f"module 'edgequant.pack' has no attribute '{name}'")
    room = "build" if name in ("PackOptions", "build_pack") else "cache"
    return getattr(importlib.import_module(f"edgequant.pack.{room}"), name)
