"""Looks into a quantized file: inner tensors, weights, and counter-proofs with some of its layers in float."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgequant.archive.layers import Held, LayerCapture, LayerFacts, Rerun, Sign, Spread, Stats, Swap, Tap, WeightFacts
from edgequant.archive.types import Failure
from edgequant.cases.case import Case
from edgequant.compare.metrics import compare
from edgequant.compare.residual import Pair, look, samples_of
from edgequant.compare.spread import spread
from edgequant.compare.summary import summarize
from edgequant.device_scripts import tensor_stats
from edgequant.errors import DeviceError, InputError, ToolError
from edgequant.files import disk_error
from edgequant.judge.diagnosis import rows_of
from edgequant.judge.layer_graph import Graph
from edgequant.judge.layer_search import next_group
from edgequant.judge.layers import departing, next_try, of_device, suspects
from edgequant.judge.verdict import Verdict, judge_output
from edgequant.lab.probes.layers import Layers, Spot, Where, once
from edgequant.lab.session import Session
from edgequant.lab.take import ModelFile
from edgequant.models import read_model
from edgequant.models.mnn.dequantize import weight_facts
from edgequant.models.mnn.layers import LOOPS, sides
from edgequant.models.model import BrokenFileError
from edgequant.progress import Progress
from edgequant.quantize.equalized_base import equalized_like
from edgequant.quantize.swap import Exchange, Key
from edgequant.spec import Limit, MemoryMode, Precision

MOST_CASES = 2
"""Cases whose inner tensors are looked at: the worst ones."""
MOST_SPREADS = 4
"""Layers of whose outputs the numbers are counted."""
_STRONG = 1.0
_MOST_ROWS = 1 << 15
_FAR = 1 / 6
"""Of an axis of single numbers: so far up or down in their order numbers go, on average, that are in other places."""
_SAME_NUMBERS = 1e-4
"""Of the power of such numbers: as much may be left of the error once both are sorted."""
_SHIFTED = 0.75
"""Of the rows that moved: so many that went equally far are a shift, and no other order."""

Outputs = Mapping[str, np.ndarray]


@dataclass
class Looking:
    """What there is to look into.

    Attributes:
        plain, made: the float .mnn and the quantized one.
        memory: that `made` runs with.  precision: of the run.
        stage: that breaks; None: nothing does.
        cases: all that are held against limits, those where it is worst first.
        expected: a case's reference outputs.
        limits: by output.
        failing: outputs that break limits; empty: all count.
        host: this host's session; device: that of another machine, with the file's place there.
        work: a private folder.
    """

    variant: str
    uri: str
    plain: Path
    made: Path
    memory: MemoryMode
    precision: Precision
    stage: str | None
    cases: Sequence[Case]
    expected: Callable[[str], Outputs]
    limits: Mapping[str, Sequence[Limit]]
    host: Session
    work: Path
    device: Session | None = None
    failing: Sequence[str] = ()
    progress: Progress = field(default_factory=Progress)

    def capture(self) -> LayerCapture:
        """Raises EdgequantError for what is no model's doing: a lost device, a full disk, a damaged file."""
        plain, equalized = self._base()
        made_graph, plain_graph = read_model(self.made), read_model(plain)
        try:
            both = sides(made_graph, plain_graph)
            weights = weight_facts(self.made, plain)
        except (BrokenFileError, ValueError) as error:
            raise InputError("MODEL_BROKEN", f"it cannot be read: {error}", where=str(self.made)) from None
        layers = tuple(
            LayerFacts(
                name=op.name,
                subgraph=op.subgraph or "",
                type=op.type,
                inputs=tuple(name for name in op.inputs if name and name not in both.constants),
                outputs=op.outputs,
                weights=WeightFacts(**told) if (told := weights.get((op.subgraph or "", op.name))) else None,
                scale=both.scales.get(op.outputs[0]) if op.outputs and op.subgraph is None else None,
                bodies=both.bodies.get(op.name, ()) if op.subgraph is None else (),
            )
            for op in both.ops
        )
        chosen = list(self.cases)[:MOST_CASES]
        self.progress.say(f"looking at {len(both.common)} inner tensors of {len(layers)} layers")
        spots = [
            Spot("plain", self.host, ModelFile(plain, "normal", precision="normal")),
            Spot("here", self.host, ModelFile(self.made, self.memory)),
        ]
        there = None
        if self.device is not None:
            there = Spot("there", self.device, ModelFile(self.made, self.memory), self.device.push(self.made)[0])
        probe = Layers(spots[0], spots[1], there, chosen, int8=self.memory == "low" or bool(both.scales))
        taken = probe.take(both.common)
        found = LayerCapture(
            variant=self.variant,
            uri=self.uri,
            stage=self.stage,
            is_host=self.device is None,
            memory=self.memory,
            precision=self.precision,
            cases=tuple(case.name for case in chosen),
            layers=layers,
            taps=(*_of_inputs(chosen), *taken.taps),
            unseen=taken.unseen,
            only_float=both.only_float[:1000],
            only_quantized=both.only_quantized[:1000],
            loops=tuple(op.name for op in both.ops if op.type in LOOPS and op.subgraph is None),
            changed=tuple(taken.changed),
            equalized=equalized,
            mnn=self._versions(),
            memory_mb=taken.memory_mb,
        )
        if self.stage == "quantization":
            found = _Proof(self, plain, chosen, spots[0].still).of(found)
            blamed = departing(Graph(found), "quantization")
            names = [name for name, _ in suspects(found)[:1]] or ([] if blamed is None else [blamed.key])
        else:
            names = list(of_device(Graph(found)).layers) if self.stage == "device" else []
        if self.stage == "device" and self.device is not None and there is not None:
            found = found.model_copy(update={"reruns": tuple(self._reruns(there, chosen))})
        signs, spreads = self._wholes(probe, found, names)
        return found.model_copy(update={"signs": signs, "spreads": spreads})

    def _base(self) -> tuple[Path, bool]:
        """The float model, with the channels of a static file that was equalized."""
        out = self.work / "equalized.mnn"
        try:
            done = equalized_like(self.made, self.plain, out)
        except OSError as error:
            raise disk_error(out, error) from None
        return (out, True) if done else (self.plain, False)

    def _versions(self) -> dict[str, str]:
        sides = {"here": self.host, **({} if self.device is None else {"there": self.device})}
        return {where: session.runner().hello.mnn for where, session in sides.items()}

    def _reruns(self, there: Spot, cases: Sequence[Case]) -> Iterator[Rerun]:
        """With one option changed on both sides: what makes the device right is what it comes from."""
        still = ModelFile(self.made, self.memory)
        before = self._between(still, there, cases)
        normal = dataclasses.replace(still, memory="normal")
        options: list[tuple[str, ModelFile, ModelFile]] = []
        if self.precision == "low":
            same = dataclasses.replace(still, precision="normal")
            options.append(("precision=normal", same, same))
        if self.memory == "low":
            options += [("memory=normal", normal, normal), ("host memory=normal", normal, still)]
        for what, here, far in options:
            after = self._between(here, there, cases, far)
            if isinstance(after, DeviceError) or isinstance(before, DeviceError):
                error = after if isinstance(after, DeviceError) else before
                assert isinstance(error, DeviceError)
                yield Rerun(what=what, failure=Failure.of(error))
            else:
                yield Rerun(what=what, sqnr_db=after, before_db=before)

    def _between(
        self, model: ModelFile, there: Spot, cases: Sequence[Case], other: ModelFile | None = None
    ) -> float | DeviceError | None:
        """SQNR of the worst output of the device against this host.  other: on the device; None: the same."""
        here = once(self.host, model, cases)
        far = once(there.session, other or model, cases, path=there.path)
        if isinstance(here, DeviceError) or isinstance(far, DeviceError):
            return here if isinstance(here, DeviceError) else far if isinstance(far, DeviceError) else None
        found = [
            compare(array, far[case].get(name)).sqnr_db for case, outputs in here.items()
            for name, array in outputs.items()
        ]  # fmt: skip
        return min((db for db in found if db is not None), default=None)

    def _wholes(
        self, probe: Layers, found: LayerCapture, names: Sequence[str]
    ) -> tuple[dict[str, tuple[Sign, ...]], tuple[Spread, ...]]:
        """What of the error of these layers' outputs is no rounding; how their numbers are spread, and those of the
        layers that come next.  One tensor at a time is brought back whole."""
        seen = {tap.tensor for tap in found.taps}
        first = {each.key: each.outputs[0] for each in found.layers if each.outputs and each.outputs[0] in seen}
        worst_first = [row.layer for row in rows_of(found, Graph(found), names)]
        signs: dict[str, tuple[Sign, ...]] = {}
        spreads: list[Spread] = []
        blamed = [key for key in names[:2] if key in first]
        for key in list(dict.fromkeys([*blamed, *(key for key in worst_first if key in first)]))[:MOST_SPREADS]:
            name = first[key]
            for cases in probe.whole([name]).values():
                told = _spread(key, name, cases)
                if told is not None and all(told.counts != each.counts for each in spreads):  # or it was carried on
                    spreads.append(told)
                if key in blamed:
                    signs[name] = tuple(self._signs(cases))
        return signs, tuple(spreads)

    def _signs(self, cases: Mapping[str, Mapping[Where, np.ndarray]]) -> Iterator[Sign]:
        """Of one tensor, by case."""
        expected, got = ("here", "there") if self.stage == "device" else ("plain", "here")
        pairs = [
            Pair(case, arrays[expected], arrays[got])  # type: ignore[index]
            for case, arrays in cases.items()
            if expected in arrays and got in arrays
        ]
        orders = (reordered(pair.expected, pair.got) for pair in pairs)
        order = next((sign for sign in orders if sign is not None), None)
        if order is not None:
            yield order
        kept = [sign for sign in look(samples_of(pairs)) if sign.strength > _STRONG and math.isfinite(sign.strength)]
        for sign in kept[:20]:
            yield Sign(kind=sign.kind, size=min(sign.size, 1e9), strength=min(sign.strength, 1e9), where=sign.where)


