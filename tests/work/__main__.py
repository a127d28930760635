"""Work of an inference on an emulated CPU, in instructions: python -m tests.work QEMU RUN_DIR [CPU]

Of each variant of a run with float inputs, the middle case, one thread, the median of `SEEN` inferences after the first
ones.  It is a number that repeats, and no time: nothing of caches, memory or clock is in it.  QEMU: a `qemu-aarch64`
that knows -plugin (Debian's qemu-user; qemu-user-static does not load plugins).  Needs gcc, and a pack (`edgequant pack
build`).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from edgequant.archive.open import open_run
from edgequant.pack import WantedPack, default_cache, unpacked
from edgequant.progress import Progress

HERE = Path(__file__).resolve().parent
FIRST, SEEN = 3, 5
"""Inferences that warm up, and those that are told."""
_MEMORY = {"normal": 0, "high": 1, "low": 2}


def plugin(folder: Path) -> Path:
    made = folder / "count.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-o", str(made), str(HERE / "count.c")], check=True)
    return made


def counted(qemu: str, cpu: str, model: Path, case: Path, outputs: list[str], memory: int) -> list[int]:
    """Instructions of each inference."""
    pack = WantedPack().get(Progress(), default_cache())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told = folder / "marks"
        command = ["env", "-i", qemu, "-plugin", f"file={plugin(folder)},out={told}", "-cpu", cpu]
        command += [
            *pack.command(str(unpacked(pack, default_cache()))),
            str(HERE / "inference.py"),
            str(model),
            str(case),
        ]
        command += [",".join(outputs), str(memory), str(FIRST + SEEN)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=600)
        marks = dict(map(int, line.split()) for line in told.read_text().splitlines())
    return [marks[2 * number + 1] - marks[2 * number] for number in range(FIRST, FIRST + SEEN)]


def main(qemu: str, run_dir: str, cpu: str = "cortex-a76") -> None:
    run = open_run(run_dir)
    cases = [case.name for case in run.source.cases if case.kind == "usual"]
    case = run.path / "cases" / f"{cases[len(cases) // 2]}.npz"
    for variant in run.plan.variants:
        making = run.making(variant)
        if making is None or making.artifact is None:
            continue
        memory = _MEMORY[run.plan.options.memory_for(making.artifact.run_as)]
        found = counted(qemu, cpu, run.path / making.artifact.path, case, [*run.source.kinds], memory)
        middle = sorted(found)[SEEN // 2]
        print(f"{variant}: {middle:,} instructions in case '{case.stem}' on {cpu}")


if __name__ == "__main__":
    main(*sys.argv[1:])
