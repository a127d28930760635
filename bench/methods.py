"""python -m bench.methods: what MNN's own quantizer makes of the real models, and what edgequant makes of them.

Prints the table of docs/quantization.md.  Each model is calibrated on 8 realistic samples and judged on others (see
bench/realistic.py), with one thread, on this host.  "MNN alone" is MNN's quantizer on the model as it is converted
normally, with no other way tried: the first step of the ladder, as with --no-fallback.  edgequant still calls it as it
must be called (Winograd off for EMA, the largest sample first, the output list restored), so MNN by itself does no
better than this.  For models whose static int8 is limited by a few layers it also tells which these are: each layer
alone in int8, over the calibration samples.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import edgequant
from bench.harness import machine, say
from bench.realistic import SOURCES, samples
from edgequant.archive.folder import REFERENCE, device_capture
from edgequant.archive.open import open_run
from edgequant.errors import InputError
from edgequant.quantize.calibrate.methods import CALIBRATORS
from edgequant.quantize.calibrate.static import StaticInt8, StaticOptions, make_static
from edgequant.report.model import Report, Run
from edgequant.spec import RunOptions, Variant
from edgequant.zoo import fetch

OFFLINE = ("kl", "ema", "admm")
OTHERS = (
    "static:8",
    *(f"static:8,calib={name}" for name in CALIBRATORS),
    "dynamic:8",
    "dynamic:8,block=32",
    "weight:8",
    "fp16",
)
KEEP = {"enc": 8, "erb_dec": 4, "df_dec": 2, "ppocr_cls": 8, "ppocr_rec": 20}
"""About half of the layers at most, the first number tried: keep is not tuned to the held-out cases."""
LAYERS = {"enc": "kl", "df_dec": "mse"}
"""Models whose layers are measured one by one, and the calibrator for it."""
LAYERS_TARGET_DB = 30.0
READ = ("dynamic:8", "static:8", "static:8,keep=20", "static:8,calib=minmax,asym", "fp16")
"""What text recognition is tried with, as steps that say the same character as float."""
CALIBRATION_SEED, HELD_OUT_SEED, READ_SEED = 1, 1001, 2001
_MAX_BYTES = 1 << 30  # of one case's outputs


@dataclass(frozen=True)
class Counts:
    """How much is measured.  lines: of text, for the share of steps that agree."""

    calibration: int = 8
    held_out: int = 4
    lines: int = 60
    layers: bool = True
    offline: tuple[str, ...] = OFFLINE
    others: tuple[str, ...] = OTHERS
    read: tuple[str, ...] = READ


QUICK = Counts(2, 1, 2, False, ("kl",), ("static:8,calib=minmax", "dynamic:8"), ("dynamic:8",))


@dataclass
class Row:
    """One variant of one model.

    Attributes:
        alone: what MNN's method does with nothing else tried; None where the variant is not one of MNN's.
        delivered: what edgequant's file is.
        worst: output -> SQNR in dB on the worst held-out case; empty where there is no result.
        verdict: by edgequant's default limits.
        megabytes: 10^6 bytes.
        notes: edgequant's findings.
        steps, equal: of text recognition: time steps, and those whose most probable character is float's.
    """

    model: str
    variant: str
    delivered: str
    alone: str | None = None
    worst: dict[str, float] = field(default_factory=dict)
    verdict: str = ""
    megabytes: float | None = None
    notes: list[str] = field(default_factory=list)
    steps: int | None = None
    equal: int | None = None

    @property
    def share(self) -> str:
        if not self.steps or self.equal is None:
            return ""
        return f"{100 * self.equal / self.steps:.2f} % of {self.steps}"


def write_samples(folder: Path, name: str, count: int, seed: int) -> Path:
    """One .npz file per sample, as `--inputs` and `--calibration` take them."""
    folder.mkdir()
    for number, sample in enumerate(samples(name, count, seed)):
        np.savez(folder / f"{number:03d}.npz", **sample)  # type: ignore[arg-type]
    return folder


def measure(name: str, counts: Counts, work: Path) -> list[Row]:
    """All rows of one model."""
    model = fetch(name)
    calibration = write_samples(work / "calibration", name, counts.calibration, CALIBRATION_SEED)
    held_out = write_samples(work / "held-out", name, counts.held_out, HELD_OUT_SEED)

    def verified(label: str, variants: tuple[str, ...], inputs: Path) -> list[Row]:
        say(f"{name}: {label}")
        request = edgequant.Request(
            model, variants=variants, inputs=inputs, calibration=str(calibration), run_dir=work / label,
            latency=False, options=RunOptions(threads=1),
        )  # fmt: skip
        report: Report = edgequant.verify(request)[0]
        return [_row(name, run, work / label) for run in report.runs]

    kept = (f"static:8,calib=kl,asym,keep={KEEP[name]}",) if counts.layers else ()
    rows = verified("all", (*counts.offline, *counts.others, *kept), held_out)
    if name == "ppocr_rec":
        lines = write_samples(work / "lines", name, counts.lines, READ_SEED)
        for row in verified("read", counts.read, lines):
            row.steps, row.equal = agreement(work / "read", row.variant)
            rows.append(row)
    return rows


@dataclass
class LayerRow:
    """One layer alone in int8, all others float: SQNR in dB against the float model, worst output, worst sample.

    kept_at_target: how many of the most sensitive layers have to compute in float for LAYERS_TARGET_DB on all of the
    samples, loops being float, of how many that can be int8; None where that is not reached even with one.
    """

    model: str
    calib: str
    sqnr_db: dict[str, float]
    kept_at_target: int | None


def measure_layers(name: str, counts: Counts, work: Path) -> LayerRow:
    """Which layers limit static int8, on the calibration samples."""
    options = {"calib": LAYERS[name], "sym": False, "rnn": "float"}
    given = samples(name, counts.calibration, CALIBRATION_SEED)

    def made(**more: Any) -> StaticInt8:
        return make_static(
            fetch(name), iter(given), StaticOptions(**options, **more), work / "layers.mnn", log_dir=work / "logs"
        )

    try:
        found = made(target_db=LAYERS_TARGET_DB)
        kept = sum(layer.code == "kept" for layer in found.layers)
        return LayerRow(name, LAYERS[name], dict(found.sensitivity), kept)
    except InputError as error:
        if error.code != "TARGET_NOT_REACHED":
            raise
        return LayerRow(name, LAYERS[name], dict(made(keep=1).sensitivity), None)


def layer_table(row: LayerRow) -> str:
    """In Markdown, the most sensitive first; infinite where nothing of it reaches an output."""
    lines = [f"**{row.model}**, each layer alone in int8 (`calib={row.calib},asym`)", "", "| layer | worst output |"]
    lines.append("|---|---|")
    ranked = sorted(row.sqnr_db.items(), key=lambda each: each[1])
    lines += [_line([f"`{layer}`", "no effect" if value == math.inf else f"{value:.1f} dB"]) for layer, value in ranked]
    reached = (
        f"not reached with any layer in int8; {len(ranked)} can be"
        if row.kept_at_target is None
        else f"reached with {len(ranked) - row.kept_at_target} of {len(ranked)} layers in int8"
    )
    return "\n".join([*lines, "", f"{LAYERS_TARGET_DB:g} dB on every sample, loops float: {reached}."])


def _row(name: str, run: Run, folder: Path) -> Row:
    alone = _alone(run) if run.variant in OFFLINE else None
    if run.error is not None or not run.outputs:
        error = "no outputs" if run.error is None else f"{run.error.code}: {run.error.message}"
        return Row(name, run.variant, error, alone, verdict=str(run.verdict))
    size = None if run.file is None else (folder / "models" / run.file).stat().st_size / 1e6
    delivered = "as asked" if run.made_as in (None, run.variant) else str(run.made_as)
    notes = [f"{found.code}: {found.message}" for found in run.findings]
    return Row(name, run.variant, delivered, alone, _worst(run), str(run.verdict), size, notes=notes)


def _alone(run: Run) -> str:
    """What came of the method itself: the ladder's first step, which is all that --no-fallback would try."""
    if not run.steps:
        return "not tried" if run.error is None else run.error.code
    first = run.steps[0]
    if first["outcome"] == "made":
        return _decibels(_worst(run)) if run.outputs else "no outputs"
    if first["outcome"] == "insane":
        return f"useless: {first['message']}"
    return f"{first['code']} ({first['signal']})" if "signal" in first else f"{first['code']}: {first['message']}"


