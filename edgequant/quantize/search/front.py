"""What a search came to: the front of size against error, as JSON, CSV and a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from edgequant.cells import cell
from edgequant.charts import Dot, Said, scatter, standalone
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

    model_config = ConfigDict(extra="forbid", defer_build=True)

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

    model_config = ConfigDict(extra="forbid", populate_by_name=True, defer_build=True)

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


_LOWEST, _HIGHEST = -40.0, 80.0
"""Margins beyond are drawn there."""


def front_svg(points: Sequence[Point], best: Point | None) -> str:
    """Size to the right, margin over the target upwards; every point says what it is."""
    series: dict[str, list[Dot]] = {"front": []}
    for point in points:
        title = f"{point.label}, memory {point.memory}: {point.size} bytes, {point.margin_db:.1f} dB at {point.worst}"
        dot = Dot(point.size / 1e6, min(max(point.margin_db, _LOWEST), _HIGHEST), title)
        chosen = best is not None and point.recipe == best.recipe and point.size == best.size
        name = f"memory {point.memory}, {'a file' if point.made else 'put together only'}"
        series["front"].append(dot)
        series.setdefault("chosen" if chosen else name, []).append(dot)
    said = Said(
        "Size against margin",
        "Margin of the worst output over the target, which is 0: above it the target is kept.",
        "file, MB",
        "margin over the target, dB",
    )
    return standalone(scatter(series, said, joined=["front"]))
