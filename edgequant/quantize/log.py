"""Reads what MNN's converter says: which sentences matter, and what they mean."""

from __future__ import annotations

import re

_START = re.compile(r"^\[edgequant\] \w+ starts$", re.MULTILINE)
_STAMP = re.compile(r"^\[[0-9:]+\] :\d+: ")
_ERROR = re.compile(r"\[ERROR\]|Check failed|Converted Failed|Can't open file|Framework Input ERROR|Does Not Exist")
_LIMIT = re.compile(
    r"[Dd]on't [Ss]upport|[Nn]ot [Ss]upport|[Uu]nsupported|(?:only|just) (?:support|accept|constant)|must be const"
)
_EMPTY = re.compile(
    r"^\[edgequant\]|^The device supports|^Start to |^ONNX Model (?:ir|opset) version|^(?:input|output)Tensors *:"
    r"|^Converted Failed!$|^\[ERROR\] Convert error, please check|Model File Does Not Exist"
)
"""What the converter says whether it fails or not, or of every failure."""
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
    """Names of operators the converter does not take, such as ``ONNX::Bogus`` or, of TFLite, ``LSTM``.

    It lists those of ONNX, and stops at the first one of TFLite or TensorFlow.
    """
    match = re.search(r"These Op Not Support: (.*)", text)
    found = match[1].split(" | ") if match else re.findall(r"NOT_SUPPORTED_OP: \[(.*?)\]", text)
    return list(dict.fromkeys(name.strip() for name in found if name.strip()))


def dumped_operators(text: str) -> frozenset[str]:
    """What it lists of the operators it takes; empty where the list is not whole."""
    match = re.search(r"^Dump \w+ support Ops\n(.*?)^Total: (\d+)$", text, re.MULTILINE | re.DOTALL)
    found = frozenset(match[1].split()) if match else frozenset()
    return found if match and len(found) == int(match[2]) else frozenset()


def limits_in(text: str) -> list[str]:
    """Lines that tell of an operator which MNN has, and of what it does not take of it."""
    lines = (_STAMP.sub("", line).strip() for line in text.splitlines() if "Op Not Support" not in line)
    return list(dict.fromkeys(line for line in lines if _LIMIT.search(line) and "NOT_SUPPORTED_OP" not in line))


def last_words(text: str, most: int = 2) -> str:
    """The last lines that say something, in MNN's own words; empty where there are none."""
    lines = (_STAMP.sub("", line).strip() for line in text.splitlines())
    said = [line for line in lines if line and not _EMPTY.search(line)]
    return "; ".join(dict.fromkeys(said[-most:]))


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
