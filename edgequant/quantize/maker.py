"""From a variant to its file, whichever way it takes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgequant.archive.types import Artifact, FileFacts, LayerCounts
from edgequant.background import Background
from edgequant.clock import Clock
from edgequant.errors import InputError
from edgequant.files import safe_name
from edgequant.findings import Finding
from edgequant.models import ModelGraph, read_model
from edgequant.models.mnn.compares import read_less
from edgequant.models.mnn.static_int8 import read_static
from edgequant.models.mnn.weights import read_weights
from edgequant.progress import Progress, listening
from edgequant.quantize.cache import ConversionCache, conversion_key
from edgequant.quantize.child import Stopper
from edgequant.quantize.convert import convert
from edgequant.quantize.repeat import Repeat
from edgequant.quantize.setup import MakeOptions, OnHost, Setup
from edgequant.spec import Variant

if TYPE_CHECKING:  # most variants need none of these, and loading them takes as long as converting a small model
    from edgequant.quantize.calibration import CalibrationSet
    from edgequant.quantize.calibration_source import CalibrationSource
    from edgequant.quantize.recipe import Recipe

MOST_AT_ONCE = 256 << 20
"""Bytes of a source of which several things are done at once: with a larger one they may take more memory than there
is, and what is won is little of the whole."""


class Maker:
    """Makes variants of one model, each file once.

    Args:
        source: the model, as it was read.
        folder: of the run, with models/ and logs/ in it.
        cache: of files made before; None: everything is made anew.
        host: what takes a runner; None: only ``float``, ``fp16``, ``weight``, ``dynamic`` and recipes without static
            layers can be made.
    """

    def __init__(
        self,
        source: ModelGraph,
        folder: Path,
        options: MakeOptions | None = None,
        *,
        progress: Progress | None = None,
        clock: Clock | None = None,
        cache: ConversionCache | None = None,
        host: OnHost | None = None,
    ) -> None:
        self._setup = Setup(source, folder, options or MakeOptions(), progress or Progress(), clock or Clock())
        self._cache = cache
        self._host = host
        self._calibration: CalibrationSource | None = None
        self._made: dict[str, Artifact] = {}
        self._repeat: Repeat | None = None
        self._begun: dict[str, _Begun] = {}
        self._stopper = Stopper()

    def begin(self, variants: Iterable[Variant]) -> None:
        """Begin to make those that take no more than the converter, one after another, while the caller does something
        else.  `make` waits for them; `stop` has to be called in the end."""
        if self._setup.source.size > MOST_AT_ONCE:
            return
        last: _Begun | None = None
        for variant in variants:
            if variant.searched or variant.file_key in self._made or variant.file_key in self._begun:
                continue
            last = _Begun(functools.partial(self._make, variant), last, self._stopper)
            self._begun[variant.file_key] = last

    @property
    def busy(self) -> bool:
        """Whether something that was begun is not there yet."""
        return any(not each.work.done for each in self._begun.values())

    def stop(self) -> None:
        """End what was begun and not asked for, and wait until nothing of it is left."""
        self._stopper.stop()
        while self._begun:
            self._begun.popitem()[1].work.wait()
        if self._repeat is not None:
            self._repeat.wait()

    def knowing(self, host: OnHost) -> Maker:
        """One that can make every variant, and has what this one has made."""
        setup = self._setup
        found = Maker(
            setup.source, setup.folder, setup.options,
            progress=setup.progress, clock=setup.clock, cache=self._cache, host=host,
        )  # fmt: skip
        found._made, found._begun, found._stopper = self._made, self._begun, self._stopper
        return found

    def repeated(self) -> tuple[Finding, ...]:
        """What came of making the float model once more, where it was not known before that this gives the same."""
        repeat, self._repeat = self._repeat, None
        return () if repeat is None else repeat.findings()

    @property
    def unreadable(self) -> InputError | None:
        """Why the calibration data cannot be used: that is wrong for every variant, not just the one that met it."""
        return None if self._calibration is None else self._calibration.unreadable

    def has(self, variant: Variant) -> bool:
        """Whether its file is there already."""
        return variant.file_key in self._made

    def make(self, variant: Variant) -> Artifact:
        """Raises InputError, ToolError.  An InputError other than `unreadable` says something of this variant alone."""
        if (begun := self._begun.get(variant.file_key)) is not None:
            begun.work.wait()  # before it is taken out: `stop` has to find it where the wait is interrupted
            del self._begun[variant.file_key]
            for text in begun.said:
                self._setup.progress.say(text)
            self._made[variant.file_key] = begun.work.result()
        if variant.file_key not in self._made:
            with listening(self._setup.progress):
                self._made[variant.file_key] = self._make(variant, self._setup.progress.say)
        return _as_asked(self._made[variant.file_key], variant)

    def _make(self, variant: Variant, say: Callable[[str], None]) -> Artifact:
        if variant.method == "auto":
            from edgequant.quantize.by_search import by_search

            searches = None if self._cache is None else self._cache.searches
            made = self._keep(by_search(variant, self._setup, self._needed(), searches))
            if self._cache is not None:
                self._cache.shrink()
            return made
        recipe: Recipe | None = None
        if variant.file is not None:
            from edgequant.quantize.recipe import Recipe

            recipe = Recipe.read(Path(variant.file))
        calibration: CalibrationSet | None = None
        notes: tuple[Finding, ...] = ()
        if variant.calibrated or (recipe is not None and recipe.static):
            if self._calibration is None:
                from edgequant.quantize.calibration_source import CalibrationSource

                self._calibration = CalibrationSource(self._setup, self._needed())
            calibration, notes = self._calibration.load(variant.samples)
        key = None if self._cache is None else self._key(variant, recipe, calibration, notes)
        if key is not None and self._cache is not None:
            found = self._cache.take(key, self._setup.models, self._setup.logs)
            if found is not None:
                say(f"{variant}: made before, taken from the cache")
                return _named(_as_asked(found, variant))
        if calibration is not None and self._calibration is not None:
            self._calibration.try_out(calibration)
        made = self._keep(self._fresh(variant, recipe, calibration, notes))

        def keep() -> None:
            if key is not None and self._cache is not None:
                self._cache.keep(key, made, self._setup.logs, self._setup.source)

        if variant.method == "float" and self._setup.source.format != "mnn":
            with self._stopper.over_children():
                self._repeat = Repeat(self._setup, made, keep)  # what is in the cache is not asked again
        else:
            keep()
        return made

    def _fresh(
        self, variant: Variant, recipe: Recipe | None, calibration: CalibrationSet | None, notes: tuple[Finding, ...]
    ) -> Artifact:
        setup = replace(self._setup, float_model=self._made.get("float"))
        if recipe is not None:
            from edgequant.quantize.by_recipe import by_recipe

            return by_recipe(variant, recipe, setup, calibration, notes)
        if calibration is not None:
            from edgequant.quantize.by_ladder import by_ladder

            return by_ladder(variant, setup, self._needed(), calibration, notes)
        return convert(setup.source, variant, setup.models / f"{_stem(variant)}.mnn", **setup.tools())

    def _key(
        self, variant: Variant, recipe: Recipe | None, calibration: CalibrationSet | None, notes: tuple[Finding, ...]
    ) -> str | None:
        """Of the cache; None where the same may come out otherwise the next time."""
        what: list[object] = [variant.file_key if recipe is None else recipe.text()]
        if calibration is not None:
            assert self._calibration is not None
            if self._calibration.function:
                return None
            what += [calibration.source, calibration.images, [vars(each) for each in calibration.facts]]
            what += [[each.model_dump() for each in notes]]
        if variant.calibrated:
            what += [self._needed().checked_on(), self._setup.options.fallback]
        return conversion_key(self._setup.source, *what)

    def _needed(self) -> OnHost:
        assert self._host is not None, "whoever makes it without a runner makes only what needs none"
        return self._host

    def _keep(self, made: Artifact) -> Artifact:
        """With what is read of its file, and named for what it is."""
        graph, layers = read_model(made.path), read_static(made.path)
        facts = FileFacts(
            weights=graph.weights,
            has_subgraphs=graph.has_subgraphs,
            static_tensors=layers.described,
            half_tiles=layers.half_tiles,
            max_pools=layers.max_pools,
            tails=layers.tails,
            resizes=layers.resizes,
            less=read_less(made.path),
            counts=_counts(made.path),
        )
        return _named(made.model_copy(update={"facts": facts}))


def _counts(path: Path) -> LayerCounts:
    found = [(max(each.channels * each.per_channel * each.area, 0), each.bits <= 8) for each in read_weights(path)]
    return LayerCounts(
        layers=len(found),
        int8_layers=sum(int8 for _, int8 in found),
        weights=sum(weights for weights, _ in found),
        int8_weights=sum(weights for weights, int8 in found if int8),
    )


class _Begun:
    """A file that is made in a thread of its own, after another one.

    Attributes:
        said: what there is to say of it; said in the order in which files are asked for.
    """

    def __init__(
        self, make: Callable[[Callable[[str], None]], Artifact], after: _Begun | None, stopper: Stopper
    ) -> None:
        self.said: list[str] = []

        def call() -> Artifact:
            if after is not None:
                after.work.wait()
            with stopper.over_children():
                return make(self.said.append)

        self.work = Background(call)


def _as_asked(made: Artifact, variant: Variant) -> Artifact:
    """``weight:8`` and ``dynamic:8`` are one file, and a recipe may lie in another place than it did."""
    return made.model_copy(update={"asked": variant, "run_as": made.run_as if variant.searched else variant})


def _stem(variant: Variant) -> str:
    if variant.file is not None:
        return f"recipe-{safe_name(Path(variant.file).stem)}"
    return safe_name(variant.file_key.replace(":", "").replace(",", "-"))


def _named(made: Artifact) -> Artifact:
    """With its hash in the name, a file that has left its folder still says which run it belongs to."""
    stem = _stem(made.asked)
    if made.label is not None and made.asked.calibrated:
        stem = safe_name(f"{stem}-made-as-{made.label}")
    return made.model_copy(update={"path": made.path.rename(made.path.with_name(f"{stem}-{made.sha256[:16]}.mnn"))})
