"""A verify command written down: the YAML file of `--spec`, so that a release is checked the same way every time."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from edgequant.errors import InputError
from edgequant.files import read_bounded
from edgequant.problems import Place
from edgequant.spec import (
    Access,
    Decision,
    Limit,
    RunOptions,
    Variant,
    first_problem,
    parse_cores,
    parse_decides,
    parse_shapes,
)
from edgequant.spec.function import looks_like_function
from edgequant.spec.images import ImageOptions
from edgequant.spec.numbers import Count, Switch

MAX_BYTES = 1 << 20
_Section = TypeVar("_Section", RunOptions, Access)


class VerifySpec(BaseModel):
    """What `edgequant verify` checks, as --spec FILE has it; every key may be left out, unknown ones are refused.

    Attributes:
        devices: device URIs.
        variants: as on the command line.
        inputs, reference: paths, relative to the file.
        shapes: input name -> sizes, for random cases.
        limits: as on the command line; those given there come on top.
        decides: output name -> what it decides, where the graph does not tell.
        calibration: a path, relative to the file, or module:function.
        images: how pictures become tensors: format, mean, normal, size ([width, height] or WIDTHxHEIGHT), layout,
            center_crop or center_crop_h and center_crop_w.
        goals: what the model of auto has to keep, written like limits.
        fallback: false forbids another way to quantize than the variant says.
        budget: of auto: the smallest model, or the fastest.
        latency: false does not time the model.
        diagnose: true looks at once into what FAILs.
        rollout: so many steps with outputs fed back into inputs.
        feedback: OUT=IN of each that is; none: those that names and shapes tell.
        options: how models are run.
        device_options: how devices are reached, and what runs there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    devices: list[str] = Field(default_factory=list, max_length=1000)
    variants: list[str] = Field(default_factory=list, max_length=1000)
    inputs: Path | None = None
    reference: Path | None = None
    shapes: dict[str, list[Count]] = Field(default_factory=dict, max_length=10_000)
    limits: list[str] = Field(default_factory=list, max_length=10_000)
    decides: dict[str, Decision] = Field(default_factory=dict, max_length=10_000)
    calibration: str | None = Field(default=None, min_length=1, max_length=4000)
    images: ImageOptions | None = None
    fallback: Switch = True
    goals: list[str] = Field(default_factory=list, max_length=10_000)
    budget: Literal["size", "latency"] = "size"
    latency: Switch = True
    diagnose: Switch = False
    rollout: Count | None = Field(default=None, ge=2, le=10_000)
    feedback: list[str] = Field(default_factory=list, max_length=1000)
    options: RunOptions = Field(default_factory=RunOptions)
    device_options: Access = Field(default_factory=Access)

    @field_validator("options", "device_options", mode="before")
    @classmethod
    def _sections(cls, section: Any) -> Any:
        return {} if section is None else section  # all its keys may be commented out

    @field_validator("variants")
    @classmethod
    def _variants(cls, texts: list[str]) -> list[str]:
        for text in texts:
            _as_value_error(Variant.parse, text)
        return texts

    @field_validator("limits", "goals")
    @classmethod
    def _limits(cls, texts: list[str]) -> list[str]:
        for text in texts:
            _as_value_error(Limit.parse, text)
        return texts

    @field_validator("inputs", "reference", "calibration", mode="before")
    @classmethod
    def _paths(cls, path: Any) -> Any:
        if isinstance(path, str) and "\0" in path:
            raise ValueError("no path holds a NUL")
        # It would stand for the spec's own folder.
        if isinstance(path, str) and not path.strip():
            raise ValueError("an empty path")
        return path

    @field_validator("shapes")
    @classmethod
    def _shapes(cls, shapes: dict[str, list[int]]) -> dict[str, list[int]]:
        for name, sizes in shapes.items():
            if any(not 0 < size < 10**9 for size in sizes):
                raise ValueError(f"'{name}': every size must be a whole number of at least 1")
        return shapes

    def with_typed(self, typed: Mapping[str, Any]) -> VerifySpec:
        """This, with what was typed on top: limits come behind these, shapes, decides, images and options replace
        their like one by one, all else replaces what is here.

        Args:
            typed: by key; options as in a file, all else in the words of the command line.

        Raises InputError (OPTION_INVALID, CORES_INVALID, SHAPE_INVALID, DECIDES_INVALID, IMAGE_OPTION_INVALID).
        """
        new = dict(typed)
        if "limits" in typed:
            new["limits"] = [*self.limits, *typed["limits"]]
        if "shapes" in typed:
            new["shapes"] = {**self.shapes, **parse_shapes(typed["shapes"])}
        if "decides" in typed:
            new["decides"] = {**self.decides, **parse_decides(typed["decides"])}
        if "images" in typed:
            new["images"] = ImageOptions.parse(typed["images"], self.images)
        if "options" in typed:
            cores = typed["options"].get("cores")
            more = {} if cores is None else {"cores": parse_cores(cores)}
            new["options"] = _with(self.options, {**typed["options"], **more})
        if "device_options" in typed:
            new["device_options"] = _with(self.device_options, typed["device_options"])
        return self.model_copy(update=new)


