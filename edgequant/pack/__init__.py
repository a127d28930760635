"""The pack: a runtime for devices that have neither Python nor MNN, needing nothing there but a kernel."""

from __future__ import annotations

from edgequant.pack.build import PackOptions, build_pack
from edgequant.pack.cache import Pack, clean_packs, default_cache, list_packs, unpacked

__all__ = ["Pack", "PackOptions", "build_pack", "clean_packs", "default_cache", "list_packs", "unpacked"]