def _worst(run: Run) -> dict[str, float]:
    # What has no SQNR (missing, NaN, another shape) is as bad as can be, not left out.
    return {name: -200.0 if out.sqnr_db is None else out.sqnr_db for name, out in run.outputs.items()}


def _decibels(worst: dict[str, float]) -> str:
    return f"{min(worst.values()):.1f} dB"


def agreement(folder: Path, variant: str) -> tuple[int, int]:
    """(steps, steps where the largest of the last axis is at the same place as in the reference), over all cases.

    A case for which nothing came back counts as not one step right.
    """
    run = open_run(folder)
    reference, got = run.capture(REFERENCE), run.capture(device_capture("local:", Variant.parse(variant)))
    steps = equal = 0
    for case in () if reference is None else reference.cases:
        (expected,) = (run.arrays_of(case) or {}).values()
        steps += expected.shape[0] * expected.shape[1]
        outputs = None if got is None else run.outputs(got, case.case)
        if outputs is not None:
            (found,) = outputs.values()
            if found.shape == expected.shape:
                equal += int((found.argmax(-1) == expected.argmax(-1)).sum())
    return steps, equal


def table(rows: list[Row]) -> str:
    """The rows in Markdown, by model; worst output and its SQNR on the worst case."""
    lines: list[str] = []
    for model in dict.fromkeys(row.model for row in rows):
        if lines:
            lines.append("")
        plain = [row for row in rows if row.model == model and row.steps is None]
        lines += [f"**{model}**", "", "| variant | MNN alone | edgequant delivers | worst output | verdict | MB |"]
        lines.append("|---|---|---|---|---|---|")
        for row in plain:
            cells = [f"`{row.variant}`", row.alone or "", row.delivered, _worst_cell(row), row.verdict, _size(row)]
            lines.append(_line(cells))
        read = [row for row in rows if row.model == model and row.steps is not None]
        if read:
            lines += ["", "| variant | steps that read as float does | worst output | MB |", "|---|---|---|---|"]
            lines += [_line([f"`{row.variant}`", row.share, _worst_cell(row), _size(row)]) for row in read]
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    # A message may hold what ends a cell.
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"


