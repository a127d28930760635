"""What can be wrong with calibration data, in its own terms."""

from __future__ import annotations

import difflib

from edgequant.errors import InputError
from edgequant.findings import Finding
from edgequant.tensors import TensorSpec

ACCEPTED = (
    "An .npz file (one sample: input name -> array), a folder of them, MNN test folders (input.json and NAME.txt), a "
    "folder of pictures, or a Python function as module:function or file.py:function: it takes no argument and yields "
    "or returns one dict per sample, input name -> array with the model's own batch size."
)
"""Every form calibration data can have, for hints."""

_CODES = {
    "INPUT_UNKNOWN": "CALIBRATION_NAMES",
    "INPUT_MISSING": "CALIBRATION_NAMES",
    "INPUT_SHAPE": "CALIBRATION_SHAPE",
    "INPUT_DTYPE": "CALIBRATION_DTYPE",
    "INPUT_VALUE": "CALIBRATION_DTYPE",
    "INPUT_NAN": "CALIBRATION_NAN",
    "INPUT_TOO_LARGE": "CALIBRATION_TOO_LARGE",
    "INPUT_FILE_INVALID": "CALIBRATION_FILE",
    "INPUTS_NOT_FOUND": "CALIBRATION_NOT_FOUND",
    "INPUTS_EMPTY": "CALIBRATION_EMPTY",
    "INPUTS_TOO_MANY": "CALIBRATION_TOO_LARGE",
    "INPUTS_DUPLICATE": "CALIBRATION_FORMAT",
    "INPUTS_FORMAT": "CALIBRATION_FORMAT",
    "IMAGE_INVALID": "CALIBRATION_FILE",
    "IMAGE_TOO_LARGE": "CALIBRATION_TOO_LARGE",
}


def as_calibration(error: InputError, inputs: tuple[TensorSpec, ...]) -> InputError:
    """The same in terms of calibration, with the name or the mistake the user probably meant."""
    code = _CODES.get(error.code, error.code)
    hint = error.hint
    if code == "CALIBRATION_NAMES":
        names = [spec.name for spec in inputs]
        given = error.message.rpartition("no input '")[2].rstrip("'")
        near = difflib.get_close_matches(given, names, 1) if error.code == "INPUT_UNKNOWN" else []
        hint = f"Did you mean '{near[0]}'? " if near else ""
        hint += f"Every sample needs the inputs {', '.join(names)}."
    elif code == "CALIBRATION_SHAPE":
        hint = hint or "One file or dict is one sample, with the model's own batch size; split stacked samples."
    elif error.code == "INPUTS_TOO_MANY":
        hint = (
            hint or "Say how many are used, for example --variant static:8,samples=100: the first ones in name order."
        )
    elif code in ("CALIBRATION_EMPTY", "CALIBRATION_NOT_FOUND", "CALIBRATION_FORMAT"):
        # What was meant is not known: every form there is, behind what the mistake itself suggests.
        own = hint if hint and "numpy.savez" not in hint else ""
        hint = f"{own} {ACCEPTED}".strip()
    elif code == "CALIBRATION_NAN":
        hint = "A single NaN makes the range of every layer behind it meaningless. Leave the sample out."
    return InputError(code, error.message, hint=hint, where=error.where, evidence=error.evidence)


def one_sample(source: str) -> Finding:
    return Finding(
        code="CALIBRATION_FEW",
        severity="warn",
        message=f"{source} holds one sample: ranges seen once are seldom those of all data",
        remedy="Give at least 8 samples that differ as real data does.",
    )


def same_samples(source: str, count: int) -> Finding:
    return Finding(
        code="CALIBRATION_IDENTICAL",
        severity="warn",
        message=f"the {count} samples of {source} are one, value by value: ranges seen once seldom are all data's",
        evidence={"samples": count},
        remedy="Give at least 8 samples that differ as real data does.",
    )


def too_few_samples(source: str, there: int, wanted: int) -> Finding:
    return Finding(
        code="CALIBRATION_FEW",
        severity="warn",
        message=f"{source} holds {there} samples, {wanted} were asked for",
        evidence={"samples": there, "wanted": wanted},
        remedy="Give more samples, or ask for fewer.",
    )
