"""Weights quantized and packed the way MNN's converter does it, so that layers can be tried without running it.

Read in MNN 3.6.1's sources: WeightQuantAndCoding.cpp (scales), IDSTEncoder.hpp (rounding, packing), HQQQuantizer.cpp
(half-quadratic quantization: H. Badri and A. Shaji, 2023), SaveHalfFloat.cpp.  The bytes are the converter's own but
for hqq, whose zero points differ in their last bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

_HQQ_STEPS, _HQQ_BETA, _HQQ_NORM = 20, 10.0, 0.7
HALF_MAX = 65504.0
"""The largest number half precision has."""


@dataclass(frozen=True, order=True)
class Form:
    """How a layer's weights are kept.

    Attributes:
        bits: 2 to 8, or 16 for half precision.
        block: input channels that share a scale; None for one scale per output channel.
        sym: without a zero point.
        hqq: scales by half-quadratic quantization.
    """

    bits: int
    block: int | None = None
    sym: bool = False
    hqq: bool = False

    def __str__(self) -> str:
        parts = ["fp16" if self.bits == 16 else str(self.bits)]
        if self.block is not None:
            parts.append(f"block={self.block}")
        return ",".join([*parts, *(name for name in ("hqq", "sym") if getattr(self, name))])


class Encoded(NamedTuple):
    """One layer's weights as the file has them.

    Attributes:
        buffer: uint8 [bytes].  scales: float32, a scale or (least value, scale) per group; empty for half precision.
        groups: rows that have a scale each: output channels times blocks.
        wide: sizes in the buffer take 4 bytes.
        error: sum of squares of what the weights lost.
    """

    form: Form
    buffer: bytes
    scales: np.ndarray
    groups: int
    wide: bool
    error: float

    @property
    def payload(self) -> int:
        return len(self.buffer) + self.scales.nbytes


def usable_block(block: int | None, per_channel: int) -> int | None:
    """The block MNN really uses for a layer of so many input channels: one that divides them, or none."""
    fits = block is not None and block >= 16 and block % 16 == 0 and per_channel % block == 0
    # A block as wide as the channels is one scale per channel, which the file cannot tell from no block.
    return block if fits and block != per_channel else None


def encode(weights: np.ndarray, channels: int, area: int, form: Form) -> Encoded:
    """Quantize one layer.

    Args:
        weights: float32, flat, in the file's order.
        channels: output channels; area: kernel width times height.
        form: its block is taken where MNN takes it (`usable_block`).
    """
    flat = np.ascontiguousarray(weights, np.float32).ravel()
    per_channel = flat.size // channels // area
    block = usable_block(form.block, per_channel)
    if form.bits == 16:
        half = to_half(flat)
        return Encoded(form, half.tobytes(), np.zeros(0, np.float32), channels, False, _lost(flat, half))
    blocks = per_channel // block if block is not None else 1
    groups = channels * blocks
    rows = flat.reshape(groups, -1)
    if form.hqq:
        codes, scales, back = _hqq(rows, form.bits)
    else:
        codes, scales, back = _ranged(rows, form.bits, form.sym)
    head, wide = _head(groups, rows.shape[1], form.bits)
    return Encoded(form, head + pack(codes.ravel(), form.bits), scales, groups, wide, _lost(rows, back))


def to_half(values: np.ndarray) -> np.ndarray:
    """Half precision, rounded to the nearest and clamped to what is finite.

    The converter cuts the last bits off instead, which costs up to 11 dB; what is rounded already it cannot cut.
    """
    return np.asarray(np.clip(values, np.float32(-HALF_MAX), np.float32(HALF_MAX)).astype(np.float16))


def _ranged(rows: np.ndarray, bits: int, sym: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(codes uint8 from 0, scales, weights as they come back)."""
    top = np.float32(2 ** (bits - 1) - 1)
    least = -(2 ** (bits - 1))
    if sym:
        scale = np.abs(rows).max(axis=1) / top
        start = np.zeros_like(scale)
        zero = np.float32(0)
    else:
        start = rows.min(axis=1)
        scale = (rows.max(axis=1) - start) / np.float32(top - least)
        zero = np.float32(least)
    live = scale > np.float32(1e-6)
    divisor = np.where(live, scale, np.float32(1))
    # Halves go away from zero, as C's round does; the sums stay float32 as there.
    q = _round((rows - start[:, None]) / divisor[:, None]) + zero
    q = np.clip(q, least, top)
    q[~live] = 0 if sym else least
    codes = (q - least).astype(np.uint8)
    scales = scale if sym else np.stack([start, scale], axis=1).ravel()
    back = (q - zero) * scale[:, None] + start[:, None]
    return codes, scales.astype(np.float32), back


def _hqq(rows: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    top = np.float32(2**bits - 1)
    low = rows.min(axis=1, keepdims=True)
    scale = np.maximum((rows.max(axis=1, keepdims=True) - low) * np.float32(1 / top), np.float32(1e-7))
    inverse = np.float32(1) / scale
    zero = -low * inverse
    scaled = rows * inverse
    scale = np.float32(1) / inverse
    for _ in range(_HQQ_STEPS):
        q = np.clip(_round(scaled + zero), 0, top)
        rest = rows - (q - zero) * scale
        size = np.abs(rest)
        shrunk = size - np.float32(1 / _HQQ_BETA) * np.maximum(size, np.float32(1e-8)) ** np.float32(_HQQ_NORM - 1)
        kept = np.maximum(shrunk, 0) * np.sign(rest)
        zero = (q - (rows - kept) * inverse).mean(axis=1, keepdims=True, dtype=np.float32)
    low = -(zero * scale)
    codes = np.clip(_round((rows - low) * inverse), 0, top)
    scales = np.concatenate([low, scale], axis=1).ravel()
    return codes.astype(np.uint8), scales.astype(np.float32), codes * scale + low


def _round(values: np.ndarray) -> np.ndarray:
    whole = np.trunc(values)
    return np.asarray(whole + (np.abs(values - whole) >= np.float32(0.5)) * np.sign(values))


def _head(groups: int, length: int, bits: int) -> tuple[bytes, bool]:
    """What stands in front of the codes: the two sizes, then every value a code can mean."""
    wide = max(groups, length) > 0xFFFF
    sizes = np.asarray([groups, length], np.uint32 if wide else np.uint16).tobytes()
    values = np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)).astype(np.int8).tobytes()
    return b"\2" + sizes + bytes([2**bits & 0xFF]) + values, wide


def pack(codes: np.ndarray, bits: int) -> bytes:
    """Codes of so many bits one behind the other, the highest bit first, zeros at the end."""
    if bits == 8:
        return codes.astype(np.uint8).tobytes()
    return np.packbits(np.unpackbits(codes.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :].ravel()).tobytes()


def _lost(want: np.ndarray, have: np.ndarray) -> float:
    return float(((want.astype(np.float64) - have) ** 2).sum())
