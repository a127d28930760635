"""Small runs recorded once, so that every later version proves that it opens and judges what an older one has kept.

    python -m tests.recorded           record them again: this host and two emulated CPUs, a minute
    python -m tests.recorded --judge   only judge them again, where what a report says has changed

Both write tests/data/runs/NAME.zip.  Recorded ones are replaced only when their schema can no longer be read.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from edgequant.jobs.rejudge import judge
from edgequant.jobs.verify import verify
from edgequant.lab.probes import latency
from edgequant.plan.request import Request
from edgequant.report.write import write
from edgequant.spec import RunOptions
from tests import generated

RUNS = Path(__file__).parent / "data" / "runs"
MODELS: dict[str, Callable[[Path], Path]] = {
    "cnn": generated.small_cnn,
    "gru": lambda path: generated.gru(path, hidden=8),
}
LIMITS = {"cnn": ("sqnr_db>=22",), "gru": ("y:sqnr_db>=60", "max_abs<=0.5")}
DEVICES = ("local:", "emulated:cortex-a53", "emulated:max")
VARIANTS = ("dynamic:8", "fp16")
ELSEWHERE = "/models"
"""Where the models were, as the runs say."""


def unpacked(name: str, folder: Path) -> Path:
    """A run's folder, made in `folder`."""
    with zipfile.ZipFile(RUNS / f"{name}.zip") as packed:
        packed.extractall(folder / name)
    return folder / name


def pack(run_dir: Path, name: str) -> None:
    """Keep a run; the same files make the same bytes."""
    for path in run_dir.rglob("*"):
        found = [] if path.is_dir() else [each for each in _private() if each.encode() in path.read_bytes()]
        assert not found, f"{path.relative_to(run_dir)} names {found}"
    RUNS.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(RUNS / f"{name}.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for path in sorted(run_dir.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo(path.relative_to(run_dir).as_posix())
                entry.compress_type = zipfile.ZIP_DEFLATED
                packed.writestr(entry, path.read_bytes())


def _private() -> dict[str, str]:
    """What must not be in them, and what stands for it."""
    return {
        str(Path(__file__).parent.parent): "/work",
        tempfile.gettempdir() + "/": "/t/",
        str(Path.home()) + "/": "/home/user/",
        f'"{socket.gethostname()}"': '"host"',
    }


def record(name: str, work: Path) -> None:
    model = MODELS[name](work / f"{name}.onnx")
    os.chdir(work)
    request = Request(
        Path(model.name),
        devices=DEVICES,
        variants=VARIANTS,  # type: ignore[arg-type]  # as they are written
        run_dir=work / name,
        options=RunOptions(threads=1, repeat=10),
        limits=LIMITS[name],  # type: ignore[arg-type]
    )
    _, folder = verify(request)
    for path in folder.path.rglob("*.json"):
        text = path.read_text().replace(f"{work}/", f"{ELSEWHERE}/")
        for private, instead in _private().items():
            text = text.replace(private, instead)
        path.write_text(text)
    for path in folder.logs.iterdir():
        path.write_text(f"that of {path.stem}\n")  # nothing is read from them
    (folder.path / "journal.jsonl").unlink()
    (folder.path / "manifest.json").unlink()  # those of an older version have none
    folder.reopen()  # which writes it anew
    write(judge(folder.path).report, folder.report)
    pack(folder.path, name)


def judge_again(name: str, work: Path) -> None:
    run_dir = unpacked(name, work)
    write(judge(run_dir).report, run_dir / "report.json")
    pack(run_dir, name)


if __name__ == "__main__":
    latency.TIMING_MIN_SECONDS = 0.0  # a few samples are enough
    os.environ["EDGEQUANT_NO_CACHE"] = "1"
    work = Path(tempfile.mkdtemp())
    for name in MODELS:
        (judge_again if "--judge" in sys.argv else record)(name, work)
    shutil.rmtree(work)
    print(sum(path.stat().st_size for path in RUNS.glob("*.zip")), "bytes")
