"""Tells what a file is by its contents, and by its name only where the contents say nothing."""

from __future__ import annotations

from pathlib import Path

from edgequant.errors import InputError
from edgequant.models.mnn.read import looks_like_mnn
from edgequant.models.model import BrokenFileError, Data, Format, Work
from edgequant.models.onnx_file import MODEL_FIELDS
from edgequant.models.proto import fields
from edgequant.models.tf_file import looks_like_graphdef

EXTENSIONS: dict[str, Format] = {".onnx": "onnx", ".tflite": "tflite", ".lite": "tflite", ".pb": "tf", ".mnn": "mnn"}
NAMES: dict[Format, str] = {
    "onnx": "an ONNX model",
    "tflite": "a TensorFlow Lite model",
    "tf": "a frozen TensorFlow graph",
    "mnn": "an MNN model",
}

_SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "tflite": ".tflite", "tf": ".pb", "mnn": ".mnn"}
_EXPORT = "Export the model to ONNX first."
# What a file that is no model starts with (in lower case), what to call it, and what to do.
_FOREIGN = (
    (b"version https://git-lfs", "a Git LFS pointer, not the model itself", "Fetch the contents with `git lfs pull`."),
    (b"<!doctype", "a web page, not a model", "Download it again; the server answered with a page."),
    (b"<html", "a web page, not a model", "Download it again; the server answered with a page."),
    (b"<?xml", "an XML text, not a model", "Download it again, or export it to ONNX if it is an OpenVINO model."),
    (b"{", "a JSON text, not a model", "Download it again; the server may have answered with an error."),
    (b"pk\x03\x04", "a ZIP archive, not a model", "Unpack it; if it is a PyTorch or Keras file, export it to ONNX."),
    (b"\x1f\x8b", "a gzip archive, not a model", "Unpack it first."),
    (b"\x89hdf\r\n", "an HDF5 file (Keras?)", _EXPORT),
    (b"\x80\x02", "a Python pickle (PyTorch?)", _EXPORT),
    (b"\x7felf", "a program, not a model", "Give the path of the model."),
)


def _foreign(data: Data, path: Path) -> InputError | None:
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for magic, what, hint in _FOREIGN:
        if head.startswith(magic):
            return InputError("MODEL_INVALID", f"this is {what}", hint=hint, where=str(path))
    return None


def _protobuf(data: Data, path: Path) -> Format | None:
    """ONNX, a TensorFlow graph or neither, by the top-level fields."""
    seen: dict[int, int] = {}
    cut = False
    known = True
    try:
        for number, wire, _, b in fields(data, 0, len(data), Work(10_000)):
            known = known and MODEL_FIELDS.get(number) == wire
            seen[number] = b
            if not known or number == 7:
                break
    except BrokenFileError as error:
        cut = error.cut
        known = known and cut
    if known and 7 in seen:
        return "onnx"
    if known and 1 in seen and cut and (len(seen) > 1 or data[:1] == b"\x08"):
        return "onnx"
    if known and not cut and set(seen) == {1, 2} and data[:2] == b"\x08\x01":
        raise InputError(
            "MODEL_INVALID",
            "this is a TensorFlow SavedModel, not a frozen graph",
            hint="Freeze it into one .pb file, or convert it to ONNX or TFLite.",
            where=str(path),
        )
    return "tf" if looks_like_graphdef(data) else None


def detect(data: Data, path: Path) -> Format:
    """The format of a non-empty file.

    Raises InputError: MODEL_INVALID for a known kind of file that is no model, MODEL_WRONG_FORMAT where name and
    contents contradict each other, MODEL_FORMAT_UNKNOWN where neither says anything.
    """
    claimed = EXTENSIONS.get(path.suffix.lower())
    found: Format | None
    if data[4:8] == b"TFL3":
        found = "tflite"
    elif looks_like_mnn(data):
        found = "mnn"
    else:
        found = _protobuf(data, path)
    if found is None:
        # Not before: a TensorFlow graph may well start with a line break and a brace.
        foreign = _foreign(data, path)
        if foreign is not None:
            raise foreign
        if claimed is None:
            raise InputError(
                "MODEL_FORMAT_UNKNOWN",
                "neither its name nor its contents say what kind of model this is",
                hint="Give an .onnx, .tflite, .pb (frozen TensorFlow graph) or .mnn file.",
                where=str(path),
            )
        return claimed
    if claimed is not None and claimed != found:
        raise InputError(
            "MODEL_WRONG_FORMAT",
            f"its name says {NAMES[claimed]}, but it is {NAMES[found]}",
            hint=f"Rename it to {path.stem}{_SUFFIXES[found]}.",
            where=str(path),
            evidence={"name_says": claimed, "content_is": found},
        )
    return found
