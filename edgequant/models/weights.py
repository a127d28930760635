"""What quantizing costs a model's weights, computed from the weights alone: nothing is run.

One tensor is in memory at a time, and it is worked on in parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgequant.compare.decibel import capped_db, power_db
from edgequant.errors import InputError
from edgequant.models.mnn.float_weights import find_mnn_weights
from edgequant.models.model import BrokenFileError, ModelGraph
from edgequant.models.onnx_weights import find_onnx_weights
from edgequant.models.stored import Found, Method, Stored, Weight

MOST_OF_ONE = 1 << 24
"""Weights in a tensor that is looked at: 64 MiB as fp32.  Larger ones are named and left out."""
MOST_OF_ALL = 1 << 26
"""Weights looked at in one model: some seconds.  What is left then is named and left out."""
PEAK = 12.0
"""A channel whose largest weight is so many times its root mean square has an outlier.  Of normal values it is 3 to 5,
so this costs 8 to 12 dB, or nearly two of the bits."""
BLOCK = 32
NOT_FINITE = "its weights are not all finite"
_PART = 1 << 20  # weights quantized at once
_LEAST_SCALE = 1e-6  # MNN writes a channel with a smaller one as its smallest value (IDSTEncoder.hpp)
_FIND: dict[str, Callable[[ModelGraph], Found]] = {"onnx": find_onnx_weights, "mnn": find_mnn_weights}


@dataclass(frozen=True)
class LayerWeights:
    """One layer's weights.

    Attributes:
        layer, type: the operator's name and type.
        methods: ways to quantize that take it; none of them for a table, say.
        channels: output channels.
        count: weights.
        sqnr8, sqnr4: dB, with one scale and zero point per output channel, as MNN's converter makes them.
        block8, block4: dB, with one per 32 input channels; None where their number is no multiple of 32, so that MNN
            would not do it.
        peak: largest |w| / rms of any one output channel.
        outliers: output channels where that is `PEAK` or more.
        spread: the largest output channel's range by the median's.  Scales per channel do not mind; the activations
            behind, which have one scale in static int8, do.
    """

    layer: str
    type: str
    methods: frozenset[Method]
    channels: int
    count: int
    sqnr8: float
    sqnr4: float
    block8: float | None
    block4: float | None
    peak: float
    outliers: int
    spread: float


@dataclass(frozen=True)
class Survey:
    """What is known of a model's weights.

    Attributes:
        layers: those that something quantizes and that were looked at, in file order.
        parameters: float weights of two axes or more, by operator type: (those that weight and dynamic quantization
            take, those that nothing takes).
        unknown: float weights that could not be followed to the operator they are for.
        offline: of all of them, those that offline and static int8 take.
        half: share of the weights that are stored as fp16, 0..1.
        products: as in `Found`.
        left_out: layers not looked at, with the reason.
    """

    layers: tuple[LayerWeights, ...]
    parameters: dict[str, tuple[int, int]]
    unknown: int
    offline: int
    half: float
    products: dict[str, tuple[int, int]] | None
    left_out: dict[str, str]

    @property
    def total(self) -> int:
        return sum(map(sum, self.parameters.values()))

    @property
    def quantizable(self) -> int:
        """Weights that weight and dynamic quantization take."""
        return sum(taken for taken, _ in self.parameters.values())


def survey_weights(
    graph: ModelGraph, *, most_of_one: int = MOST_OF_ONE, most_of_all: int = MOST_OF_ALL
) -> Survey | None:
    """Look at the weights of a model.

    Args:
        graph: as `read_model` gave it; the file must not have changed since.
        most_of_one, most_of_all: bounds, in weights.

    Returns:
        None for TFLite and TensorFlow, whose weights are not read.

    Raises:
        InputError: MODEL_INVALID, MODEL_UNREADABLE: the file is not what it was when its structure was read.
    """
    if graph.format not in _FIND:
        return None
    try:
        found = _FIND[graph.format](graph)
        return _survey(found, most_of_one, most_of_all)
    except BrokenFileError as error:
        raise InputError(
            "MODEL_INVALID",
            f"its weights cannot be found: {error}",
            hint="Check that nothing is writing the model, then copy, download or export it again.",
            where=str(graph.path),
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(
            "MODEL_UNREADABLE",
            f"its weights cannot be read: {error}",
            hint="Check that nothing is writing the model, and that its disk is sound.",
            where=str(graph.path),
        ) from error


def _survey(found: Found, most_of_one: int, most_of_all: int) -> Survey:
    layers, left_out = [], {}
    parameters: dict[str, tuple[int, int]] = {}
    offline = half = looked_at = 0
    for weight in found.weights:
        count = weight.values.count
        taken, other = parameters.get(weight.type, (0, 0))
        quantized = "weight" in weight.methods
        parameters[weight.type] = (taken + count, other) if quantized else (taken, other + count)
        offline += count if "offline" in weight.methods else 0
        half += count if weight.values.dtype == "<f2" else 0
        if not quantized:
            continue
        if weight.values.path is None:
            left_out[weight.layer] = "its values are stored in a way that is not read here"
        elif count > most_of_one:
            left_out[weight.layer] = f"it has {count} weights, more than {most_of_one}"
        elif looked_at + count > most_of_all:
            left_out[weight.layer] = f"{most_of_all} weights were looked at before it"
        else:
            looked_at += count
            layer = _layer(weight)
            if layer is None:
                left_out[weight.layer] = NOT_FINITE
            else:
                layers.append(layer)
    total = sum(map(sum, parameters.values()))
    return Survey(
        tuple(layers), parameters, found.unknown, offline, half / total if total else 0.0, found.products, left_out
    )


def _read(stored: Stored) -> np.ndarray:
    """The values, float32 in `stored.shape`."""
    assert stored.path is not None
    values = np.fromfile(stored.path, stored.dtype, stored.count, offset=stored.offset)
    if values.size != stored.count:
        raise ValueError("the file ends inside of them")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes Inf, and is told as not finite
        return values.astype(np.float32, copy=False).reshape(stored.shape)


def _layer(weight: Weight) -> LayerWeights | None:
    """None where a weight is NaN or Inf."""
    values = _read(weight.values)
    if weight.layout == "columns":
        matrix = values.reshape(-1, values.shape[-1]).T
    elif weight.layout == "deconv":
        matrix = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
    else:
        matrix = values.reshape(weight.channels or values.shape[0], -1)
    channels, length = matrix.shape
    blocks = weight.inner // BLOCK if weight.inner % BLOCK == 0 and length % weight.inner == 0 else 0
    signal = 0.0
    noise = dict.fromkeys(("8", "4", "block 8", "block 4"), 0.0)
    peaks, ranges = [], []
    step = max(1, _PART // length)
    for start in range(0, channels, step):
        part = np.ascontiguousarray(matrix[start : start + step], np.float32)
        if not np.isfinite(part).all():
            return None
        power = np.square(part, dtype=np.float64).sum(axis=1)
        signal += float(power.sum())
        largest = np.abs(part).max(axis=1).astype(np.float64)
        rms = np.sqrt(power / length)
        peaks.append(np.divide(largest, rms, out=np.zeros_like(rms), where=rms > 0))
        ranges.append((part.max(axis=1) - part.min(axis=1)).astype(np.float64))
        for bits in (8, 4):
            noise[f"{bits}"] += rounding_noise(part, bits)
            if blocks:
                noise[f"block {bits}"] += rounding_noise(part.reshape(part.shape[0] * blocks, -1), bits)
    peak, width = np.concatenate(peaks), np.concatenate(ranges)
    middle = float(np.median(width[width > 0])) if (width > 0).any() else 0.0
    return LayerWeights(
        layer=weight.layer,
        type=weight.type,
        methods=weight.methods,
        channels=channels,
        count=weight.values.count,
        sqnr8=capped_db(power_db(signal, noise["8"])),
        sqnr4=capped_db(power_db(signal, noise["4"])),
        block8=capped_db(power_db(signal, noise["block 8"])) if blocks else None,
        block4=capped_db(power_db(signal, noise["block 4"])) if blocks else None,
        peak=float(peak.max()),
        outliers=int((peak >= PEAK).sum()),
        spread=float(width.max()) / middle if middle else 1.0,
    )


def rounding_noise(rows: np.ndarray, bits: int) -> float:
    """Sum of squared errors of weights with one scale and zero point per row.

    scale = (max - min) / (2**bits - 1), w = min + scale * round((w - min) / scale), as in MNN's
    WeightQuantAndCoding.cpp and IDSTEncoder.hpp: a row whose scale is 1e-6 or less becomes its smallest value.

    Args:
        rows: float32 [rows, weights], finite.
    """
    low = rows.min(axis=1, keepdims=True)
    scale = (rows.max(axis=1, keepdims=True) - low) / np.float32(2**bits - 1)
    dead = scale <= _LEAST_SCALE
    scale[dead] = 1.0
    steps = rows - low
    steps /= scale
    error = np.rint(steps)
    error[np.broadcast_to(dead, error.shape)] = 0.0
    error -= steps
    error *= scale
    return float(np.square(error, dtype=np.float64).sum())
