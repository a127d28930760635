"""The smallest reproduction of what quantizing or a device breaks: the blamed layer cut out of the file, with what goes
into it and what should come out; where it cannot be cut, the whole model and the names of the layer's tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgequant.archive.layers import LayerCapture, LayerFacts
from edgequant.cases.case import Case
from edgequant.compare.metrics import compare
from edgequant.device_scripts import model_file
from edgequant.errors import DeviceError, ToolError
from edgequant.jobs.case_folder import write_case
from edgequant.jobs.diagnose_layers import Looking
from edgequant.judge.diagnosis import Diagnosis
from edgequant.lab.probes.layers import Layers, Spot, Where, once
from edgequant.lab.take import ModelFile
from edgequant.mnn_version import host_mnn_version
from edgequant.models.mnn.layers import LOOPS
from edgequant.models.mnn.schema import DataFormat
from edgequant.quantize.cut import Feed, cut, part_of
from edgequant.spec import RunOptions

_MODES = {"normal": 0, "high": 1, "low": 2}
"""MNN's numbers, of memory and precision alike."""
_SAME_DB = 90.0
"""A part computes what the layer does in the model: MNN may take another kernel for other neighbours."""
_BETTER_DB, _MOST_DB = 10.0, 50.0
"""The case counts as mended where it is so much better than it is now, or so good."""

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class _Case:
    """A model, what goes in, what should come out, and what the device made of it; why: it is not the layer alone."""

    model: Path
    inputs: Arrays
    expected: Arrays
    got: Arrays
    why: str | None = None


def export_layer(looking: Looking, capture: LayerCapture, found: Diagnosis, options: RunOptions, out: Path) -> Path:
    """Write the reproduction of a diagnosis whose stage is quantization or the device.

    Args:
        looking: what the capture was taken of, with its sessions still open.
        options: of the run.

    Returns the script.  Raises InputError OUTPUT_NOT_WRITABLE, EdgequantError DISK_FULL, DeviceError.
    """
    layer = next((each for each in capture.layers if each.key in found.blame.layers[:1]), None)
    exporter = _Exporter(looking, capture, device=found.stage == "device", case=_case(looking, capture, found))
    case = exporter.of(layer)
    worst = _worst(case.expected, case.got)
    settings = {
        "model": "part.mnn" if case.why is None else "model.mnn",
        "memory": _MODES[capture.memory],
        "precision": _MODES[options.precision],
        "threads": options.threads or 4,
        "dynamic_quant_option": options.dynamic_quant_option,
        "channels_last": exporter.channels_last,
        "least_db": _MOST_DB if worst is None else round(min(_MOST_DB, worst + _BETTER_DB), 1),
        "most_off": 1.0 if found.stage == "quantization" else 0.01,
        "device": capture.uri,
    }
    arrays = {"inputs.npz": case.inputs, "expected.npz": case.expected}
    if found.stage == "device":
        arrays["device.npz"] = case.got
    texts = {
        "case.json": json.dumps(settings, indent=1) + "\n",
        "README.md": _readme(case, layer, capture, found, worst, str(settings["model"])),
    }
    return write_case(out, {str(settings["model"]): case.model}, arrays, texts)


def _case(looking: Looking, capture: LayerCapture, found: Diagnosis) -> Case:
    named = None if found.cause is None else found.cause.evidence.get("case")
    name = named if named in capture.cases else capture.cases[0]
    return next(each for each in looking.cases if each.name == name)


