"""Looks at, and finishes, a .mnn file that the converter wrote and MNN could load."""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path

from edgequant.models.flat import FlatFile, Table

_NET_OPS, _NET_SUBGRAPHS, _NET_UUID, _SUB_NODES = 3, 10, 11, 4


def name_by_contents(path: Path) -> None:
    """Replace the random id of a model by one made from its contents.

    Devices key caches by it, so it must differ between models; and it must not differ between equal ones.
    """
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        root = struct.unpack_from("<I", data, 0)[0]
        if FlatFile(data).root().string(_NET_UUID) is None:
            return
        vtable = root - struct.unpack_from("<i", data, root)[0]
        slot = root + struct.unpack_from("<H", data, vtable + 4 + 2 * _NET_UUID)[0]
        start = slot + struct.unpack_from("<I", data, slot)[0]
        if struct.unpack_from("<I", data, start)[0] != 36:
            return
        data[start + 4 : start + 40] = b"0" * 36
        digest = hashlib.sha256(data).digest()
        data[start + 4 : start + 40] = str(uuid.UUID(bytes=digest[:16], version=4)).encode()


def count_layers(path: Path) -> tuple[int, int]:
    """(layers with quantized weights, layers with float or fp16 weights)."""
    quantized = plain = 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        net = FlatFile(data).root()
        graphs: list[Iterator[Table]] = [
            net.tables(_NET_OPS),
            *(subgraph.tables(_SUB_NODES) for subgraph in net.tables(_NET_SUBGRAPHS)),
        ]
        for op in (op for ops in graphs for op in ops):
            weights = op.table(2) if op.number(1, "B") == 9 else None
            if weights is None:
                continue
            how = weights.table(3)
            if weights.has(4) or (how is not None and how.number(2) not in (0, 3)):
                quantized += 1
            elif weights.count(1, 4) or how is not None:
                plain += 1
    return quantized, plain


def unusable_scales(path: Path) -> list[str]:
    """Statically quantized layers whose input or output has a scale that is no number (NaN, Inf)."""
    found = []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for op in FlatFile(data).root().tables(_NET_OPS):
            weights = op.table(2) if op.number(1, "B") == 9 else None
            how = weights.table(3) if weights is not None else None
            if how is not None and not (math.isfinite(how.real(5)) and math.isfinite(how.real(6))):
                found.append(op.string(3) or "")
    return found


def sync_and_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        os.fsync(file.fileno())
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
