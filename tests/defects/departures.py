"""How often the right node is named: `python -m tests.defects.departures`.

It diagnoses every fault of `departing` and sound models, prints what it found and the rates, and exits with 1 where
less than 95 % of the nodes are right or a sound model is blamed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgequant.cases.case import Case
from edgequant.jobs.departure import Departure
from edgequant.jobs.diagnose_conversion import first_departing
from edgequant.lab.session import DeviceOptions, Session, open_session
from edgequant.models import read_model
from edgequant.progress import Progress
from edgequant.quantize.convert import convert
from edgequant.spec import RunOptions, Variant
from tests import generated, sources
from tests.defects.departing import (
    BAD,
    PARTS,
    RESET_FIRST,
    SOUND,
    SOUND_GENERATED,
    SPLICED,
    between,
    case_of,
    spliced,
)
from tests.defects.departing_elsewhere import ELSEWHERE


@contextmanager
def this_host(folder: Path) -> Iterator[Session]:
    session = open_session(
        "local:", DeviceOptions(), RunOptions(threads=1, timeout=120), log=folder / "runner.log", progress=Progress()
    )
    try:
        yield session
    finally:
        session.close()


def diagnosed(path: Path, host: Session, work: Path, case: Case | None = None) -> Departure | None:
    work.mkdir(parents=True, exist_ok=True)
    graph = read_model(path)
    made = convert(graph, Variant(method="float"), work / "float.mnn", log_dir=work)
    return first_departing(graph, made, host, [case or case_of(path)], work / "inner")


@dataclass(frozen=True)
class Outcome:
    """wanted: the node to be blamed; None: nobody.  causes: codes that are right; None: whichever."""

    name: str
    wanted: str | None
    causes: tuple[str | None, ...] | None
    found: Departure | None
    seconds: float

    @property
    def right(self) -> bool:
        return (None if self.found is None else self.found.node) == self.wanted

    @property
    def right_cause(self) -> bool:
        return self.right and self.found is not None and (self.causes is None or self.found.cause in self.causes)

    def __str__(self) -> str:
        said = "nobody" if self.found is None else f"{self.found}; proof: {self.found.proof}; {self.found.smallest}"
        return f"{'right' if self.right else 'WRONG'} {self.name} ({self.seconds:.1f} s): {said}"


NAMES = (*PARTS, *ELSEWHERE, *SPLICED, *RESET_FIRST, *(f"sound_{name}" for name in (*SOUND, *SOUND_GENERATED)))


def outcome(name: str, host: Session, folder: Path) -> Outcome:
    """Make a model and diagnose it."""
    start, real = time.monotonic(), None
    wanted: str | None = None
    causes: tuple[str | None, ...] | None = None
    if name in PARTS:
        part = PARTS[name]()
        path, wanted, causes = between(part, folder / "model.onnx"), part.blamed, part.causes
    elif name in ELSEWHERE:
        path, wanted = ELSEWHERE[name](folder / "model.onnx"), BAD
    elif name in SPLICED or name in RESET_FIRST:
        real = (SPLICED[name] if name in SPLICED else RESET_FIRST[name])[0]
        path, wanted = spliced(name, folder / "model.onnx")
    elif (sound := name.removeprefix("sound_")) in SOUND:
        path = sources.real(real := sound)
    else:
        path = generated.ONNX_MODELS[sound](folder / "model.onnx")
    found = diagnosed(path, host, folder / "work", case_of(path, real=real))
    return Outcome(name, wanted, causes, found, time.monotonic() - start)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", choices=NAMES)
    names = parser.parse_args(argv).only or NAMES
    done = []
    with tempfile.TemporaryDirectory() as scratch, this_host(Path(scratch)) as host:
        for name in names:
            (folder := Path(scratch) / name).mkdir()
            done.append(outcome(name, host, folder))
            print(done[-1], flush=True)
    faults, sound = [each for each in done if each.wanted], [each for each in done if not each.wanted]
    right = [each for each in faults if each.right]
    proven = [each for each in right if each.found and each.found.proof != "none"]
    named = [each for each in right if each.right_cause]
    blamed = [each for each in sound if not each.right]
    print(
        f"right node: {len(right)} of {len(faults)}; proven: {len(proven)}; right cause: {len(named)}, of these "
        f"{sum(each.found is not None and each.found.cause is not None for each in named)} with a name; "
        f"sound models blamed: {len(blamed)} of {len(sound)}"
    )
    return 0 if len(right) >= 0.95 * len(faults) and not blamed else 1


if __name__ == "__main__":
    sys.exit(main())
