"""Files that are made from calibration data: one way after another is tried until one works."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgequant.archive.types import Artifact
from edgequant.findings import Finding
from edgequant.quantize.calibrate.static import StaticOptions, make_static
from edgequant.quantize.calibration import CalibrationSet
from edgequant.quantize.calibration_beside import RANGES
from edgequant.quantize.ladder import LadderFacts, Planned, Rung, Step, climb, plan, plan_static
from edgequant.quantize.offline_options import OfflineOptions
from edgequant.quantize.rungs import FALLBACK, RungMaker
from edgequant.quantize.setup import OnHost, Setup, calibration_facts
from edgequant.quantize.work import work_dir
from edgequant.spec import Variant


def by_ladder(
    variant: Variant, setup: Setup, host: OnHost, calibration: CalibrationSet, notes: tuple[Finding, ...]
) -> Artifact:
    """The file of a calibrated variant, with the steps that led to it; `notes`: on the samples.  Raises as `climb`."""
    real = all(each.code != "CALIBRATION_RANDOM" for each in calibration.findings)
    facts = replace(LadderFacts.of(setup.source, len(calibration.shapes)), real_data=real)
    options = _offline_options(variant)
    planned = plan_static(options, facts) if variant.method == "static" else plan(options, facts, static=True)
    planned = [_honest(entry, variant, first=number == 0) for number, entry in enumerate(planned)]

    def static(path: Path) -> Artifact:
        arrays = (case.inputs for case in calibration)
        return make_static(setup.source, arrays, _static_options(variant), path, **setup.tools()).file

    def told(step: Step) -> None:
        setup.progress.say(f"{variant}: {step}")

    with work_dir(setup.models) as work:
        out = setup.models / "ladder.mnn"
        maker = RungMaker(setup.source, calibration, options, out, work, static=static, **setup.tools())
        climbed = climb(
            planned,
            maker,
            lambda made: host.check(made, work),
            facts=facts,
            fallback=setup.options.fallback,
            on_step=told,
        )
    made, asked = climbed.model, climbed.rung == planned[0].rung
    if not asked:
        # What was asked for may have failed for no other reason, so what stands in for it proves nothing.
        notes = tuple(each.model_copy(update={"severity": "error"}) if each.code == RANGES else each for each in notes)
    unique = {(each.code, each.message): each for each in (*notes, *made.findings, *climbed.findings)}
    return made.model_copy(
        update={
            "asked": variant,
            "run_as": variant if asked else _variant_of(climbed.rung, variant),
            "label": None if asked else str(climbed.rung),
            "steps": tuple(step.as_dict() for step in climbed.steps),
            "findings": tuple(unique.values()),
            "calibration": None if climbed.rung.way == "dynamic" else calibration_facts(calibration),
        }
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
