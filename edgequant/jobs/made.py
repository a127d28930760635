"""From a variant to its file: the converter alone, or calibration data and a ladder of ways until one works."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from edgequant.archive.folder import RunFolder, safe_name
from edgequant.cases.generate import pin
from edgequant.errors import InputError, RunnerError
from edgequant.files import sha256_of
from edgequant.findings import Finding
from edgequant.jobs.checked import HostCheck
from edgequant.jobs.made_variant import MadeVariant, by_recipe
from edgequant.jobs.prepare import Prepared, make_model, memory_limit
from edgequant.jobs.searched import made_by_search
from edgequant.lab.session import Session
from edgequant.lab.take import ModelFile, Place, each_case
from edgequant.plan.request import Request
from edgequant.progress import Progress, listening
from edgequant.quantize.calibrate.findings import of_static
from edgequant.quantize.calibrate.static import StaticModel, StaticOptions, make_static
from edgequant.quantize.calibration import CalibrationOptions, CalibrationSet, load_calibration
from edgequant.quantize.convert import ConvertedModel
from edgequant.quantize.ladder import Climbed, LadderFacts, Planned, Rung, Step, climb, plan, plan_static
from edgequant.quantize.make import RecipeModel, make_recipe
from edgequant.quantize.offline_options import OfflineOptions
from edgequant.quantize.recipe import Recipe
from edgequant.quantize.rungs import FALLBACK, Made, RungMaker
from edgequant.quantize.work import work_dir
from edgequant.spec import Variant
from edgequant.spec.images import ImageOptions


@dataclass
class VariantMaker:
    """Makes variants of one model.  Calibration data is loaded once, when it is first needed."""

    prepared: Prepared
    request: Request
    run_dir: RunFolder
    host: Session
    progress: Progress
    device: Session | None = None
    """Where the fastest model is searched for; None: none of the devices can be used."""
    arm: bool = False
    """One of the devices is an ARM CPU other than this host."""
    unreadable: InputError | None = field(default=None, init=False)
    """Why the calibration data cannot be used: that is wrong for every variant, not just the one that needed it."""
    _calibration: dict[int | None, CalibrationSet] = field(default_factory=dict, init=False)

    def make(self, variant: Variant) -> MadeVariant:
        """Raises InputError, ToolError.  An InputError other than `unreadable` says something of this variant alone."""
        with listening(self.progress):
            return self._made(variant)

    def _made(self, variant: Variant) -> MadeVariant:
        if variant.calibrated:
            return self._climb(variant)
        if variant.method == "auto":
            return made_by_search(variant, self.prepared, self.request, self.run_dir, self.progress, self.device)
        if variant.method == "recipe":
            return self._by_recipe(variant)
        made = self.prepared.converted
        if variant.file_key not in made:
            made[variant.file_key] = make_model(
                self.prepared.graph, variant, self.run_dir, self.request.convert_timeout
            )
        return MadeVariant(variant, variant, made[variant.file_key])

    def calibration(self, samples: int | None) -> tuple[CalibrationSet, tuple[Finding, ...]]:
        """The samples, and what is to be known of them."""
        source = self.request.calibration
        own: tuple[Finding, ...] = ()
        if source is None and self.request.inputs is not None:
            source = str(self.request.inputs)
            own = (_on_cases(),)
        elif source is not None and self.request.inputs is not None and _same(source, self.request.inputs):
            own = (_on_cases(),)
        if samples not in self._calibration:
            self.progress.say(f"calibration data: {source or 'random'}")
            # One for each call: a function may yield other samples the second time.
            work = self.run_dir.path / "calibration" / ("all" if samples is None else str(samples))
            work.mkdir(parents=True, exist_ok=True)
            given = self.request.options
            options = CalibrationOptions(
                samples=samples,
                images=self.request.images or ImageOptions(),
                seed=given.seed + 1000,
                # The default is that of a job on a device, and reading a data set may take longer.
                timeout=given.timeout if "timeout" in given.model_fields_set else self.request.convert_timeout,
                memory_limit=memory_limit(),
            )
            inputs = pin(self.prepared.inputs, self.request.shapes)
            try:
                loaded = load_calibration(source, inputs, work=work, options=options)
                self._refuse_unrunnable(loaded)
            except InputError as error:
                self.unreadable = error
                raise
            self._calibration[samples] = loaded
        found = self._calibration[samples]
        return found, (*own, *found.findings)

    def _refuse_unrunnable(self, calibration: CalibrationSet) -> None:
        """A sample of each shape through the float model: what it cannot run is no quantizer's fault."""
        first = {facts.shapes: index for index, facts in reversed(list(enumerate(calibration.facts)))}
        place = Place.load(self.host, ModelFile(self.prepared.float_model.path, "normal", precision="normal"))
        waiting = [calibration.facts[index] for index in sorted(first.values())]
        try:
            for _, result in each_case(place, (calibration.read(index) for index in sorted(first.values()))):
                if isinstance(result, RunnerError):
                    raise result
                waiting.pop(0)
            place.unload()
        except RunnerError as error:
            if error.code != "INFERENCE_FAILED":
                self.host.drop_runner()
            sizes = ", ".join(f"{name} {list(shape)}" for name, shape in waiting[0].shapes)
            raise InputError(
                "CALIBRATION_REFUSED",
                f"{calibration.source}: MNN cannot run the float model with sample '{waiting[0].name}' ({sizes}): "
                f"{error.message}",
                hint="Give samples of sizes the model takes; --shape pins those of random ones.",
            ) from None

    def _by_recipe(self, variant: Variant) -> MadeVariant:
        assert variant.file is not None
        recipe = Recipe.read(Path(variant.file))
        notes: tuple[Finding, ...] = ()
        samples = calibration = None
        if any(rule.mode == "static" for rule in recipe.rules):
            calibration, notes = self.calibration(None)
            samples = (case.inputs for case in calibration)
        name = f"recipe-{safe_name(Path(variant.file).stem)}"
        made = make_recipe(
            self.prepared.graph.path,
            recipe,
            self.run_dir.models / f"{name}.mnn",
            log_dir=self.run_dir.logs,
            timeout=self.request.convert_timeout,
            memory_limit=memory_limit(),
            samples=samples,
        )
        notes = (*notes, *_blocks_unused(recipe, made))
        return replace(by_recipe(variant, recipe, made.converted, name, notes), calibration=calibration)

    def _climb(self, variant: Variant) -> MadeVariant:
        calibration, notes = self.calibration(variant.samples)
        real = all(each.code != "CALIBRATION_RANDOM" for each in calibration.findings)
        facts = replace(LadderFacts.of(self.prepared.graph, len(calibration.shapes)), real_data=real)
        options = _offline_options(variant)
        planned: list[Planned] = (
            plan_static(options, facts) if variant.method == "static" else plan(options, facts, static=True)
        )
        planned = [_honest(entry, variant, first=number == 0) for number, entry in enumerate(planned)]
        name = safe_name(variant.file_key.replace(":", "").replace(",", "-"))
        out = self.run_dir.models / f"{name}.mnn"
        statics: list[StaticModel] = []

        def static(path: Path) -> tuple[Finding, ...]:
            arrays = (case.inputs for case in calibration)
            made = make_static(
                self.prepared.graph.path,
                arrays,
                _static_options(variant),
                path,
                log_dir=self.run_dir.logs,
                timeout=self.request.convert_timeout,
                memory_limit=memory_limit(),
            )
            statics.append(made)
            return of_static(made)

        def told(step: Step) -> None:
            self.progress.say(f"{variant}: {step}")

        with work_dir(self.run_dir.models) as work:
            maker = RungMaker(
                self.prepared.graph, calibration, options, out, work, self.run_dir.logs,
                timeout=self.request.convert_timeout, memory_limit=memory_limit(), static=static,
            )  # fmt: skip
            fallback = self.request.fallback
            check = HostCheck(self.host, self.prepared, self.arm, fallback, work)
            climbed = climb(planned, maker, check, facts=facts, fallback=fallback, on_step=told)
        model = _converted(climbed, variant, statics)
        asked = climbed.rung == planned[0].rung
        # Named for what it is.
        name = name if asked else safe_name(f"{name}-made-as-{climbed.rung}")
        named = out.rename(out.with_name(f"{name}-{model.sha256[:16]}.mnn"))
        run_as = variant if asked else _variant_of(climbed.rung, variant)
        findings = (*notes, *climbed.model.findings, *climbed.findings)
        unique = {(each.code, each.message): each for each in findings}
        return MadeVariant(
            variant,
            run_as,
            replace(model, path=named),
            tuple(unique.values()),
            climbed.steps,
            None if asked else str(climbed.rung),
            None if climbed.rung.way == "dynamic" else calibration,
        )


