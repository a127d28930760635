"""Which limits hold for which output: the defaults with their reasons, and the user's on top of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from edgequant.compare.summary import OutputSummary
from edgequant.compare.table import TABLE, Kind
from edgequant.errors import InputError
from edgequant.spec import DEVICE_METRIC, METRICS, Limit, Precision

_KINDS: tuple[Kind, ...] = ("float", "int")
METRICS_OF: dict[Kind, tuple[str, ...]] = {
    kind: tuple(name for name in METRICS if kind in TABLE[name if name != DEVICE_METRIC else "sqnr_db"].kinds)
    for kind in _KINDS
}
"""The metrics of a limit that are defined for each kind of output."""

_FLOAT = (("cosine", 0.9999), ("sqnr_db", 40.0), ("rel_max", 0.02))
_FP16 = (("cosine", 0.999), ("sqnr_db", 30.0), ("rel_max", 0.05))
_QUANTIZED = (("cosine", 0.99), ("sqnr_db", 20.0), ("rel_max", 0.25))
_BOUNDS = {
    "float": _FLOAT,
    "fp16": _FP16,
    **dict.fromkeys(("weight", "dynamic", "kl", "ema", "admm", "static", "recipe", "auto"), _QUANTIZED),
}

SQNR_MARGIN_DB = 1.0
RELATIVE_MARGIN = 0.1


def default_limits(variant_method: str, kind: Kind) -> tuple[Limit, ...]:
    """The limits an output must keep when the user says nothing.

    Three metrics judge a float output together, because each is blind to something: cosine to a bias around a large
    mean, SQNR and cosine to a single element that is far off, rel_max to everything but that element.

    ========= ======= ======= ======= ============================================================================
    method    cosine  sqnr_db rel_max because
    ========= ======= ======= ======= ============================================================================
    float     0.9999  40      0.02    Conversion changes the order of sums, not the model.  Measured: 108 to 146 dB,
                                      except a text recognizer with fused attention: 43 dB on noise, and on text 47 dB
                                      with a rel_max of 0.014.  The MNN converter's own test asks 0.01, which that
                                      healthy model breaks.
    fp16      0.999   30      0.05    Measured: 35 to 81 dB, rel_max up to 0.023.  MACE asks 0.999 of float models,
                                      Polygraphy and LiteRT 30 dB, MNN's auto_quant a rel_max of 0.05.
    others    0.99    20      0.25    Measured at 8 bits over seeds and lengths: 23 dB or more, cosine 0.998 or more,
                                      rel_max below 0.18 for every output of a speech enhancer and a classifier.
                                      At 4 bits each of these models has an output below 18 dB.  LiteRT's accuracy
                                      debugger asks cosine 0.99, Polygraphy 20 dB.  0.25 lets the worst healthy
                                      output (0.173) through and stops an element a quarter of full scale off.
    ========= ======= ======= ======= ============================================================================

    The same text recognizer on pictures without text (a softmax over 18710 classes with no clear winner) falls to 9 dB
    at 8 bits and fails: representative cases matter, and no bound that passes this would stop 4 bits.

    Integer and bool outputs are labels and indices: a mismatch of at most 0.01 (0.001 for float and fp16, whose only
    cause is a tie that fell the other way).

    Raises:
        ValueError: no such method.
    """
    if variant_method not in _BOUNDS:
        raise ValueError(f"no default limits for '{variant_method}'; there are some for {', '.join(_BOUNDS)}")
    if kind == "int":
        bounds: Sequence[tuple[str, float]] = (("mismatch", 0.001 if variant_method in ("float", "fp16") else 0.01),)
    else:
        bounds = _BOUNDS[variant_method]
    return tuple(Limit.model_validate({"metric": m, "op": METRICS[m], "value": value}) for m, value in bounds)


def defaults_for(variant_method: str) -> dict[Kind, tuple[Limit, ...]]:
    """The default limits of a method for both kinds of output, as resolve_limits takes them."""
    return {"float": default_limits(variant_method, "float"), "int": default_limits(variant_method, "int")}


def resolve_limits(
    outputs: Mapping[str, Kind], defaults: Mapping[Kind, Sequence[Limit]], user_limits: Sequence[Limit]
) -> dict[str, tuple[Limit, ...]]:
    """The limits of each output, one per metric: one that names the output beats a general one beats a default.

    Of two for the same output and metric the later wins, so a command line can follow a file.  A general limit holds
    for every output that has its metric.

    Raises:
        InputError: LIMIT_UNKNOWN_OUTPUT, a limit names an output the model does not have.  LIMIT_UNDEFINED, a limit's
            metric does not exist for the output it names, or for any output.
    """
    for limit in user_limits:
        if limit.output is not None and limit.output not in outputs:
            raise InputError(
                "LIMIT_UNKNOWN_OUTPUT",
                f"limit '{limit}': there is no output '{limit.output}'",
                hint=f"Outputs: {', '.join(outputs) or 'none'}.",
                evidence={"limit": str(limit), "outputs": list(outputs)},
            )
        concerned = outputs.values() if limit.output is None else [outputs[limit.output]]
        if outputs and not any(limit.metric in METRICS_OF[kind] for kind in concerned):
            what = "any output" if limit.output is None else f"{outputs[limit.output]} output '{limit.output}'"
            raise InputError(
                "LIMIT_UNDEFINED",
                f"limit '{limit}': {limit.metric} is not defined for {what}",
                hint=f"Float outputs have {', '.join(METRICS_OF['float'])}; "
                f"integer and bool outputs have {', '.join(METRICS_OF['int'])}.",
                evidence={"limit": str(limit), "outputs": dict(outputs)},
            )
    resolved: dict[str, tuple[Limit, ...]] = {}
    for name, kind in outputs.items():
        general = [limit for limit in user_limits if limit.output is None and limit.metric in METRICS_OF[kind]]
        own = [limit for limit in user_limits if limit.output == name]
        chosen = {limit.metric: limit for limit in [*defaults[kind], *general, *own]}
        # Against this host, not against the reference: see device_bands.
        chosen.pop(DEVICE_METRIC, None)
        resolved[name] = tuple(chosen.values())
    return resolved


_FP32_KERNELS, _FP16_KERNELS, _INT8_KERNELS = 60.0, 30.0, 20.0


def device_bands(
    outputs: Mapping[str, Kind], variant_method: str, precision: Precision, user_limits: Sequence[Limit]
) -> dict[str, Limit]:
    """How far each float output of a device may be from this host's with the same file: the band of rounding.

    ============================ == ==================================================================================
    computed in                  dB because
    ============================ == ==================================================================================
    fp32 (float, fp16, weight)   60 Only the order of sums differs.  Measured, x86 against ARM: 74 to 108 dB.
    precision low                30 fp16 has 11 bits, 66 dB for one rounding, and a deep network adds some up; where the
                                    CPU has none, MNN's sigmoid is coarser.  Measured where it works: 34 to 98 dB.
    int8 at run time (dynamic)   20 A last bit that differs moves an activation to the next of 255 steps, and all that
                                    follows with it.  Measured, x86 against ARM: 33 to 57 dB for what keeps its limits,
                                    25 dB for a model that does not, always 8 dB or more better than what quantizing
                                    itself costs.
    int8 with fixed scales       20 The same, with coarser steps.  Measured, x86 against ARM, with the kernels that
                                    work: 31 dB or more for a speech enhancer and a classifier.
    ============================ == ==================================================================================

    With fixed scales rounding alone can go beyond it: one input value moved by one step takes this host itself down to
    5.4 dB on lines of text, where another letter wins, and a classifier whose one decision tips is at -3 dB.  MNN's
    faulty kernels cost -3 to 22 dB, so no bound tells the two apart; see proves_a_fault.

    Otherwise, what lies outside is a kernel that computes something else, even where every limit against the reference
    is kept.  A user's device_sqnr_db limit takes the place of the default, as in resolve_limits.
    """
    bound = _FP32_KERNELS
    if precision == "low":
        bound = _FP16_KERNELS
    if variant_method not in ("float", "fp16", "weight"):
        bound = _INT8_KERNELS
    bands: dict[str, Limit] = {}
    for name, kind in outputs.items():
        if kind == "float":
            bands[name] = Limit(metric=DEVICE_METRIC, op=">=", value=bound)
            # The general ones first, so that those which name the output win.
            for limit in sorted(user_limits, key=lambda limit: limit.output is not None):
                if limit.metric == DEVICE_METRIC and limit.output in (None, name):
                    bands[name] = limit
    return bands


def proves_a_fault(device_sqnr_db: float, *, static: bool, explained: bool, asked: bool) -> bool:
    """Whether an output outside its band proves that the device computes something else.

    Args:
        device_sqnr_db: device against this host, outside the band.
        static: whether the file is int8 with fixed scales: there rounding alone can go beyond the band.
        explained: whether a fault is known of this device and this file.
        asked: whether the band is the user's own.
    """
    return not static or explained or asked or math.isnan(device_sqnr_db)


def meets(limit: Limit, value: float) -> bool:
    """Whether a measured value keeps a limit; NaN keeps none."""
    return value >= limit.value if limit.op == ">=" else value <= limit.value


ROUNDING_BLIND = ("cosine", "sqnr_db")
"""Metrics that hold an error against a value however small both are: see `summary.NEAR_NOTHING`."""


def judged_value(summary: OutputSummary, limit: Limit) -> tuple[float | None, str | None]:
    """The value that a limit is held against, and its case: the worst; but where that breaks a limit which is blind to
    size, the worst of those cases whose error is more than arithmetic.  Of a score that is nothing in some cases,
    `rel_max` is blind to size there, too.  (None, None) where there is none of these."""
    metric = limit.metric
    value, case = summary.values.get(metric), summary.worst_cases.get(metric)
    blind = metric in ROUNDING_BLIND or (metric == "rel_max" and summary.faint_cases)
    if blind and value is not None and not math.isnan(value) and not meets(limit, value):
        return summary.audible.get(metric) or (None, None)
    return value, case


def within_margin(limit: Limit, value: float) -> bool:
    """Whether a value that keeps its limit does so only just.

    The margin is SQNR_MARGIN_DB for sqnr_db.  For the others it is a tenth of the distance the limit allows from
    perfect: cosine >= 0.99 allows 0.01, so below 0.991 is marginal; rel_max <= 0.25 allows 0.25, so above 0.225 is.
    """
    if limit.metric == "sqnr_db":
        return not value >= limit.value + SQNR_MARGIN_DB
    if limit.op == ">=":
        return value < 1.0 and not value >= limit.value + RELATIVE_MARGIN * (1.0 - limit.value)
    return value > 0.0 and not value <= (1.0 - RELATIVE_MARGIN) * limit.value
