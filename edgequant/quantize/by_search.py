"""``auto``: the smallest, or on a device the fastest, model that keeps a target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgequant.archive.types import Artifact
from edgequant.findings import Finding
from edgequant.models.mnn.weights import read_weights
from edgequant.quantize.by_recipe import as_recipe_says
from edgequant.quantize.finish import count_layers, sync_and_hash
from edgequant.quantize.search.auto import search
from edgequant.quantize.search.front import AutoResult
from edgequant.quantize.search.options import AutoOptions
from edgequant.quantize.setup import Evaluator, OnHost, Setup
from edgequant.quantize.work import work_dir
from edgequant.spec import Variant


def by_search(variant: Variant, setup: Setup, host: OnHost, cache: Path | None) -> Artifact:
    """Search, and keep what was found in the run's auto/; cache: where earlier searches kept what they measured.

    Raises InputError (TARGET_UNREACHABLE, which names the output and its best; LATENCY_UNKNOWN) and what `search` does.
    """
    options = setup.options
    evaluator: Evaluator | None = host.evaluator() if options.budget == "latency" else None
    folder = setup.folder / "auto"
    folder.mkdir(exist_ok=True)
    out = setup.models / "auto.mnn"
    tools = setup.tools()
    say: Callable[[str], None] = setup.progress.say
    say(f"auto: looking for the {'smallest' if options.budget == 'size' else 'fastest'} model")
    with setup.clock.phase("search"), work_dir(setup.models) as work:
        result = search(
            setup.source,
            [case.inputs for case in host.cases],
            host.goals,
            out,
            log_dir=tools["log_dir"],
            cache=cache or work,
            options=AutoOptions(
                budget=options.budget,
                # One that is run otherwise than it was chosen for keeps nothing.
                memories=("low", "normal") if options.run.memory in (None, "high") else (options.run.memory,),
                timeout=tools["timeout"],
                run_timeout=options.run.timeout,
                memory_limit=tools["memory_limit"],
            ),
            run_options=options.run.model_copy(update={"cores": None}),
            references=[host.expected(case.name) for case in host.cases],
            evaluate=evaluator,
            evaluator="" if evaluator is None else evaluator.key(),
            progress=setup.progress,
        )
    result.write(folder)
    for line in result.table().splitlines():
        say(line)
    assert result.best is not None, "search() has written a model"
    quantized, plain = count_layers(out)
    file = Artifact(
        path=out,
        sha256=sync_and_hash(out),
        size=out.stat().st_size,
        source_sha256=setup.source.sha256,
        asked=variant,
        run_as=variant,
        quantized_layers=quantized,
        float_layers=plain,
        seconds=result.seconds,
    )
    return as_recipe_says(
        variant, result.best.recipe, file, read_weights(out), _findings(result), label=result.best.label
    )


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
