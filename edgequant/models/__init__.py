"""Reads models without running them: tensors, operators, recurrent structure, risks.

Nothing here needs the packages the models were made with, and no file is trusted: all offsets are checked and the
work is bounded, so that a damaged or hostile file ends in an `InputError`.
"""

from __future__ import annotations

import hashlib
import itertools
import mmap
import stat
from pathlib import Path

from edgequant.errors import InputError
from edgequant.files import open_file
from edgequant.models.detect import NAMES, detect
from edgequant.models.mnn.read import read_mnn
from edgequant.models.model import BrokenFileError, ModelGraph, OpInfo, Parsed
from edgequant.models.onnx_file import read_onnx
from edgequant.models.risks import find_risks
from edgequant.models.tf_file import read_tf
from edgequant.models.tflite_file import read_tflite

__all__ = ["ModelGraph", "OpInfo", "find_risks", "read_model"]

_READERS = {"onnx": read_onnx, "tflite": read_tflite, "tf": read_tf, "mnn": read_mnn}
_CHUNK = 1 << 20  # bytes


def read_model(path: Path) -> ModelGraph:
    """Read what a model file says about itself.

    Args:
        path: an .onnx, .tflite, .pb (frozen TensorFlow graph) or .mnn file.  It must not change meanwhile.

    Raises:
        InputError: MODEL_NOT_FOUND, MODEL_IS_DIRECTORY, MODEL_EMPTY, MODEL_UNREADABLE, MODEL_TRUNCATED,
            MODEL_INVALID, MODEL_WRONG_FORMAT, MODEL_FORMAT_UNKNOWN, MODEL_DTYPE_UNSUPPORTED,
            NAME_TOO_LONG, MODEL_EXTERNAL_DATA_MISSING or MODEL_EXTERNAL_DATA_UNSAFE.
    """
    path = Path(path)
    try:
        _check_kind(path)
        digest, size = hashlib.sha256(), 0
        with open_file(path) as file:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                found = detect(data, path)
                try:
                    parsed = _READERS[found](data, path)
                except BrokenFileError as error:
                    raise _broken(path, found, error, len(data)) from error
            # Last: what is no model may be a disk image, and take an hour.
            size += _hash(file.fileno(), digest)
        _check_names(path, parsed, 4000 if found == "mnn" else 3000)
        for external in parsed.external_files:
            with open_file(external) as file:
                size += _hash(file.fileno(), digest)
    except OSError as error:
        raise InputError(
            "MODEL_UNREADABLE",
            f"the model cannot be read: {error.strerror or error}",
            hint="Check the permissions of the file and its directories, and that its disk is sound.",
            where=str(path),
        ) from error
    return ModelGraph(
        path=path,
        format=found,
        sha256=digest.hexdigest(),
        size=size,
        inputs=parsed.inputs,
        outputs=parsed.outputs,
        ops=tuple(parsed.ops),
        has_subgraphs=parsed.has_subgraphs,
        recurrent=tuple(parsed.recurrent),
        reset_first=tuple(parsed.reset_first),
        producer=parsed.producer,
        opset=parsed.opset,
        external_files=parsed.external_files,
        weights=parsed.weights,
        biz_code=parsed.biz_code,
        constants=parsed.constants,
        beyond_int32=tuple(parsed.beyond_int32),
        integers=parsed.integers,
        computes_int8=parsed.computes_int8,
    )


def _check_kind(path: Path) -> None:
    """Raise InputError unless ``path`` is a regular file with something in it."""
    where = str(path)
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        hint = "Check the path; it is taken relative to the current directory."
        raise InputError("MODEL_NOT_FOUND", "there is no such model file", hint=hint, where=where) from None
    except ValueError as error:
        raise InputError("MODEL_NOT_FOUND", f"this is no path: {error}", where=repr(where)) from None
    if stat.S_ISDIR(status.st_mode):
        hint = "Give the model file itself."
        if (path / "saved_model.pb").exists():
            hint = "It is a TensorFlow SavedModel: freeze it into one .pb file, or convert it to ONNX or TFLite."
        raise InputError("MODEL_IS_DIRECTORY", "this is a directory, not a model", hint=hint, where=where)
    if not stat.S_ISREG(status.st_mode):
        hint = "Give the path of a model file; pipes and devices cannot be read twice."
        raise InputError("MODEL_INVALID", "this is not a regular file", hint=hint, where=where)
    if status.st_size == 0:
        raise InputError("MODEL_EMPTY", "the model file is empty", hint="Export or download it again.", where=where)


def _check_names(path: Path, parsed: Parsed, most: int) -> None:
    """Refuse names that records and a runner's answers have no room for.

    most: characters; of a source fewer than of an .mnn, since the converter adds to them.
    """
    tensors = [each.name for each in (*(parsed.inputs or ()), *(parsed.outputs or ()))]
    inside = (name for op in parsed.ops for name in (op.name, *op.inputs, *op.outputs))
    for name in itertools.chain(tensors, inside):
        if len(name) > most:
            raise InputError(
                "NAME_TOO_LONG",
                f"a name in it has {len(name)} characters, {most} are the most: {name[:60]}...",
                hint="Export the model with shorter names.",
                where=str(path),
            )


def _hash(descriptor: int, digest: hashlib._Hash) -> int:
    """Add a file's contents to ``digest``; the number of bytes."""
    size = 0
    with open(descriptor, "rb", buffering=0, closefd=False) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return size


def _broken(path: Path, found: str, error: BrokenFileError, size: int) -> InputError:
    name = next(text for key, text in NAMES.items() if key == found)
    evidence = {"format": found, "bytes": size}
    if error.cut:
        return InputError(
            "MODEL_TRUNCATED",
            f"the model was cut short, or is damaged: {error}",
            hint=f"Copy or download it again; as {name} of {size} bytes it is incomplete.",
            where=str(path),
            evidence=evidence,
        )
    return InputError(
        "MODEL_INVALID",
        f"this is not {name}, or it is damaged: {error}",
        hint="Check that it is the file you meant, then copy, download or export it again.",
        where=str(path),
        evidence=evidence,
    )