def _with(section: _Section, typed: Mapping[str, Any]) -> _Section:
    try:
        return type(section)(**{**section.model_dump(exclude_unset=True), **typed})
    except ValidationError as error:
        name, colon, rest = first_problem(error).partition(":")
        option = name if name.startswith("--") else f"--{name.replace('_', '-')}"
        raise InputError("OPTION_INVALID", f"{option}{colon}{rest}") from None


def _as_value_error(parse: Any, text: str) -> None:
    try:
        parse(text)
    except InputError as error:
        raise ValueError(f"{error.message}.  {error.hint or ''}".strip()) from None


def load_spec(path: Path) -> VerifySpec:
    """Read and check a spec.  Raises InputError (SPEC_NOT_FOUND, SPEC_INVALID) naming file, place and problem."""
    from edgequant.spec.plain_yaml import at_line, read

    try:
        text = read_bounded(path, MAX_BYTES)
    except OSError as error:
        code = "SPEC_INVALID" if error.errno in (errno.EFBIG, errno.ETIMEDOUT) else "SPEC_NOT_FOUND"
        hint = "`edgequant verify --spec-example` prints one with every key." if code == "SPEC_NOT_FOUND" else None
        raise InputError(code, f"{path}: {error.strerror}", hint=hint) from None
    data, lines = read(path, text)
    if not isinstance(data, dict):
        raise InputError("SPEC_INVALID", f"{path}: must be keys and values, such as 'variants: [dynamic:8]'")
    try:
        spec = VerifySpec.model_validate(data)
    except ValidationError as error:
        known = f"Keys: {', '.join(VerifySpec.model_fields)}."
        accepts = f"It looks like a spec of `edgequant accept`: edgequant accept {shlex.quote(str(path))}"
        hint = accepts if "models" in data else known
        where = at_line(path, lines, tuple(error.errors(include_url=False)[0]["loc"]))
        raise InputError("SPEC_INVALID", f"{where}: {first_problem(error, keys=_keys)}", hint=hint) from None
    folder = path.parent
    return spec.model_copy(
        update={
            "inputs": None if spec.inputs is None else folder / spec.inputs,
            "reference": None if spec.reference is None else folder / spec.reference,
            "calibration": _calibration(spec.calibration, folder),
        }
    )


def _keys(place: Place) -> Sequence[str]:
    """The keys there are where an unknown one stands."""
    sections: dict[str, type[BaseModel]] = {"options": RunOptions, "device_options": Access}
    return list((sections.get(str(place[0]), VerifySpec) if len(place) > 1 else VerifySpec).model_fields)


def _calibration(source: str | None, folder: Path) -> str | None:
    """A path is relative to the spec; a function's module is found as Python finds modules, a file as a path."""
    if source is None or (looks_like_function(source) and ".py:" not in source):
        return source
    return str(folder / source)