def _blocks_unused(recipe: Recipe, made: RecipeModel) -> tuple[Finding, ...]:
    """MNN takes a block only where it divides a layer's input channels; the file must not pass for finer than it is."""
    rules = recipe.resolve(made.layers)
    asked = {layer.key: layer for layer in made.layers if layer.key in rules and rules[layer.key].block is not None}
    lost = [
        layer
        for key, layer in asked.items()
        if layer.kept == "quantized" and layer.block is None and layer.per_channel != rules[key].block
    ]
    if not lost:
        return ()
    return (
        Finding(
            code="RECIPE_BLOCK_UNUSED",
            severity="info",
            where=lost[0].name,
            message=f"{len(lost)} of the {len(asked)} layers that were to have blocks have one scale per output "
            "channel: their input channels are no multiple of the block",
            evidence={"layers": {layer.name: layer.per_channel for layer in lost[:50]}},
        ),
    )


def _offline_options(variant: Variant) -> OfflineOptions:
    if variant.method == "static":
        # For the rungs behind it.
        return OfflineOptions(method="ema", samples=variant.samples, skip=variant.skip)
    return OfflineOptions.model_validate(
        {
            "method": variant.method,
            "weights": variant.weights or "max_abs",
            "clamp": variant.clamp,
            "skip": variant.skip,
            "samples": variant.samples,
        }
    )


