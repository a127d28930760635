"""What a search came to: the front of size against error, as JSON, CSV and a picture."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from edgequant.cells import cell, legible
from edgequant.files import atomic_write
from edgequant.quantize.recipe import Recipe
from edgequant.spec import MemoryMode


class Point(BaseModel):
    """One model that was tried.

    Attributes:
        label: a variant's written form, or ``auto`` with what is the same for all its layers.
        size: bytes; of the file where `made`, else about what the file would have.
        made: by the converter, and run as a file; else its layers were put together and run.
        sqnr_db: worst over the cases of each output, at most 200 dB.
        varied_db: of each output over all varied cases together; see `edgequant.quantize.search.target.Target`.
        margin_db: by how much the worst output keeps the target; negative where it does not.
        worst: that output.
        latency_ms: where it was measured.
        sha256: of the file where `made`.
    """

    model_config = ConfigDict(extra="forbid")

    label: str
    memory: MemoryMode
    size: int
    made: bool
    sqnr_db: dict[str, float]
    varied_db: dict[str, float] = Field(default_factory=dict)
    margin_db: float
    worst: str
    latency_ms: float | None = None
    sha256: str | None = None
    recipe: Recipe

    @property
    def meets(self) -> bool:
        return self.margin_db >= 0


class AutoResult(BaseModel):
    """The result of a search, ``auto.json``.

    Attributes:
        target: SQNR in dB each output has to have.
        best: the model that was chosen; None where the search ended before there was one.
        front: of all that was tried, or evaluated where an evaluator was given, the models than which none is both
            smaller and better, and the best, smallest first.
        complete: False where it was interrupted.
        why: in a sentence, what was chosen and why.
        notes: what one should know of the measurement.
        converter_runs: of MNN's converter in this search; model_runs: mixtures and models that were run in it.
        deviation_db: noise measured where the sum of single layers' noises was predicted: mean and standard deviation
            in dB over `deviations` models; None where nothing was predicted.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_: Literal["edgequant.auto/1"] = Field(default="edgequant.auto/1", alias="schema")
    source_sha256: str
    mnn: str
    budget: Literal["size", "latency"]
    target: dict[str, float]
    best: Point | None
    front: list[Point]
    complete: bool
    why: str
    notes: list[str]
    converter_runs: int
    model_runs: int
    seconds: float
    deviation_db: tuple[float, float] | None
    deviations: int

    def write(self, folder: Path) -> list[Path]:
        """Write auto.json, front.csv, front.svg and, of the best model, recipe.json."""
        content = {
            "auto.json": self.model_dump_json(by_alias=True, indent=1) + "\n",
            "front.csv": front_csv(self.front),
            "front.svg": front_svg(self.front, self.best),
        }
        if self.best is not None:
            content["recipe.json"] = self.best.recipe.text()
        for name, text in content.items():
            with atomic_write(folder / name) as file:
                file.write(text.encode("utf-8"))
        return [folder / name for name in content]

    def table(self) -> str:
        """The front for people: one line per model, the chosen one marked."""
        lines = [f"  {'bytes':>10}  {'margin dB':>9}  {'worst output':<20}  memory  model"]
        for point in self.front:
            chosen = self.best is not None and point.recipe == self.best.recipe and point.size == self.best.size
            mark = ">" if chosen else " "
            size, worst = f"{point.size:>10}", f"{point.worst[:20]:<20}"
            lines.append(f"{mark} {size}  {point.margin_db:>9.1f}  {worst}  {point.memory:<6}  {point.label}")
        lines.append(
            "  margin: over the target, the worse of the cases and of varied copies of them; > was chosen and made"
        )
        return "\n".join(lines)


def pareto(points: Sequence[Point]) -> list[Point]:
    """Those than which none is at most as large and better, smallest first; of equals, one that was made."""
    found: list[Point] = []
    for point in sorted(points, key=lambda each: (each.size, -each.margin_db, not each.made, each.label)):
        if not found or point.margin_db > found[-1].margin_db:
            found.append(point)
    return found


def front_csv(points: Sequence[Point]) -> str:
    names = list(dict.fromkeys(name for point in points for name in point.sqnr_db))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head: list[object] = ["bytes", "label", "memory", "made", "margin_db", "worst", "latency_ms"]
    writer.writerow(cell(each) for each in [*head, *names])
    for point in points:
        head = [point.size, point.label, point.memory, point.made, point.margin_db, point.worst, point.latency_ms]
        writer.writerow(cell(each) for each in [*head, *(point.sqnr_db.get(name) for name in names)])
    return out.getvalue()


_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _PAD = 720, 420, 70, 50, 20


def front_svg(points: Sequence[Point], best: Point | None) -> str:
    """Bytes to the right, margin over the target upwards; filled where the model was made, ringed where chosen."""
    sizes = [point.size for point in points] or [1]
    margins = [max(-40.0, min(80.0, point.margin_db)) for point in points] or [0.0]
    x_ticks, y_ticks = _ticks(0, max(sizes)), _ticks(min(0.0, *margins), max(1.0, *margins))

    def x(size: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _PAD) * size / x_ticks[-1]

    def y(margin: float) -> float:
        low, high = y_ticks[0], y_ticks[-1]
        return _PAD + (_HEIGHT - _BOTTOM - _PAD) * (high - margin) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
    ]
    for tick in x_ticks:
        parts.append(f'<text x="{x(tick):.1f}" y="{_HEIGHT - 30}" text-anchor="middle">{tick / 1000:g}</text>')
    for tick in y_ticks:
        stroke = "#b00" if tick == 0 else "#ddd"
        parts.append(f'<path d="M{_LEFT} {y(tick):.1f}H{_WIDTH - _PAD}" stroke="{stroke}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    parts.append(f'<text x="{(_LEFT + _WIDTH) / 2:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">size, kB</text>')
    middle = (_HEIGHT - _BOTTOM) / 2
    parts.append(
        f'<text transform="translate(16 {middle:.0f}) rotate(-90)" text-anchor="middle">margin over the target, '
        "worst output, dB</text>"
    )
    line = " ".join(f"{x(point.size):.1f},{y(margin):.1f}" for point, margin in zip(points, margins, strict=True))
    parts.append(f'<polyline points="{line}" fill="none" stroke="#888"/>')
    for point, margin in zip(points, margins, strict=True):
        colour = "#06c" if point.memory == "low" else "#e70"
        fill = colour if point.made else "#fff"
        chosen = best is not None and point.recipe == best.recipe and point.size == best.size
        title = f"{point.label}, memory {point.memory}: {point.size} bytes, {point.margin_db:.1f} dB at {point.worst}"
        circle = f'cx="{x(point.size):.1f}" cy="{y(margin):.1f}" r="{7 if chosen else 4}"'
        parts.append(
            f'<circle {circle} fill="{fill}" stroke="{"#000" if chosen else colour}">'
            f"<title>{escape(legible(title))}</title></circle>"
        )
    parts.append(f'<text x="{_WIDTH - _PAD}" y="{_PAD + 2}" text-anchor="end">memory low blue, normal orange</text>')
    return "\n".join([*parts, "</svg>", ""])


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from at most `low` to at least `high`, about six of them."""
    span = max(high - low, 1e-9)
    step = 10 ** math.floor(math.log10(span / 5))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 6)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, max(last, first + 1) + 1)]