@dataclass
class _Proof:
    """Runs the quantized file with some of its layers in float.  still: float MNN's outputs by case."""

    looking: Looking
    plain: Path
    chosen: Sequence[Case]
    still: Mapping[str, Outputs]

    def of(self, capture: LayerCapture) -> LayerCapture:
        job, path = self.looking, self.looking.work / "exchange.mnn"
        try:
            exchange = Exchange(job.made, self.plain, path)
            keys = {key_of(each): each for each in exchange.layers}
            capture = capture.model_copy(update={"exchangeable": tuple(keys)})
            swaps = tuple(self._swaps(capture, exchange, keys))
        except ToolError as error:
            if error.code != "SWAP_IMPOSSIBLE":
                raise
            return capture.model_copy(update={"why_no_proof": f"no counter-proof: {error}"})
        except OSError as error:
            raise disk_error(path, error) from None
        finally:
            path.unlink(missing_ok=True)
        return capture.model_copy(update={"swaps": swaps})

    def _swaps(self, capture: LayerCapture, exchange: Exchange, keys: Mapping[str, Key]) -> Iterator[Swap]:
        """In the order they are needed; each says what the next has to be."""
        memory, graph = self.looking.memory, Graph(capture)
        found: list[Swap] = []

        def run(
            what: str, names: tuple[str, ...] = (), how: MemoryMode = memory, cases: Sequence[Case] | None = None
        ) -> Swap:
            floats = [key for name, key in keys.items() if (name in names) != (what == "one")]
            exchange.choose(() if what == "alone" else keys.values() if what == "all" else floats)
            found.append(self._swap(exchange.path, what, names, how, self.looking.cases if cases is None else cases))
            return found[-1]

        def sofar() -> LayerCapture:
            return capture.model_copy(update={"swaps": tuple(found)})

        yield run("alone")
        yield run("all")
        if memory == "low":
            yield run("alone", how="normal")
        self.looking.progress.say(f"which of {len(keys)} layers it is")
        while True:
            while (names := next_group(sofar(), graph)) is not None:
                yield run("one", names, cases=self.chosen)
            if (names := next_try(sofar())) is None:
                break
            self.looking.progress.say(f"counter-proof: {len(names)} layer{'s' * (len(names) > 1)} in float")
            cured = run("without", names)
            yield cured
            if cured.failure is not None:
                break
            if cured.holds and len(names) > 1:
                yield run("one", names)
        ranked = suspects(sofar())
        if ranked and memory == "low":
            yield run("one", ranked[0][:1], "normal", self.chosen)

    def _swap(self, path: Path, what: str, names: tuple[str, ...], memory: MemoryMode, cases: Sequence[Case]) -> Swap:
        """The worst cases first: where a limit breaks in these, the others would change nothing."""
        told: dict[str, object] = {"what": what, "layers": names, "memory": memory}
        worst = {case.name for case in self.chosen}
        first, rest = ([case for case in cases if (case.name in worst) is wanted] for wanted in (True, False))
        outputs: dict[str, Outputs] = {}
        held: dict[str, Held] = {}
        share: float | None = None
        for some in (first, rest):
            if not some or not all(each.holds for each in held.values()):
                continue
            found = once(self.looking.host, ModelFile(path, memory), some)
            if isinstance(found, DeviceError):
                return Swap.model_validate({**told, "cases": len(cases), "failure": Failure.of(found)})
            outputs |= found
            held, share = self._held(outputs)
        holds = all(each.holds for each in held.values())
        return Swap.model_validate({**told, "cases": len(outputs), "outputs": held, "share": share, "holds": holds})

    def _held(self, outputs: Mapping[str, Outputs]) -> tuple[dict[str, Held], float | None]:
        """Each output against float MNN (dB, worst case), whether its limits hold, and the worst share of error."""
        job, found = self.looking, {}
        shares: list[float] = []
        names = list(next(iter(outputs.values())))
        for name in names:
            against_float = [
                compare(self.still[case][name], each.get(name))
                for case, each in outputs.items()
                if case in self.still and name in self.still[case]
            ]
            decibels = [each.sqnr_db for each in against_float if each.sqnr_db is not None]
            bad = any(each.problem not in (None, "reference_nonfinite") for each in against_float)
            compared = {
                case: compare(job.expected(case)[name], each.get(name))
                for case, each in outputs.items()
                if name in job.expected(case)
            }
            holds = True
            if compared and name in job.limits:
                holds = judge_output(summarize(compared), job.limits[name]).verdict is not Verdict.FAIL
            found[name] = Held(sqnr_db=min(decibels, default=None), holds=holds)
            if not job.failing or name in job.failing:
                shares += [1e30] if bad else [10 ** (-min(decibels) / 10)] if decibels else []
        return found, max(shares, default=None)