def _worst_cell(row: Row) -> str:
    if not row.worst:
        return "none"
    name = min(row.worst, key=row.worst.__getitem__)
    return _decibels(row.worst) + (f" ({name})" if len(row.worst) > 1 else "")


def _size(row: Row) -> str:
    return "" if row.megabytes is None else f"{row.megabytes:.2f}"


def main() -> int:
    """Exit code 1 where edgequant delivers nothing for a variant."""
    parser = argparse.ArgumentParser(prog="python -m bench.methods", description="every method on the real models")
    parser.add_argument("--model", action="append", choices=tuple(SOURCES), help="this one; may be given again")
    parser.add_argument("--quick", action="store_true", help="few samples and variants: shows that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured there")
    given = parser.parse_args()
    here = machine()
    say(", ".join(f"{key} {value}" for key, value in here.items()))
    rows: list[Row] = []
    layers: list[LayerRow] = []
    for name in given.model or SOURCES:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="edgequant-methods-") as folder:
            counts = QUICK if given.quick else Counts()
            found = measure(name, counts, Path(folder))
            if counts.layers and name in LAYERS:
                layers.append(measure_layers(name, counts, Path(folder)))
        rows += found
        say(f"{name}: {time.perf_counter() - started:.0f} s")
        # What is finished is not lost if the next model takes too long.
        print(table(found) + "\n", flush=True)
        if layers and layers[-1].model == name:
            print(layer_table(layers[-1]) + "\n", flush=True)
        if given.json:
            document = {
                "schema": "edgequant.methods/1",
                "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                "quick": given.quick,
                "machine": here,
                "rows": [asdict(row) for row in rows],
                # JSON has no infinity.
                "layers": [
                    asdict(row) | {"sqnr_db": {key: min(value, 200.0) for key, value in row.sqnr_db.items()}}
                    for row in layers
                ],
            }
            given.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(row.worst for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
