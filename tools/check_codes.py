"""Whose fault a failure is, and which MNN is known to be wrong."""

import re

OWN = {
    "CALIBRATION_BAD_ANSWER", "CALIBRATION_CRASHED", "CALIBRATION_FAILED", "CALIBRATION_MISCOMPUTED",
    "CALIBRATION_OUT_OF_MEMORY", "CONVERSION_INPUTS", "CONVERTER_BAD_OUTPUT", "CONVERTER_CRASHED", "CONVERTER_FAILED",
    "CONVERTER_NO_OUTPUT", "CONVERTER_OUT_OF_MEMORY", "KERNEL_MISSING", "MODEL_BROKEN", "MODEL_DTYPE_UNSUPPORTED",
    "MODEL_EMPTY",
    "MODEL_EXTERNAL_DATA_MISSING", "MODEL_EXTERNAL_DATA_UNSAFE", "MODEL_FORMAT_UNKNOWN", "MODEL_INVALID",
    "MODEL_NOT_CONVERTIBLE", "MODEL_TOO_LARGE", "MODEL_TRUNCATED", "MODEL_WRONG_FORMAT", "NOTHING_MADE",
    "OP_UNSUPPORTED",
    "QUANTIZED_MODEL_INSANE", "QUANTIZER_BAD_OUTPUT", "QUANTIZER_CRASHED", "QUANTIZER_FAILED",
    "QUANTIZER_NOTHING_DONE", "QUANTIZER_OUTPUT_LOST", "QUANTIZER_OUT_OF_MEMORY", "QUANTIZE_NO_WAY_LEFT",
    "RECIPE_NOT_APPLIED", "SEARCH_BAD_ANSWER", "SEARCH_CRASHED", "SEARCH_FAILED", "SEARCH_MISCOMPUTED",
    "SEARCH_OUT_OF_MEMORY", "SEARCH_REFUSED", "SHAPES_NOT_FIXABLE", "STATIC_NOT_APPLIED", "STATIC_NOT_FINITE",
    "SWAP_IMPOSSIBLE", "CUT_IMPOSSIBLE",
}  # fmt: skip
"""A model's own: it cannot be made."""
RUN = {
    "ANSWER_UNSENDABLE", "FEEDBACK_MISSING", "INFERENCE_FAILED", "INPUT_DTYPE_UNSUPPORTED", "JOB_FAILED",
    "MODEL_LOAD_FAILED",
    "OUTPUT_UNSUPPORTED", "OUT_OF_MEMORY", "ROLLOUT_SHAPE", "RUNNER_DIED", "SESSION_FAILED",
}  # fmt: skip
"""The model's own where this host fails as well."""


def models_own(failure, here_too):
    """Whether a failure is the model's."""
    crash = failure["code"] != "RUNNER_DIED" or failure["evidence"].get("signal") in (4, 6, 7, 8, 11)
    return failure["code"] in OWN or (here_too and failure["code"] in RUN and crash)


def old(version):
    """Whether it is an MNN whose int8 kernels are known to be wrong."""
    found = re.match(r"\s*v?(\d{1,6})(?:\.(\d{1,6}))?(?:\.(\d{1,6}))?", version or "")
    return bool(found) and tuple(int(n or 0) for n in found.groups()) <= (3, 6, 1)
