"""Reads what MNN's converter says: which sentences matter, and what they mean."""

from __future__ import annotations

import re

_START = re.compile(r"^\[edgequant\] \w+ starts$", re.MULTILINE)
_STAMP = re.compile(r"^\[[0-9:]+\] :\d+: ")
_ERROR = re.compile(r"\[ERROR\]|Check failed|Converted Failed|Can't open file|Framework Input ERROR|Does Not Exist")
_PLAIN = (
    ("caution: some weight absolute values", "some weights are denormal numbers (below 1.2e-38); MNN takes them as 0"),
    ("Disable Hqq", "the converter switched hqq off"),
)


def sections(text: str) -> list[str]:
    """What each call of the worker wrote, in order."""
    return _START.split(text)[1:]


def errors_in(text: str) -> list[str]:
    """Lines that tell of an error, the first cause first."""
    return [_STAMP.sub("", line).strip() for line in text.splitlines() if _ERROR.search(line)]


def unsupported_ops(text: str) -> list[str]:
    """Names of operators the converter does not know, such as ``ONNX::Bogus``.

    It lists those of ONNX, and stops at the first one of TFLite or TensorFlow.
    """
    match = re.search(r"These Op Not Support: (.*)|NOT_SUPPORTED_OP: \[ (.*?) \]", text)
    names = (match[1] or match[2]).split(" | ") if match else []
    return [name.strip() for name in names if name.strip()]


def warnings_in(text: str) -> list[str]:
    """What the user should know of it, in plain words, each thing once.

    Not that there are subgraphs or that an optional input is left out: it says so of nearly every recurrent model, and
    the risks of the source say it better.
    """
    found: list[str] = [plain for said, plain in _PLAIN if said in text]
    unused = re.findall(r"don't use block-quant for the layer: (.*)\.$", text, re.MULTILINE)
    unused += re.findall(r"not adopted to the layer: (.*), because", text)
    if unused:
        found.append(f"{len(unused)} layers cannot use the block and have one scale per channel, first: {unused[0]}")
    return found
