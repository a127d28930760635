"""The command to go on with: a diagnosis's remedy, as far as one command is it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgequant.archive.open import Run
from edgequant.archive.types import Artifact
from edgequant.judge.broken_stage import failing_outputs
from edgequant.judge.diagnosis import Diagnosis
from edgequant.judge.layer_births import STATES
from edgequant.judge.types import TrialJudgement
from edgequant.models import read_model
from edgequant.models.mnn.weights import read_weights
from edgequant.plan.request import Request
from edgequant.plan.words import options_of
from edgequant.quantize.recipe import Rule, exactly, recipe_of

RECIPE = "diagnosis-recipe.json"
_REPORTED = ("HOST_KERNEL_DIFFERS", "SHAPE_WRONG")
"""Causes that are MNN's, and no variant's: the command makes a report of them."""


def next_command(found: Diagnosis, run: Run, request: Request, trial: TrialJudgement) -> str | None:
    """None where no command is the remedy.  May write a recipe into the run's folder."""
    variant = str(trial.variant)
    code = "" if found.cause is None else found.cause.code
    said: list[str] = []
    if code in _REPORTED:
        asked = ["edgequant", "diagnose", str(run.path), "--device", trial.uri, "--variant", variant]
        return shlex.join([*asked, "--export-case", "case"])
    if code.startswith("FP16_"):
        request = replace(request, options=request.options.model_copy(update={"precision": "normal"}))
        said = ["--precision", "normal"]  # it is the default, and it is what the remedy is
    elif code in ("OTHER_MNN", "LOW_MEMORY_NOT_ENGAGED"):
        request = replace(request, access=replace(request.access, runtime="pack"))
    elif code == "ORDER_OF_EQUALS":
        unordered = {name: "set" for name in failing_outputs(trial) if request.decides.get(name) != "set"}
        if not unordered:
            return None
        request = replace(request, decides={**request.decides, **unordered})  # type: ignore[dict-item]
    elif code == "INPUT_UNLIKE_CALIBRATION":
        if request.calibration is None or request.inputs is None:
            return None  # data like the inputs are the user's alone
        request = replace(request, calibration=None)  # which is to calibrate with the inputs
    elif code in STATES or (found.stage == "device" and not found.blame.layers):
        return None
    elif found.blame.spread or not found.blame.layers:
        variant = _rounds_less(trial)
    elif trial.variant.method == "static" and trial.artifact is not None and "static" in str(trial.artifact.run_as):
        names = [name for name in _kept_float(found.blame.layers, run.path / trial.artifact.path) if _plain(name)]
        if not names:
            return None
        variant = str(trial.variant.model_copy(update={"skip": (*trial.variant.skip, *names)}))
    elif (recipe := _recipe(found, run, trial.artifact)) is not None:
        variant = f"recipe:{recipe}"
    else:
        return None
    asked = ["edgequant", "verify", str(request.model), "--device", trial.uri, "--variant", variant]
    return shlex.join([*asked, *said, *options_of(replace(request, latency=True))])


def _rounds_less(trial: TrialJudgement) -> str:
    """A variant for a model whose error comes from many layers."""
    variant = trial.variant
    if variant.method in ("dynamic", "weight") and (variant.bits or 8) < 8:
        return f"{variant.method}:8"
    return "auto" if variant.method != "auto" else "weight:8"


def _plain(name: str) -> bool:
    return "," not in name and bool(name)


def _kept_float(blamed: Sequence[str], made: Path) -> list[str]:
    """The layers that skip= is to name.  One without weights takes no skip=: the scale of what it makes is that of the
    layers that read it."""
    ops = [op for op in read_model(made).ops if op.subgraph is None]
    known = {each.name for each in read_weights(made) if not each.subgraph}
    makes = {op.name: {*op.outputs} for op in ops}
    found: dict[str, None] = {}
    for name in blamed:
        if name in known:
            found[name] = None
        else:
            tensors = makes.get(name, set())
            found.update(dict.fromkeys(op.name for op in ops if op.name in known and tensors & {*op.inputs}))
    return list(found)


def _recipe(found: Diagnosis, run: Run, artifact: Artifact | None) -> Path | None:
    """A recipe of the file as it is, with the blamed layers in float; None where there is none for it."""
    if artifact is None or artifact.run_as.method not in ("dynamic", "weight", "recipe"):
        return None
    layers = read_weights(run.path / artifact.path)
    keys = {f"{each.subgraph}/{each.name}" if each.subgraph else each.name: each for each in layers}
    blamed = [keys[name] for name in found.blame.layers if name in keys]
    if not blamed or any(each.kept not in ("quantized", "float") for each in layers):
        return None
    recipe = recipe_of(layers, "low" if artifact.run_as.method == "dynamic" else "normal")
    if artifact.run_as.hqq or artifact.asked.hqq:
        changed = [rule.model_copy(update={"hqq": True}) if 2 <= rule.bits <= 8 else rule for rule in recipe.rules]
        recipe = recipe.model_copy(update={"rules": tuple(changed)})
    floats = [Rule(name=exactly(each.name), subgraph=exactly(each.subgraph), bits=0) for each in blamed]
    recipe = recipe.model_copy(update={"rules": (*recipe.rules, *floats)})
    path = run.path / RECIPE
    recipe.write(path)
    return path
