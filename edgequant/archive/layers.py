"""What a diagnosis has captured, as data: inner tensors reduced to numbers, weights, and counter-proofs.

Nothing here is judged.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import AwareDatetime, ConfigDict, Field

from edgequant.archive.record import Name as _Name
from edgequant.archive.types import Failure, Record, now
from edgequant.compare.decibel import power_db
from edgequant.spec import MemoryMode, Precision


class Stats(Record):
    """What a tensor holds, as device_scripts/tensor_stats.py has it; numbers are of the finite elements."""

    n: int
    nan: int = 0
    inf: int = 0
    zeros: int = 0
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    mean_abs: float | None = None
    rms: float | None = None
    at_min: float = 0.0
    at_max: float = 0.0
    shape: tuple[int, ...] | None = None


class Apart(Record):
    """How far a tensor is from another, as device_scripts/tensor_stats.py has it."""

    n: int
    signal: float
    error: float
    max_abs: float
    gain: float | None = None
    lost: int = 0
    axes: tuple[tuple[int, float, int], ...] = ()

    @property
    def share(self) -> float:
        """Power of the error in that of what is expected; inf where nothing is expected and something is there."""
        if self.error == 0:
            return 0.0
        return (self.error / self.signal) ** 2 if self.signal > 0 else math.inf

    @property
    def sqnr_db(self) -> float:
        """inf where both are equal."""
        return power_db(1.0, self.share)


class Sign(Record):
    """What of an error is no rounding, as `compare.residual` has it."""

    kind: str
    size: float
    strength: float
    where: dict[str, object] = Field(default_factory=dict)


class Tap(Record):
    """One tensor in one case: float MNN (plain), the quantized file on this host (here) and on the device (there).

    quantization: plain against here.  moved: here against itself with the case's inputs moved by next to nothing.
    device: here against there.
    unsteady: where ("here", "there") it is another when the same inputs come again; looked at where outputs are.
    """

    case: _Name
    tensor: _Name
    plain: Stats | None = None
    here: Stats | None = None
    there: Stats | None = None
    quantization: Apart | None = None
    moved: Apart | None = None
    device: Apart | None = None
    unsteady: tuple[str, ...] = ()


class Spread(Record):
    """How the numbers of a layer's output are spread: so many are in each of equal bins from `low` to `high`, where
    "plain", "here" and "there" are as in `Tap`.  What lies outside is counted in the first or last bin."""

    layer: str
    tensor: _Name
    case: _Name
    low: float
    high: float
    counts: dict[str, tuple[int, ...]] = Field(default_factory=dict)


class WeightFacts(Record):
    """A layer's weights in the quantized file against those in float.

    Attributes:
        sqnr_db: what rounding them costs; None where it cannot be read, or is exact.
        excess: error power over what rounding with these scales explains; per channel the worst.
        excess_channel: that channel.
        gain, gain_channel: the channel whose least-squares factor is farthest from 1.
        zero_channels: output channels whose weights are all lost.
        bad_channels: those with NaN or Inf in them.
        one_scale: all channels have the same scale.
        range_ratio: largest of the loudest output channel over that of the median one.
        peak, peak_channel: largest weight over rms, of the worst channel; that channel.
        like: (channel, other): quantized weights of a channel that are another channel's float ones.
        slope, offset, left: of the channel of `excess`, a line through the float weights of its worst group: factor,
            steps that are added, and error power over rounding that such lines leave.
        count: weights of the layer.
        bias_steps, bias_channel: largest of the float bias, in steps of the weights of its channel (1e-6 at least, as
            MNN has it); that channel.
        bias_gap: largest difference of biases over the largest bias; bias_zero: all of it is gone.
    """

    kept: str
    bits: int
    block: int | None = None
    sym: bool = False
    channels: int = 0
    sqnr_db: float | None = None
    excess: float | None = None
    excess_channel: int | None = None
    gain: float | None = None
    gain_channel: int | None = None
    zero_channels: tuple[int, ...] = ()
    one_scale: bool = False
    range_ratio: float | None = None
    peak: float | None = None
    peak_channel: int | None = None
    bad_channels: tuple[int, ...] = ()
    like: tuple[int, int] | None = None
    slope: float | None = None
    offset: float | None = None
    left: float | None = None
    count: int = 0
    bias_steps: float | None = None
    bias_channel: int | None = None
    bias_gap: float = 0.0
    bias_zero: bool = False


class LayerFacts(Record):
    """One operator, in the order they are computed; those of loops last.

    subgraph: "" in the main graph.  inputs, outputs: names of tensors, constants left out.  scale: the fixed scale
    and zero point of its output, where it is static int8.  in_loop: its tensors cannot be seen.
    """

    name: _Name
    subgraph: str = ""
    type: str
    inputs: tuple[_Name, ...] = ()
    outputs: tuple[_Name, ...] = ()
    weights: WeightFacts | None = None
    scale: tuple[float, float] | None = None
    bodies: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.subgraph}/{self.name}" if self.subgraph else self.name


class Held(Record):
    """An output of a counter-proof: against float MNN, and whether its limits against the reference hold."""

    sqnr_db: float | None = None
    holds: bool = True


class ActivationFacts(Record):
    """An activation of the source, and from which input on the device answers wrongly, on either side.

    node, operator: of the source.  tensor: its input.  low, high: the first wrong input of those that were tried, from
    which on all are wrong; None where there is none.  right_low, right_high: the last right one before it.
    got_low, got_high: the answer there, want_low, want_high: what it should be, as words, for they may be infinite.
    """

    node: _Name
    operator: str
    tensor: _Name
    low: float | None = None
    high: float | None = None
    right_low: float | None = None
    right_high: float | None = None
    got_low: str = ""
    got_high: str = ""
    want_low: str = ""
    want_high: str = ""


class Swap(Record):
    """The quantized file on this host with some layers in float.

    what: "one": all but `layers` (one or several) are float.  "without": `layers` are.  "all": every one is.  "alone":
    none is.
    memory: it was run with.  cases: that were run: the worst ones, and all others where these hold.  outputs: worst
    over the cases.  share: error power in the signal, of the worst output.
    """

    what: Literal["one", "without", "all", "alone"]
    layers: tuple[str, ...] = ()
    memory: MemoryMode = "normal"
    cases: int = 1
    outputs: dict[_Name, Held] = Field(default_factory=dict)
    share: float | None = None
    holds: bool = False
    failure: Failure | None = None


class Rerun(Record):
    """The file on the device once more with one option changed: how far it is from this host then (worst output).

    what: the option; "host memory=normal": that of this host alone, the device is as it was.
    """

    what: str
    sqnr_db: float | None = None
    before_db: float | None = None
    failure: Failure | None = None


class Changed(Record):
    """Asking for inner tensors changed an output.  where: which run; tensors: that were asked for."""

    where: Literal["plain", "here", "there"]
    case: _Name
    output: _Name
    tensors: tuple[_Name, ...] = ()
    sqnr_db: float | None = None


class LookMemory(Record):
    """What looking inside took of a device's memory, in MB (10^6 bytes) of the runner's process.

    own: its peak with the model alone, as it is.  peak: the highest while inner tensors were asked for.  batch: the
    tensors of one case that were asked for at once, at most; one tensor that is larger is asked for by itself.
    free: what the device could still give out before.
    """

    own: float
    peak: float
    batch: float
    free: float | None = None

    @property
    def above(self) -> float:
        return max(self.peak - self.own, 0.0)


class LayerCapture(Record):
    """All of it, of one variant on one device.

    Attributes:
        stage: the stage that breaks, which is what was looked into; None where nothing does.
        unseen: tensors that could not be read, with the reason; only_float, only_quantized: of one side alone.
        loops: operators whose inside cannot be seen.
        mnn: version "here" and "there".
        equalized: its channels were given the same range before it was quantized, and the float model as well.
        exchangeable: layers that can be made float in the file, in file order.
        signs: of tensors that were brought back whole; tensor -> what is no rounding.
        spreads: of the worst layers, in the worst case.
        memory_mb: of the device; None where it is this host, or does not tell.
        activations: those of the source whose inputs were seen, and that are wrong somewhere, as this run ran them.
    """

    schema_: Literal["edgequant.layers/1"] = Field(default="edgequant.layers/1", alias="schema")
    variant: str
    uri: str
    stage: str | None = None
    is_host: bool = False
    memory: MemoryMode = "normal"
    precision: Precision = "normal"
    cases: tuple[_Name, ...] = ()
    layers: tuple[LayerFacts, ...] = ()
    taps: tuple[Tap, ...] = ()
    unseen: dict[_Name, str] = Field(default_factory=dict)
    only_float: tuple[_Name, ...] = ()
    only_quantized: tuple[_Name, ...] = ()
    loops: tuple[str, ...] = ()
    changed: tuple[Changed, ...] = ()
    exchangeable: tuple[str, ...] = ()
    swaps: tuple[Swap, ...] = ()
    reruns: tuple[Rerun, ...] = ()
    signs: dict[_Name, tuple[Sign, ...]] = Field(default_factory=dict)
    spreads: tuple[Spread, ...] = ()
    memory_mb: LookMemory | None = None
    activations: tuple[ActivationFacts, ...] = ()
    mnn: dict[str, str] = Field(default_factory=dict)
    equalized: bool = False
    why_no_proof: str | None = None
    failure: Failure | None = None
    started: AwareDatetime = Field(default_factory=now)

    model_config = ConfigDict(populate_by_name=True)
