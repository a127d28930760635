"""Makes the model a recipe describes, with as few runs of MNN's converter as it takes.

The converter takes bits, block and zero point for each layer from its parameter file, but hqq and half precision for
all or none.  It leaves alone what is quantized already, so a recipe that mixes them takes one run after the other:
static int8, hqq, plain, half precision.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgequant.archive.types import Artifact
from edgequant.errors import InputError, ToolError
from edgequant.findings import Finding
from edgequant.models import ModelGraph
from edgequant.models.mnn.weights import Weights, read_weights
from edgequant.quantize.calibrate.static import StaticOptions, make_static
from edgequant.quantize.calibration import CalibrationSet
from edgequant.quantize.convert import convert
from edgequant.quantize.encode import usable_block
from edgequant.quantize.halves import of_halves, round_to_halves
from edgequant.quantize.recipe import Recipe, Rule
from edgequant.quantize.setup import Setup, calibration_facts
from edgequant.quantize.work import as_graph, output_work, refuse_quantized
from edgequant.spec import Variant

_FLOAT = Variant(method="float")
_HQQ = Variant(method="weight", bits=8, hqq=True)
Key = tuple[str, str]


class ByRecipe(NamedTuple):
    """A model made by a recipe.

    Attributes:
        file: the .mnn, with the last log.
        layers: as they are in the file.
        runs: of the converter that it took.
    """

    file: Artifact
    layers: tuple[Weights, ...]
    runs: int


def by_recipe(
    variant: Variant, recipe: Recipe, setup: Setup, calibration: CalibrationSet | None, notes: tuple[Finding, ...]
) -> Artifact:
    """The file of a recipe, with what is to be known of it.

    Args:
        calibration: samples for its static layers, with `notes` on them; None where it has none.

    Raises as `make_recipe`.
    """
    samples = None if calibration is None else (case.inputs for case in calibration)
    out = setup.models / "recipe.mnn"
    made = make_recipe(setup.source, recipe, out, samples=samples, **setup.tools())
    notes = (*notes, *_blocks_unused(recipe, made))
    found = as_recipe_says(variant, recipe, made.file, made.layers, notes)
    return found.model_copy(update={"calibration": calibration_facts(calibration)})


def as_recipe_says(
    variant: Variant,
    recipe: Recipe,
    file: Artifact,
    layers: Sequence[Weights],
    notes: tuple[Finding, ...],
    label: str | None = None,
) -> Artifact:
    """A file that a recipe describes.  Run with memory low it is a dynamic one, which has to be proven like any."""
    kept = {layer.kept for layer in layers}
    low = recipe.memory == "low" and "quantized" in kept
    if "quantized" in kept:
        run_as = Variant(method="dynamic" if low else "weight", bits=8)
    elif "static" in kept:
        run_as = Variant(method="static", bits=8)
    else:
        run_as = Variant(method="fp16" if "fp16" in kept or recipe.constants == "fp16" else "float")
    if recipe.memory == "low" and not low:
        unused = Finding(
            code="RECIPE_MEMORY_UNUSED",
            severity="info",
            message="the recipe says memory low, but no layer has weights that are unpacked or quantized while it "
            "runs: it is run with memory normal",
            remedy='Write "memory": "normal" into it.',
        )
        notes = (*notes, unused)
    findings = (*notes, *file.findings)
    return file.model_copy(update={"asked": variant, "run_as": run_as, "label": label, "findings": findings})


def _blocks_unused(recipe: Recipe, made: ByRecipe) -> tuple[Finding, ...]:
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


def make_recipe(
    source: Path | ModelGraph,
    recipe: Recipe,
    out: Path,
    *,
    log_dir: Path,
    timeout: float = 900.0,
    memory_limit: int | None = None,
    samples: Iterable[Mapping[str, np.ndarray]] | None = None,
    static: StaticOptions | None = None,
    float_model: Artifact | None = None,
) -> ByRecipe:
    """Make a model.  `out` appears, or is replaced, only when each layer of it is as the recipe says.

    Args:
        source: a float model in any format `edgequant.models.read_model` knows, or what was read of it already.
        samples: real inputs, for layers with mode ``static``; static: how their ranges become scales.
        timeout: seconds for each run of the converter.
        float_model: the source as float MNN, where it was made already.

    Raises:
        InputError: RECIPE_MATCHES_NOTHING; RECIPE_HALF_AND_FLOAT: layers of 16 bits beside layers of 0;
            RECIPE_STATIC_MIX: what cannot stand beside static layers; RECIPE_NOT_STATIC: layers that cannot be static,
            with the reason; RECIPE_NEEDS_SAMPLES; ALREADY_QUANTIZED; and what `convert` and `make_static` raise.
        ToolError: RECIPE_NOT_APPLIED: the converter left a layer as it was; and what `convert` raises.
    """
    graph, out = as_graph(source), Path(out).absolute()
    refuse_quantized(graph)
    with output_work(out, graph.path) as work:
        job = _Job(work, log_dir, timeout, memory_limit, float_model)
        return job.run(graph, recipe, out, samples, static or StaticOptions())


@dataclass
class _Job:
    work: Path
    log_dir: Path
    timeout: float
    memory_limit: int | None
    float_model: Artifact | None
    runs: int = 0

    def run(
        self,
        graph: ModelGraph,
        recipe: Recipe,
        out: Path,
        samples: Iterable[Mapping[str, np.ndarray]] | None,
        static: StaticOptions,
    ) -> ByRecipe:
        source = str(graph.path)
        model = self._convert(graph, _FLOAT, "float.mnn")
        if graph.format == "mnn" or self.float_model is not None:
            self.runs = 0  # that was a copy
        layers = read_weights(model.path)
        rules = recipe.resolve(layers)
        _check(recipe, rules, layers, source)
        warnings: list[str] = list(model.warnings)
        findings: tuple[Finding, ...] = ()
        static_keys = {key for key, rule in rules.items() if rule.mode == "static"}
        if static_keys:
            model = self._static(model, layers, static_keys, samples, static)
        quantized = {key: rule for key, rule in rules.items() if 2 <= rule.bits <= 8 and key not in static_keys}
        for hqq in (True, False):
            part = {key: rule for key, rule in quantized.items() if rule.hqq == hqq}
            if part:
                left = [layer for layer in read_weights(model.path) if layer.kept == "float"]
                variant = _HQQ if hqq else _FLOAT
                model = self._convert(model.path, variant, f"hqq-{hqq}.mnn", parameters(left, part))
                warnings += model.warnings
        if recipe.constants == "fp16" or any(rule.bits == 16 for rule in rules.values()):
            left = [layer for layer in read_weights(model.path) if layer.kept == "float"]
            rounded = self.work / "rounded.mnn"
            shutil.copyfile(model.path, rounded)
            findings = of_halves(round_to_halves(rounded, left))
            model = self._convert(rounded, _FLOAT, "half.mnn", None, ("--fp16",))
            warnings += model.warnings
        made = read_weights(model.path)
        _verify(made, rules, source)
        model.path.replace(out)
        told = {"warnings": tuple(dict.fromkeys(warnings)), "findings": findings}
        final = model.model_copy(update={"path": out, "source_sha256": graph.sha256, **told})
        return ByRecipe(final, tuple(made), self.runs)

    def _convert(
        self,
        source: Path | ModelGraph,
        variant: Variant,
        name: str,
        content: Mapping[str, object] | None = None,
        flags: Sequence[str] = (),
    ) -> Artifact:
        self.runs += 1
        return convert(
            source,
            variant,
            self.work / name,
            log_dir=self.log_dir,
            timeout=self.timeout,
            memory_limit=self.memory_limit,
            parameters=content,
            extra_flags=flags,
            float_model=self.float_model,
        )

    def _static(
        self,
        model: Artifact,
        layers: Sequence[Weights],
        keys: set[Key],
        samples: Iterable[Mapping[str, np.ndarray]] | None,
        options: StaticOptions,
    ) -> Artifact:
        if samples is None:
            raise InputError(
                "RECIPE_NEEDS_SAMPLES",
                "the recipe has static layers, whose ranges are measured on samples, and there are none",
                hint="Give real inputs, or take dynamic instead of static.",
            )
        skip = tuple(layer.name for layer in layers if layer.key not in keys and not layer.subgraph)
        # A recipe is taken at its word: what MNN's kernels get wrong of it is told by whoever runs it.
        chosen = options.model_copy(update={"skip": skip, "rnn": "float", "kernels": "any"})
        try:
            made = make_static(
                model.path,
                samples,
                chosen,
                self.work / "static.mnn",
                log_dir=self.log_dir,
                timeout=self.timeout,
                memory_limit=self.memory_limit,
            )
        except InputError as error:
            if error.code != "NOTHING_STATIC":
                raise
            whys = error.evidence.get("layers", {})
            raise _not_static({name: str(whys.get(name)) for _, name in sorted(keys)}) from None
        self.runs += 1
        names = {name for _, name in keys}
        lost = {each.name: str(each.why) for each in made.layers if each.name in names and each.how != "static"}
        if lost:
            raise _not_static(lost)
        return made.file


def _not_static(whys: Mapping[str, str]) -> InputError:
    first = next(iter(whys))
    return InputError(
        "RECIPE_NOT_STATIC",
        f"{len(whys)} layer{'s' * (len(whys) > 1)} cannot be static, first '{first}': {whys[first]}",
        hint="Give them bits 0 in a later rule.",
        evidence={"layers": dict(list(whys.items())[:50])},
    )


def parameters(layers: Sequence[Weights], rules: Mapping[Key, Rule]) -> dict[str, object]:
    """The converter's parameter file: what has a rule gets its bits, the others stay as they are."""
    entries = []
    for layer in {layer.key: layer for layer in layers}.values():
        rule = rules.get(layer.key)
        weight: dict[str, object] = {"name": layer.name, "bits": 0}
        if rule is not None:
            block = usable_block(rule.block, layer.per_channel)
            weight.update(bits=rule.bits, asymmetric=not rule.sym, blockSize=block or 0)
        entry: dict[str, object] = {"opName": layer.name, "weight": [weight]}
        entries.append({**entry, "subgraphName": layer.subgraph} if layer.subgraph else entry)
    return {"forGuide": True, "algo": [{"type": "QUANTIZE", "quantParams": {"layer": entries}}]}


