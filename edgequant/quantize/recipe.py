"""Recipes: what becomes of each layer, in a file that can be read, edited, compared and given back.

    {"schema": "edgequant.recipe/1",
     "memory": "low",
     "constants": "float",
     "rules": [
      {"name": "*", "bits": 8},
      {"name": "*", "subgraph": "*gru*", "bits": 4, "block": 32},
      {"regex": "/erb_conv[0-3]/.*", "type": "ConvolutionDepthwise", "bits": 6, "sym": true}]}

Every rule that fits a layer is looked at, and the last one decides alone.  A layer that no rule fits stays float.
"""

from __future__ import annotations

import difflib
import fnmatch
import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edgequant.errors import InputError
from edgequant.files import atomic_write, read_bounded
from edgequant.models.mnn.weights import LAYER_TYPES, Weights
from edgequant.problems import Place, first_problem, shown
from edgequant.quantize.patterns import TooSlowError, fits_glob, full_matches
from edgequant.quantize.recipe_text import place, read_json
from edgequant.spec import MemoryMode

SCHEMA = "edgequant.recipe/1"
_MOST_BYTES = 16 * 1024 * 1024
_MOST_REGEX = 2000
_MOST_GLOB = 65_536
"""Characters; a name that is spelled out takes up to three for each of its own."""
_FEW = 8
_MOST_BLOCK = 65_536


