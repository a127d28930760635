"""Samples, calibration data and runs that the tests of quantizing share."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgequant.cases.load import save_npz
from edgequant.errors import EdgequantError, InputError
from edgequant.models import read_model
from edgequant.quantize.calibration import CalibrationOptions, CalibrationSet, load_calibration
from edgequant.tensors import TensorSpec

Arrays = dict[str, np.ndarray]

_RUN = """
import os, sys
sys.path[:] = [entry for entry in sys.path if entry]
out = os.dup(1); os.dup2(2, 1)
from pathlib import Path
import numpy as np
from edgequant.cases.load import read_npz, save_npz
from edgequant.device_scripts.engine import Loaded
options = {"threads": 1, "memory": sys.argv[1], "precision": "normal"}
model = Loaded(sys.argv[2], options, None)
for source, target in zip(sys.argv[3::2], sys.argv[4::2]):
    save_npz(Path(target), model.read(model.forward(model.feed(read_npz(Path(source))))))
"""


def run_mnn(model: Path, samples: list[Arrays], folder: Path, memory: str = "normal") -> list[Arrays] | None:
    """The model's outputs in the order it names them, or None where it cannot be run.  In a child: it may crash."""
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for number, arrays in enumerate(samples):
        files += [folder / f"in{number}.npz", folder / f"{model.stem}-out{number}.npz"]
        save_npz(files[-2], arrays)
        files[-1].unlink(missing_ok=True)
    done = subprocess.run([sys.executable, "-c", _RUN, memory, model, *files], capture_output=True, timeout=240)
    if done.returncode != 0:
        return None
    return [dict(np.load(io.BytesIO(file.read_bytes()))) for file in files[1::2]]


def smooth(seed: int, steps: int) -> Arrays:
    """Features as speech has them, for the encoder of DeepFilterNet3: loud and quiet stretches, neighbours alike."""
    random = np.random.default_rng(seed)
    gain = np.interp(np.arange(steps), np.linspace(0, steps, 6), random.uniform(0.1, 1.5, 6))[None, None, :, None]

    def noise(channels: int, width: int) -> np.ndarray:
        values = random.standard_normal((1, channels, steps + 2, width + 4))
        values = sum(values[:, :, 1 : steps + 1, k : k + width] for k in range(5)) / 5**0.5
        return (values * gain).astype(np.float32)

    return {"feat_erb": noise(1, 32), "feat_spec": noise(2, 96)}


def calibration_of(folder: Path, inputs: tuple[TensorSpec, ...], *samples: Arrays) -> CalibrationSet:
    (folder / "samples").mkdir(parents=True)
    for number, arrays in enumerate(samples):
        save_npz(folder / "samples" / f"s{number:03d}.npz", arrays)
    return load_calibration(folder / "samples", inputs, work=folder)


def enc_calibration(enc: Path, folder: Path, *steps: int) -> CalibrationSet:
    inputs = read_model(enc).inputs
    assert inputs is not None
    return calibration_of(folder, inputs, *(smooth(seed, size) for seed, size in enumerate(steps)))


# ---- calibration data, good and bad

ERB = TensorSpec("feat_erb", "float32", (1, 1, None, 4), (None, None, "S", None))
SPEC = TensorSpec("feat_spec", "float32", (1, 2, None, 3), (None, None, "S", None))
BOTH = (ERB, SPEC)
PICTURE = TensorSpec("x", "float32", (1, 3, 8, 6), layout="NCHW")


def sample(steps: int = 5, seed: int = 0, **changed: np.ndarray) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    made = {
        "feat_erb": random.standard_normal((1, 1, steps, 4)).astype(np.float32),
        "feat_spec": random.standard_normal((1, 2, steps, 3)).astype(np.float32),
    }
    return {**made, **changed}


def folder_of(path: Path, *samples: dict[str, np.ndarray]) -> Path:
    path.mkdir()
    for number, arrays in enumerate(samples):
        save_npz(path / f"s{number:03d}.npz", arrays)
    return path


def load(source: object, tmp_path: Path, inputs: tuple[TensorSpec, ...] = BOTH, **options: object) -> CalibrationSet:
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    return load_calibration(source, inputs, work=work, options=CalibrationOptions(**options))  # type: ignore[arg-type]


def refused(code: str, *args: object, kind: type[EdgequantError] = InputError, **options: object) -> EdgequantError:
    with pytest.raises(kind) as caught:
        load(*args, **options)  # type: ignore[arg-type]
    assert caught.value.code == code, caught.value.as_dict()
    return caught.value


def codes(found: CalibrationSet) -> list[str]:
    return [finding.code for finding in found.findings]


def function(tmp_path: Path, body: str) -> str:
    file = tmp_path / "calib.py"
    file.write_text("import os, sys, time\nimport numpy as np\n\n\ndef make():\n" + body)
    return f"{file}:make"
