"""What activations and normalizations are by their definitions, in float64; and the inputs at which they go wrong.

Definitions: the operators' pages of the ONNX standard.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
WIDTH = 16
"""Numbers in a row: more than any vector register of MNN's kernels holds."""
_EPSILON = 1e-5


@dataclass(frozen=True)
class Operator:
    """One activation or normalization.

    Attributes:
        name: as it is shown.
        kind, attributes, constants: the operator of ONNX, and its further inputs.
        formula: float64 to float64, element by element or, with `by_row`, along the last axis.
        reach: no answer is expected for magnitudes above it.
    """

    name: str
    kind: str
    formula: Callable[[Floats], Floats]
    attributes: Mapping[str, float | int | str] = field(default_factory=dict)
    constants: tuple[npt.NDArray[np.float32], ...] = ()
    by_row: bool = False
    reach: float = math.inf

    def expected(self, x: npt.NDArray[np.float32]) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """What it should be, and where that is known.

        By IEEE 754 an Inf times 0 is NaN whatever the limit is: there nothing is expected, nor beyond `reach`.
        """
        with np.errstate(all="ignore"):
            found = np.asarray(self.formula(x.astype(np.float64)), np.float64)
            known = ~(np.isnan(found) & ~np.isnan(x)) | _outside(self.name, x)
            if self.by_row:
                known = known | np.isnan(x).any(axis=-1, keepdims=True)
            return found, known & ~(np.abs(x) > self.reach)


_DOMAINS: dict[str, tuple[float, float]] = {
    "Log": (0, math.inf), "Sqrt": (0, math.inf), "Asin": (-1, 1), "Acos": (-1, 1), "Atanh": (-1, 1),
    "Acosh": (1, math.inf),
}  # fmt: skip


