"""Healthy runs on an emulated ARM CPU, kept: there real rounding lies between device and host, and defects are planted
into copies of them.

A recording is made by the product itself, once for each state of what captures (not of what judges), and found again
in the user's cache.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import platformdirs

from edgequant.cases.load import save_npz
from edgequant.jobs.verify import verify
from edgequant.mnn_version import host_mnn_version
from edgequant.plan.request import Request
from edgequant.spec import RunOptions, Variant
from tests import generated, sources
from tests.defects import panel, track

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
A53, A76, MAX = "emulated:cortex-a53", "emulated:cortex-a76", "emulated:max"
CAPTURES = (
    *("archive", "cases", "devices", "jobs", "lab", "models", "plan", "quantize", "reference", "runner", "spec"),
)
"""Rooms that decide what a run captures."""

Cases = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Recording:
    """What is run, and where.  real: a model that somebody uses."""

    model: Callable[[Path], Path]
    cases: Callable[[], Cases]
    variants: tuple[str, ...]
    devices: tuple[str, ...] = (A53,)
    real: bool = True
    more: Mapping[str, object] = field(default_factory=dict)


def _real(name: str) -> Callable[[Path], Path]:
    return lambda _folder: sources.real(name)


@functools.cache
def _sound() -> Cases:
    """For enc: noise, and something that swells and ebbs as speech does; the third has as many frames as bands."""
    rng = np.random.default_rng(31)
    found: Cases = {}
    for name, frames, speech in (("a", 21, 0), ("b", 32, 1), ("c", 9, 1), ("d", 32, 0), ("e", 47, 1)):
        erb, spec = rng.standard_normal((1, 1, frames, 32)), rng.standard_normal((1, 2, frames, 96))
        if speech:
            loud = np.exp(np.convolve(rng.standard_normal(frames + 4), np.ones(5) / 5, "valid"))
            erb = 0.4 * np.cumsum(erb, axis=2) * np.linspace(1, 0.2, 32) + 0.2 * erb
            spec = spec * loud[None, None, :, None] * np.linspace(1.4, 0.1, 96)
        found[name] = {"feat_erb": erb.astype(np.float32), "feat_spec": spec.astype(np.float32)}
    return found


def _behind_enc(names: tuple[str, ...]) -> Callable[[], Cases]:
    """What the encoder makes of the same sounds."""

    def cases() -> Cases:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(sources.real("enc")))
        return {
            case: dict(zip(names, session.run(list(names), inputs), strict=True)) for case, inputs in _sound().items()
        }

    return cases


def _line(width: int, seed: int) -> np.ndarray:
    """A picture [3,48,width] of dark strokes on light ground, as a line of text has them."""
    rng = np.random.default_rng([3, seed])
    image = np.full((3, 48, width), 0.8)
    left = 3
    while left < width - 6:
        for _ in range(3):
            top = rng.integers(6, 34)
            image[:, top : top + rng.integers(3, 12), left : left + rng.integers(2, 7)] = -0.7
        left += rng.integers(8, 12)
    return np.clip(image + 0.03 * rng.standard_normal(image.shape), -1, 1)


def _lines(*sizes: tuple[int, int]) -> Callable[[], Cases]:
    """Batches of lines of text, every second one upside down; sizes: lines, width."""

    def cases() -> Cases:
        found: Cases = {}
        for number, (batch, width) in enumerate(sizes):
            lines = [_line(width, 10 * number + each) for each in range(batch)]
            turned = [line[:, ::-1, ::-1] if (number + each) % 2 else line for each, line in enumerate(lines)]
            found[f"c{number}"] = {"x": np.stack(turned).astype(np.float32)}
        return found

    return cases


def _steps(*sizes: int) -> Callable[[], Cases]:
    """For the generated GRU."""

    def cases() -> Cases:
        rng = np.random.default_rng(8)
        return {
            f"c{number}": {
                "x": rng.standard_normal((1, size, 32)).astype(np.float32),
                "state": rng.standard_normal((1, 1, 64)).astype(np.float32) * 0.3,
            }
            for number, size in enumerate(sizes)
        }

    return cases


RECORDINGS = {
    "panel": Recording(lambda folder: panel.make(folder / "panel.onnx"), panel.cases, ("dynamic:8",),
                       real=False),
    "track": Recording(lambda folder: track.make(folder / "track.onnx"), track.cases, ("dynamic:8", "float"),
                       real=False),
    "gru": Recording(lambda folder: generated.gru(folder / "gru.onnx"), _steps(16, 37, 16, 64, 16), ("dynamic:8",),
                     real=False),
    "enc": Recording(_real("enc"), _sound, ("dynamic:8", "weight:8", "fp16"), (A53, A76)),
    "erb_dec": Recording(_real("erb_dec"), _behind_enc(("emb", "e3", "e2", "e1", "e0")), ("dynamic:8", "weight:8")),
    "df_dec": Recording(_real("df_dec"), _behind_enc(("emb", "c0")), ("dynamic:8",), (MAX,)),
    "ppocr_cls": Recording(_real("ppocr_cls"), _lines((1, 96), (3, 192), (1, 101), (3, 192), (4, 64)),
                           ("fp16", "float"), (A53, A76)),
    "ppocr_rec": Recording(_real("ppocr_rec"), _lines((1, 64), (1, 104), (1, 64)), ("float",)),
}  # fmt: skip


@functools.cache
def _product() -> bytes:
    """The digest of all in it that decides what is captured."""
    digest = hashlib.sha256(host_mnn_version().encode())
    files = [path for room in CAPTURES for path in (ROOT / "edgequant" / room).rglob("*.py")]
    for path in sorted([*files, *(ROOT / "device_scripts").glob("*.py")]):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.digest()


def cache() -> Path:
    return Path(platformdirs.user_cache_dir("edgequant-tests")) / "defects"


def _key(wanted: Recording, model: Path, cases: Cases) -> str:
    digest = hashlib.sha256(_product() + model.read_bytes())
    digest.update(repr((wanted.variants, wanted.devices, wanted.more)).encode())
    for case, inputs in cases.items():
        for name, array in inputs.items():
            digest.update(f"{case} {name} {array.shape} {array.dtype}".encode() + array.tobytes())
    return digest.hexdigest()[:16]


@functools.cache
def recorded(name: str) -> Path:
    """The folder of a recording, made where it is not there yet; not to be changed."""
    wanted = RECORDINGS[name]
    with tempfile.TemporaryDirectory() as scratch:
        model, cases = wanted.model(Path(scratch)), wanted.cases()
        folder = cache() / f"{name}-{_key(wanted, model, cases)}"
        if folder.exists():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(cache() / f"{name}.lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two at once would make it twice
            if not folder.exists():
                _record(wanted, model, cases, folder)
    return folder


def _record(wanted: Recording, model: Path, cases: Cases, folder: Path) -> None:
    work = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    (work / "inputs").mkdir(parents=True)
    for case, inputs in cases.items():
        save_npz(work / "inputs" / f"{case}.npz", inputs)
    options = RunOptions(threads=1, timeout=600)
    variants = tuple(map(Variant.parse, wanted.variants))
    verify(
        Request(model, wanted.devices, variants, inputs=work / "inputs", latency=False, options=options,
                run_dir=work / "run", **wanted.more)  # type: ignore[arg-type]
    )  # fmt: skip
    for old in folder.parent.glob(f"{folder.name.rpartition('-')[0]}-*"):
        if old != work and time.time() - old.stat().st_mtime > 86400:
            shutil.rmtree(old)  # of a state of the product that nobody works on any more
    (work / "run").rename(folder)
    shutil.rmtree(work)
