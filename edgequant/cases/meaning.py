"""What an input is for, as far as its name and type tell, and values that make sense for it.

A length of 0 makes a mean over time 0/0, a sampling rate of 2 Hz takes a branch nobody runs, a random mask hides what
it should let through.  Names are those exporters use: Hugging Face's, NeMo's, ESPnet's, silero-vad's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from edgequant.tensors import TensorSpec

_LENGTH = re.compile(r"(^|[_.])(len|lens|length|lengths|seqlen|num_frames|ilens|olens)([_.]|$)|lengths?$")
_RATE = re.compile(r"(^|[_.])(sr|rate|sample_rate|sampling_rate|samplerate)([_.]|$)")
_MASK = re.compile(r"(^|[_.])mask([_.]|$)|_mask$")
_POSITION = re.compile(r"position_ids$|(^|_)positions$")
_TYPE = re.compile(r"token_type_ids$|segment_ids$")
RATE = 16_000
"""Samples a second: what speech models are made for."""


def meant(spec: TensorSpec, inputs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]]) -> np.ndarray | None:
    """Values for an integer or bool input whose name says what it is for; None where it does not.

    Lengths are the whole of the open sizes of other inputs, or as much as fits whichever of their fixed sizes is meant;
    masks let everything through; positions count from 0; token types are 0.

    Args:
        inputs: all of the model.
        shapes: of all inputs in the case.
    """
    name, shape = spec.name.lower(), shapes[spec.name]
    if np.dtype(spec.dtype).kind not in "iub":
        return None
    if _LENGTH.search(name) and len(shape) <= 1:
        others = [
            (declared, size)
            for other in inputs
            if other.name != spec.name
            for declared, size in list(zip(other.shape or (), shapes[other.name], strict=False))[1:]
        ]
        open_sizes = [size for declared, size in others if declared is None]
        length = min(open_sizes or [size for _, size in others], default=1)
        return _whole(max(length, 1), shape, spec.dtype) if spec.dtype != "bool" else None
    if _RATE.search(name) and len(shape) <= 1 and np.dtype(spec.dtype).itemsize > 1:
        return _whole(RATE, shape, spec.dtype)
    if _MASK.search(name):
        return np.ones(shape, spec.dtype)
    if _POSITION.search(name) and shape:
        return np.ascontiguousarray(np.broadcast_to(np.arange(shape[-1]), shape), spec.dtype)
    if _TYPE.search(name):
        return np.zeros(shape, spec.dtype)
    return None


def _whole(value: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.full(shape, min(value, int(np.iinfo(dtype).max)), dtype)
