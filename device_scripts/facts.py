"""What only the process itself can know of its machine; the host reads all else before, without Python.

Every fact is either read or None; nothing is guessed.
"""

from __future__ import annotations

import os
import re
from typing import Any, Dict


def mnn_kernels(banner: str) -> Dict[str, bool]:
    """MNN's first line ("The device supports: i8sdot:0, fp16:0, ...") as a dict; empty where it printed none."""
    line = banner.partition("The device supports:")[2].partition("\n")[0]
    return {name: value != "0" for name, value in re.findall(r"(\w+)\s*:\s*(\d)", line)}


def read(banner: str) -> Dict[str, Any]:
    """Facts of this process; `banner` is what MNN printed when it was imported."""
    return {
        "arch": os.uname().machine,
        "mnn_kernels": mnn_kernels(banner),
        "cores": os.cpu_count(),
        # Fewer than there are where a container or taskset holds it back.
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "page_size": os.sysconf("SC_PAGE_SIZE"),
    }
