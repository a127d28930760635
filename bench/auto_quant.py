"""Runs of MNN's converter that `auto` takes, against those of MNN's own auto_quant.py, for a model as good.

auto_quant.py (tools/converter/tools in MNN's sources) lowers the bits of one layer after the other and converts the
model each time.  `Greedy` takes the same decisions in the same order, as read there, on the same model and the middle
case; then `auto` is asked for the SQNR that came out of it, output by output, on the same case and, as the peer does,
on no other (varied=0: of itself it also looks at variations of its cases, so as not to be right by chance).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.harness import CannotRun, Result, Settings, say

RATE = 0.05
"""Largest error over largest reference value, auto_quant.py's default target."""
MODELS = ("enc", "ppocr_cls")


class Greedy:
    """auto_quant.py's search.

    Args:
        layers: keys of the layers with 1x1 kernels, in the order of the model; others: keys of the other layers.
        test: converts with [bits, block] per layer and gives the rate, in memory low or not.
    """

    def __init__(
        self,
        layers: list[tuple[str, str]],
        others: list[tuple[str, str]],
        test: Callable[[dict[tuple[str, str], list[int]], bool], float],
    ) -> None:
        self.layers = layers
        self.state = {key: [8, 0] for key in [*layers, *others]}
        self.low = True
        self.runs = 0
        self._test = test

    def run(self, target: float) -> float:
        self._rate()
        self._bits(target)
        rate = self._blocks(target)
        if rate > target:
            self.low = False
            rate = self._rate()
        if rate > target:
            rate = self._skip(target, rate)
        return rate

    def _rate(self) -> float:
        self.runs += 1
        return self._test(self.state, self.low)

    def _block(self, block: int) -> None:
        for each in self.state.values():
            each[1] = block

    def _bits(self, target: float) -> None:
        self._block(64)
        if self._rate() > target:
            return
        tested = False
        for key in self.layers:
            self.state[key][0] = 4
            tested = self._rate() <= target
            if not tested:
                self.state[key][0] = 8
        if not tested:
            self._rate()

    def _blocks(self, target: float) -> float:
        valid, best, least, rate = 0, 256, 1.0, 1.0
        for block in (256, 128, 64, 32):
            self._block(block)
            rate = self._rate()
            if rate < least:
                least, best = rate, block
            if rate < target:
                valid = block
                break
        if not (valid < 256 and rate < target):
            self._block(best)
            return self._rate()
        start, place, end = 0, len(self.layers) // 2, len(self.layers)
        while start < place < end:
            self._two_blocks(place, valid)
            rate = self._rate()
            start, end = (place, end) if rate < target else (start, place)
            place = (start + end + 1) // 2
        if start != place:
            self._two_blocks(start, valid)
            rate = self._rate()
        return rate

    def _two_blocks(self, place: int, valid: int) -> None:
        for number, key in enumerate(self.layers):
            self.state[key][1] = 2 * valid if number < place else valid

    def _skip(self, target: float, current: float) -> float:
        rate = current
        for key in reversed(self.layers):
            self.state[key][0] = 0
            rate = self._rate()
            if rate < current:
                current = rate
            else:
                self.state[key][0] = 8
            if rate <= target:
                break
        return rate


def _compare(name: str, folder: Path) -> Result:
    from edgequant.cases.generate import generate
    from edgequant.models import read_model
    from edgequant.models.mnn.weights import read_weights
    from edgequant.quantize.by_recipe import parameters
    from edgequant.quantize.convert import convert
    from edgequant.quantize.recipe import Rule
    from edgequant.quantize.search.auto import search
    from edgequant.quantize.search.options import AutoOptions
    from edgequant.quantize.search.trials import Bench
    from edgequant.spec import Limit, RunOptions, Variant
    from edgequant.zoo import fetch

    source = fetch(name)
    graph = read_model(source)
    base, made = folder / f"{name}.mnn", folder / f"{name}-greedy.mnn"
    convert(source, Variant(method="float"), base, log_dir=folder)
    cases = generate(graph.inputs or (), 0)
    inputs = [dict(cases[len(cases) // 2].inputs)]
    layers = read_weights(base)
    places = [folder / f"{name}-{part}" for part in ("bench", "probe")]
    for place in places:
        place.mkdir()
    # Its own options: full precision, one scale per tensor of activations.
    options = RunOptions(precision="high", dynamic_quant_option=1)
    bench, probe = (Bench.of(inputs, place, options=options, log_dir=folder, timeout=60.0) for place in places)
    signals = bench.reference(base)
    want = bench.outputs(base, "normal")[0]

    def test(state: dict[tuple[str, str], list[int]], low: bool) -> float:
        rules = {
            key: Rule(name="*", bits=bits, hqq=True, block=block or None)
            for key, (bits, block) in state.items()
            if bits
        }
        content = parameters(layers, rules)
        convert(base, Variant.parse("weight:8,hqq"), made, log_dir=folder, parameters=content)
        have = probe.outputs(made, "low" if low else "normal")[0]
        largest = {output: float(np.abs(array).max()) for output, array in want.items()}
        return max(float(np.abs(have[o] - want[o]).max()) / top for o, top in largest.items() if top > 0.01)

    one = [layer.key for layer in layers if layer.area == 1]
    greedy = Greedy(one, [layer.key for layer in layers if layer.area != 1], test)
    rate = greedy.run(RATE)
    memory = "low" if greedy.low else "normal"
    sqnr = signals.sqnr_db(bench.models([made], memory, signals)[0])
    limits = [Limit(output=output, metric="sqnr_db", op=">=", value=min(db, 200.0)) for output, db in sqnr.items()]
    found = search(
        source, inputs, limits, folder / f"{name}-auto.mnn",
        log_dir=folder, cache=folder / f"{name}-cache", run_options=options, options=AutoOptions(varied=0),
    )  # fmt: skip
    if found.best is None:
        raise CannotRun(f"{name}: auto found nothing")
    size = made.stat().st_size
    # auto_quant.py is given a float .mnn, which takes a run as well.
    theirs = greedy.runs + 1
    say(f"{name}: rate {rate:.4f}, {found.seconds:.0f} s, {found.model_runs} models run")
    return Result(
        f"converter runs, {name}",
        [found.converter_runs / theirs],
        bound=1 / 3,
        notes=f"{found.converter_runs} against {theirs}; {found.best.size} bytes against {size} "
        f"({found.best.size / size:.2f}), worst margin {found.best.margin_db:+.1f} dB",
        detail={"runs": found.converter_runs, "their_runs": theirs, "bytes": found.best.size, "their_bytes": size},
    )


def run(settings: Settings) -> list[Result]:
    """One line per model."""
    return [_compare(name, settings.folder) for name in (MODELS[:1] if settings.quick else MODELS)]
