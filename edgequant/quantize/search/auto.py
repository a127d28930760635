"""`auto`: the smallest, or the fastest, model that meets a target, each layer with bits of its own.

The converter makes the float model once, then the models that were chosen; what is between runs mixtures (`mixture`),
which compute what the converter's models compute.  Every mixture and model is remembered under its contents.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgequant.compare.decibel import SQNR_CAP_DB
from edgequant.errors import EdgequantError, InputError, ToolError
from edgequant.files import atomic_write
from edgequant.mnn_version import host_mnn_version
from edgequant.models import ModelGraph
from edgequant.progress import Progress
from edgequant.quantize.convert import convert
from edgequant.quantize.evaluation import Evaluate, Evaluation
from edgequant.quantize.search.cache import Cache, cases_digest, choice_key, digest
from edgequant.quantize.search.explore import Explorer, Setting, Tried
from edgequant.quantize.search.finalists import RECIPES, Finalists
from edgequant.quantize.search.front import AutoResult, Point, pareto
from edgequant.quantize.search.mixture import Choice, Mixture, open_mixture
from edgequant.quantize.search.options import AutoOptions
from edgequant.quantize.search.pace import Pace
from edgequant.quantize.search.target import Target, make_target, varied
from edgequant.quantize.search.trials import Bench, Signals
from edgequant.quantize.work import as_graph, output_work, refuse_quantized, source_sha256
from edgequant.spec import Limit, MemoryMode, RunOptions, Variant

_FLOAT = Variant(method="float")
_PROMISING = 1.15
"""Settings whose first choice is larger than the smallest by more than this are not refined."""
_MOST_ATTEMPTS = 4
_MOST_FRONT = 40
_FEW_VALUES = 1000
_MANY_VALUES, _VARIED, _VARIED_MORE = 10_000, 2, 8


def search(
    source: Path | ModelGraph,
    cases: Sequence[Mapping[str, np.ndarray]],
    limits: Sequence[Limit],
    out: Path,
    *,
    log_dir: Path,
    cache: Path,
    options: AutoOptions | None = None,
    run_options: RunOptions | None = None,
    references: Sequence[Mapping[str, np.ndarray]] | None = None,
    evaluate: Evaluate | None = None,
    evaluator: str = "host",
    progress: Progress | None = None,
) -> AutoResult:
    """Find a model and write it to `out`.

    Ctrl-C ends the search early: the best model so far is made and written, and `complete` is False.  Pressed before
    any model meets the target, KeyboardInterrupt is raised.

    Args:
        source: a float model in any format `edgequant.models.read_model` knows, or what was read of it already.
        cases: input arrays by name; every output of every case has to keep its limit.
        limits: on ``sqnr_db`` only.
        cache: folder for what is made and measured; it may be shared by searches of any models.
        references: outputs by name for each case; the float MNN model's own where None.
        evaluate: runs a file where it counts and has the last word; this host where None.
        evaluator: what the evaluator measures on, as a key for the cache: device, its options, its references.

    Raises:
        InputError: TARGET_UNREACHABLE: no quantized model meets the target; names the output that cannot and the best
            it can have.  TARGET_UNSUPPORTED, TARGET_OUTPUT_UNKNOWN, TARGET_NOT_JUDGEABLE, CASES_EMPTY,
            NOTHING_TO_CHOOSE (no layer has weights), CACHE_UNUSABLE, ALREADY_QUANTIZED, and what `convert` raises.
        ToolError: SEARCH_..., LATENCY_UNKNOWN (the evaluator does not time), and what `convert` raises.
    """
    started = time.monotonic()
    graph = as_graph(source)
    refuse_quantized(graph)
    options = options or AutoOptions()
    with output_work(Path(out).absolute(), graph.path) as work:
        job = _Job(
            graph, work, log_dir, Cache(cache), options,
            run_options or RunOptions(), progress or Progress(),
            evaluator if evaluate is not None else "this host", evaluate,
        )  # fmt: skip
        job.prepare(cases, limits, references)
        return job.run(Path(out).absolute(), started)


@dataclass
class _Job:
    graph: ModelGraph
    work: Path
    log_dir: Path
    cache: Cache
    options: AutoOptions
    run_options: RunOptions
    progress: Progress
    evaluator: str
    evaluate: Evaluate | None
    version: str = field(default_factory=host_mnn_version)
    converter_runs: int = 0

    def prepare(
        self,
        cases: Sequence[Mapping[str, np.ndarray]],
        limits: Sequence[Limit],
        references: Sequence[Mapping[str, np.ndarray]] | None,
    ) -> None:
        self.float = self.work / "float.mnn"
        key = digest("float", self.graph.sha256, self.version)
        if self.graph.format == "mnn":
            shutil.copyfile(self.graph.path, self.float)
            self._unchanged()
        elif self.cache.model(key, self.float) is None:
            self.progress.say("converting to a float model")
            made = convert(
                self.graph, _FLOAT, self.float,
                log_dir=self.log_dir, timeout=self.options.timeout, memory_limit=self.options.memory_limit,
            )  # fmt: skip
            self.converter_runs += 1
            # It would be taken for the model it is not for ever after.
            self._unchanged()
            self.cache.keep_model(key, self.float, {"sha256": made.sha256})
        self.given = len(cases)
        signals = self._bench(cases, "given").reference(self.float, references)
        make_target(limits, signals, self.given)  # what is wrong with it is said now
        count = self.options.varied
        if count is None:
            count = _VARIED if signals.values >= _MANY_VALUES else _VARIED_MORE
        self.bench = self._bench([*cases, *varied(cases, count)], "bench")
        self.signals: Signals = self.bench.reference(self.float, references)
        self.target: Target = make_target(limits, self.signals, self.given)
        self.mixture: Mixture = open_mixture(self.float, self.bench.folder)
        if not self.mixture.layers:
            raise InputError(
                "NOTHING_TO_CHOOSE",
                "no layer of the model has weights that MNN quantizes",
                hint="Use float or fp16.",
                where=str(self.graph.path),
            )
        given = cases_digest(references) if references is not None else "own"
        self.context = digest(
            self.graph.sha256, self.version, cases_digest(cases), count, given, self.run_options.model_dump(), RECIPES
        )
        self.pace = Pace(self.progress)
        self.explorer = Explorer(self.mixture, self._measure, self.target.noise)
        self._noises: dict[str, dict[str, np.ndarray]] = {}
        self.finalists = Finalists(
            self.float, self.graph.sha256, self.work, self.log_dir, self.cache, self.mixture, self.target,
            self._evaluated, self.evaluator, self.context, self.version, self.options, self.progress,
        )  # fmt: skip

    def _unchanged(self) -> None:
        if source_sha256(self.graph) != self.graph.sha256:
            raise InputError(
                "MODEL_CHANGED",
                "the model was changed while it was converted",
                hint="Run again when nothing writes to it.",
                where=str(self.graph.path),
            )

    def _bench(self, cases: Sequence[Mapping[str, np.ndarray]], name: str) -> Bench:
        folder = self.work / name
        folder.mkdir()
        return Bench.of(
            cases,
            folder,
            options=self.run_options,
            log_dir=self.log_dir,
            timeout=self.options.run_timeout,
            memory_limit=self.options.memory_limit,
        )

    # ---- measuring

    def _measure(self, setting: Setting, choices: Sequence[Choice]) -> list[np.ndarray]:
        key = digest(self.context, *setting)
        known = self._noises.setdefault(key, self.cache.noises(key, len(self.signals.powers)))
        names = [choice_key(choice) for choice in choices]
        missing = {name: choice for name, choice in zip(names, choices, strict=True) if name not in known}
        self.pace.skip(len(choices) - len(missing))
        found: list[np.ndarray] = []
        try:
            if missing:
                with self.pace.measuring(len(missing)) as show:
                    self.bench.mixtures(
                        self.mixture, list(missing.values()), setting.memory, self.signals, found,
                        halved=setting.halved, show=show,
                    )  # fmt: skip
        finally:
            fresh = dict(zip(missing, found, strict=False))
            known.update(fresh)
            self.cache.keep_noises(key, fresh)
        return [self.target.constraints(known[name]) for name in names]

    def _evaluated(self, path: Path, memory: MemoryMode) -> Evaluation:
        if self.evaluate is not None:
            return self.evaluate(path, memory)
        return Evaluation(self.signals.sqnr_db(self.bench.models([path], memory, self.signals)[0], self.given))

    # ---- searching

    def run(self, out: Path, started: float) -> AutoResult:
        complete = True
        try:
            self._explore()
        except KeyboardInterrupt:
            complete = False
        if not complete and self.explorer.smallest() is None:
            raise KeyboardInterrupt
        best = self._fastest() if self.options.budget == "latency" and complete else self._smallest()
        with open(self.finalists.files[str(best.sha256)], "rb") as reader, atomic_write(out) as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
        deviations = self.explorer.deviations
        return AutoResult(
            source_sha256=self.graph.sha256,
            mnn=self.version,
            budget=self.options.budget,
            target=dict(self.target.floors),
            best=best,
            front=self._front(best),
            complete=complete,
            why=self._why(complete),
            notes=self._notes(),
            converter_runs=self.converter_runs + self.finalists.converter_runs,
            model_runs=self.bench.runs,
            seconds=time.monotonic() - started,
            deviation_db=(float(np.mean(deviations)), float(np.std(deviations))) if deviations else None,
            deviations=len(deviations),
        )

    def _explore(self) -> None:
        settings = [Setting(memory, hqq, True) for memory in self.options.memories for hqq in (False, True)]
        stages = [2] * len(self.options.memories) + [self.explorer.searched(setting) for setting in settings]
        refined = self.explorer.refined(self.options.rounds)
        forms = max(len(self.explorer.forms(key, setting)) for key in self.mixture.layers for setting in settings)
        self.pace.ahead(stages, more=refined, settings=len(settings))
        self.pace.announce(len(self.mixture.layers), forms, self.options.memories, self.given, self.bench.count)
        for memory in self.options.memories:
            self.pace.begin(f"plain variants, memory {memory}")
            self.explorer.plain(Setting(memory, False, False))
        found = self._search(settings)
        if not found:
            self.progress.say("auto: half precision is too coarse for this target: again, with float where it was used")
            settings = [setting._replace(halved=False) for setting in settings]
            self.pace.ahead([self.explorer.searched(each) for each in settings], more=refined, settings=len(settings))
            found = self._search(settings)
        least = min((tried.size for _, tried in found), default=0)
        promising = [
            pair for pair in sorted(found, key=lambda pair: pair[1].size) if pair[1].size <= _PROMISING * least
        ]
        self.pace.ahead([refined] * len(promising))
        for setting, _ in promising:
            self.pace.begin(f"refining, memory {setting.memory}{', hqq' if setting.hqq else ''}")
            self.explorer.refine(setting, self.options.rounds)

    def _search(self, settings: Sequence[Setting]) -> list[tuple[Setting, Tried]]:
        found = []
        for setting in settings:
            self.pace.begin(f"sensitivity of layers, memory {setting.memory}{', hqq' if setting.hqq else ''}")
            if setting.halved:
                self.explorer.plain(setting)
            best = self.explorer.search(setting)
            if best is not None:
                found.append((setting, best))
        return found

    # ---- making what was chosen

    def _smallest(self) -> Point:
        """Make the smallest that was run and keeps the budget; where the evaluator disagrees, ask for more."""
        budget = self.target.noise.copy()
        seen: set[str] = set()
        for _ in range(_MOST_ATTEMPTS):
            good = [each for each in self.explorer.tried if each.choice and (each.noise <= budget).all()]
            good = [each for each in good if self.finalists.key(each) not in seen]
            if not good:
                break
            chosen = min(good, key=lambda each: each.size)
            seen.add(self.finalists.key(chosen))
            point = self.finalists.make(chosen)
            if point.meets:
                return point
            # By as much as it fell short, and a little, the next one has to be better.
            for place, index in enumerate(self.target.places):
                name = self.signals.outputs[index % len(self.signals.outputs)]
                short = self.target.floors[name] - point.sqnr_db.get(name, -SQNR_CAP_DB)
                if short > 0:
                    budget[place] = min(budget[place], chosen.noise[place]) / 10 ** ((short + 0.2) / 10)
        raise self._unreachable()

    def _fastest(self) -> Point:
        """Make the smallest of each setting, and the plain ones, that keep the budget; of those, the fastest."""
        good = [each for each in self.explorer.tried if each.choice and (each.noise <= self.target.noise).all()]
        chosen: dict[object, Tried] = {}
        for each in sorted(good, key=lambda each: each.size):
            chosen.setdefault((each.setting, each.uniform), each)
        points = [self.finalists.make(each) for each in chosen.values()]
        if any(point.latency_ms is None for point in points):
            raise ToolError(
                "LATENCY_UNKNOWN",
                "the fastest model was asked for, and no latency was measured",
                hint="Name a device that is not emulated, or take --budget size.",
            )
        meeting = [point for point in points if point.meets]
        if not meeting:
            raise self._unreachable()
        return min(meeting, key=lambda point: (point.latency_ms or 0.0, point.size))

    # ---- telling

    def _points(self) -> list[Point]:
        """Of what was run, the front.  Only that gets recipes: thousands were run."""
        found = [(tried, tried.margin_db(self.target.noise)) for tried in self.explorer.tried if tried.choice]
        points: list[Point] = []
        high = -np.inf
        for tried, margin in sorted(found, key=lambda pair: (pair[0].size, -pair[1])):
            if margin > high or not points:
                high = margin
                noise = np.zeros(len(self.signals.powers))
                noise[self.target.places] = tried.noise[: len(self.target.places)]
                sqnr = self.signals.sqnr_db(noise, self.given)
                points.append(self.finalists.point(tried, self.finalists.recipe(tried), sqnr))
        return points

    def _front(self, best: Point) -> list[Point]:
        """Measured files stand in for the mixtures they were made from.

        Numbers of an evaluator and of this host do not belong beside each other, so with one there are only files.
        What was chosen is there even where another is both smaller and better, such as a slower one.
        """
        recipes = {point.recipe.text() for point in self.finalists.made}
        points = self._points() if self.evaluate is None else []
        # As large as they would be as files, beside those that are: else what was not made looks smaller than it is.
        points = [each.model_copy(update={"size": each.size + self.finalists.overhead}) for each in points]
        front = pareto([*self.finalists.made, *(point for point in points if point.recipe.text() not in recipes)])
        if best not in front:
            front = sorted([*front, best], key=lambda point: (point.size, point.margin_db))
        while len(front) > _MOST_FRONT:
            # Thin out where points are close; keep the ends and what was made.
            gaps = [
                (front[place + 1].size / front[place - 1].size, place)
                for place in range(1, len(front) - 1)
                if not front[place].made
            ]
            del front[min(gaps)[1]]
        return front

    def _why(self, complete: bool) -> str:
        which = "every output" if not self._unseen else "every output that has one"
        if self.options.budget == "size" or not complete:
            text = f"the smallest of {len(self.explorer.tried)} models tried that keeps the target on {which}"
        else:
            timed = {point.sha256 for point in self.finalists.made}
            text = f"the fastest of {len(timed)} models timed that keeps the target on {which}"
        return text if complete else f"interrupted; {text} so far"

    def _notes(self) -> list[str]:
        notes = []
        values = self.signals.values
        if values < _FEW_VALUES:
            notes.append(
                f"the cases, varied ones included, have {values} output values in all: so few that a model may keep "
                "the target on them by chance. Give more cases, and verify the result on others"
            )
        if self._unseen:
            notes.append(f"outputs without a target: {', '.join(self._unseen)}")
        if self.cache.problem is not None:
            notes.append(f"what was measured could not be kept for the next search: {self.cache.problem}")
        return notes

    @property
    def _unseen(self) -> list[str]:
        return [name for name in self.signals.outputs if name not in self.target.floors]

    def _unreachable(self) -> EdgequantError:
        points = [*self.finalists.made, *self._points()]
        best = max(points, key=lambda point: point.margin_db)
        have = best.sqnr_db.get(best.worst, -SQNR_CAP_DB)
        return InputError(
            "TARGET_UNREACHABLE",
            f"no quantized model meets the target: '{best.worst}' needs {self.target.floors[best.worst]:g} dB and has "
            f"{have:.1f} dB at best, in a model of {best.size} bytes ({best.label})",
            hint=f'Ask for less (--target "sqnr_db>={max(0, int(have))}", or a limit of its own for that output), or '
            "keep the float model.",
            where=str(self.graph.path),
            evidence={"best": best.model_dump(mode="json", exclude={"recipe"}), "tried": len(self.explorer.tried)},
        )