def _check(recipe: Recipe, rules: Mapping[Key, Rule], layers: Sequence[Weights], where: str) -> None:
    bits = {layer.key: rules[layer.key].bits if layer.key in rules else 0 for layer in layers}
    halves, floats = ([key for key, each in bits.items() if each == wanted] for wanted in (16, 0))
    if floats and (halves or recipe.constants == "fp16"):
        what = f"'{halves[0][1]}' is to have 16 bits" if halves else "constants are to be fp16"
        raise InputError(
            "RECIPE_HALF_AND_FLOAT",
            f"{what} and '{floats[0][1]}' is to stay float: MNN keeps all that is not quantized in half precision, or "
            "nothing",
            hint="Give the float ones 16 bits as well, or have no fp16.  What no rule fits is float.",
            where=where,
        )
    static = [key for key, rule in rules.items() if rule.mode == "static"]
    if static and recipe.constants == "fp16":
        raise InputError(
            "RECIPE_STATIC_MIX",
            f"constants are to be fp16 beside static layers such as '{static[0][1]}', which is not possible",
            hint="Leave constants out, or make no layer static.",
            where=where,
        )
    for layer in layers:
        rule = rules.get(layer.key)
        main = not layer.subgraph and layer.type.startswith("Convolution")
        if static and rule is not None and rule.mode != "static" and (rule.bits == 16 or (rule.bits and main)):
            raise InputError(
                "RECIPE_STATIC_MIX",
                f"'{layer.name}' is to have {rule.bits} bits beside static layers such as '{static[0][1]}': MNN would "
                "run it in int8 as well where its neighbours are",
                hint="Make it static or float (bits 0).  Layers in loops, and deconvolutions, may have any bits.",
                where=where,
            )


def _verify(made: Sequence[Weights], rules: Mapping[Key, Rule], where: str) -> None:
    """The converter drops what it does not like without a word."""
    for layer in made:
        rule = rules.get(layer.key)
        want: tuple[object, ...] = ("float",)
        have: tuple[object, ...] = (layer.kept,)
        if rule is not None and rule.mode == "static":
            continue  # `make_static` has looked
        if rule is not None and rule.bits == 16:
            want = ("fp16",)
        elif rule is not None and rule.bits:
            want = ("quantized", rule.bits, usable_block(rule.block, layer.per_channel), rule.sym)
            have = (layer.kept, layer.bits, layer.block, layer.sym)
        if want != have:
            raise ToolError(
                "RECIPE_NOT_APPLIED",
                f"the converter made '{layer.name}' {_said(have)} instead of {_said(want)}",
                hint="Leave it out of the recipe, or try another MNN version.",
                where=where,
            )


def _said(how: tuple[object, ...]) -> str:
    if len(how) == 1:
        return str(how[0])
    _, bits, block, sym = how
    return f"{bits} bits{f', block {block}' if block else ''}{', sym' if sym else ''}"
