"""Which layers to keep float: models with some of the layers in int8, made and measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgequant.archive.types import Artifact
from edgequant.errors import EdgequantError, InputError, ToolError
from edgequant.models.mnn.scale_flow import Flow
from edgequant.progress import counted
from edgequant.quantize.calibrate.child import Runs
from edgequant.quantize.calibrate.kernels import Kernels
from edgequant.quantize.calibrate.layers import Layer
from edgequant.quantize.calibrate.methods import Quantizer
from edgequant.quantize.calibrate.outputs import Fidelity, Outputs, fidelity, run_outputs
from edgequant.quantize.calibrate.params import LayerPlan, parameters, plan
from edgequant.quantize.work import HOPELESS

Convert = Callable[[Path, Mapping[str, object]], Artifact]


@dataclass(frozen=True)
class Maker:
    """Makes models from subsets of the layers of one float model.

    Attributes:
        convert: writes the model with the given compression parameters to the path.
        rest: what becomes of layers that cannot be static; see `plan`.
        reference: the float model's outputs for the first samples of `runs`.
        kernels: of MNN's that are avoided.
    """

    convert: Convert
    layers: Sequence[Layer]
    flow: Flow
    quantizers: Mapping[str, Quantizer]
    unreadable: Mapping[str, str]
    rest: str
    runs: Runs
    reference: Outputs
    kernels: Kernels

    def plans(self, skip: set[str], kept: Collection[str] = (), rest: str | None = None) -> list[LayerPlan]:
        """skip: operators or output tensors that stay float; kept: output tensors of layers that compute in float."""
        return plan(
            self.layers,
            self.flow,
            self.quantizers,
            unreadable=self.unreadable,
            skip=skip,
            kept=kept,
            rest=self.rest if rest is None else rest,
            kernels=self.kernels,
        )

    def model(self, plans: Sequence[LayerPlan], out: Path) -> Artifact:
        """Raises InputError NOTHING_STATIC, ToolError STATIC_NOT_APPLIED, and what `convert` raises."""
        if not any(each.how == "static" for each in plans):
            raise InputError(
                "NOTHING_STATIC",
                "no layer of the model can be static int8",
                hint="Use weight:8 or dynamic:8 for it.",
                evidence={"layers": {each.layer.name: each.why and each.why.words for each in plans[:50]}},
            )
        made = self.convert(out, parameters(plans))
        wanted = sum(each.how != "float" for each in plans)
        if made.quantized_layers != wanted:
            raise ToolError(
                "STATIC_NOT_APPLIED",
                f"MNN's converter quantized {made.quantized_layers} layers where {wanted} were asked for",
                hint="This MNN version may read compression parameters differently; 3.6.1 is known to work.",
            )
        return made

    def fidelity(self, model: Artifact, doing: str) -> dict[str, Fidelity]:
        """Its outputs against the float model's.  Raises ToolError STATIC_..., see `run_outputs`."""
        return fidelity(self.reference, run_outputs(model.path, self.runs, doing, len(self.reference)))

    def sensitivity(self, skip: set[str]) -> dict[str, float]:
        """Worst SQNR in dB of any output in any sample, by the output tensor of the one layer that is int8.

        Infinite for a layer that can be int8 only beside others: behind a pool whose input has a scale of its own.
        """
        found = {}
        outputs = {each.output for each in self.layers}
        for name in counted(
            "layers tried alone", [each.layer.output for each in self.plans(skip) if each.how == "static"]
        ):
            plans = self.plans(outputs - {name}, rest="float")
            if not any(each.how == "static" for each in plans):
                found[name] = math.inf
                continue
            model = self.model(plans, self.runs.work / "alone.mnn")
            found[name] = _worst(self.fidelity(model, f"the model with only '{name}' in int8"))
        return found

    def fewest(self, ranked: Sequence[str], skip: set[str], least: int, target_db: float) -> int:
        """How many of the ranked layers have to stay float for every output to reach the target.

        By bisection, so it takes for granted that more float layers are never worse; what it answers was measured.

        Args:
            ranked: output tensors, the most sensitive first.
            least: at least so many.

        Raises:
            InputError: TARGET_NOT_REACHED: not even with one layer in int8.
        """
        low, high, best = least, len(ranked) - 1, -1.0
        answer = None
        while low <= high:
            middle = (low + high) // 2
            model = self.model(self.plans(skip, ranked[:middle]), self.runs.work / "some.mnn")
            reached = _worst(self.fidelity(model, f"the model with {middle} layers kept float"))
            best = max(best, reached)
            if reached >= target_db:
                answer, high = middle, middle - 1
            else:
                low = middle + 1
        if answer is None:
            raise InputError(
                "TARGET_NOT_REACHED",
                f"no static int8 model reaches {target_db:g} dB on every output of every sample; the best tried has "
                f"{best:.1f} dB",
                hint="Ask for less, keep loops float (rnn=float), or use weight:8 or dynamic:8.",
            )
        return answer


def best(makers: Mapping[str, Maker], skip: set[str]) -> dict[str, float]:
    """Mean SQNR in dB over the samples of the worst output of each maker's model, the best first.

    The mean, for with a handful of samples the worst of them is chance: what came closest there was on other data of
    the same kind often not even good.

    One whose scales are those of one before is not made again; one whose model crashes, hangs or cannot be made is left
    out.

    Raises:
        EdgequantError: what the first one raised, where none works.
    """
    found: dict[str, float] = {}
    first: EdgequantError | None = None
    seen = []
    for name in counted("calibrators tried", list(makers)):
        maker = makers[name]
        try:
            plans = maker.plans(skip)
            content = parameters(plans)
            if content in seen:
                continue
            seen.append(content)
            model = maker.model(plans, maker.runs.work / "tried.mnn")
            outputs = maker.fidelity(model, f"the model with calib={name}")
            found[name] = min(each.mean_db for each in outputs.values())
        except ToolError as error:
            if error.code in HOPELESS:
                raise
            first = first or error
        except InputError as error:
            first = first or error
    if not found:
        assert first is not None
        raise first
    # A model of NaN is the worst of all, and is refused later on where all of them are.
    return dict(sorted(found.items(), key=lambda each: -each[1]))


def _worst(found: Mapping[str, Fidelity]) -> float:
    return min(each.worst_db for each in found.values())
