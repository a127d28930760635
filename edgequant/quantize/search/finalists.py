"""Makes the models that were chosen, with the converter, and has them evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from edgequant.compare.decibel import capped_db
from edgequant.progress import Progress
from edgequant.quantize.by_recipe import make_recipe
from edgequant.quantize.evaluation import Evaluate
from edgequant.quantize.recipe import Recipe, recipe_of
from edgequant.quantize.search.cache import Cache, Kept, digest
from edgequant.quantize.search.explore import Tried
from edgequant.quantize.search.front import Point
from edgequant.quantize.search.mixture import Mixture
from edgequant.quantize.search.options import AutoOptions
from edgequant.quantize.search.target import Target

RECIPES = 2
"""Changes whenever the same recipe, or the same choice, would give another model: old caches must not count."""


@dataclass
class Finalists:
    """Models of one source.

    Attributes:
        base: the float .mnn; sha256: of the source.
        work: private; the files are there, by hash, until its owner removes it.
        context: key of what models are measured on; evaluator: of where.
        made: what was made so far; converter_runs: what that took.
    """

    base: Path
    sha256: str
    work: Path
    log_dir: Path
    cache: Cache
    mixture: Mixture
    target: Target
    evaluate: Evaluate
    evaluator: str
    context: str
    version: str
    options: AutoOptions
    progress: Progress
    converter_runs: int = 0
    overhead: int = 0
    """Bytes the last file had beyond what was reckoned of it."""
    made: list[Point] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)

    def make(self, tried: Tried) -> Point:
        """Convert it, unless that was done before, and have it evaluated, unless that was.  Raises as `make_recipe`."""
        recipe = self.recipe(tried)
        path = self.work / f"{self.key(tried)}.mnn"
        key = self.key(tried)
        note = self.cache.model(key, path)
        if note is None:
            self.progress.say("converting the model that was chosen")
            made = make_recipe(
                self.base, recipe, path,
                log_dir=self.log_dir, timeout=self.options.timeout, memory_limit=self.options.memory_limit,
            )  # fmt: skip
            self.converter_runs += made.runs
            note = {"sha256": made.file.sha256}
            self.cache.keep_model(key, path, note)
        where = digest(note["sha256"], self.context, recipe.memory, self.evaluator)
        kept = self.cache.evaluation(where)
        if kept is None:
            result = self.evaluate(path, recipe.memory)
            measured = {name: capped_db(value) for name, value in result.sqnr_db.items()}
            kept = Kept(sqnr_db=measured, latency_ms=result.latency_ms)
            self.cache.keep_evaluation(where, kept)
        size = path.stat().st_size
        self.overhead = size - tried.size
        point = self.point(tried, recipe, kept.sqnr_db).model_copy(
            update={
                "made": True,
                "size": size,
                "sha256": note["sha256"],
                "latency_ms": kept.latency_ms,
            }
        )
        self.made.append(point)
        self.files[str(note["sha256"])] = path
        return point

    def key(self, tried: Tried) -> str:
        """Of the model, by contents: the source, the recipe, MNN's version."""
        return digest("recipe", self.sha256, self.version, self.recipe(tried).text(), RECIPES)

    def recipe(self, tried: Tried) -> Recipe:
        """What the converter is to make of it."""
        actions = {}
        for key in self.mixture.layers:
            form = tried.choice.get(key)
            action: dict[str, object] = {"bits": 0 if form is None else form.bits}
            if form is not None and form.block is not None:
                action["block"] = form.block
            if form is not None and form.hqq:
                action["hqq"] = True
            actions[key] = action
        layers = [layer for group in self.mixture.layers.values() for layer in group]
        halved = tried.setting.halved and (self.mixture.constants or any(f.bits == 16 for f in tried.choice.values()))
        constants: Literal["float", "fp16"] = "fp16" if halved else "float"
        # With memory low there is nothing to quantize while it runs but behind quantized weights.
        memory = tried.setting.memory if any(form.bits != 16 for form in tried.choice.values()) else "normal"
        return recipe_of(layers, memory, constants=constants, actions=actions)

    def point(self, tried: Tried, recipe: Recipe, sqnr_db: Mapping[str, float]) -> Point:
        """It as a point of the front, with these results."""
        varied = self.target.varied_db(tried.noise)
        margins = self.target.margins(sqnr_db)
        for name, margin in self.target.margins({**dict.fromkeys(margins, np.inf), **varied}).items():
            margins[name] = min(margin, margins[name])
        worst = min(margins, key=lambda name: margins[name])
        how = "dynamic" if recipe.memory == "low" else "weight"
        if tried.uniform is None:
            label = f"auto {how}{',hqq' if tried.setting.hqq else ''}"
        else:
            label = str(tried.uniform) if tried.uniform.bits == 16 else f"{how}:{tried.uniform}"
            label += " +fp16 constants" if tried.setting.halved and tried.uniform.bits != 16 else ""
        return Point(
            label=label,
            memory=recipe.memory,
            size=tried.size,
            made=False,
            sqnr_db={name: capped_db(value) for name, value in sqnr_db.items()},
            varied_db={name: capped_db(value) for name, value in varied.items()},
            margin_db=capped_db(margins[worst]),
            worst=worst,
            recipe=recipe,
        )