def _spread(layer: str, tensor: str, cases: Mapping[str, Mapping[Where, np.ndarray]]) -> Spread | None:
    """Of its worst case."""
    case, arrays = next(iter(cases.items()))
    base = arrays.get("plain", arrays.get("here"))
    found = None if base is None else spread(base, {str(where): array for where, array in arrays.items()})
    if found is None:
        return None
    low, high, counts = found
    return Spread(
        layer=layer, tensor=tensor, case=case, low=low, high=high,
        counts={where: tuple(each) for where, each in counts.items()},
    )  # fmt: skip


def _of_inputs(cases: Sequence[Case]) -> Iterator[Tap]:
    """What comes in, for which both sides are the same."""
    for case in cases:
        for name, array in case.inputs.items():
            if array.dtype.kind == "f":
                told = Stats(**tensor_stats.stats(array))
                yield Tap(case=case.name, tensor=name, plain=told, here=told)


def reordered(expected: np.ndarray, got: np.ndarray) -> Sign | None:
    """Where the same slices come in another order along an axis, and that explains all but a hundredth of the error."""
    if expected.shape != got.shape or not np.isfinite(expected).all() or not np.isfinite(got).all():
        return None
    error = float(np.square(got - expected, dtype=np.float64).sum())
    rng = np.random.default_rng(0)
    for axis, length in enumerate(expected.shape):
        if not 2 < length <= _MOST_ROWS or error == 0:
            continue
        one, two = (np.moveaxis(each, axis, 0).reshape(length, -1).astype(np.float64) for each in (expected, got))
        mark = rng.uniform(0.5, 1.5, one.shape[1])
        order, other = np.argsort(one @ mark, kind="stable"), np.argsort(two @ mark, kind="stable")
        left = float(np.square(two[other] - one[order]).sum())
        by = np.empty(length, np.int64)
        by[order] = (other - order) % length
        far = by[by != 0]
        ranks = np.abs(np.argsort(order) - np.argsort(other))
        near = ranks.sum() < _FAR * length * np.count_nonzero(ranks)
        if one.shape[1] == 1 and (near or left > _SAME_NUMBERS * float(np.square(one).sum())):
            continue  # sorting brings noise together, too, but little of it moves a number far, and much changes them
        if left < error / 100 and far.size > 1 and np.bincount(far).max() < _SHIFTED * far.size:
            return Sign(kind="order", size=error, strength=min(error / max(left, 1e-30), 1e9), where={"axis": axis})
    return None


def key_of(key: Key) -> str:
    """As `LayerFacts.key`."""
    graph, name = key
    return f"{graph}/{name}" if graph else name