def _honest(entry: Planned, asked: Variant, *, first: bool) -> Planned:
    """A rung that would drop what the user asked for in silence is passed over, and says so."""
    if first or entry.passed_over is not None or entry.rung.method == asked.method:
        return entry
    keeps = {"mnn": ("skip", "samples"), "static": ("skip", "samples"), "dynamic": ("samples",)}[entry.rung.way]
    lost = [
        name
        for name in ("skip", "keep", "clamp", "weights", "rnn", "percent")
        if getattr(asked, name) and name not in keeps
    ]
    if not lost or (asked.method == "static" and entry.rung.way == "static"):
        return entry
    return replace(entry, passed_over=f"it cannot honour {', '.join(lost)}, which you asked for")


def _static_options(variant: Variant) -> StaticOptions:
    if variant.method != "static":
        # A rung on somebody else's ladder; what was to stay float still does.
        return StaticOptions(calib="best", sym=None, equalize=None, skip=variant.skip)
    equalize = True if variant.equalize else None if variant.calib is None else False
    sym = None if variant.calib is None and not (variant.sym or variant.asym) else not variant.asym
    given = {"calib": variant.calib or "best", "percent": variant.percent, "rnn": variant.rnn, "keep": variant.keep}
    known = {name: value for name, value in given.items() if value is not None}
    return StaticOptions(sym=sym, equalize=equalize, skip=variant.skip, **known)  # type: ignore[arg-type]


def _variant_of(rung: Rung, asked: Variant) -> Variant:
    """What a rung's file would be called by whoever asks for it."""
    if rung.way == "dynamic":
        return FALLBACK
    if rung.way == "static":
        return Variant(method="static", bits=8, skip=asked.skip if asked.method != "static" else ())
    assert rung.method is not None
    same = asked.model_dump(include={"weights", "clamp", "skip", "samples"}) if asked.method == rung.method else {}
    return Variant(method=rung.method, **same)


def _converted(climbed: Climbed[Made], variant: Variant, statics: list[StaticModel]) -> ConvertedModel:
    made = climbed.model
    if made.converted is not None:
        return made.converted
    if made.offline is not None:
        offline = made.offline
        return ConvertedModel(
            offline.path, offline.sha256, offline.size, offline.seconds, offline.log, (), variant,
            offline.quantized_layers, offline.float_layers,
        )  # fmt: skip
    assert statics
    found = statics[-1].converted
    return replace(found, variant=variant, sha256=sha256_of(made.path), size=made.path.stat().st_size)


def _same(source: str, inputs: Path) -> bool:
    try:
        return Path(source).samefile(inputs)
    except (OSError, ValueError):
        return False


def _on_cases() -> Finding:
    return Finding(
        code="CALIBRATED_ON_CASES",
        severity="warn",
        message="the model is calibrated on the very cases it is judged on, so it looks better than it is",
        remedy="Give calibration data of its own with --calibration.",
    )