def _outside(name: str, x: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Where NaN is what is right."""
    low, high = _DOMAINS.get(name, (-math.inf, math.inf))
    return (x < low) | (x > high)


def _sigmoid(x: Floats) -> Floats:
    small = np.exp(-np.abs(x))
    found: Floats = np.where(x >= 0, 1, small) / (1 + small)
    return found


def _softplus(x: Floats) -> Floats:
    found: Floats = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return found


def _normal(x: Floats) -> Floats:
    """The distribution function of the normal distribution."""
    found: Floats = np.vectorize(lambda value: 0.5 * math.erfc(-value / math.sqrt(2)), otypes=[np.float64])(x)
    return found


def _gelu_by_tanh(x: Floats) -> Floats:
    found: Floats = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return found


def _elu(alpha: float, gamma: float = 1.0) -> Callable[[Floats], Floats]:
    return lambda x: gamma * np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x)


def _log_softmax(x: Floats) -> Floats:
    moved = x - x.max(axis=-1, keepdims=True)
    found: Floats = moved - np.log(np.exp(moved).sum(axis=-1, keepdims=True))
    return found


def _softmax(x: Floats) -> Floats:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    found: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return found


def _layer_norm(x: Floats) -> Floats:
    moved = x - x.mean(axis=-1, keepdims=True)
    found: Floats = moved / np.sqrt(np.square(moved).mean(axis=-1, keepdims=True) + _EPSILON)
    return found


def _hard_sigmoid(x: Floats) -> Floats:
    found: Floats = np.clip(x / 6 + 0.5, 0, 1)
    return found


def _vectorized(function: Callable[[float], float]) -> Callable[[Floats], Floats]:
    return np.vectorize(function, otypes=[np.float64])


def _one(value: float) -> npt.NDArray[np.float32]:
    return np.array(value, np.float32)


_ROW = np.ones(WIDTH, np.float32)
OPERATORS: tuple[Operator, ...] = (
    Operator("Relu", "Relu", lambda x: np.maximum(x, 0)),
    Operator("Relu6", "Clip", lambda x: np.clip(x, 0, 6), constants=(_one(0), _one(6))),
    Operator("LeakyRelu", "LeakyRelu", lambda x: np.where(x < 0, np.float32(0.1) * x, x), {"alpha": 0.1}),
    Operator("PRelu", "PRelu", lambda x: np.where(x < 0, 0.25 * x, x), constants=(np.full(1, 0.25, np.float32),)),
    Operator("ThresholdedRelu", "ThresholdedRelu", lambda x: np.where(np.isnan(x) | (x > 1), x, 0), {"alpha": 1.0}),
    Operator("Elu", "Elu", _elu(1.0), {"alpha": 1.0}),
    Operator("Selu", "Selu", _elu(1.67326319217681884765625, 1.05070102214813232421875)),
    Operator("Celu", "Celu", _elu(1.0), {"alpha": 1.0}),
    Operator("Sigmoid", "Sigmoid", _sigmoid),
    Operator("HardSigmoid", "HardSigmoid", _hard_sigmoid, {"alpha": 1 / 6, "beta": 0.5}),
    Operator("HardSwish", "HardSwish", lambda x: x * _hard_sigmoid(x)),
    Operator("Tanh", "Tanh", np.tanh),
    Operator("Gelu", "Gelu", lambda x: x * _normal(x)),
    Operator("Gelu (tanh)", "Gelu", _gelu_by_tanh, {"approximate": "tanh"}, reach=1e18),
    Operator("Softplus", "Softplus", _softplus),
    Operator("Softsign", "Softsign", lambda x: x / (1 + np.abs(x))),
    Operator("Erf", "Erf", _vectorized(math.erf)),
    Operator("Exp", "Exp", np.exp),
    Operator("Log", "Log", np.log),
    Operator("Sqrt", "Sqrt", np.sqrt),
    Operator("Reciprocal", "Reciprocal", lambda x: 1 / x),
    Operator("Abs", "Abs", np.abs),
    Operator("Sign", "Sign", np.sign),
    Operator("Floor", "Floor", np.floor),
    Operator("Ceil", "Ceil", np.ceil),
    Operator("Round", "Round", np.rint),
    Operator("Sin", "Sin", np.sin, reach=1e3),
    Operator("Cos", "Cos", np.cos, reach=1e3),
    Operator("Atan", "Atan", np.arctan),
    Operator("Asin", "Asin", np.arcsin),
    Operator("Acos", "Acos", np.arccos),
    Operator("Sinh", "Sinh", np.sinh),
    Operator("Cosh", "Cosh", np.cosh),
    Operator("Asinh", "Asinh", np.arcsinh),
    Operator("Acosh", "Acosh", np.arccosh),
    Operator("Atanh", "Atanh", np.arctanh),
    Operator("Softmax", "Softmax", _softmax, {"axis": -1}, by_row=True),
    Operator("LogSoftmax", "LogSoftmax", _log_softmax, {"axis": -1}, by_row=True),
    Operator(
        "LayerNormalization",
        "LayerNormalization",
        _layer_norm,
        {"axis": -1, "epsilon": _EPSILON},
        (_ROW, 0 * _ROW),
        by_row=True,
    ),
)
OPSET = 20

_HALVES = (5.9604645e-8, 6.1035156e-5, 2048.0, 65504.0, 65519.0, 65520.0)
"""Of fp16: the smallest, the smallest normal, the last odd ones, the largest, what rounds to it, what does not."""
_MAGNITUDES = (
    0.0, 1e-45, 1e-40, 1.1754944e-38, 1e-20, *_HALVES[:2], 2.0**-23, 1e-3, 0.1, 0.5, 1 - 2.0**-24, 1.0, 1 + 2.0**-23,
    1.5, 2.0, 2.5, 3.0, 3 + 2.0**-22, 4.0, 6.0, 6 + 2.0**-21, 8.0, 9.0, 10.0, 13.0, 16.0, 17.0, 18.0, 20.0, 24.0, 32.0,
    44.0, 50.0, 64.0, 80.0, 87.0, 88.0, 88.7, 88.73, 89.0, 100.0, 103.0, 104.0, 128.0, 256.0, 1e3, *_HALVES[2:], 1e5,
    1e6, 2.0**24 + 2, 2.0**31, 1e10, 1e18, 1.8e19, 1.9e19, 1e30, float(np.finfo(np.float32).max),
)  # fmt: skip
VALUES: npt.NDArray[np.float32] = np.array(
    [*(sign * size for size in _MAGNITUDES for sign in (1, -1)), np.inf, -np.inf, np.nan], np.float32
)
"""Inputs of operators that work element by element."""


def rows() -> dict[str, npt.NDArray[np.float32]]:
    """Inputs of operators that work on rows, by what they are: each float32 of `WIDTH` numbers."""
    ramp = np.linspace(-3, 3, WIDTH, dtype=np.float32)
    largest = np.finfo(np.float32).max

    def with_one(value: float) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = ramp.copy()
        found[5] = value
        return found

    return {
        "ordinary": ramp, "all 0": 0 * ramp, "all 10000": 0 * ramp + 10_000, "all equal, small": 0 * ramp + 1e-3,
        "one NaN": with_one(np.nan), "one Inf": with_one(np.inf), "one -Inf": with_one(-np.inf),
        "half -Inf": np.where(ramp < 0, -np.inf, ramp).astype(np.float32),
        "one 100": with_one(100), "one -100": with_one(-100), "one 1e4": with_one(1e4), "one 65504": with_one(65504),
        "one 1e18": with_one(1e18), "one 1e20": with_one(1e20), "one largest": with_one(float(largest)),
        "-30 to 30": 10 * ramp, "-90 to 90": 30 * ramp, "-300 to 300": 100 * ramp, "-60000 to 60000": 20_000 * ramp,
        "1000 and a ramp": 1000 + ramp, "10000 and a ramp": 10_000 + ramp, "tiny": np.float32(1e-30) * ramp,
        "below 2^-126": np.float32(1e-39) * ramp,
    }  # fmt: skip
