"""Makes the model a recipe describes, with as few runs of MNN's converter as it takes.

The converter takes bits, block and zero point for each layer from its parameter file, but hqq and half precision for
all or none.  It leaves alone what is quantized already, so a recipe that mixes them takes one run after the other:
static int8, hqq, plain, half precision.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgequant.errors import InputError, ToolError
from edgequant.findings import Finding
from edgequant.models import read_model
from edgequant.models.mnn.weights import Weights, read_weights
from edgequant.quantize.calibrate.static import StaticOptions, make_static
from edgequant.quantize.convert import ConvertedModel, convert
from edgequant.quantize.encode import usable_block
from edgequant.quantize.halves import of_halves, round_to_halves
from edgequant.quantize.recipe import Recipe, Rule
from edgequant.quantize.work import output_work
from edgequant.spec import Variant

_FLOAT = Variant(method="float")
_HQQ = Variant(method="weight", bits=8, hqq=True)
_ALREADY = "layers of the source are quantized already"
Key = tuple[str, str]


@dataclass(frozen=True)
class RecipeModel:
    """A model made by a recipe.

    Attributes:
        converted: the file, its hash and the last log.
        layers: as they are in the file.
        runs: of the converter that it took.
    """

    converted: ConvertedModel
    layers: tuple[Weights, ...]
    runs: int


def make_recipe(
    source: Path,
    recipe: Recipe,
    out: Path,
    *,
    log_dir: Path,
    timeout: float = 900.0,
    memory_limit: int | None = None,
    samples: Iterable[Mapping[str, np.ndarray]] | None = None,
    static: StaticOptions | None = None,
) -> RecipeModel:
    """Make a model.  `out` appears, or is replaced, only when each layer of it is as the recipe says.

    Args:
        source: a float model in any format `edgequant.models.read_model` knows.
        samples: real inputs, for layers with mode ``static``; static: how their ranges become scales.
        timeout: seconds for each run of the converter.

    Raises:
        InputError: RECIPE_MATCHES_NOTHING; RECIPE_HALF_AND_FLOAT: layers of 16 bits beside layers of 0;
            RECIPE_STATIC_MIX: what cannot stand beside static layers; RECIPE_NOT_STATIC: layers that cannot be static,
            with the reason; RECIPE_NEEDS_SAMPLES; ALREADY_QUANTIZED; and what `convert` and `make_static` raise.
        ToolError: RECIPE_NOT_APPLIED: the converter left a layer as it was; and what `convert` raises.
    """
    source, out = Path(source).absolute(), Path(out).absolute()
    graph = read_model(source)
    if graph.weights in ("quantized", "fp16"):
        raise InputError(
            "ALREADY_QUANTIZED",
            f"its weights are {graph.weights} already; MNN would leave them as they are and say nothing",
            hint="Start from the original model or a float .mnn.",
            where=str(source),
        )
    with output_work(out, source) as work:
        return _Maker(work, log_dir, timeout, memory_limit).run(
            source, graph.format, recipe, out, samples, static or StaticOptions()
        )


@dataclass
class _Maker:
    work: Path
    log_dir: Path
    timeout: float
    memory_limit: int | None
    runs: int = 0

    def run(
        self,
        source: Path,
        format: str,
        recipe: Recipe,
        out: Path,
        samples: Iterable[Mapping[str, np.ndarray]] | None,
        static: StaticOptions,
    ) -> RecipeModel:
        model = self._convert(source, format, _FLOAT, "float.mnn")
        if format == "mnn":
            self.runs = 0  # that was a copy
        layers = read_weights(model.path)
        rules = recipe.resolve(layers)
        _check(recipe, rules, layers, str(source))
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
                model = self._convert(model.path, "mnn", variant, f"hqq-{hqq}.mnn", parameters(left, part))
                warnings += model.warnings
        if recipe.constants == "fp16" or any(rule.bits == 16 for rule in rules.values()):
            left = [layer for layer in read_weights(model.path) if layer.kept == "float"]
            rounded = self.work / "rounded.mnn"
            shutil.copyfile(model.path, rounded)
            findings = of_halves(round_to_halves(rounded, left))
            model = self._convert(rounded, "mnn", _FLOAT, "half.mnn", None, ("--fp16",))
            warnings += [text for text in model.warnings if _ALREADY not in text]
        made = read_weights(model.path)
        _verify(made, rules, str(source))
        model.path.replace(out)
        final = replace(model, path=out, warnings=tuple(dict.fromkeys(warnings)), findings=findings)
        return RecipeModel(final, tuple(made), self.runs)

    def _convert(
        self,
        source: Path,
        format: str,
        variant: Variant,
        name: str,
        content: Mapping[str, object] | None = None,
        flags: Sequence[str] = (),
    ) -> ConvertedModel:
        self.runs += 1
        return convert(
            source,
            format,
            variant,
            self.work / name,
            log_dir=self.log_dir,
            timeout=self.timeout,
            memory_limit=self.memory_limit,
            parameters=content,
            extra_flags=flags,
        )

    def _static(
        self,
        model: ConvertedModel,
        layers: Sequence[Weights],
        keys: set[Key],
        samples: Iterable[Mapping[str, np.ndarray]] | None,
        options: StaticOptions,
    ) -> ConvertedModel:
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
        return made.converted


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
