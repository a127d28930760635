"""Sound quantized files, and how a diagnosis looks into what was planted into them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgequant.archive.layers import LayerCapture
from edgequant.cases.case import Case
from edgequant.cases.generate import generate
from edgequant.compare.metrics import compare
from edgequant.jobs.diagnose_layers import Looking
from edgequant.judge.diagnosis import Diagnosis, diagnose
from edgequant.lab.probes.layers import once
from edgequant.lab.session import DeviceOptions, Session, open_session
from edgequant.lab.take import ModelFile
from edgequant.models import read_model
from edgequant.spec import Limit, MemoryMode, Precision, RunOptions
from tests import generated, sources

MARGIN = 3.0
"""Each limit is so many dB below what the sound file has, so that what breaks is what was planted."""
FLAGS: dict[str, tuple[str, ...]] = {
    "dynamic:8": ("--weightQuantBits", "8", "--weightQuantAsymmetric=1"),
    "dynamic:4": ("--weightQuantBits", "4", "--weightQuantAsymmetric=1"),
    "dynamic:4,block=32": ("--weightQuantBits", "4", "--weightQuantAsymmetric=1", "--weightQuantBlock", "32"),
    "weight:8": ("--weightQuantBits", "8", "--weightQuantAsymmetric=1"),
}


@dataclass(frozen=True)
class Subject:
    """A sound file and what it was made from.  floor: SQNR by output, of the worst case, against float MNN."""

    name: str
    plain: Path
    made: Path
    memory: MemoryMode
    cases: tuple[Case, ...]
    expected: Mapping[str, Mapping[str, np.ndarray]]
    floor: Mapping[str, float]

    def with_inputs(self, factor: float, host: Session) -> Subject:
        """With inputs so many times as large."""
        cases = tuple(
            replace(case, inputs={name: array * array.dtype.type(factor) for name, array in case.inputs.items()})
            for case in self.cases
        )
        expected = once(host, ModelFile(self.plain, "normal", precision="normal"), cases)
        assert isinstance(expected, dict)
        return replace(self, cases=cases, expected=expected)


def subject(
    name: str, plain: Path, made: Path, memory: MemoryMode, host: Session, *, cases: int = 2, seed: int = 1
) -> Subject:
    graph = read_model(plain)
    assert graph.inputs is not None
    drawn = tuple(generate(graph.inputs, seed=seed)[:cases])
    expected, got = (
        once(host, ModelFile(path, how, precision="normal"), drawn) for path, how in ((plain, "normal"), (made, memory))
    )
    assert isinstance(expected, dict), expected
    assert isinstance(got, dict), got
    floor = {
        output: min(
            (db for case in expected if (db := compare(expected[case][output], got[case][output]).sqnr_db) is not None),
            default=200.0,
        )
        for output in next(iter(expected.values()))
    }
    return Subject(name, plain, made, memory, drawn, expected, floor)


def generated_subject(kind: str, variant: str, folder: Path, host: Session, *, seed: int = 1) -> Subject:
    """Of a model that is made here, such as conv_cnn, small_cnn, gru or lstm."""
    source = getattr(generated, kind)(folder / f"{kind}.onnx")
    return model_subject(source, variant, folder, host, seed=seed)


def model_subject(source: Path, variant: str, folder: Path, host: Session, *, seed: int = 1) -> Subject:
    """Of an ONNX file.  variant: of FLAGS, or static:8."""
    plain = folder / f"{source.stem}.mnn"
    made = folder / f"{source.stem}-{variant.replace(':', '').replace(',', '-').replace('=', '')}.mnn"
    if not plain.exists():
        sources.convert(source, plain)
    if not made.exists() and variant in FLAGS:
        sources.convert(source, made, *FLAGS[variant])
    elif not made.exists():
        with tempfile.TemporaryDirectory() as run:
            asked = ["quantize", str(source), "--variant", variant, "--output", str(made), "--run-dir", f"{run}/run"]
            code = "from edgequant.cli.app import main; main()"
            subprocess.run([sys.executable, "-c", code, *asked], check=False, capture_output=True, timeout=280)
        assert made.is_file(), f"{variant} of {source.name} was not made"
    memory: MemoryMode = "low" if variant.startswith("dynamic") else "normal"
    return subject(f"{source.stem} {variant} seed {seed}", plain, made, memory, host, seed=seed)


def breaks(of: Subject, made: Path, host: Session) -> list[str]:
    """Outputs that a file breaks."""
    got = once(host, ModelFile(made, of.memory), of.cases)
    if not isinstance(got, dict):
        return list(of.floor)
    return broken(of.expected, got, of.floor)


def broken(
    expected: Mapping[str, Mapping[str, np.ndarray]], got: Mapping[str, Mapping[str, np.ndarray]],
    floor: Mapping[str, float],
) -> list[str]:  # fmt: skip
    return [
        output
        for output, least in floor.items()
        if any(
            (found := compare(expected[case][output], got[case][output])).problem is not None
            or (found.sqnr_db is not None and found.sqnr_db < least - MARGIN)
            for case in got
        )
    ]


def look(
    of: Subject, made: Path, host: Session, work: Path, failing: Sequence[str], *, device: Any = None,
    precision: Precision = "normal", stage: str | None = "",
) -> tuple[LayerCapture, Diagnosis]:  # fmt: skip
    """Diagnose a file.  stage: "" for that of this host where something fails."""
    limits = {name: (Limit(metric="sqnr_db", op=">=", value=floor - MARGIN),) for name, floor in of.floor.items()}
    capture = Looking(
        variant=of.name.split(" ")[1] if " " in of.name else "planted",
        uri="local:",
        plain=of.plain,
        made=made,
        memory=of.memory,
        precision=precision,
        stage=("quantization" if failing else None) if stage == "" else stage,
        cases=of.cases,
        expected=lambda case: of.expected[case],
        limits=limits,
        host=host,
        work=work,
        failing=failing,
        device=device,
    ).capture()
    return capture, diagnose(capture, tuple(of.floor))


@contextlib.contextmanager
def this_host(log: Path | None = None, uri: str = "local:") -> Iterator[Session]:
    """Or another device."""
    with open_session(uri, DeviceOptions(), RunOptions(threads=2), log=log) as host:
        host.runner()
        yield host
