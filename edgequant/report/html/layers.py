"""Where the error enters, layer by layer: what a diagnosis has left in the folder of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgequant import plain
from edgequant.archive.layers import LayerCapture, Spread
from edgequant.judge.diagnosis import diagnose
from edgequant.report.diagnosis import DiagnosisReport, LayerRow, rows, sentences
from edgequant.report.html.archive import Kept
from edgequant.report.html.runs import MOST_CELLS, Named
from edgequant.report.html.table import NOT_MEASURED, Cell, Table, name

WORST = 12


@dataclass(frozen=True)
class Looked:
    """One variant on one device.  rows: in the order they are computed; worst: the first of them, worst first;
    spreads: how the numbers of the worst are spread."""

    variant: str
    uri: str
    title: str
    id: str
    rows: tuple[LayerRow, ...]
    worst: tuple[LayerRow, ...]
    told: DiagnosisReport
    spreads: tuple[Spread, ...] = ()


def looked_into(
    runs: Sequence[Named], kept: Kept, told: Sequence[DiagnosisReport], outputs: Sequence[str]
) -> list[Looked]:
    """What was looked into.  told: diagnoses that were just made, which say more than what was captured."""
    found = []
    for each in runs:
        mine = next((one for one in told if (one.variant, one.device) == (each.run.variant, each.run.device.uri)), None)
        capture = kept.layers(each.run)
        if capture is not None or mine is not None:
            found.append(_looked(each, capture, mine, outputs))
    return found


def _looked(each: Named, capture: LayerCapture | None, mine: DiagnosisReport | None, outputs: Sequence[str]) -> Looked:
    table = [] if mine is None else mine.table
    if capture is not None and mine is None:
        judged = diagnose(capture, tuple(outputs), {"engaged": each.run.low_memory_engaged})
        table = rows(judged)
        mine = DiagnosisReport.model_validate(
            {
                "verdict": each.run.verdict,
                "model": "",
                "device": each.run.device.uri,
                "variant": each.run.variant,
                "stage": judged.stage,
                "layers": list(judged.blame.layers),
                "proof": judged.blame.proof,
                "how": judged.blame.how,
                "cause": judged.cause,
                "findings": list(judged.findings),
                "table": table,
                "loops": list(capture.loops),
                "unseen": dict(capture.unseen),
            }
        )
    assert mine is not None  # one of both is there
    place = {} if capture is None else {layer.key: number for number, layer in enumerate(capture.layers)}
    ordered = sorted(table, key=lambda row: place.get(row.layer, len(place)))
    return Looked(
        each.run.variant, each.run.device.uri, each.title, f"{each.id}-layers", tuple(ordered), tuple(table[:WORST]),
        mine, () if capture is None else capture.spreads,
    )  # fmt: skip


def story(looked: Looked) -> list[str]:
    """The sentences of `diagnose`, and what could not be seen."""
    told = looked.told
    said = sentences(told)
    if told.loops:
        names = plain.joined([plain.name(each) for each in told.loops[:3]])
        said.append(f"Tensors inside of {names} cannot be asked for: it is judged as one layer, its weights apart.")
    if told.unseen:
        first = plain.name(next(iter(told.unseen)))
        said.append(f"{len(told.unseen)} tensors could not be read, first {first}.")
    return said


def worst_table(looked: Looked) -> Table:
    """As on the console: the layers that cost most."""
    return _table([looked], looked.worst, f"{looked.id}-worst", f"The worst layers of {looked.title}", WORST)


def spread_table(looked: Looked) -> Table:
    """What the histograms are drawn of."""
    heads = ["layer", "where", "from", "to", "numbers", "% in the first bin", "% in the last bin", "bins with any"]
    table = Table(f"{looked.id}-spread", "How the numbers of the worst layers are spread", heads)
    for each in looked.spreads:
        for side, counts in each.counts.items():
            total = max(sum(counts), 1)
            shares = [f"{100 * counts[at] / total:.3g}" for at in (0, -1)] if counts else []
            used = f"{sum(map(bool, counts))} of {len(counts)}"
            cells = [f"{each.low:.4g}", f"{each.high:.4g}", f"{sum(counts):,}", *shares, used]
            where = {"plain": "float", "here": "this host", "there": "the device"}.get(side, side)
            table.add([name(each.layer, head=True), Cell(where), *(Cell(cell, "num") for cell in cells)])
    return table


def whole_table(looked: Sequence[Looked], of: int) -> Table:
    """All layers of one variant, in the order they are computed, on all devices.  of: so many variants there are."""
    first = looked[0]
    caption = f"All layers of {plain.name(first.variant)}, in the order they are computed"
    return _table(looked, first.rows, f"{first.id}-all", caption, max(MOST_CELLS // (of * (5 + len(looked))), WORST))


def _table(looked: Sequence[Looked], shown: Sequence[LayerRow], id_: str, caption: str, most: int) -> Table:
    first = looked[0]
    there = [each for each in looked if any(row.device_db is not None or row.there_ill for row in each.rows)]
    heads = ["entire dB", "single dB", *(["noise dB"] if there else [])]
    heads += [f"device dB, {plain.name(each.uri)}" if looked[1:] else "device dB" for each in there]
    table = Table(id_, caption, ["layer", "no.", "type", *heads])
    place = {row.layer: number + 1 for number, row in enumerate(first.rows)}
    by_layer = [{row.layer: row.there_ill or row.device_db for row in each.rows} for each in there]
    for row in shown[:most]:
        numbers = [row.here_ill or row.entire_db, row.single_db, *([row.rounding_db] if there else [])]
        numbers += [of.get(row.layer) for of in by_layer]
        told = [each if isinstance(each, str) else NOT_MEASURED if each is None else f"{each:.1f}" for each in numbers]
        cells = [Cell(each, "num") for each in told]
        label = name(row.layer, head=True)
        if row.blamed:
            label = Cell(f"{label.text} (to blame)", "name blamed", head=True)
        table.add([label, Cell(str(place.get(row.layer, NOT_MEASURED)), "num"), name(row.type), *cells])
    apart = "device: this host against the device; noise: what rounding explains of it. " if there else ""
    table.after = (
        "entire: the layer's output, with all the error that comes in. single: the model's worst output where this "
        f"layer alone is quantized. {apart}{NOT_MEASURED}: not asked for, not readable, or equal in every bit."
    )
    if len(shown) > most:
        table.after += f" {len(shown) - most} more layers: edgequant diagnose RUN_DIR --verbose."
    return table
