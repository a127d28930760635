"""Looks at, and finishes, a .mnn file that the converter wrote and MNN could load."""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import uuid
from pathlib import Path

from edgequant.models.flat import FlatFile
from edgequant.models.mnn.net import convolution, open_net
from edgequant.models.mnn.schema import Convolution2D, IDSTQuan, Net, Op
from edgequant.models.mnn.weights import read_weights


def name_by_contents(path: Path) -> None:
    """Replace the random id of a model by one made from its contents.

    Devices key caches by it, so it must differ between models; and it must not differ between equal ones.
    """
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        start, length = FlatFile(data).root().extent(Net.mnn_uuid)
        if length != 36:
            return
        data[start : start + 36] = b"0" * 36
        digest = hashlib.sha256(data).digest()
        data[start : start + 36] = str(uuid.UUID(bytes=digest[:16], version=4)).encode()


def count_layers(path: Path) -> tuple[int, int]:
    """(layers with quantized weights, layers with float or fp16 weights)."""
    kept = [layer.kept for layer in read_weights(path)]
    quantized = sum(each in ("quantized", "static") for each in kept)
    return quantized, len(kept) - quantized


def unusable_scales(path: Path) -> list[str]:
    """Statically quantized layers whose input or output has a scale that is no number (NaN, Inf)."""
    found = []
    with open_net(path) as net:
        for op in net.tables(Net.oplists):
            layer = convolution(op)
            how = layer.table(Convolution2D.quan_parameter) if layer is not None else None
            if how is not None and not all(map(math.isfinite, map(how.real, (IDSTQuan.scale_in, IDSTQuan.scale_out)))):
                found.append(op.string(Op.name) or "")
    return found


def sync_and_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        os.fsync(file.fileno())
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