@dataclass(frozen=True)
class _Exporter:
    looking: Looking
    capture: LayerCapture
    device: bool
    case: Case

    @property
    def channels_last(self) -> bool:
        return model_file.channels_last(str(self.looking.made))

    def of(self, layer: LayerFacts | None) -> _Case:
        """The layer alone, or the whole model with the reason."""
        why = "no one layer is to blame"
        if layer is not None and (layer.subgraph or layer.type in LOOPS):
            why = f"'{layer.key}' is in a loop, or one, of which MNN shows no tensors"
        elif layer is not None:
            part = part_of(self.looking.made, layer.name)
            why = f"'{layer.name}' could not be cut out so that it computes what it does in the model"
            alone = None if part is None else self._alone(layer.name, part.inputs, part.outputs)
            if alone is not None:
                return alone
        return self._whole(layer, why)

    def _alone(self, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> _Case | None:
        """None where it cannot be cut, or does something else alone."""
        seen = self._values([*inputs, *outputs])
        kinds: list[Where] = ["plain", "here", *(["there"] if self.device else [])]  # type: ignore[list-item]
        if any(where not in seen.get(each, {}) for each in (*inputs, *outputs) for where in kinds):
            return None
        path = self.looking.work / "part.mnn"
        for orders in self._orders({each: seen[each]["here"] for each in inputs}):
            feeds = {each: Feed(array.dtype.name, array.shape, order) for each, (array, order) in orders.items()}
            path.unlink(missing_ok=True)
            try:
                cut(self.looking.made, name, feeds, path)
            except (ToolError, KeyError):  # an element type that cannot be fed
                return None
            own = self._run(path, {each: array for each, (array, _) in orders.items()})
            if own is None or any(not _same(seen[each]["here"], own.get(each)) for each in outputs):
                continue
            if self.device:
                given = {each: array for each, (array, _) in orders.items()}
                return _Case(path, given, _of(seen, outputs, "here"), _of(seen, outputs, "there"))
            plain = self._ordered(_of(seen, inputs, "plain"), {each: order for each, (_, order) in orders.items()})
            return _Case(path, plain, _of(seen, outputs, "plain"), self._run(path, plain) or {})
        return None

    def _whole(self, layer: LayerFacts | None, why: str) -> _Case:
        names: Sequence[str] = list(self.looking.failing)
        if layer is not None:
            loop = next(
                (each for each in self.capture.layers if layer.subgraph and layer.subgraph in each.bodies), layer
            )
            names = loop.outputs or names
        seen = self._values(names)
        one, two = ("here", "there") if self.device else ("plain", "here")
        names = [each for each in names if one in seen.get(each, {})]
        return _Case(
            self.looking.made, dict(self.case.inputs), _of(seen, names, one),
            {each: seen[each][two] for each in names if two in seen[each]}, why,
        )  # fmt: skip

    def _values(self, names: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
        """Tensor -> where -> the tensor in this case; those that are inputs of the model are everywhere the same."""
        job = self.looking
        base = job.work / "equalized.mnn" if self.capture.equalized else job.plain
        there = None
        if self.device and job.device is not None:
            there = Spot("there", job.device, ModelFile(job.made, job.memory), job.device.push(job.made)[0])
        probe = Layers(
            Spot("plain", job.host, ModelFile(base, "normal", precision="normal")),
            Spot("here", job.host, ModelFile(job.made, job.memory)), there, [self.case],
        )  # fmt: skip
        asked = [name for name in names if name not in self.case.inputs]
        found: dict[str, dict[str, np.ndarray]] = {
            name: {str(where): array for where, array in cases.get(self.case.name, {}).items()}
            for name, cases in probe.whole(asked).items()
        }
        same = ("plain", "here", "there")
        return found | {name: dict.fromkeys(same, self.case.inputs[name]) for name in names if name in self.case.inputs}

    def _orders(self, arrays: Mapping[str, np.ndarray]) -> Iterator[dict[str, tuple[np.ndarray, DataFormat]]]:
        """Ways to feed it: MNN's inner order first, then that of the model's format."""
        plain = DataFormat.NHWC if self.channels_last else DataFormat.NCHW
        for order in (DataFormat.NC4HW4, plain):
            orders = {
                name: order if array.dtype.kind == "f" and array.ndim > 1 else plain for name, array in arrays.items()
            }
            fed = self._ordered(arrays, orders)
            yield {name: (fed[name], orders[name]) for name in arrays}

    def _ordered(self, arrays: Mapping[str, np.ndarray], orders: Mapping[str, DataFormat]) -> Arrays:
        """As the part takes them: what is packed inside is given with its channels in front."""
        return {
            name: np.ascontiguousarray(np.moveaxis(array, -1, 1))
            if self.channels_last and orders[name] is DataFormat.NC4HW4 and array.ndim == 4
            else array
            for name, array in arrays.items()
        }  # fmt: skip

    def _run(self, path: Path, inputs: Arrays) -> Arrays | None:
        case = Case("part", inputs, "inner tensors")
        found = once(self.looking.host, ModelFile(path, self.looking.memory), [case])
        return None if isinstance(found, DeviceError) else found["part"]


def _of(seen: Mapping[str, Mapping[str, np.ndarray]], names: Sequence[str], where: str) -> Arrays:
    return {name: seen[name][where] for name in names}


def _same(expected: np.ndarray, got: np.ndarray | None) -> bool:
    if got is None or got.shape != expected.shape:
        return False
    found = compare(expected, got)
    return found.exact or (found.problem is None and (found.sqnr_db or 0.0) >= _SAME_DB)


def _worst(expected: Arrays, got: Arrays) -> float | None:
    """SQNR of the worst tensor, in dB; None where none has one."""
    found = [compare(array, got.get(name)).sqnr_db for name, array in expected.items()]
    return min((each for each in found if each is not None), default=None)


def _readme(
    case: _Case, layer: LayerFacts | None, capture: LayerCapture, found: Diagnosis, worst: float | None, model: str
) -> str:
    def sizes(arrays: Mapping[str, np.ndarray]) -> str:
        return ", ".join(f"{name} [{','.join(map(str, array.shape))}]" for name, array in arrays.items())

    far = "" if worst is None else f", at {worst:.1f} dB"
    device = found.stage == "device"
    what = f"on {capture.uri} is not what it is on the host" if device else "quantized is not what it is in float"
    name = "the model" if layer is None else f"{layer.type} '{layer.key}'"
    how = f"memory {capture.memory}, precision {capture.precision}"
    held = "is this layer alone, cut out of" if case.why is None else f"is the whole of ({case.why})"
    expected = "the host computes of them with the same file" if device else "it computes of them in float"
    lines = [
        f"# MNN {host_mnn_version()}: {name} {what}{far}",
        f"`{model}` {held} the file of variant {capture.variant}; run with {how}.",
        f"`inputs.npz`: {sizes(case.inputs)}.  `expected.npz`: what {expected}: {sizes(case.expected)}.",
    ]
    if found.cause is not None:
        lines.append(f"Cause: {found.cause.message} ({found.cause.code}).")
    if device:
        lines.append(f"`device.npz`: what came back from {capture.uri}, in the whole model.")
        lines.append("`python show_case.py` on such a device shows it, and exits with 1; on the host it is right.")
    else:
        lines.append("`python show_case.py` (MNN and NumPy) runs it, prints the difference and exits with 1.")
    return "".join(f"{line}\n" for line in lines)