class Rule(BaseModel):
    """Which layers, and what becomes of them.

    Attributes:
        name: of the operator as MNN has it (`edgequant.models.mnn.weights.read_weights` lists them), with * ? [abc].
        regex: instead of a name: a regular expression for the whole of it.
        type: Convolution, ConvolutionDepthwise, Deconvolution or DeconvolutionDepthwise; any where it is left out.
        subgraph: name of the loop body or branch it is in, with * ? [abc]; "" is the main graph; any where it is left
            out.
        bits: 2 to 8; 16 for half precision; 0 for float.
        block: input channels that share a scale, a multiple of 16; one scale per output channel where it is left out,
            and where a layer's channels are no multiple of it.
        sym: no zero point.
        hqq: scales by half-quadratic quantization.
        mode: ``dynamic``: weights quantized; activations are as well while it runs, with memory low.  ``static``:
            int8 with fixed scales, measured on samples.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    name: str | None = Field(default=None, max_length=_MOST_GLOB)
    regex: str | None = Field(default=None, max_length=_MOST_REGEX)
    type: str | None = None
    subgraph: str | None = Field(default=None, max_length=_MOST_GLOB)
    bits: int
    block: int | None = None
    sym: bool = False
    hqq: bool = False
    mode: Literal["dynamic", "static"] = "dynamic"

    @field_validator("bits", "block", mode="before")
    @classmethod
    def _whole(cls, number: object) -> object:
        # true would be 1, and NaN has words of its own.
        if isinstance(number, bool) or (isinstance(number, float) and not number.is_integer()):
            raise ValueError(f"must be a whole number, not {shown(number)}")
        return number

    @field_validator("bits")
    @classmethod
    def _bits(cls, bits: int) -> int:
        if bits not in (0, 2, 3, 4, 5, 6, 7, 8, 16):
            raise ValueError(f"must be 0 (float), 2 to 8, or 16 (half precision), not {shown(bits)}")
        return bits

    @field_validator("block")
    @classmethod
    def _block(cls, block: int | None) -> int | None:
        if block is not None and (block % 16 or not 16 <= block <= _MOST_BLOCK):
            raise ValueError(f"must be a multiple of 16, from 16 to {_MOST_BLOCK}, not {shown(block)}")
        return block

    @field_validator("type")
    @classmethod
    def _type(cls, kind: str | None) -> str | None:
        if kind is not None and kind not in LAYER_TYPES:
            raise ValueError(f"'{kind}' is no type with weights; there are {', '.join(LAYER_TYPES)}")
        return kind

    @field_validator("regex")
    @classmethod
    def _regex(cls, regex: str | None) -> str | None:
        if regex is not None:
            try:
                re.compile(regex)
            except (re.error, OverflowError) as error:
                raise ValueError(f"no regular expression: {error}") from None
            except RecursionError:
                raise ValueError("no regular expression: it is nested too deeply") from None
        return regex

    @model_validator(mode="after")
    def _consistent(self) -> Rule:
        if self.name is not None and self.regex is not None:
            raise ValueError("name and regex are two ways to say the same; give one")
        if self.bits in (0, 16) and (self.block is not None or self.sym or self.hqq or self.mode == "static"):
            raise ValueError(f"bits {self.bits} is not quantized, so it takes no block, sym, hqq or static")
        if self.hqq and self.sym:
            raise ValueError("hqq needs a zero point, which sym takes away")
        if self.mode == "static" and (self.bits != 8 or self.block is not None or self.hqq):
            raise ValueError("static int8 has 8 bits and one scale per channel: no block, no hqq")
        return self

    def fits(self, layer: Weights, matched: Mapping[str, set[str]]) -> bool:
        """Whether it is about this layer.  matched: pattern of `patterns` -> the names it fits."""
        if self.type is not None and layer.type != self.type:
            return False
        if self.regex is not None and layer.name not in matched[self.regex]:
            return False
        return all(
            glob is None or (text in matched[slow] if (slow := _slow(glob)) else bool(fits_glob(glob, text)))
            for glob, text in ((self.subgraph, layer.subgraph), (self.name, layer.name))
        )

    @property
    def patterns(self) -> list[str]:
        """Its regular expressions: what may take for ever."""
        slow = [_slow(glob) for glob in (self.subgraph, self.name) if glob is not None]
        return [pattern for pattern in (self.regex, *slow) if pattern is not None]

    @property
    def action(self) -> dict[str, object]:
        """What becomes of its layers, without what is as it would be anyway."""
        found: dict[str, object] = {"bits": self.bits}
        if self.block is not None:
            found["block"] = self.block
        found.update({name: True for name in ("sym", "hqq") if getattr(self, name)})
        return {**found, "mode": "static"} if self.mode == "static" else found


class Recipe(BaseModel):
    """Rules for all layers.

    Attributes:
        memory: MNN's memory mode the model is meant for: ``low`` quantizes activations while it runs, ``normal``
            computes in float with the weights unpacked.  The file is the same.
        constants: ``fp16`` keeps all that is not weights (such as the tables of an unrolled GRU) in half precision, and
            so every layer that is not quantized; rules of 16 bits mean the same.
        rules: the last that fits a layer decides.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, defer_build=True)

    schema_: Literal["edgequant.recipe/1"] = Field(default="edgequant.recipe/1", alias="schema")
    memory: MemoryMode = "low"
    constants: Literal["float", "fp16"] = "float"
    rules: tuple[Rule, ...] = Field(min_length=1, max_length=100_000)

    @field_validator("memory", mode="before")
    @classmethod
    def _memory(cls, memory: object) -> object:
        if memory not in ("low", "normal"):
            raise ValueError(f"must be 'low' or 'normal', not {shown(memory)}")
        return memory

    @property
    def static(self) -> bool:
        """Whether it has layers whose ranges are measured on samples."""
        return any(rule.mode == "static" for rule in self.rules)

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Raises InputError: RECIPE_UNREADABLE, RECIPE_INVALID naming the key."""
        try:
            text = read_bounded(path, _MOST_BYTES).decode("utf-8-sig")  # some editors put a mark in front
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise InputError("RECIPE_UNREADABLE", f"it cannot be read: {why}", where=str(path)) from None
        return cls.parse(text, where=str(path))

    @classmethod
    def parse(cls, text: str, *, where: str | None = None) -> Recipe:
        """Raises InputError RECIPE_INVALID naming the rule, counted from 1, the key and what is possible."""
        hint = 'For example {"schema": "edgequant.recipe/1", "rules": [{"name": "*", "bits": 8}]}.'
        try:
            return cls.model_validate(read_json(text))
        except ValidationError as error:
            why = first_problem(error, keys=_keys, place=place)
            if error.errors()[0]["type"] == "extra_forbidden":
                hint = f"Keys there: {', '.join(_keys(error.errors()[0]['loc']))}."
        except ValueError as error:
            why = str(error)
        raise InputError("RECIPE_INVALID", f"recipe: {why}", hint=hint, where=where)

    def text(self) -> str:
        """Its written form: one rule a line, keys in one order, so that two can be compared with diff."""
        lines = [json.dumps(_written(rule), ensure_ascii=False) for rule in self.rules]
        head = (
            f'{{"schema": "{SCHEMA}",\n "memory": "{self.memory}",\n "constants": "{self.constants}",\n "rules": [\n  '
        )
        return head + ",\n  ".join(lines) + "\n ]}\n"

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        with atomic_write(path) as file:
            file.write(self.text().encode("utf-8"))

    def resolve(self, layers: Sequence[Weights]) -> dict[tuple[str, str], Rule]:
        """The rule of each layer that has one, by (subgraph, name).

        Raises:
            InputError: RECIPE_MATCHES_NOTHING: a rule fits no layer, naming layers with similar names.
                RECIPE_TOO_SLOW: a regex takes for ever.
        """
        found: dict[tuple[str, str], Rule] = {}
        matched = self._matched(layers)
        for number, rule in enumerate(self.rules):
            fitting = [layer for layer in layers if rule.fits(layer, matched)]
            if not fitting:
                raise _nothing(number, rule, layers)
            found.update({layer.key: rule for layer in fitting})
        return found

    def _matched(self, layers: Sequence[Weights]) -> dict[str, set[str]]:
        """Regex -> the names it matches."""
        regexes = list(dict.fromkeys(pattern for rule in self.rules for pattern in rule.patterns))
        names = [name for layer in layers for name in (layer.name, layer.subgraph)]
        try:
            return full_matches(regexes, list(dict.fromkeys(names)))
        except TooSlowError as error:
            number = next(place for place, rule in enumerate(self.rules) if error.regex in rule.patterns)
            raise InputError(
                "RECIPE_TOO_SLOW",
                f"rule {number + 1}: its pattern was stopped after {error.seconds} s: {error.regex[:200]}",
                hint="A repeat inside a repeat, as in (a*)*, tries every way to divide a name. Write it without, or "
                "take name with * and ?.",
                evidence={"rule": number},
            ) from None


@functools.lru_cache(maxsize=100_000)
def _slow(glob: str) -> str | None:
    """The regular expression of a glob that may take for ever; None for any other."""
    return fnmatch.translate(glob) if fits_glob(glob, "") is None else None


def _keys(parts: Place) -> list[str]:
    """What may stand beside the key at a place."""
    model = Rule if parts[:1] == ("rules",) and len(parts) > 1 else Recipe
    return [field.alias or name for name, field in model.model_fields.items()]


def _written(rule: Rule) -> dict[str, object]:
    match = {key: value for key in ("name", "regex", "type", "subgraph") if (value := getattr(rule, key)) is not None}
    return {**match, **rule.action}


def _nothing(number: int, rule: Rule, layers: Sequence[Weights]) -> InputError:
    names = list(dict.fromkeys(layer.name for layer in layers))
    asked = rule.name if rule.name is not None else rule.regex
    near: list[str] = []
    if asked is not None:
        plain = re.sub(r"[*?\\^$]|\.\*", "", asked)
        near = [name for name in names if plain and plain.lower() in name.lower()][:3]
        near = near or difflib.get_close_matches(plain, names, n=3, cutoff=0.4)
    graphs = sorted({layer.subgraph for layer in layers if layer.subgraph})
    hint = f"Did you mean {', '.join(near)}?" if near else f"It has {', '.join(names[:_FEW])}"
    if not near:
        hint += ", ..." if len(names) > _FEW else "."
    if rule.subgraph is not None:
        hint += f" Its subgraphs with layers: {', '.join(graphs) or 'none'}."
    if rule.type is not None:
        hint += f" Its types: {', '.join(sorted({layer.type for layer in layers}))}."
    said = json.dumps(_written(rule), ensure_ascii=False)
    return InputError(
        "RECIPE_MATCHES_NOTHING",
        f"rule {number + 1} of the recipe fits no layer of the model: {said}",
        hint=hint,
        evidence={"rule": number, "near": near},
    )


def exactly(name: str) -> str:
    """A pattern that fits this name alone.

    Raises InputError (NAME_TOO_LONG) where it would be longer than a rule's may be.
    """
    pattern = re.sub(r"([*?[])", r"[\1]", name)
    if len(pattern) > _MOST_GLOB:
        raise InputError(
            "NAME_TOO_LONG",
            f"a layer's name has {len(name)} characters, more than a recipe can tell: {name[:60]}...",
            hint="Export the model with shorter names.",
        )
    return pattern


def recipe_of(
    layers: Sequence[Weights],
    memory: MemoryMode = "low",
    *,
    constants: Literal["float", "fp16"] = "float",
    actions: Mapping[tuple[str, str], Mapping[str, object]] | None = None,
) -> Recipe:
    """The recipe that describes a made model: what most layers have first, then each that differs, in file order.

    Args:
        layers: of the model, from `read_weights`.
        actions: instead of what the layers are: what is to become of them.  hqq leaves no trace in a file, so only
            these can tell it.
    """
    told = {layer.key: dict((actions or {}).get(layer.key, _kept(layer))) for layer in layers}
    counts: dict[str, int] = {}
    for action in told.values():
        counts[_canonical(action)] = counts.get(_canonical(action), 0) + 1
    most = max(sorted(counts), key=lambda text: counts[text], default=_canonical({"bits": 0}))
    rules = [Rule.model_validate({"name": "*", **json.loads(most)})]
    for layer in {layer.key: layer for layer in layers}.values():
        if _canonical(told[layer.key]) != most:
            match = {"name": exactly(layer.name), "subgraph": exactly(layer.subgraph)}
            rules.append(Rule.model_validate({**match, **told[layer.key]}))
    return Recipe(memory=memory, constants=constants, rules=tuple(rules))


def _canonical(action: Mapping[str, object]) -> str:
    return json.dumps(action, sort_keys=True)


def _kept(layer: Weights) -> dict[str, object]:
    if layer.kept in ("float", "fp16"):
        return {"bits": 0 if layer.kept == "float" else 16}
    found: dict[str, object] = {"bits": layer.bits}
    if layer.kept == "static":
        return {**found, "mode": "static"}
    if layer.block is not None:
        found["block"] = layer.block
    return {**found, "sym": True} if layer.sym else found
