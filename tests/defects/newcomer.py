"""What a newcomer reads: the console of failing diagnoses over distinct causes, to be read by somebody.

`python -m tests.defects.newcomer [FOLDER]` writes a text for each into a folder, and what was planted into FOLDER.key
beside it; or prints them.  Faults are planted
as in `layers`; what is shown is all of `edgequant diagnose` but the run itself: a verdict, three sentences, a table.
"""

from __future__ import annotations

import io
import itertools
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from edgequant.archive.layers import LayerCapture
from edgequant.findings import Finding
from edgequant.jobs.next_command import next_command
from edgequant.judge.diagnosis import Diagnosis
from edgequant.judge.verdict import Verdict
from edgequant.lab.session import Session
from edgequant.models.mnn.weights import read_weights
from edgequant.plan.request import Request
from edgequant.report.diagnosis import DiagnosisReport, render, rows
from edgequant.spec import Precision, RunOptions, Variant
from tests.defects import layer_devices as devices
from tests.defects import layer_mechanisms as mechanisms
from tests.defects import layer_rarer as rarer
from tests.defects.layer_edits import CODINGS, EDITS, coded, planted
from tests.defects.layer_subjects import MARGIN, Subject, breaks, generated_subject, look, this_host
from tests.defects.layers import EFFECTS

FILES = (
    "scale of one channel times 1.3", "scales of half of the channels 0", "channels exchanged", "weights of two bits",
    "zero point of weights 12 steps off", "bias gone", "a scale is infinite",
)  # fmt: skip

RUN = "edgequant-runs/model"


def shown(
    of: Subject, found: Diagnosis, device: str, made: Path, precision: Precision = "normal",
    capture: LayerCapture | None = None,
) -> str:  # fmt: skip
    """As the console has it, of the file that was looked into."""
    stream = io.StringIO()
    variant = Variant.parse(of.name.split(" ")[1])
    options = RunOptions(precision=precision)
    request = Request(Path("model.onnx"), devices=(device,), variants=(variant,), options=options)
    artifact = types.SimpleNamespace(path=made.name, run_as=variant, asked=variant)
    trial = types.SimpleNamespace(variant=variant, uri=device, artifact=artifact, outputs={})
    follow = next_command(found, types.SimpleNamespace(path=made.parent), request, trial)  # type: ignore[arg-type]
    follow = follow and follow.replace(str(made.parent), RUN)
    told = DiagnosisReport(
        verdict=Verdict.FAIL, model="model.onnx", device=device, variant=of.name.split(" ")[1], stage=found.stage,
        layers=list(found.blame.layers), proof=found.blame.proof, how=found.blame.how, cause=found.cause,
        findings=[*_broken(of, capture), *found.findings], table=rows(found), next=follow, run_dir=RUN,
        ran={"precision": precision, "memory": of.memory},
    )  # fmt: skip
    render(told, Console(file=stream, width=100))
    return stream.getvalue()


def _broken(of: Subject, capture: LayerCapture | None) -> Iterator[Finding]:
    """As a verdict says it."""
    if capture is None:
        return
    alone = next((swap for swap in capture.swaps if swap.what == "alone"), None)
    for name, floor in of.floor.items():
        ends = [tap.device.sqnr_db for tap in capture.taps if tap.tensor == name and tap.device is not None]
        value = min(ends, default=None) if alone is None else alone.outputs[name].sqnr_db
        if value is not None and value < floor - MARGIN:
            message = f"sqnr_db {value:.1f} is below the limit {floor - MARGIN:.1f} in the worst case, first"
            yield Finding(code="LIMIT_EXCEEDED", severity="fail", where=name, message=message)


def all_of_them(host: Session, far: Session, work: Path) -> Iterator[tuple[str, str]]:
    """What was planted, and what is shown of it."""
    out = work / "planted.mnn"
    cnn = generated_subject("small_cnn", "dynamic:8", work, host)
    for of, kinds in ((cnn, FILES),):
        for kind in kinds:
            for layer in read_weights(of.made):
                if planted(of.made, layer, EDITS[kind][0], out) and (failing := breaks(of, out, host)):
                    capture, found = look(of, out, host, work, failing)
                    yield f"{kind}: {layer.name}", shown(of, found, "local:", out, capture=capture)
                    break
    for kind, (coding, _) in CODINGS.items():
        for layer in read_weights(cnn.made):
            if coded(cnn.made, cnn.plain, layer, coding, out) and (failing := breaks(cnn, out, host)):
                capture, found = look(cnn, out, host, work, failing)
                yield f"{kind}: {layer.name}", shown(cnn, found, "local:", out, capture=capture)
                break
    sound, _ = look(cnn, cnn.made, host, work, [], stage=None)
    layer = next(each for each in sound.layers if each.key == "c2")
    for kind, (effect, _) in EFFECTS.items():
        half = kind == "half precision"
        chain = devices.behind(sound, layer.outputs[0])
        tensors = chain if half or kind == "numbers of an earlier inference" else chain[:1]
        device = devices.Device(far, effect=effect, tensors=tensors, half=half)
        precision = "low" if half else "normal"
        capture, found = look(cnn, cnn.made, host, work, [], device=device, stage="device", precision=precision)  # type: ignore[arg-type]
        yield f"{kind}: {layer.key}", shown(cnn, found, "ssh://board", cnn.made, precision, capture)  # type: ignore[arg-type]
    for one in mechanisms.halves(cnn, host, far, work, 1):
        yield f"{one.fault}: {one.layers[0]}", shown(one.of, one.found, "ssh://board", one.of.made, "low")
    for one in mechanisms.outlier_weights(cnn, host, work, 1):
        yield f"{one.fault}: {one.layers[0]}", shown(one.of, one.found, "local:", one.of.made)
    kinds = (
        rarer.loops(host, work, 1), rarer.wrong_hosts(host, far, work), rarer.sensitive(host, work, 1),
        rarer.strict_limits([cnn], host, work), rarer.overflowed_biases(host, work, 1),
    )  # fmt: skip
    for one in (one for each in kinds for one in itertools.islice(each, 1)):
        uri = "ssh://board" if one.stage == "device" else "local:"
        yield f"{one.fault}: {one.layers[:1]}", shown(one.of, one.found, uri, one.of.made)


def main(folder: str | None = None) -> None:
    keys: list[str] = []
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work, this_host() as host, this_host() as far:
        for number, (planted_, text) in enumerate(all_of_them(host, far, Path(work)), 1):
            if folder is None:
                print(f"---- {number}: {planted_}\n{text}")
            else:
                (Path(folder) / f"{number:02}.txt").write_text(text)
                keys.append(f"{number:02}: {planted_}")
        if folder is not None:
            Path(folder).with_suffix(".key").write_text("\n".join(keys) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
