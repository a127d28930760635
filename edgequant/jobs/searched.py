"""``auto``: the smallest, or on a device the fastest, model that keeps a target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import platformdirs

from edgequant.archive.folder import RunFolder
from edgequant.compare.decibel import SQNR_CAP_DB
from edgequant.compare.metrics import compare
from edgequant.errors import InputError, RunnerError
from edgequant.files import sha256_of
from edgequant.findings import Finding
from edgequant.jobs.made_variant import MadeVariant, by_recipe
from edgequant.jobs.prepare import Prepared, memory_limit
from edgequant.judge.latency import latency_summary
from edgequant.judge.limits import SQNR_MARGIN_DB, defaults_for, resolve_limits
from edgequant.lab.session import Session
from edgequant.lab.take import ModelFile, Place, each_case, feed
from edgequant.plan.request import Request
from edgequant.progress import Progress
from edgequant.quantize.convert import ConvertedModel
from edgequant.quantize.search.auto import search
from edgequant.quantize.search.cache import cases_digest, digest
from edgequant.quantize.search.front import AutoResult
from edgequant.quantize.search.options import AutoOptions
from edgequant.quantize.search.target import Evaluation
from edgequant.quantize.written import count_layers
from edgequant.spec import Limit, MemoryMode, Variant

_IDENTITY = (
    "model",
    "manufacturer",
    "soc",
    "build",
    "kernel",
    "hostname",
    "arch",
    "cpu",
    "cores",
    "features",
    "ram_mb",
)
"""Facts that tell devices of one URI apart: "adb://" is whatever phone is attached."""
_SECONDS = 5.0
"""At most so long is one model timed during a search."""


def made_by_search(
    variant: Variant,
    prepared: Prepared,
    request: Request,
    run_dir: RunFolder,
    progress: Progress,
    device: Session | None,
) -> MadeVariant:
    """Search, and keep what was found in the run directory's auto/.

    Raises InputError (TARGET_UNREACHABLE, which names the output and its best; LATENCY_UNKNOWN) and what `search` does.
    """
    evaluator = None
    if request.budget == "latency":
        if device is None or device.device.emulated is not None:
            raise InputError(
                "LATENCY_UNKNOWN",
                "the fastest model is searched for on the first device, and that cannot be timed",
                hint="Give a real device, or --budget size.",
            )
        evaluator = _OnDevice(device, prepared, request)
    folder = run_dir.path / "auto"
    folder.mkdir(exist_ok=True)
    references: list[Mapping[str, np.ndarray]] = [prepared.expected.get(case.name) or {} for case in prepared.cases]
    out = run_dir.models / "auto.mnn"
    asked = request.options.memory
    progress.say(f"auto: looking for the {'smallest' if request.budget == 'size' else 'fastest'} model")
    with prepared.clock.phase("search"):
        result = search(
            prepared.graph.path,
            [case.inputs for case in prepared.cases],
            goals(prepared, request),
            out,
            log_dir=run_dir.logs,
            cache=Path(platformdirs.user_cache_dir("edgequant")) / "search",
            options=AutoOptions(
                budget=request.budget,
                # One that is run otherwise than it was chosen for keeps nothing.
                memories=("low", "normal") if asked in (None, "high") else (asked,),
                timeout=request.convert_timeout,
                run_timeout=request.options.timeout,
                memory_limit=memory_limit(),
            ),
            run_options=request.options.model_copy(update={"cores": None}),
            references=references,
            evaluate=evaluator,
            evaluator="" if evaluator is None else evaluator.key(references),
            progress=progress,
        )
    result.write(folder)
    for line in result.table().splitlines():
        progress.say(line)
    assert result.best is not None, "search() has written a model"
    quantized, plain = count_layers(out)
    model = ConvertedModel(
        out, sha256_of(out), out.stat().st_size, result.seconds, run_dir.logs, (), variant, quantized, plain
    )
    return by_recipe(variant, result.best.recipe, model, "auto", _findings(result), label=result.best.label)


def goals(prepared: Prepared, request: Request) -> tuple[Limit, ...]:
    """What every output has to keep: what was asked for, else its limit on sqnr_db and the margin of a clear PASS."""
    if request.goals:
        return request.goals
    resolved = resolve_limits(prepared.kinds, defaults_for("auto"), request.limits)
    return tuple(
        limit.model_copy(update={"output": name, "value": min(limit.value + SQNR_MARGIN_DB, SQNR_CAP_DB)})
        for name, limits in resolved.items()
        for limit in limits
        if limit.metric == "sqnr_db"
    )


class _OnDevice:
    """Runs a file on a device, every case, and times the middle one."""

    def __init__(self, target: Session, prepared: Prepared, request: Request) -> None:
        self._target = target
        self._prepared = prepared
        self._request = request
        target.own()

    def key(self, references: list[Mapping[str, np.ndarray]]) -> str:
        runner = self._target.living_runner()
        options = self._request.options.model_dump_json()
        facts = self._target.facts
        identity = None if facts is None else facts.model_dump(mode="json", include=set(_IDENTITY))
        return digest(self._target.uri, identity, runner.hello.mnn, options, cases_digest(references))

    def __call__(self, path: Path, memory: MemoryMode) -> Evaluation:
        where = self._target.push(path)[0]
        place = Place.load(self._target, ModelFile(path, memory), where)
        found: dict[str, float] = {}
        for case, result in each_case(place, self._prepared.cases):
            if isinstance(result, RunnerError):
                raise result
            expected = self._prepared.expected.get(case.name)
            assert expected is not None
            for name, reference in expected.items():
                each = compare(reference, result.outputs.get(name))
                # Neither a number nor nothing: it is as wrong as can be.
                value = each.sqnr_db if each.problem is None else -SQNR_CAP_DB
                if value is not None:
                    found[name] = min(found.get(name, SQNR_CAP_DB), value)
        middle = self._prepared.cases[len(self._prepared.cases) // 2]
        options = self._request.options
        timing = place.runner.time(
            place.loaded,
            feed(place.loaded, middle.inputs),
            warmup=options.warmup,
            repeat=options.repeat,
            max_seconds=_SECONDS,
        )
        place.unload()
        summary = latency_summary(timing.samples, timing.warmup, None, None, why_invalid=[])
        return Evaluation(found, None if summary is None else summary.p50)


def _findings(result: AutoResult) -> tuple[Finding, ...]:
    best = result.best
    assert best is not None
    found = [
        Finding(
            code="AUTO_CHOSEN",
            severity="info",
            where=best.worst,
            message=f"{result.why} ({len(result.front)} models on the front, {result.converter_runs} runs of the "
            f"converter, {result.seconds:.0f} s)",
            evidence={
                "recipe": "auto/recipe.json",
                "front": "auto/front.csv",
                "seconds": round(result.seconds, 1),
                "notes": result.notes,
            },
            remedy="auto/front.svg shows what else there was; --variant recipe:auto/recipe.json makes the same again.",
        )
    ]
    found.append(
        Finding(
            code="CHOSEN_ON_CASES",
            severity="warn",
            message="its layers were chosen on the very cases it is judged on, so it looks better than it is",
            remedy="Before a release hold it against other cases: --variant recipe:RUN_DIR/auto/recipe.json with other "
            "--inputs.",
        )
    )
    for note in result.notes:
        found.append(
            Finding(
                code="AUTO_NOTE",
                severity="warn",
                message=note,
                remedy="auto/auto.json has all that was measured.",
            )
        )
    if not result.complete:
        found.append(
            Finding(
                code="AUTO_INCOMPLETE",
                severity="warn",
                message="the search was interrupted: this is the best model it had found",
                remedy="Run it again: what was measured is kept, so it goes on from there.",
            )
        )
    return tuple(found)
